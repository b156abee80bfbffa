"""Read other people's files within limits: tensors without executing code, JSON, and what is a file at all.

A link may lead to a pipe or a device, which blocks or never ends; a few bytes may describe terabytes. What is read is
therefore bounded before it is read, far above what real models need.
"""

import json
import pickle
import pickletools
import stat
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile

import torch
from safetensors import safe_open
from torch import Tensor

from satlisa.errors import SatlisaError, first_line

_MOST_LISTED = 6
_MOST_TENSORS = 20_000  # of a file; a 0.8B model has about 500
_LONGEST_NAME = 512  # characters
_DEEPEST = 20  # dicts inside of dicts
MOST_JSON = 2**20  # bytes of a file of settings
MOST_TOKENIZER = 2**26  # bytes of a tokenizer's file; Qwen3.5's has 1e7
MOST_TENSORS = 2**34  # bytes of a file of tensors; they are mapped, and read where they fit
_MOST_UNMAPPED = 2**28  # bytes of a torch file of the format before 2020, which is read into memory
_MOST_INDEX = 2**23  # bytes of names and shapes in a file of tensors


def check_file(path: Path, most: int = MOST_JSON) -> None:
    """Refuse anything but a regular file (links followed) of at most `most` bytes.

    Raises:
        SatlisaError: a folder, a pipe, a device, nothing, or more bytes.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise SatlisaError(f"{path}: cannot be read ({first_line(error)}); copy it again") from error
    if not stat.S_ISREG(status.st_mode):
        raise SatlisaError(f"{path}: expected a regular file, found {_kind(status.st_mode)}")
    if status.st_size > most:
        raise SatlisaError(f"{path}: expected at most {most:,} bytes, found {status.st_size:,}; is it the right file?")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_json(path: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """The JSON object in a file of settings.

    Raises:
        SatlisaError: not a regular file of at most `most` bytes, not JSON, or not an object.
    """
    check_file(path, most)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: nested thousands deep
        raise SatlisaError(f"{path}: not a readable JSON file ({first_line(error)}); copy it again") from error
    if not isinstance(content, dict):
        raise SatlisaError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_tensors(path: Path) -> Any:
    """Contents of a file: tensors by name; for a torch file, possibly inside other containers.

    All tensors are dense and on the CPU, and their bytes are in the file.

    Raises:
        SatlisaError: an unreadable file, a pickle that contains more than tensors, or tensors of another kind.
    """
    check_file(path, MOST_TENSORS)
    try:
        loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except SatlisaError:
        raise
    except pickle.UnpicklingError as error:
        raise refuse_pickle(str(path)) from error
    except Exception as error:  # safetensors, zip, OS and runtime errors
        raise SatlisaError(f"{path}: not a readable file of tensors ({first_line(error)}); copy it again") from error
    _check_tensors(loaded, path)
    return loaded


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with open(path, "rb") as file:
        _check_index(path, int.from_bytes(file.read(8), "little"))
    with safe_open(path, framework="pt") as tensors:
        names = tensors.keys()
        if len(names) > _MOST_TENSORS:
            raise _too_many(path)
        return {name: tensors.get_tensor(name) for name in names}


def _read_torch(path: Path) -> Any:
    """A torch file. Its tensors are mapped, not read, unless it has the format of before torch 1.6."""
    with open(path, "rb") as file:
        if is_zip := file.read(4) == b"PK\x03\x04":
            _check_archive(path, file)
        else:
            check_file(path, _MOST_UNMAPPED)
            file.seek(0)
            _check_pickles(path, file)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)


def _check_archive(path: Path, file: BinaryIO) -> None:
    """Refuse a zip file with too large a directory or index, or with compressed parts, which could be of any size."""
    end = file.seek(0, 2)
    file.seek(max(0, end - 2**16))
    tail = file.read()
    directory = tail.rfind(b"PK\x05\x06") + 12  # where the size of the zip's directory is written
    _check_index(path, int.from_bytes(tail[directory : directory + 4], "little"))
    with ZipFile(file) as archive:
        entries = archive.infolist()
    _check_index(path, sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl")))
    if any(entry.compress_type != ZIP_STORED for entry in entries):
        raise SatlisaError(f"{path}: expected a torch file, which is not compressed, found a compressed one")


def _check_pickles(path: Path, file: BinaryIO) -> None:
    """The same for the five pickles that open a file of the old format, by the number of their operations."""
    with suppress(ValueError):  # no pickle: torch says so
        for _ in range(5):
            if sum(1 for _ in islice(pickletools.genops(file), _MOST_INDEX // 8)) == _MOST_INDEX // 8:
                _check_index(path, _MOST_INDEX + 1)


def _check_index(path: Path, size: int) -> None:
    if size > _MOST_INDEX:
        raise _too_many(path)


def _too_many(path: Path) -> SatlisaError:
    return SatlisaError(f"{path}: expected at most {_MOST_TENSORS:,} tensors, found more")


def _check_tensors(loaded: Any, path: Path) -> None:
    """Refuse more tensors or deeper dicts than any model has, and tensors that are not plain numbers in the file."""
    todo, count = [("", loaded, 0)], 0
    while todo:
        name, item, depth = todo.pop()
        if isinstance(item, Mapping):
            todo += [(str(key), value, depth + 1) for key, value in item.items() if isinstance(value, Tensor | Mapping)]
        count += 1
        if count + len(todo) > _MOST_TENSORS or depth > _DEEPEST or len(name) > _LONGEST_NAME:
            raise SatlisaError(
                f"{path}: expected at most {_MOST_TENSORS:,} tensors with names of at most {_LONGEST_NAME} characters, "
                f"in dicts at most {_DEEPEST} deep, found more"
            )
        if isinstance(item, Tensor) and (kind := _unusual(item)):
            raise SatlisaError(f"{path}: {name}: expected a dense tensor on the CPU, found {kind} one; save it again")


def _unusual(tensor: Tensor) -> str:
    """What keeps a tensor from being plain numbers that lie in its file; "" for nothing."""
    if tensor.device.type != "cpu":
        return f"a {tensor.device.type}"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "a sparse or nested"
    if tensor.is_quantized:
        return "a quantised"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "an expanded"
    return ""


def refuse_pickle(subject: str) -> SatlisaError:
    """The error for weights that need unpickling. Replaces torch's message, which recommends `weights_only=False`."""
    return SatlisaError(
        f"{subject}: damaged, or contains more than tensors, which could run code; not loaded. Use a safetensors copy"
    )


def check_finite(state: Mapping[str, Tensor], source: Path | str) -> None:
    """Refuse weights with NaN or infinite entries, also where only a narrower dtype made them infinite.

    Raises:
        SatlisaError: names the first such tensor.
    """
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            bad = tensor.numel() - int(torch.isfinite(tensor).sum())
            raise SatlisaError(
                f"{source}: {name}: expected finite numbers, found {bad:,} of {tensor.numel():,} NaN or infinite; "
                "the training that wrote it diverged, or the file is damaged"
            )


def list_tensors(state: Mapping[str, Tensor], most: int = _MOST_LISTED) -> str:
    """Names and shapes of the first `most` tensors, for a message."""
    names = [f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "no tensors"
