"""Which rows a check looks at: those that training reads, and the pictures of the others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from satlisa.config import ModelConfig
from satlisa.data.dataset import load_rows
from satlisa.data.mixing import Concatenated, MixedSampler, parse_datasets
from satlisa.data.sampler import IndexedSampler, Sampler
from satlisa.errors import SatlisaError
from satlisa.training.settings import TrainConfig
from satlisa.training.splits import open_data


@dataclass(frozen=True)
class Part:
    """Rows of one split of one dataset, which count from 0 there.

    Attributes:
        dataset: its name, as given.
        split: "train", "validation" or "test".
        rows: which of them.
        fractions: the dataset's coordinates are fractions, also where a row does not tell.
        is_read: training reads these rows; of others the pictures alone are compared.
    """

    dataset: str
    split: str
    rows: Sampler
    fractions: bool = False
    is_read: bool = True


def open_parts(settings: TrainConfig) -> tuple[ModelConfig, list[Part]]:
    """The rows of a run with these settings: the training rows of each dataset, its validation rows, the rest.

    Logs what a run logs about them.
    """
    data = open_data(settings)
    names = list(parse_datasets(settings.dataset))
    flags = dict(zip(names, (found.fractions for found in data.surveys), strict=True))
    parts = [
        Part(name, split, rows, flags[name])
        for split, sampler in (("train", data.train), ("validation", data.validation))
        for name, rows in _by_dataset(sampler, names)
        if len(rows)
    ]
    return data.config, parts if settings.streaming else [*parts, *_others(parts, names, flags)]


def _by_dataset(sampler: Sampler, names: Sequence[str]) -> list[tuple[str, Sampler]]:
    """The rows of each dataset, by name, in their own numbers."""
    source = getattr(sampler, "source", None)
    if isinstance(source, Concatenated):
        assert isinstance(sampler, IndexedSampler)
        chosen = None if isinstance(sampler, MixedSampler) else sampler.chosen
        places = map(source.place, range(len(source)) if chosen is None else chosen)
        numbers: list[list[int]] = [[] for _ in source.names]
        for dataset, number in places:
            numbers[dataset].append(number)
        return [
            (name, IndexedSampler(rows, chosen=own))
            for name, rows, own in zip(source.names, source.sources, numbers, strict=True)
        ]
    return [(names[0], replace(sampler, seed=None) if isinstance(sampler, IndexedSampler) else sampler)]


def _others(parts: Sequence[Part], names: Sequence[str], flags: dict[str, bool]) -> list[Part]:
    """The rows that training does not read: validation rows that were not chosen, and the test split."""
    found = []
    for name in names:
        for split in ("validation", "test"):
            try:
                rows: Any = load_rows(name, split)
            except SatlisaError:
                continue
            read: set[int] = set()
            for part in parts:
                if (part.dataset, part.split) == (name, split):
                    read.update(ref.index for ref in part.rows.rows(0, 0))
            rest = [number for number in range(len(rows)) if number not in read]
            if rest:
                found.append(Part(name, split, IndexedSampler(rows, chosen=rest), flags[name], is_read=False))
    return found
