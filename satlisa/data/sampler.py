"""Which rows a training step takes: the same for any number of processes, and from any place in an epoch.

A step holds `size` rows, whoever runs it, and a place in the data is how many rows of the epoch lie behind it. So a
run can be cut off anywhere and go on with more or fewer processes, and still meets each row once an epoch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class RowRef:
    """A row that is read when it is called for: processes leave the others' rows alone.

    Attributes:
        index: its number in the split.
        fetch: reads it.
    """

    index: int
    fetch: Callable[[], Any]


class Order(Protocol):
    """The order of a split's rows in each epoch; `len(order)` rows."""

    def __len__(self) -> int: ...

    def rows(self, epoch: int, start: int) -> Iterator[RowRef]:
        """The rows of an epoch, the first `start` of them left out."""

    def row(self, index: int) -> RowRef:
        """One row by its number in the split."""

    def some(self, count: int) -> Iterator[RowRef]:
        """Up to `count` rows that are cheap to read, always the same ones."""


def cut(rows: Iterator[RowRef], size: int) -> Iterator[list[RowRef]]:
    """Steps of `size` rows; the last may be shorter."""
    while step := list(islice(rows, size)):
        yield step


@dataclass(frozen=True)
class IndexedOrder:
    """The order of rows that can be read by number.

    Attributes:
        source: `source[i]` is row i.
        limit: take only the first ones; 0: all.
        seed: of a new permutation in every epoch; None keeps the order.
    """

    source: Any
    limit: int = 0
    seed: int | None = None

    def __len__(self) -> int:
        return min(len(self.source), self.limit) if self.limit else len(self.source)

    def rows(self, epoch: int, start: int) -> Iterator[RowRef]:
        """The rows of an epoch, the first `start` of them left out."""
        order = np.arange(len(self)) if self.seed is None else shuffled(len(self), self.seed, epoch)
        return (self.row(int(index)) for index in order[start:])

    def row(self, index: int) -> RowRef:
        """One row by its number in the split."""
        return RowRef(index, lambda: self.source[index])

    def some(self, count: int) -> Iterator[RowRef]:
        """Rows from everywhere in the split."""
        number = min(count, len(self))
        return (self.row(place * len(self) // number) for place in range(number))


@dataclass(frozen=True)
class StreamedOrder:
    """The order of rows that come one after the other, `buffer` of them shuffled among themselves at a time.

    Attributes:
        source: an iterable with `skip(n)`, such as a streaming dataset of `datasets`.
        length: how many rows it has, or how many of them are taken.
        buffer: so many rows, still encoded, are in memory at a time.
        seed: of a new permutation of each buffer in every epoch; None keeps the order.
    """

    source: Any
    length: int
    buffer: int = 1
    seed: int | None = None

    def __len__(self) -> int:
        return self.length

    def rows(self, epoch: int, start: int) -> Iterator[RowRef]:
        """The rows of an epoch, the first `start` of them left out."""
        first = start // self.buffer * self.buffer  # where the buffer begins that holds the row `start`
        stream = iter(self.source.skip(first) if first else self.source)
        for begin in range(first, self.length, self.buffer):
            rows = list(islice(stream, min(self.buffer, self.length - begin)))
            order = np.arange(len(rows)) if self.seed is None else shuffled(len(rows), self.seed, epoch, begin)
            for place in order[max(0, start - begin) :]:
                yield RowRef(begin + int(place), partial(_same, rows[place]))

    def row(self, index: int) -> RowRef:
        """One row by its number in the split: the stream is read up to it."""
        return RowRef(index, lambda: next(iter(self.source.skip(index) if index else self.source)))

    def some(self, count: int) -> Iterator[RowRef]:
        """The first rows of the split."""
        rows = islice(iter(self.source), min(count, self.length))
        return (RowRef(index, partial(_same, row)) for index, row in enumerate(rows))


def _same(row: Any) -> Any:
    return row


def shuffled(length: int, seed: int, *more: int) -> np.ndarray:
    """A permutation (length,) int64 that follows from the seed and the further numbers alone."""
    return np.random.default_rng((seed, *more)).permutation(length)
