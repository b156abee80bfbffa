"""Read tensor files without executing code: safetensors, or torch files that contain only tensors."""

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
    """Contents of a file: tensors by name; for a torch file, possibly inside other containers.

    Raises:
        SatlisaError: an unreadable file, or a pickle that contains more than tensors.
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
    """The error for weights that need unpickling. Replaces torch's message, which recommends `weights_only=False`."""
    return SatlisaError(
        f"{subject}: damaged, or contains more than tensors, which could run code; not loaded. Use a safetensors copy"
    )


def list_tensors(state: Mapping[str, Tensor], most: int = _MOST_LISTED) -> str:
    """Names and shapes of the first `most` tensors, for a message."""
    names = [f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "no tensors"
