"""Somebody with a COCO export: the four commands of docs/convert.md, as they stand there."""

import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from satlisa.cli import evaluate
from satlisa.cli import train as train_command
from satlisa.convert import command as convert_command
from satlisa.data.synthetic.rows import demo_rows
from satlisa.model.assemble import assemble
from satlisa.pretrained.base_models import load_parts
from satlisa.pretrained.model_directory import save_model
from satlisa.training.settings import TrainConfig
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_cache")]

SIDE = 256  # of a demo scene
COMMANDS: dict[str, Callable[[], int]] = {
    "-m satlisa.convert": convert_command.main,
    "train.py": train_command.main,
    "infer_dataset.py": evaluate.main,
}
FEW_STEPS = {"PRESET": "demo", "MAX_STEPS": "2", "BATCH_SIZE": "2", "VAL_SAMPLES": "2", "DEVICE": "cpu"}


def documented_commands() -> list[str]:
    text = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
    section = text.split("## From a COCO file to a model's answers")[1]
    found = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1].strip().splitlines()


def export_coco(folder: Path, scenes: int = 20) -> None:
    """`instances.json` and `images/` of demo scenes, as an annotation tool exports them: pixels, ids from 1."""
    names = {"building": 1, "plane": 2}
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    (folder / "images").mkdir()
    for row in demo_rows("train", scenes):
        if row["task"] != "instance_segmentation":
            continue
        number = len(content["images"]) + 1
        name = f"scene{number:03d}.png"
        Image.open(io.BytesIO(row["image"]["bytes"])).save(folder / "images" / name)
        content["images"].append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        for item in json.loads(row["metadata"])["objects"]:
            outline = [coordinate * SIDE / 1000 for point in item["polygon"] for coordinate in point]
            annotation = {"id": len(content["annotations"]) + 1, "image_id": number, "iscrowd": 0}
            content["annotations"].append(
                {**annotation, "category_id": names[item["label"]], "segmentation": [outline]}
            )
    categories = [{"id": number, "name": name} for name, number in names.items()]
    (folder / "instances.json").write_text(json.dumps({**content, "categories": categories}), encoding="utf-8")


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """A line of a shell: variables, then one of `COMMANDS` with its options."""
    words = shlex.split(line)
    place = words.index("python")
    with monkeypatch.context() as patch:
        for assignment in words[:place]:
            patch.setenv(*assignment.split("=", 1))
        script = next(name for name in COMMANDS if " ".join(words[place + 1 :]).startswith(name))
        patch.setattr(sys, "argv", [script, *words[place + 1 + len(script.split()) :]])
        return COMMANDS[script]()


def test_four_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    export_coco(tmp_path)
    config = TrainConfig.from_env({"PRESET": "demo"}).new_model_config()
    save_model(assemble(load_parts(config, torch.float32), config), tmp_path / "model_dir")
    for name, value in FEW_STEPS.items():
        monkeypatch.setenv(name, value)
    commands = documented_commands()
    assert len(commands) == 4
    for line in commands:
        assert run(line, monkeypatch) == 0, line
    assert "No problem found" in (tmp_path / "check" / "CHECK.md").read_text(encoding="utf-8")
    results = json.loads((tmp_path / "eval_output" / "results.json").read_text(encoding="utf-8"))
    assert "building_segmentation" in results["tasks"]
    assert not any(sample["error"] for sample in results["samples"])
    summary = json.loads((tmp_path / "my_model" / "train_summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 2 and not summary["skipped_rows"]
