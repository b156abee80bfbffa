"""Tensors read and written one at a time."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from satlisa.errors import SatlisaError
from satlisa.pretrained.streamed_tensors import stored_tensors, weight_files, write_tensors

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool]


def test_safetensors_reads_what_is_written(tmp_path: Path) -> None:
    """All dtypes, scalars, empty tensors, tensors that are written in blocks or not contiguous."""
    torch.manual_seed(0)
    tensors = {str(dtype): (torch.randn(5, 3) * 9).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "turned": torch.randn(4, 6).T}
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    size = write_tensors(
        tmp_path / "a.safetensors", shapes, lambda n: tensors[n].split(2) if tensors[n].ndim else [tensors[n]]
    )
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in found)
    assert size == sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    stored = stored_tensors(tmp_path / "a.safetensors")
    assert {name: (entry.dtype, entry.shape) for name, entry in stored.items()} == shapes


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_change_of_what_is_read_stays_in_memory(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{ending}"
    (save_file if ending == "safetensors" else torch.save)({"a": torch.ones(3)}, path)
    entry = stored_tensors(path)["a"]
    entry.read().add_(1)
    assert torch.equal(entry.read(), torch.ones(3))


def test_too_few_rows_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="8 bytes of tensors, expected 12"):
        write_tensors(tmp_path / "a.safetensors", {"a": (torch.float32, (3,))}, lambda _: [torch.ones(2)])


def test_the_files_are_those_that_transformers_takes(tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match=r"expected weights, model.safetensors or pytorch_model.bin, found none"):
        weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert [path.name for path in weight_files(tmp_path)] == ["pytorch_model.bin"]
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [path.name for path in weight_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]
    (tmp_path / "model.safetensors").touch()
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]
