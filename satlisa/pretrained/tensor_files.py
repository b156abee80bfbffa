"""Files of tensors, read without running code: safetensors, or torch files that hold nothing but tensors."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from satlisa.errors import SatlisaError, first_line

_MOST_LISTED = 6


def read_tensors(path: Path) -> Any:
    """What a file holds: tensors by name; of a torch file, whatever is wrapped around them.

    Raises:
        SatlisaError: unreadable, or a pickle that holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise refuse_pickle(str(path)) from error
    except Exception as error:  # safetensors, zip, OS and runtime errors
        raise SatlisaError(f"{path}: not a readable file of tensors ({first_line(error)}); copy it again") from error


def refuse_pickle(subject: str) -> SatlisaError:
    """The error for weights that only unpickling would read; torch's own text recommends to unpickle them anyway."""
    return SatlisaError(
        f"{subject}: damaged, or holds more than tensors, which could run code; not loaded. Take a copy in safetensors"
    )


def list_tensors(state: Mapping[str, Tensor], most: int = _MOST_LISTED) -> str:
    """Names and shapes for a message, the first `most` of them."""
    names = [f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "no tensors"
