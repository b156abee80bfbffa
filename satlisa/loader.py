"""Rows on their way to batches: a row is read and encoded on demand, a broken one is carried along as its error."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from satlisa.collator import Batch, Encoded, collate, encode_sample
from satlisa.config import ModelConfig
from satlisa.dataset import read_sample
from satlisa.errors import SatlisaError
from satlisa.sample import RowError
from satlisa.segmenter import Segmenter


@dataclass(frozen=True)
class Loaded:
    """One step of a loader: the batch (None when none of its rows could be used), the rows that could not be used,
    and how many instances were left out of its answers (`max_instances`)."""

    batch: Batch | None
    errors: list[RowError]
    left_out: int


class EncodedRows(Dataset[tuple[Encoded | RowError, int]]):
    """A dataset's rows as `Encoded` samples with their count of left-out instances; a broken row is its `RowError`."""

    def __init__(
        self,
        rows: Any,
        processor: Any,
        segmenter: Segmenter,
        config: ModelConfig,
        seg_tasks: Collection[str] = (),
        limit: int = 0,
    ) -> None:
        self.rows, self.processor, self.segmenter, self.config = rows, processor, segmenter, config
        self.seg_tasks = seg_tasks
        self.length = min(len(rows), limit) if limit else len(rows)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Encoded | RowError, int]:
        try:
            sample = read_sample(
                self.rows[index], index, max_instances=self.config.max_instances, seg_tasks=self.seg_tasks
            )
            return encode_sample(sample, self.processor, self.segmenter, self.config), sample.left_out
        except RowError as error:
            return error, 0
        except SatlisaError as error:  # an image that the processor cannot size
            return RowError(index, "image", str(error)), 0


def make_loader(
    rows: EncodedRows, batch_size: int, *, num_workers: int = 0, shuffle_seed: int | None = None
) -> DataLoader[Any]:
    """A loader of `Loaded` steps; `shuffle_seed` None keeps the order, a number fixes the shuffling."""
    pad_token_id = rows.processor.tokenizer.pad_token_id
    generator = None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed)
    return DataLoader(
        rows,
        batch_size=batch_size,
        shuffle=shuffle_seed is not None,
        generator=generator,
        num_workers=num_workers,
        collate_fn=_Collate(pad_token_id),
        persistent_workers=False,
    )


@dataclass(frozen=True)
class _Collate:
    """`collate` for a DataLoader: sets broken rows aside. A class, because workers need to pickle it."""

    pad_token_id: int

    def __call__(self, items: Sequence[tuple[Encoded | RowError, int]]) -> Loaded:
        usable = [item for item, _ in items if isinstance(item, Encoded)]
        errors = [item for item, _ in items if isinstance(item, RowError)]
        left_out = sum(count for _, count in items)
        return Loaded(collate(usable, self.pad_token_id) if usable else None, errors, left_out)


def accumulation_groups(loader: DataLoader[Any], size: int) -> Iterator[list[Loaded]]:
    """The loader's steps in groups of `size`, one per optimizer step; the last group may be smaller."""
    steps = iter(loader)
    while group := list(islice(steps, size)):
        yield group
