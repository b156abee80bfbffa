"""Rows on their way to batches: steps, their order, their places, and what cannot be used."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from satlisa.model.satlisa import SatLisa
from tests.helpers.model_fixtures import make_loader
from tests.helpers.runs import rows


def test_long_answers_are_skipped_not_cut(tiny_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    long = rows(2)
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "word " * 200}]
    long[1]["conversations"] = json.dumps(turns)
    (loaded,) = make_loader(tiny_model, long, 2).steps()
    assert [batch.indices for batch in loaded.batches] == [[0]]
    assert "512" in str(loaded.errors[0]) and loaded.errors[0].index == 1


def seen(loader: Any) -> list[list[int]]:
    """Row numbers of each step, in the order of the batches."""
    return [[i for batch in loaded.batches for i in batch.indices] for loaded in loader]


def test_steps_and_shuffling(tiny_model) -> None:  # type: ignore[no-untyped-def]
    steps = list(make_loader(tiny_model, rows(9), 2, accumulate=3, limit=7).steps())
    assert [len(step.batches) for step in steps] == [3, 1]
    assert [sorted(step) for step in seen(steps)] == [[0, 1, 2, 3, 4, 5], [6]]
    loaders = [make_loader(tiny_model, rows(9), 1, limit=7, seed=seed) for seed in (1, 1, 2)]
    orders = [seen(loader.steps(epoch=3)) for loader in loaders]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == [[row] for row in range(7)]
    assert seen(loaders[0].steps(epoch=4)) != orders[0]
    assert seen(loaders[0].steps(epoch=3, start=5)) == orders[0][5:]


def test_batches_of_a_step_hold_samples_of_similar_length(tiny_model) -> None:  # type: ignore[no-untyped-def]
    made = rows(8)
    for number, row in enumerate(made):
        turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "word " * (1 + number * 5 % 8)}]
        row["conversations"] = json.dumps(turns)
    (step,) = make_loader(tiny_model, made, 2, accumulate=4).steps()
    lengths = torch.cat([batch.attention_mask.sum(1) for batch in step.batches])
    assert lengths.unique().numel() == 8 and torch.equal(lengths, lengths.sort(descending=True).values)
    assert [sorted(rows) for rows in seen([step])] == [list(range(8))]


def test_workers_load_the_same_batches(tiny_model) -> None:  # type: ignore[no-untyped-def]
    alone, workers = (list(make_loader(tiny_model, rows(10), 3, num_workers=n).steps()) for n in (0, 2))
    for a, b in zip(alone, workers, strict=True):
        assert seen([a]) == seen([b])
        assert all(torch.equal(x.input_ids, y.input_ids) for x, y in zip(a.batches, b.batches, strict=True))
        assert [str(error) for error in a.errors] == [str(error) for error in b.errors]


class Meeting:
    """Counts the rows that were encoded, and lets a test wait for them."""

    def __init__(self, encoder: Any) -> None:
        self.encoder, self.count, self.changed = encoder, 0, threading.Condition()

    def __call__(self, row: Any) -> Any:
        encoded = self.encoder(row)
        with self.changed:
            self.count += 1
            self.changed.notify_all()
        return encoded

    def wait_for(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.count >= count, timeout=60)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)


def test_the_next_step_is_loaded_while_this_one_is_used(tiny_model: SatLisa) -> None:
    """With NUM_WORKERS=0 by a thread: one step ahead, no more; and none after the loop was left."""
    loader = make_loader(tiny_model, rows(9), 2, num_workers=0)
    loader.encoder = meeting = Meeting(loader.encoder)  # type: ignore[assignment]
    before = threading.active_count()
    steps = loader.steps()
    assert next(steps).rows_done == 2
    assert meeting.wait_for(4)  # nobody has asked for the second step
    assert next(steps).rows_done == 4 and meeting.wait_for(6)
    steps.close()  # type: ignore[attr-defined]
    assert meeting.count == 6 and threading.active_count() == before


def test_an_error_of_the_thread_reaches_the_loop(tiny_model: SatLisa) -> None:
    loader = make_loader(tiny_model, rows(9), 2, num_workers=0)
    original, calls = loader.encoder, []

    def fails(row: Any) -> Any:
        calls.append(row)
        if len(calls) == 3:
            raise MemoryError("no memory")
        return original(row)

    fails.processor, fails.sam_inputs = original.processor, original.sam_inputs  # type: ignore[attr-defined]
    loader.encoder = fails  # type: ignore[assignment]
    steps = loader.steps()
    assert next(steps).rows_done == 2
    with pytest.raises(MemoryError, match="no memory"):
        next(steps)
