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
