"""Which rows a training step takes: the same for any number of processes, and resumable anywhere in an epoch.

A step holds a fixed number of rows, whichever process runs them, and a position in the data is the number of rows of
the epoch already taken. A run can therefore be interrupted anywhere and resumed with more or fewer processes, and it
still takes each row once an epoch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class RowRef:
    """A lazy row: each process reads only its own.

    Attributes:
        index: row number in the split.
        fetch: reads the row.
    """

    index: int
    fetch: Callable[[], Any]


class Sampler(Protocol):
    """The order of a split's rows in each epoch; `len(sampler)` rows."""

    def __len__(self) -> int: ...

    def rows(self, epoch: int, start: int) -> Iterator[RowRef]:
        """The rows of an epoch, the first `start` of them skipped."""

    def row(self, index: int) -> RowRef:
        """One row by its number in the split."""

    def probe(self, count: int) -> Iterator[RowRef]:
        """Up to `count` rows that are cheap to read, always the same ones."""

    def tasks(self) -> list[str]:
        """The task of each row."""

    def choose(self, count: int, seed: int) -> "Sampler":
        """At most `count` of the rows (0: all), chosen by the seed and spread over the tasks; in order."""


def batched(rows: Iterator[RowRef], size: int) -> Iterator[list[RowRef]]:
    """Lists of `size` rows; the last may be shorter."""
    while step := list(islice(rows, size)):
        yield step


@dataclass(frozen=True)
class IndexedSampler:
    """Rows that can be read by number.

    Attributes:
        source: `source[i]` is row i.
        limit: only the first rows are taken; 0: all.
        seed: of a new permutation in each epoch; None keeps the order.
        chosen: row numbers in the split; None: all rows up to `limit`.
    """

    source: Any
    limit: int = 0
    seed: int | None = None
    chosen: Sequence[int] | None = None

    def __len__(self) -> int:
        if self.chosen is not None:
            return len(self.chosen)
        return min(len(self.source), self.limit) if self.limit else len(self.source)

    def rows(self, epoch: int, start: int) -> Iterator[RowRef]:
        """The rows of an epoch, the first `start` of them skipped."""
        order = np.arange(len(self)) if self.seed is None else shuffled(len(self), self.seed, epoch)
        return (self.row(self._number(int(place))) for place in order[start:])

    def row(self, index: int) -> RowRef:
        """One row by its number in the split."""
        return RowRef(index, lambda: self.source[index])

    def probe(self, count: int) -> Iterator[RowRef]:
        """Rows spread over the split."""
        number = min(count, len(self))
        return (self.row(self._number(place * len(self) // number)) for place in range(number))

    def tasks(self) -> list[str]:
        """The task of each row; of a table only that column is read."""
        try:
            tasks = [str(task) for task in islice(_column(self.source, "task"), self.limit or None)]
        except Exception:  # damaged files: their rows are counted where they are read
            tasks = [""] * (min(len(self.source), self.limit) if self.limit else len(self.source))
        return tasks if self.chosen is None else [tasks[number] for number in self.chosen]

    def choose(self, count: int, seed: int) -> "IndexedSampler":
        """At most `count` of the rows (0: all), chosen by the seed and spread over the tasks; in order."""
        if not 0 < count < len(self):
            return self
        return replace(self, chosen=[self._number(place) for place in spread(self.tasks(), count, seed)])

    def _number(self, place: int) -> int:
        """Number in the split of the row at a place of the sampler."""
        return place if self.chosen is None else self.chosen[place]


def _column(source: Any, name: str) -> Iterable[Any]:
    """A column of texts, from a table of `datasets`, from columns by name, or from a list of rows."""
    if hasattr(source, "select_columns"):
        cells: list[Any] = source.select_columns([name]).with_format("arrow")[:][name].to_pylist()
        return cells
    if isinstance(source, list):
        return (row.get(name) if isinstance(row, Mapping) else None for row in source)
    column: Iterable[Any] = source[name]
    return column


@dataclass(frozen=True)
class StreamingSampler:
    """Rows that come one after the other; `buffer` of them are shuffled together at a time.

    Attributes:
        source: an iterable with `skip(n)`, such as a streaming dataset of `datasets`.
        length: number of rows taken.
        buffer: rows in memory at a time, their images still encoded.
        seed: of a new permutation of each buffer in each epoch; None keeps the order.
        chosen: numbers of the rows that are used, of `length` that are read; None: all.
    """

    source: Any
    length: int
    buffer: int = 1
    seed: int | None = None
    chosen: Sequence[int] | None = None

    def __len__(self) -> int:
        return self.length if self.chosen is None else len(self.chosen)

    def rows(self, epoch: int, start: int) -> Iterator[RowRef]:
        """The rows of an epoch, the first `start` of them skipped."""
        if self.chosen is not None:
            wanted = set(self.chosen[start:])
            read = enumerate(islice(iter(self.source), max(wanted, default=-1) + 1))
            yield from (RowRef(number, partial(_same, row)) for number, row in read if number in wanted)
            return
        first = start // self.buffer * self.buffer  # start of the buffer that holds row `start`
        stream = iter(self.source.skip(first) if first else self.source)
        for begin in range(first, self.length, self.buffer):
            rows = list(islice(stream, min(self.buffer, self.length - begin)))
            order = np.arange(len(rows)) if self.seed is None else shuffled(len(rows), self.seed, epoch, begin)
            for place in order[max(0, start - begin) :]:
                yield RowRef(begin + int(place), partial(_same, rows[place]))

    def row(self, index: int) -> RowRef:
        """One row by its number in the split; reads the stream up to it."""
        return RowRef(index, lambda: next(iter(self.source.skip(index) if index else self.source)))

    def probe(self, count: int) -> Iterator[RowRef]:
        """The first rows of the split."""
        rows = islice(iter(self.source), min(count, self.length))
        return (RowRef(index, partial(_same, row)) for index, row in enumerate(rows))

    def tasks(self) -> list[str]:
        """The task of each row; reads the stream."""
        tasks = [str(row.get("task")) for row in islice(iter(self.source), self.length)]
        return tasks if self.chosen is None else [tasks[number] for number in self.chosen]

    def choose(self, count: int, seed: int) -> "StreamingSampler":
        """At most `count` of the rows (0: all), chosen by the seed and spread over the tasks; in order. They are read
        from the stream in each epoch, up to the last one."""
        return replace(self, chosen=spread(self.tasks(), count, seed)) if 0 < count < self.length else self


def _same(row: Any) -> Any:
    return row


def spread(tasks: Sequence[str], count: int, seed: int) -> list[int]:
    """At most `count` places, in order: as many of each task as of any other that has enough, taken from a seeded
    shuffle."""
    waiting: dict[str, list[int]] = defaultdict(list)
    for place in shuffled(len(tasks), seed):
        waiting[tasks[place]].append(int(place))
    turns = sorted((turn, task) for task, places in waiting.items() for turn in range(len(places)))
    return sorted(waiting[task][turn] for turn, task in turns[:count])


def shuffled(length: int, seed: int, *more: int) -> np.ndarray:
    """A permutation (length,) int64, a function of the seed and the further numbers."""
    return np.random.default_rng((seed, *more)).permutation(length)
