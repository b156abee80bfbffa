"""Which rows a training step takes: the same for any number of processes, and resumable anywhere in an epoch.

A step holds a fixed number of rows, whichever process runs them, and a position in the data is the number of rows of
the epoch already taken. A run can therefore be interrupted anywhere and resumed with more or fewer processes, and it
still takes each row once an epoch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    """

    source: Any
    limit: int = 0
    seed: int | None = None

    def __len__(self) -> int:
        return min(len(self.source), self.limit) if self.limit else len(self.source)

    def rows(self, epoch: int, start: int) -> Iterator[RowRef]:
        """The rows of an epoch, the first `start` of them skipped."""
        order = np.arange(len(self)) if self.seed is None else shuffled(len(self), self.seed, epoch)
        return (self.row(int(index)) for index in order[start:])

    def row(self, index: int) -> RowRef:
        """One row by its number in the split."""
        return RowRef(index, lambda: self.source[index])

    def probe(self, count: int) -> Iterator[RowRef]:
        """Rows spread over the split."""
        number = min(count, len(self))
        return (self.row(place * len(self) // number) for place in range(number))


@dataclass(frozen=True)
class StreamingSampler:
    """Rows that come one after the other; `buffer` of them are shuffled together at a time.

    Attributes:
        source: an iterable with `skip(n)`, such as a streaming dataset of `datasets`.
        length: number of rows taken.
        buffer: rows in memory at a time, their images still encoded.
        seed: of a new permutation of each buffer in each epoch; None keeps the order.
    """

    source: Any
    length: int
    buffer: int = 1
    seed: int | None = None

    def __len__(self) -> int:
        return self.length

    def rows(self, epoch: int, start: int) -> Iterator[RowRef]:
        """The rows of an epoch, the first `start` of them skipped."""
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


def _same(row: Any) -> Any:
    return row


def shuffled(length: int, seed: int, *more: int) -> np.ndarray:
    """A permutation (length,) int64, a function of the seed and the further numbers."""
    return np.random.default_rng((seed, *more)).permutation(length)
