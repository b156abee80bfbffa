"""Several datasets as one: DATASET="a,b:0.3" takes 30 % of an epoch's rows from b and the rest from a.

Without weights, an epoch has each row of each dataset once. With weights, it has as many rows as if the datasets
without a weight had each row once; where all have one, as many rows as all have together. A dataset that is
asked for more rows than it has starts over, in a new order; one that is asked for fewer goes on in the next epoch where
it stopped.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from satlisa.data.sampler import IndexedSampler, RowRef, shuffled
from satlisa.errors import SatlisaError
from satlisa.runtime.locations import existing_place

_WEIGHTED = re.compile(r"(?P<name>.+):(?P<weight>\d*\.?\d+(?:e-?\d+)?)", re.IGNORECASE)


def parse_datasets(text: str) -> dict[str, float | None]:
    """The datasets of DATASET by name, each with its share of an epoch, or None.

    A folder whose own name has commas or colons is one dataset.

    Raises:
        SatlisaError: a dataset twice or without a name, a weight outside of 0 to 1, weights that leave no rows for
            the datasets without one, or that do not add up to 1 where all have one.
    """
    if existing_place(text) is not None:
        return {text: None}
    found: dict[str, float | None] = {}
    for item in text.split(","):
        name, weight = item.strip(), None
        if existing_place(name) is None and (match := _WEIGHTED.fullmatch(name)):
            name, weight = match["name"].strip(), float(match["weight"])
        if not name or name in found:
            raise SatlisaError(f"DATASET: expected different names, found {name or 'an empty one'!r} in '{text}'")
        if weight is not None and not 0 < weight <= 1:
            raise SatlisaError(f"DATASET: {name}: expected a share of an epoch above 0 up to 1, found {weight:g}")
        found[name] = weight
    known = [weight for weight in found.values() if weight is not None]
    total = sum(known)
    if len(found) > 1 and known:
        if len(known) == len(found) and abs(total - 1) > 1e-6:
            raise SatlisaError(f"DATASET: expected shares that add up to 1, found {total:g}; one without gets the rest")
        if len(known) < len(found) and total >= 1 - 1e-9:
            raise SatlisaError(f"DATASET: expected shares below 1 in all, found {total:g}; none is left for others")
    elif known and abs(total - 1) > 1e-6:
        raise SatlisaError(f"DATASET: a single dataset has all rows of an epoch, found {total:g}")
    return found


@dataclass(frozen=True)
class Concatenated:
    """Rows of several datasets, one after the other.

    Attributes:
        names: of the datasets.
        sources: `source[i]` is row i, `source[column]` a column.
        sizes: rows of each that are used, the first ones.
    """

    names: tuple[str, ...]
    sources: tuple[Any, ...]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, index: int | str) -> Any:
        if isinstance(index, str):
            return [
                cell
                for source, size in zip(self.sources, self.sizes, strict=True)
                for cell in list(source[index])[:size]
            ]
        dataset, number = self.place(index)
        return self.sources[dataset][number]

    def place(self, index: int) -> tuple[int, int]:
        """The dataset of a row, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        starts = [0, *np.cumsum(self.sizes)[:-1].tolist()]
        dataset = bisect_right(starts, index) - 1
        while not self.sizes[dataset]:  # an empty one starts where the next one does
            dataset -= 1
        return dataset, index - starts[dataset]

    def ranges(self) -> list[str]:
        """Which row numbers are of which dataset, for messages: "a: rows 0 to 99"."""
        starts = [0, *np.cumsum(self.sizes).tolist()]
        return [
            f"{name}: rows {start} to {end - 1}"
            for name, start, end in zip(self.names, starts[:-1], starts[1:], strict=True)
        ]


@dataclass(frozen=True)
class MixedSampler(IndexedSampler):
    """The rows of an epoch of several datasets (see above). `source` is a `Concatenated`.

    Attributes:
        counts: rows of each dataset in an epoch.
    """

    counts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return sum(self.counts)

    def rows(self, epoch: int, start: int) -> Iterator[RowRef]:
        """The rows of an epoch, the first `start` of them skipped."""
        drawn = np.concatenate([self._draw(dataset, epoch) for dataset in range(len(self.counts))])
        order = shuffled(len(drawn), self.seed or 0, epoch)
        return (self.row(int(drawn[place])) for place in order[start:])

    def probe(self, count: int) -> Iterator[RowRef]:
        """Rows spread over all datasets."""
        return IndexedSampler(self.source).probe(count)

    def tasks(self) -> list[str]:
        """The task of each row of the datasets."""
        return IndexedSampler(self.source).tasks()

    def _draw(self, dataset: int, epoch: int) -> np.ndarray:
        """Row numbers (counts[dataset],) of a dataset in an epoch: the next ones of its endless shuffled passes."""
        count, size = self.counts[dataset], self.source.sizes[dataset]
        if not count:
            return np.empty(0, dtype=np.int64)
        positions = np.arange(epoch * count, (epoch + 1) * count)
        drawn = np.empty(count, dtype=np.int64)
        for number in range(positions[0] // size, positions[-1] // size + 1):
            inside = positions // size == number
            drawn[inside] = shuffled(size, self.seed or 0, number, dataset)[positions[inside] % size]
        return np.asarray(drawn + sum(self.source.sizes[:dataset]))


def mix(source: Concatenated, weights: Sequence[float | None], seed: int) -> MixedSampler:
    """A sampler of several datasets.

    Args:
        weights: shares of an epoch (`parse_datasets`), in the order of the datasets.

    Raises:
        SatlisaError: a dataset with a share has no rows.
    """
    for name, size, weight in zip(source.names, source.sizes, weights, strict=True):
        if weight and not size:
            raise SatlisaError(f"DATASET: {name}: has no rows for its share of {weight:g}")
    shares = [weight or 0.0 for weight in weights]
    free = sum(size for size, weight in zip(source.sizes, weights, strict=True) if weight is None)
    total = free / (1 - sum(shares)) if None in weights else len(source)
    counts = tuple(
        size if weight is None else max(1, round(weight * total))
        for size, weight in zip(source.sizes, weights, strict=True)
    )
    return MixedSampler(source, seed=seed, counts=counts)


@dataclass(frozen=True)
class ByDataset:
    """A value for each dataset, by the number of one of its rows."""

    source: Concatenated
    values: tuple[bool, ...]

    def __call__(self, index: int) -> bool:
        """The value of the dataset that row `index` is of."""
        return self.values[self.source.place(index)[0]]
