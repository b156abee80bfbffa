"""Files of tensors: a pickle that holds more is refused."""

import os
from pathlib import Path

import pytest
import torch

from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained.model_directory import load_model


def test_pickles_are_not_executed(saved: tuple[SatLisa, Path], tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "planted"),)

    for name in ("seg_projector.pt", "sam_mask_decoder.pt"):
        good = (saved[1] / name).read_bytes()
        torch.save({"0.weight": Planted()}, saved[1] / name)
        with pytest.raises(SatlisaError, match=f"{name}.*could run code"):
            load_model(saved[1], "cpu")
        (saved[1] / name).write_bytes(good)
    assert not (tmp_path / "planted").exists()
