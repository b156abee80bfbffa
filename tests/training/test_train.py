"""A training run from settings to a model directory: its files, and what it refuses."""

import json
import math
from pathlib import Path

import pytest

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.inference.generation import answer
from satlisa.pretrained.model_directory import load_model
from satlisa.training import train as run_module
from tests.helpers.model_fixtures import picture
from tests.helpers.runs import rows, settings, write_dataset

pytestmark = pytest.mark.integration

LOG_KEYS = {
    "step",
    "epoch",
    "loss",
    "loss_text",
    "loss_bce",
    "loss_dice",
    "lr",
    "grad_norm",
    "loss_scale",
    "samples_per_second",
    "peak_memory",
}


def test_a_run_folder(tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path) -> None:
    folder = run_module.train(settings(tiny_config, dataset_dir, tmp_path / "run", REPORT_TO="tensorboard"))
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model_config.json", "vlm_lora", "seg_projector.pt", "sam_mask_decoder.pt", "tokenizer"}
    assert names >= {"train_log.jsonl", "loss_curve.png", "train_summary.json", "logs"}
    log = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [1, 2, 3, 4, 5, 6]  # 24 rows / (4 × 2), twice
    assert all(set(record) == LOG_KEYS for record in log)
    assert all(math.isfinite(value) for record in log for value in record.values())
    for record in log:
        expected = record["loss_text"] + 2.0 * record["loss_bce"] + 0.5 * record["loss_dice"]
        assert record["loss"] == pytest.approx(expected)
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[0]["lr"] == 0 and max(record["lr"] for record in log) == pytest.approx(1e-2)
    summary = json.loads((folder / "train_summary.json").read_text())
    assert summary["settings"]["BATCH_SIZE"] == {"value": 4, "from": "environment"}
    assert len(summary["validation"]) == 2 and 0 <= summary["validation"][0]["mask_iou"] <= 1
    (skipped,) = summary["skipped_rows"]
    assert "conversations" in skipped and "9" in skipped and "19" in skipped
    model = load_model(folder, "cpu")
    assert model.config.dataset == str(dataset_dir)
    assert isinstance(answer(model, [picture(64, 48)], ["Question"], max_new_tokens=3)[0].text, str)


def test_a_dataset_of_broken_rows_is_no_success(tiny_config: ModelConfig, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"train": [{**row, "conversations": "{"} for row in rows(5)]})
    with pytest.raises(SatlisaError, match=r"no row of .* could be used.*5 rows skipped: `conversations`"):
        run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run"))
    assert not (tmp_path / "run" / "seg_projector.pt").exists()


def test_without_validation_rows(tiny_config: ModelConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_dataset(tmp_path / "data", {"train": rows(8)})
    folder = run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run", EPOCHS="1"))
    assert json.loads((folder / "train_summary.json").read_text())["validation"] == []
    assert "no split 'validation'" in caplog.text and load_model(folder, "cpu").seg_token_id == 263


def test_instances_beyond_the_limit_are_counted_once(tiny_config: ModelConfig, tmp_path: Path) -> None:
    """Two instances in two of these rows, one of which is left out; two epochs."""
    write_dataset(tmp_path / "data", {"train": rows(6)})
    (tmp_path / "config.json").write_text(json.dumps({**tiny_config.to_dict(), "max_instances": 1}))
    more = {"EPOCHS": "2", "MODEL_CONFIG": str(tmp_path / "config.json")}
    folder = run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run", **more))
    assert json.loads((folder / "train_summary.json").read_text())["instances_left_out"] == 2


def test_rows_that_say_less_of_places_are_counted_once(
    tiny_config: ModelConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two instances in two of these rows; their boxes do not fit, their centres neither. Two epochs."""
    write_dataset(tmp_path / "data", {"train": rows(6)})
    places = {"instance_places": "box", "max_seq_length": 110, "max_image_tokens": 16}
    (tmp_path / "config.json").write_text(json.dumps({**tiny_config.to_dict(), **places}))
    caplog.set_level("INFO")
    more = {"EPOCHS": "2", "MODEL_CONFIG": str(tmp_path / "config.json")}
    folder = run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run", **more))
    assert "up to 2 of the 2 rows looked at with several objects say less of each than its box" in caplog.text
    assert "train split: 2 rows say less than instance_places" in caplog.text
    summary = json.loads((folder / "train_summary.json").read_text())
    assert (summary["rows_with_fewer_places"], summary["shortened_rows"]) == (2, 0)
    assert json.loads((folder / "model_config.json").read_text())["instance_places"] == "box"


def test_a_folder_is_never_written_over_silently(tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SatlisaError, match="OVERWRITE=1"):
        run_module.train(settings(tiny_config, dataset_dir, tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    run_module.train(settings(tiny_config, dataset_dir, tmp_path, OVERWRITE="1", MAX_STEPS="1"))
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "seg_projector.pt").exists()


def test_the_first_screen_says_what_the_rows_are(
    tiny_config: ModelConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = [{**row, "metadata": ""} for row in rows(1)]
    write_dataset(tmp_path / "data", {"train": [*rows(12), *bare]})
    caplog.set_level("INFO")
    run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run", MAX_SAMPLES="13", MAX_STEPS="1"))
    tasks = "building_segmentation 5, instance_segmentation 4, scene_classification 4"
    assert f"train split: the first 13 rows: {tasks}" in caplog.text
    counts = "7 mask rows, 4 text rows, 1 rows of segmentation tasks without geometry, 1 that cannot be used"
    assert f"train split: of 13 rows looked at: {counts}" in caplog.text
    assert "1 of the rows looked at cannot be used; the first: row 9: `conversations` is not JSON" in caplog.text
    assert "1 rows of segmentation tasks have neither masks nor a word" in caplog.text
    assert caplog.text.index("train split") < caplog.text.index("no split 'validation'")
