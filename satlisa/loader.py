"""Rows on their way to batches: a row is read and encoded on demand, a broken one is carried along as its error."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
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
    """One step of a loader.

    Attributes:
        batches: of samples of similar length, the longest first; none when no row could be used.
        errors: the rows that could not be used.
        left_out: instances left out of the answers (`max_instances`).
    """

    batches: list[Batch]
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
    rows: EncodedRows, batch_size: int, *, accumulate: int = 1, num_workers: int = 0, shuffle_seed: int | None = None
) -> DataLoader[Any]:
    """A loader of `Loaded` steps of `accumulate` batches each; `shuffle_seed` None keeps the order of the rows."""
    pad_token_id = rows.processor.tokenizer.pad_token_id
    generator = None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed)
    return DataLoader(
        rows,
        batch_size=batch_size * accumulate,
        shuffle=shuffle_seed is not None,
        generator=generator,
        num_workers=num_workers,
        collate_fn=_Collate(pad_token_id, batch_size),
    )


@dataclass(frozen=True)
class _Collate:
    """`collate` for a DataLoader: sets broken rows aside. A class, because workers need to pickle it.

    The loss is normalised over the whole step (DESIGN §2), so its samples may be put together in any way: by length,
    which spares padding.
    """

    pad_token_id: int
    batch_size: int

    def __call__(self, items: Sequence[tuple[Encoded | RowError, int]]) -> Loaded:
        usable = [item for item, _ in items if isinstance(item, Encoded)]
        usable.sort(key=lambda sample: -sample.length)
        parts = [usable[start : start + self.batch_size] for start in range(0, len(usable), self.batch_size)]
        errors = [item for item, _ in items if isinstance(item, RowError)]
        return Loaded([collate(part, self.pad_token_id) for part in parts], errors, sum(count for _, count in items))
