"""Files of tensors: a pickle that holds more is refused, and so are numbers that are none."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

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


def change(path: Path, edit: Any) -> str:
    """Save a file of tensors with its last matrix or vector edited; returns the name of that tensor."""
    is_torch = path.suffix == ".pt"
    state = torch.load(path, weights_only=True) if is_torch else load_file(path)
    *_, name = state
    state[name] = edit(state[name].clone())
    torch.save(state, path) if is_torch else save_file(state, path, metadata={"format": "pt"})
    return name


def with_last(value: float, dtype: torch.dtype = torch.float32) -> Any:
    def edit(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.to(dtype)
        tensor.view(-1)[-1] = value
        return tensor

    return edit


FILES = ["seg_token.safetensors", "seg_projector.pt", "sam_mask_decoder.pt", "vlm_lora/adapter_model.safetensors"]


@pytest.mark.integration
@pytest.mark.parametrize("file", FILES)
def test_weights_that_are_not_finite_are_refused(file: str, saved: tuple[SatLisa, Path]) -> None:
    """NaN and infinity, and a number that float32 cannot hold."""
    path = saved[1] / file
    good = path.read_bytes()
    for edit in (with_last(float("nan")), with_last(float("-inf")), with_last(1e300, torch.float64)):
        change(path, edit)
        with pytest.raises(SatlisaError, match=r"expected finite numbers, found 1 of \d"):
            load_model(saved[1], "cpu")
        path.write_bytes(good)
    change(path, with_last(1e30))  # large, and a number
    load_model(saved[1], "cpu")


@pytest.mark.parametrize("value", [float("nan"), 1e300])
def test_a_vocabulary_that_is_not_finite_is_refused(value: float, saved: tuple[SatLisa, Path]) -> None:
    path = saved[1] / "vlm_lora" / "adapter_model.safetensors"
    name = "base_model.model.model.language_model.embed_tokens.weight"
    matrix = with_last(value, torch.float64)(torch.zeros(320, 32))
    save_file(load_file(path) | {name: matrix}, path, metadata={"format": "pt"})
    with pytest.raises(SatlisaError, match=r"embed_tokens.weight: expected finite numbers, found 1 of 10,240"):
        load_model(saved[1], "cpu")
