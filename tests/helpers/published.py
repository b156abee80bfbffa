"""A trained demo model, what lies around it in its folder, and its evaluation."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from satlisa.config import ModelConfig
from satlisa.evaluation.evaluate import evaluate
from satlisa.evaluation.partial_report import PartialReport
from satlisa.evaluation.report import write_report
from satlisa.evaluation.windows import EvalSettings
from satlisa.pretrained.model_directory import fingerprint_model, save_model
from satlisa.publish.local_paths import Files
from satlisa.publish.parts import Names
from satlisa.publish.repository import Wishes, put_together
from satlisa.runtime.processes import ProcessGroup
from tests.helpers import made_up_answers as made_up
from tests.helpers.model_fixtures import make_model, picture

REPO = "alice/my-model"
HOME = "/home" + "/alice"  # in two parts: the files of this repository name nobody's folders
SUMMARY: dict[str, Any] = {
    "settings": {
        "DATASET": {"value": "demo", "from": "preset demo"},
        "OUTPUT_DIR": {"value": f"{HOME}/runs/demo", "from": "environment"},
        "EPOCHS": {"value": 14, "from": "preset demo"},
        "LEARNING_RATE": {"value": 0.002, "from": "preset demo"},
    },
    "hardware": {"name": "CPU", "device": "cpu", "dtype": "torch.float32"},
    "versions": {"torch": "2.14.1", "transformers": "5.24.0"},
    "steps": 300,
    "seconds": 680.4,
    "parameters": {"VLM": {"parameters": 3745056, "trainable": 0}, "LoRA": {"parameters": 1234, "trainable": 1234}},
    "skipped_rows": ["3 rows skipped: `metadata` is not JSON (rows 5, 17, 812)"],
}


@pytest.fixture(scope="session")
def _demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a demo run leaves, with files of the user among it."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    config = ModelConfig(
        vlm_model_id="demo:vlm", sam_model_id="demo:sam", projector_hidden_size=64, max_instances=4, dataset="demo"
    )
    save_model(make_model(config), folder)
    (folder / "train_summary.json").write_text(json.dumps(SUMMARY))
    picture(60, 40).save(folder / "loss_curve.png")
    for name in ("train_log.jsonl", "notes.txt", "checkpoints/step-00000300-epoch-3/state.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{HOME}/secret")
    (folder / "vlm_lora" / "README.md").write_text(f"base_model: {HOME}/qwen\n[More Information Needed]")
    return folder


@pytest.fixture
def demo_run(_demo_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(copytree(_demo_run, tmp_path / "run"))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def evaluate_run(run: Path, output: Path, dataset: str = "demo") -> Path:
    """A report with made-up answers, as of the model in `run`; returns its results.json."""
    rows = made_up.make_rows(made_up.SCENE, made_up.FLOOD, made_up.BUILDINGS, made_up.INSTANCES)
    settings = EvalSettings(
        model_dir=str(run), dataset=dataset, split="test", samples_per_task=0, model_files=fingerprint_model(run)
    )
    with PartialReport(output, resume=False, processes=ProcessGroup.join()) as report:
        results = evaluate(made_up.MODEL, rows, settings, report, answer_fn=made_up.answering(made_up.REPLIES))
        write_report(results, report.folder)
    return output / "results.json"


def published(run: Path, **wishes: Any) -> Files:
    """The files of the repository."""
    return put_together(run, Wishes(REPO, **{"names": Names(), **wishes})).files


def text_of(files: Files, name: str) -> str:
    content = files[name]
    return (content if isinstance(content, bytes) else content.read_bytes()).decode()


def write_merged(folder: Path, model_id: str, **more: str) -> Path:
    """The layout of a model directory that brings its VLM."""
    vlm = folder / model_id
    vlm.mkdir(parents=True)
    ModelConfig(vlm_model_id=model_id, sam_model_id="a/sam", dataset="a/b", extra=dict(more)).save(
        folder / "model_config.json"
    )
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        (vlm / name).write_text(json.dumps({"model_type": "qwen3_5", "_name_or_path": f"{HOME}/qwen"}))
    (vlm / "tokenizer.json").write_text("{}")
    for name in ("model-00001-of-00001", "seg_projector", "sam_mask_decoder"):
        place = vlm if name.startswith("model") else folder
        save_file({"x": torch.zeros(2)}, place / f"{name}.safetensors", {"format": "pt"})
    (vlm / "model.safetensors.index.json").write_text("{}")
    (folder / "mine.safetensors").write_bytes(b"")
    return folder
