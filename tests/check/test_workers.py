"""Many processes: every item once, and a killed process costs one item."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from satlisa.check.workers import run_all

pytestmark = pytest.mark.integration


def square(item: int) -> int:
    return item * item


def lost(item: int) -> int:
    return -item


def killed_at_70(item: int) -> int:
    if item == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("processes", [1, 2])
def test_every_item_once(processes: int) -> None:
    assert sorted(run_all(square, range(100), lost, processes)) == [item * item for item in range(100)]
    assert list(run_all(square, [], lost, processes)) == []


def test_a_killed_process_costs_one_item() -> None:
    assert sorted(run_all(killed_at_70, range(1, 200), lost, 2)) == [-70, *(n for n in range(1, 200) if n != 70)]


def test_a_process_that_is_killed_once_costs_nothing(tmp_path: Path) -> None:
    def killed_once(item: int) -> int:
        if item == 20 and not (tmp_path / "was").exists():
            (tmp_path / "was").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    assert sorted(run_all(killed_once, range(40), lost, 2)) == list(range(40))


def test_items_are_taken_when_they_are_needed() -> None:
    taken = 0

    def stream() -> Iterator[int]:
        nonlocal taken
        for item in range(10_000):
            taken += 1
            yield item

    results = run_all(square, stream(), lost, 1)
    assert next(results) == 0 and taken < 200
    results.close()  # type: ignore[attr-defined]
