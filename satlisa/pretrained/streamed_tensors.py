"""Weights of gigabytes from disk to disk, a tensor at a time: an index of a model's files, and a safetensors writer.

`safetensors` writes a file from tensors that are all in memory. Reading maps a tensor, and lets it go when it is
dropped, so that one tensor is in memory at a time.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from satlisa.errors import SatlisaError
from satlisa.pretrained.tensor_files import MOST_TOKENIZER, read_json, read_tensors

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # where `transformers` looks, each before its shards
_NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.bool: "BOOL",
    torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk: its file, dtype and shape."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """The tensor, mapped: changes of it stay in memory, and its file may not be changed meanwhile."""
        if self.path.suffix != ".safetensors":
            found: Tensor = read_tensors(self.path)[self.name]
            return found
        with safe_open(self.path, framework="pt") as tensors:
            mapped: Tensor = tensors.get_tensor(self.name)
            return mapped


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights that `transformers` would read, in order.

    Raises:
        SatlisaError: there are none.
    """
    for name in _WEIGHTS:
        if (folder / name).exists():
            return [folder / name]
        if (index := folder / f"{name}.index.json").exists():
            return [folder / shard for shard in sorted(set(read_json(index, MOST_TOKENIZER)["weight_map"].values()))]
    raise SatlisaError(f"{folder}: expected weights, {' or '.join(_WEIGHTS)}, found none")


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name.

    Raises:
        SatlisaError: as `read_tensors`; or other things than tensors by name.
    """
    found = read_tensors(path)
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise SatlisaError(f"{path}: expected tensors by name")
    return {name: StoredTensor(path, name, tensor.dtype, tuple(tensor.shape)) for name, tensor in found.items()}


def write_tensors(
    path: Path, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], blocks: Callable[[str], Iterable[Tensor]]
) -> int:
    """Write a safetensors file; returns its bytes of tensors.

    Args:
        tensors: dtype and shape by name.
        blocks: a tensor's consecutive rows, in any dtype; called once for each, in order.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that tensors are aligned in the file
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (dtype, _) in tensors.items():
            for block in blocks(name):
                file.write(block.to(dtype).reshape(-1).view(torch.uint8).numpy().data)
        written = file.tell() - 8 - len(text)
    assert written == end, f"{path}: {written} bytes of tensors, expected {end}"
    return end
