"""Which rows a step takes."""

from collections import Counter
from typing import Any

import pytest

from satlisa.data.sampler import IndexedSampler, Sampler, StreamingSampler, spread


def test_only_the_buffer_is_in_memory() -> None:
    class Source:
        """Counts what was taken from it."""

        taken = 0

        def __iter__(self) -> Any:
            for number in range(10_000):
                Source.taken += 1
                yield {"number": number}

        def skip(self, count: int) -> Any:
            raise AssertionError

    for seen, _ in enumerate(StreamingSampler(Source(), 10_000, 20, 0).rows(0, 0)):
        assert Source.taken <= (seen // 20 + 1) * 20


TASKS = ["a"] * 90 + ["b"] * 6 + ["c"] * 4


def test_a_choice_is_spread_over_the_tasks() -> None:
    chosen = spread(TASKS, 12, seed=0)
    assert chosen == sorted(set(chosen)) and Counter(TASKS[place] for place in chosen) == {"a": 4, "b": 4, "c": 4}
    assert spread(TASKS, 12, seed=0) == chosen != spread(TASKS, 12, seed=1)
    assert Counter(TASKS[place] for place in spread(TASKS, 30, 0)) == {"a": 20, "b": 6, "c": 4}
    assert spread(TASKS, 1000, 0) == list(range(100))


class Stream(list[Any]):
    def skip(self, count: int) -> "Stream":
        return Stream(self[count:])


@pytest.mark.parametrize("kind", ["rows", "stream"])
def test_samplers_read_what_was_chosen(kind: str) -> None:
    rows = [{"task": task, "number": number} for number, task in enumerate(TASKS)]
    sampler: Sampler = IndexedSampler(rows) if kind == "rows" else StreamingSampler(Stream(rows), 100)
    chosen = sampler.choose(6, seed=0)
    assert len(chosen) == 6 and Counter(chosen.tasks()) == {"a": 2, "b": 2, "c": 2}
    read = [(row.index, row.fetch()["number"]) for row in chosen.rows(0, 0)]
    assert [index for index, _ in read] == [number for _, number in read] == spread(TASKS, 6, 0)
    assert [row.index for row in chosen.rows(0, 4)] == spread(TASKS, 6, 0)[4:]
    assert sampler.choose(0, 0) is sampler and sampler.choose(100, 0) is sampler
