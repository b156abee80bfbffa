"""Loss and mask IoU of the validation rows, and the rows that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from satlisa.config import ModelConfig
from satlisa.model.satlisa import SatLisa
from satlisa.training import train as run_module
from satlisa.training.fault_tolerance.checkpoint_files import list_checkpoints, read_checkpoint
from tests.helpers.runs import rows, settings, write_dataset

pytestmark = pytest.mark.integration


def test_broken_validation_rows_are_listed(tiny_config: ModelConfig, tmp_path: Path) -> None:
    broken = [{**row, "metadata": "nan"} for row in rows(2)]
    write_dataset(tmp_path / "data", {"train": rows(4), "validation": [*rows(3), *broken]})
    folder = run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run", EPOCHS="1"))
    (line,) = json.loads((folder / "train_summary.json").read_text())["skipped_validation_rows"]
    assert "`metadata`" in line and "rows 3, 4" in line


def test_a_validation_that_is_no_number(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "data", {"train": rows(6), "validation": rows(3)})
    original = SatLisa.forward

    def forward(self: SatLisa, batch: Any) -> Any:
        output = original(self, batch)
        if not self.training:
            output.losses.text = output.losses.text * float("nan")
        return output

    monkeypatch.setattr(SatLisa, "forward", forward)
    folder = run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run", EPOCHS="2", GRAD_ACCUM="1"))
    first, second = json.loads((folder / "train_summary.json").read_text())["validation"]
    assert first["loss"] is None and second["loss_text"] is None and second["loss_bce"] > 0
    assert read_checkpoint(list_checkpoints(folder)[-1]).state["validations"] == [first, second]
    assert (folder / "loss_curve.png").stat().st_size > 10_000


def test_validation_without_masks_has_no_mask_scores(tiny_config: ModelConfig, tmp_path: Path) -> None:
    """None, not 0: nothing was measured."""
    texts = [row for row in rows(9) if row["task"] == "scene_classification"]
    write_dataset(tmp_path / "data", {"train": rows(4), "validation": texts})
    folder = run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run", EPOCHS="1"))
    (validation,) = json.loads((folder / "train_summary.json").read_text())["validation"]
    assert validation["masks"] == 0 and validation["loss"] == validation["loss_text"] > 0
    assert validation["mask_iou"] is validation["loss_bce"] is validation["loss_dice"] is None
    assert (folder / "loss_curve.png").stat().st_size > 10_000


def test_validation_rows_are_spread_over_the_tasks(
    tiny_config: ModelConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a split that is sorted by task, the first rows would all be of one."""
    ordered = sorted((row for row in rows(27) if row["conversations"] != "{broken"), key=lambda row: str(row["task"]))
    write_dataset(tmp_path / "data", {"train": rows(4), "validation": ordered})
    caplog.set_level("INFO")
    more = {"EPOCHS": "1", "VAL_SAMPLES": "6"}
    for name, streaming in (("run", "0"), ("stream", "1")):
        made = settings(tiny_config, tmp_path / "data", tmp_path / name, STREAMING=streaming, **more)
        folder = run_module.train(made)
        (validation,) = json.loads((folder / "train_summary.json").read_text())["validation"]
        assert validation["masks"] == 2 + 2 * 2  # two rows of one mask and two of two; two of text
    assert "validation split: 6 of 25 rows, chosen by SEED over the tasks: " in caplog.text
    assert "instance_segmentation 2" in caplog.text
