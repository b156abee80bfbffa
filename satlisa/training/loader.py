"""Rows on their way to batches: a row is read and encoded on demand, a broken one is carried along as its error."""

import signal
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from satlisa.config import ModelConfig
from satlisa.data.rows import read_sample
from satlisa.data.sample import RowError
from satlisa.data.sampler import Order, RowRef, cut
from satlisa.errors import first_line
from satlisa.processing.collator import Batch, Encoded, collate
from satlisa.processing.processor import encode_sample
from satlisa.processing.sam_inputs import SamInputs


@dataclass(frozen=True)
class Loaded:
    """A process's share of one step.

    Attributes:
        batches: of samples of similar length, the longest first; none when no row could be used.
        errors: the rows that could not be used.
        left_out: instances left out of the answers (`max_instances`).
        rows_done: rows of the epoch that lie behind, those of this step and of all processes included.
    """

    batches: list[Batch]
    errors: list[RowError]
    left_out: int
    rows_done: int


@dataclass(frozen=True)
class Encoder:
    """From a row to its `Encoded` sample and its count of left-out instances; a broken row becomes its `RowError`."""

    processor: Any
    sam_inputs: SamInputs
    config: ModelConfig
    seg_tasks: Collection[str] = ()

    def __call__(self, row: RowRef) -> tuple[Encoded | RowError, int]:
        """Read and encode one row."""
        try:
            cells = row.fetch()
        except Exception as error:  # whatever a damaged file makes the readers of a dataset raise
            return RowError(row.index, "image", f"cannot be read from its file ({first_line(error)})"), 0
        try:
            sample = read_sample(cells, row.index, max_instances=self.config.max_instances, seg_tasks=self.seg_tasks)
            return encode_sample(sample, self.processor, self.sam_inputs, self.config), sample.left_out
        except RowError as error:
            return error, 0


class StepLoader(IterableDataset[Loaded]):
    """The steps of an epoch, each as this process's share of it.

    Args:
        order: of the rows.
        encoder: what makes samples of them.
        step_size: rows of a step, all processes together.
        batch_size: samples of a batch.
        rank, world: this process's number, and how many there are.
        num_workers: processes that load; 0: this one.
    """

    def __init__(
        self,
        order: Order,
        encoder: Encoder,
        step_size: int,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.order, self.encoder = order, encoder
        self.step_size, self.batch_size = step_size, batch_size
        self.rank, self.world, self.num_workers = rank, world, num_workers
        self._epoch = self._start = 0

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.order) // self.step_size)

    def steps(self, epoch: int = 0, start: int = 0) -> Iterator[Loaded]:
        """The steps of an epoch from behind its first `start` rows on, in order whatever `num_workers` is."""
        self._epoch, self._start = epoch, start
        # A generator of its own: by default the loader draws a seed from torch's, which a resumed run has restored.
        generator = torch.Generator().manual_seed(0)
        return iter(
            DataLoader(
                self,
                batch_size=None,
                num_workers=self.num_workers,
                generator=generator,
                worker_init_fn=_leave_signals_to_the_parent,
            )
        )

    def __iter__(self) -> Iterator[Loaded]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        done = self._start
        for count, step in enumerate(cut(self.order.rows(self._epoch, self._start), self.step_size)):
            done += len(step)
            if count % workers == number:
                yield self._load(step[self.rank :: self.world], done)

    def any_batch(self) -> Batch:
        """The first row that can be used, as a batch."""
        encoded = (self.encoder(row)[0] for row in self.order.rows(0, 0))
        return self._collate([next(e for e in encoded if isinstance(e, Encoded))])

    def one(self, index: int) -> Batch | None:
        """A row as a batch of its own; None where it cannot be used."""
        encoded = self.encoder(self.order.row(index))[0]
        return self._collate([encoded]) if isinstance(encoded, Encoded) else None

    def _load(self, step: Sequence[RowRef], rows_done: int) -> Loaded:
        """Encode and collate. The loss is normalised over the whole step, so its samples may be put
        together in any way: by length, which spares padding."""
        items = [self.encoder(row) for row in step]
        usable = [item for item, _ in items if isinstance(item, Encoded)]
        usable.sort(key=lambda sample: -sample.length)
        parts = [usable[start : start + self.batch_size] for start in range(0, len(usable), self.batch_size)]
        errors = [item for item, _ in items if isinstance(item, RowError)]
        return Loaded([self._collate(part) for part in parts], errors, sum(count for _, count in items), rows_done)

    def _collate(self, samples: Sequence[Encoded]) -> Batch:
        return collate(samples, self.encoder.processor.tokenizer.pad_token_id)


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM go to every process of a group; the step under way needs its loaders."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
