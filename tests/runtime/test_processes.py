"""Which process takes which device."""

from typing import Any

import pytest
import torch

from satlisa.runtime.processes import ProcessGroup


@pytest.mark.parametrize(
    ("group", "asked", "given"),
    [
        (ProcessGroup(1, 1, 2), None, "cuda:1"),
        (ProcessGroup(3, 1, 4), "cuda", "cuda:1"),
        (ProcessGroup(5, 5, 8), None, "cuda:1"),  # more processes than GPUs
        (ProcessGroup(1, 1, 2), "cuda:0", "cuda:0"),
        (ProcessGroup(1, 1, 2), "cpu", "cpu"),
        (ProcessGroup(), None, None),
    ],
)
def test_each_process_has_a_gpu(group: ProcessGroup, asked: str | None, given: str | None, monkeypatch: Any) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert group.device(asked) == given
    assert current == ([1] if given == "cuda:1" else [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert group.device(asked) == asked
