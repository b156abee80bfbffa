"""The real pair at its real size, from local folders in the hub's layout: real configurations, random weights.

Needs 12 GB of memory and a minute or two on a CPU, so it is left out of the usual run: `python -m pytest -m slow`.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from safetensors import safe_open
from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration, SamConfig, SamModel

from satlisa.data.sample import Sample, Turn
from satlisa.inference.api import generate_instances, load_model
from satlisa.model.parameters import count_parameters
from satlisa.processing.chat import as_turns, decode_answer, encode_prompt
from satlisa.processing.collator import collate
from satlisa.processing.processor import encode_sample
from satlisa.training.settings import TrainConfig
from satlisa.training.train import train
from tests.helpers.model_fixtures import box, picture

pytestmark = [pytest.mark.slow, pytest.mark.integration]


@pytest.fixture(scope="module")
def hub(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Both models as folders: the published settings, tokenizer and template, and random weights in bfloat16."""
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    made = {"vlm": "qwen3.5-0.8b", "sam": "slimsam-77"}
    for part, name in made.items():
        shutil.copytree(shared_data / name, folder / part)
        for path in (folder / part).iterdir():
            path.chmod(0o644)  # what is shared may be read-only
    vlm = Qwen3_5ForConditionalGeneration(Qwen3_5Config.from_pretrained(folder / "vlm")).to(torch.bfloat16)
    sam = SamModel(SamConfig.from_pretrained(folder / "sam"))
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "vision_encoder" in name and parameter.ndim > 1:  # their default, std 1e-10, is for loading weights
                parameter.normal_(std=0.02)
    vlm.save_pretrained(folder / "vlm")
    sam.save_pretrained(folder / "sam")
    yield {part: folder / part for part in made}
    shutil.rmtree(folder)  # gigabytes


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows a split, one text and one with a mask, as parquet files."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "data").mkdir()
    polygons = [[], [[[100, 100], [600, 100], [600, 700], [100, 700]]]]
    tasks, answers = ("scene_classification", "building_segmentation"), ("Forest", "One building")
    turns = [
        [{"role": "user", "content": "<image>\nWhat is it?"}, {"role": "assistant", "content": a}] for a in answers
    ]
    columns = {
        "task": list(tasks),
        "source": ["test"] * 2,
        "image": [picture(512, 384, seed=number) for number in range(2)],
        "conversations": [json.dumps(turn) for turn in turns],
        "metadata": [json.dumps({"polygons": shape}) for shape in polygons],
    }
    for split in ("train", "validation"):
        Dataset.from_dict(columns).cast_column("image", Image()).to_parquet(folder / "data" / f"{split}-0.parquet")
    return folder


@pytest.fixture(scope="module")
def run(hub: dict[str, Path], dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One optimizer step of `train.py` on CPU, in float32."""
    folder = tmp_path_factory.mktemp("run")
    environ = {
        "VLM_MODEL": str(hub["vlm"]),
        "SAM_MODEL": str(hub["sam"]),
        "DATASET": str(dataset_dir),
        "OUTPUT_DIR": str(folder),
        "OVERWRITE": "1",
        "DEVICE": "cpu",
        "BATCH_SIZE": "2",
        "GRAD_ACCUM": "1",
        "MAX_STEPS": "1",
        "WARMUP_RATIO": "0",
    }
    return train(TrainConfig.from_env(environ))


def test_one_training_step(run: Path) -> None:
    (record,) = [json.loads(line) for line in (run / "train_log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for value in record.values())
    assert record["loss_text"] == pytest.approx(np.log(248_320), rel=0.1)  # random weights know nothing
    assert record["loss_bce"] > 0 and record["loss_dice"] > 0 and record["grad_norm"] > 0
    config = json.loads((run / "model_config.json").read_text())
    assert (config["seg_token_id"], config["vlm_hidden_size"], config["sam_prompt_size"]) == (248_077, 1024, 256)
    with safe_open(run / "vlm_lora" / "adapter_model.safetensors", framework="pt") as adapter:
        assert sum(int(np.prod(adapter.get_slice(key).get_shape())) for key in adapter.keys()) == 4_915_200  # noqa: SIM118
    summary = json.loads((run / "train_summary.json").read_text())
    assert summary["parameters"]["projector"] == {"parameters": 1_312_000, "trainable": 1_312_000}


def test_one_answer(run: Path) -> None:
    model = load_model(run, "cpu")
    assert model.processor.tokenizer.convert_tokens_to_ids("<SEG>") == model.seg_token_id == 248_077
    assert count_parameters(model)["SlimSAM encoder"] == (5_658_968, 0)
    image = picture(512, 384)
    prompt = encode_prompt(model.processor, as_turns("Segment the buildings"), image)
    text = model.processor.tokenizer.decode(prompt.input_ids)
    assert text.endswith("Segment the buildings<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert text.count("<|image_pad|>") == 16 * 12
    sample = Sample(0, "t", "s", image, (Turn("user", "Segment the buildings"),), "Here", (box(0, 0, 1, 1),))
    batch = collate([encode_sample(sample, model.processor, model.segmenter.inputs, model.config)], 248_044)
    assert batch.input_ids[0, : len(prompt.input_ids)].tolist() == prompt.input_ids.tolist()
    answered = batch.input_ids[0, len(prompt.input_ids) :].tolist()
    assert decode_answer(model.processor.tokenizer, answered, "<SEG>") == "Here <SEG>"
    with torch.no_grad():  # random weights never say <SEG>: its row is laid along the state that comes first
        images = model.image_features(prompt.pixel_values, prompt.image_grid_thw)
        embeddings = model.embed(prompt.input_ids[None], images)
        mask = torch.ones_like(prompt.input_ids)[None]
        state = model.run_text(embeddings, mask, prompt.position_ids[:, None])[0, -1].float()
        model.seg_row.copy_(50 * state / state.norm())
    text, instances = generate_instances(model, image, "Segment the buildings", max_new_tokens=2)
    assert text.startswith("<SEG>") and len(instances) == text.count("<SEG>")
    assert all(mask.size == (512, 384) for mask, _ in instances)
