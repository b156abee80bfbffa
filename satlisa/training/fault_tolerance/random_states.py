"""The states of a process's random generators as tensors, and back."""

import random

import numpy as np
import torch
from torch import Tensor

from satlisa.errors import first_line


def take_random() -> dict[str, Tensor]:
    """The states of this process's random generators: Python's, numpy's, torch's and that of its GPU."""
    version, words, gauss = random.getstate()
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    inner = state["state"]
    found = {
        "python": torch.tensor([version, *words]),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(inner["key"].astype(np.int64)),
        "numpy_place": torch.tensor([inner["pos"], state["has_gauss"]]),
        "numpy_gauss": torch.tensor(state["gauss"], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        found["mps"] = torch.mps.get_rng_state()
    return found


def put_random(tensors: dict[str, Tensor]) -> None:
    """Put states of `take_random` back; that of a GPU only where there is one."""
    version, *words = tensors["python"].tolist()
    gauss = tensors["python_gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    place, has_gauss = tensors["numpy_place"].tolist()
    inner = {"key": tensors["numpy"].numpy().astype(np.uint32), "pos": place}
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": inner,
            "has_gauss": has_gauss,
            "gauss": float(tensors["numpy_gauss"]),
        }
    )
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    if "mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["mps"])


def random_states_fault(tensors: dict[str, Tensor]) -> str:
    """Why tensors are not the states of a process's generators, by putting them back for a moment; "" where they are.

    States of a GPU may be missing: the process that took them need not have had one.
    """
    before = take_random()
    for name in {*before} - ({"cuda", "mps"} - {*tensors}):
        expected, found = before[name], tensors.get(name)
        if found is None or found.dtype != expected.dtype or (found.shape != expected.shape and name != "python_gauss"):
            return f"{name} is missing or of another shape"
    if tensors["python_gauss"].shape not in ((0,), (1,)):
        return "python_gauss is of another shape"
    place, has_gauss = tensors["numpy_place"].tolist()
    if not (0 <= place <= before["numpy"].numel() and has_gauss in (0, 1)):  # numpy would read beyond its state
        return "numpy_place is out of range"
    try:
        put_random(tensors)
    except Exception as error:  # each generator refuses a wrong state with an error of its own
        return first_line(error)
    finally:
        put_random(before)
    return ""
