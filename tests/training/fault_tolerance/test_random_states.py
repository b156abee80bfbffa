"""The states of the random generators: taken, put back, and told from other tensors."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from satlisa.training.fault_tolerance.random_states import put_random, random_states_fault, take_random


def draw() -> list[Any]:
    return [random.random(), random.gauss(0, 1), np.random.random(), np.random.standard_normal(), torch.rand(1).item()]


def test_the_same_numbers_come_again() -> None:
    draw()  # gauss and standard_normal keep a second number for the next call
    states = take_random()
    numbers = draw()
    assert random_states_fault(states) == ""  # which draws nothing
    put_random(states)
    assert draw() == numbers


@pytest.mark.parametrize("name", ["python", "python_gauss", "numpy", "numpy_place", "numpy_gauss", "torch"])
def test_other_tensors_are_none(name: str) -> None:
    states = take_random()
    own = states[name]
    others = [None, torch.zeros(3, 3, dtype=own.dtype), torch.zeros(own.shape, dtype=torch.float16)]
    others += [own.flatten()[:-1]] if name != "python_gauss" else []  # an empty one: none is kept
    others += [torch.full_like(own, -1)] if name in ("python", "numpy_place") else []
    for other in others:
        changed = {key: tensor for key, tensor in {**states, name: other}.items() if tensor is not None}
        assert random_states_fault(changed)  # type: ignore[arg-type]
    assert all(torch.equal(tensor, take_random()[key]) for key, tensor in states.items())


def test_the_state_of_a_gpu_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    states = take_random()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.zeros(16, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda _: None)
    assert random_states_fault(states) == ""
    assert random_states_fault({**states, "cuda": torch.zeros(3, dtype=torch.uint8)})
