"""Rows to batches: a row is read and encoded on demand, and a row that cannot be used becomes its error."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from satlisa.config import ModelConfig
from satlisa.data.rows import read_sample
from satlisa.data.sample import RowError
from satlisa.data.sampler import RowRef, Sampler, batched
from satlisa.errors import first_line
from satlisa.processing.collator import Batch, Encoded, collate
from satlisa.processing.processor import encode_sample
from satlisa.processing.sam_inputs import SamInputs
from satlisa.runtime.signals import ignore_signals


@dataclass(frozen=True)
class Loaded:
    """A process's share of one step.

    Attributes:
        batches: samples of similar length, the longest first; empty when no row could be used.
        errors: rows that could not be used.
        left_out: instances omitted from the answers (`max_instances`).
        shortened: rows whose conversation is longer than `max_seq_length` and was cut.
        places_cut: rows whose answer has less about places than `instance_places`, to fit `max_seq_length`.
        rows_done: rows of the epoch taken by all processes, this step included.
    """

    batches: list[Batch]
    errors: list[RowError]
    left_out: int
    shortened: int
    places_cut: int
    rows_done: int


@dataclass(frozen=True)
class RowEncoder:
    """A row to its `Encoded` sample and its number of omitted instances; a broken row to its `RowError`.

    `is_alone`: batches are of one sample, whose images need no hash.
    """

    processor: Any
    sam_inputs: SamInputs
    config: ModelConfig
    seg_tasks: Collection[str] = ()
    fractions: bool | Callable[[int], bool] = False  # the dataset's coordinates (`survey`), or those of a row's dataset
    is_alone: bool = False

    def __call__(self, row: RowRef) -> tuple[Encoded | RowError, int]:
        """Read and encode one row."""
        try:
            cells = row.fetch()
        except Exception as error:  # a damaged file makes readers raise anything
            return RowError(row.index, "image", f"cannot be read from its file ({first_line(error)})"), 0
        try:
            most, tasks = self.config.max_instances, self.seg_tasks
            fractions = self.fractions(row.index) if callable(self.fractions) else self.fractions
            sample = read_sample(cells, row.index, max_instances=most, seg_tasks=tasks, fractions=fractions)
            encoded = encode_sample(sample, self.processor, self.sam_inputs, self.config, is_alone=self.is_alone)
            return encoded, sample.left_out
        except RowError as error:
            return error, 0


class StepLoader(IterableDataset[Loaded]):
    """The steps of an epoch, each as this process's share of it.

    Args:
        sampler: the order of the rows.
        encoder: rows to encoded samples.
        step_size: rows of a step, over all processes.
        batch_size: samples of a batch.
        rank, world: this process's rank and the number of processes.
        num_workers: loader processes; 0: this process loads.
        mask_loss_per: what has the same say in the mask losses, each "mask" or each "row" with masks.
    """

    def __init__(
        self,
        sampler: Sampler,
        encoder: RowEncoder,
        step_size: int,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        mask_loss_per: str = "mask",
    ) -> None:
        self.mask_loss_per = mask_loss_per
        self.sampler = sampler
        self.encoder = replace(encoder, is_alone=True) if batch_size == 1 else encoder
        self.step_size, self.batch_size = step_size, batch_size
        self.rank, self.world, self.num_workers = rank, world, num_workers
        self._epoch = self._start = 0

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.sampler) // self.step_size)

    def steps(self, epoch: int = 0, start: int = 0) -> Iterator[Loaded]:
        """The steps of an epoch after its first `start` rows, in the same order for any `num_workers`.

        A step is loaded while the one before is trained: by processes, or with `num_workers` 0 by a thread.
        """
        self._epoch, self._start = epoch, start
        # Its own generator: by default DataLoader draws a seed from torch's, whose state a resumed run has restored.
        generator = torch.Generator().manual_seed(0)
        options: dict[str, Any] = dict(generator=generator, worker_init_fn=_leave_signals_to_the_parent)
        loaded = iter(DataLoader(self, batch_size=None, num_workers=self.num_workers, **options))
        return loaded if self.num_workers else _one_ahead(loaded)

    def __iter__(self) -> Iterator[Loaded]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        done = self._start
        for count, step in enumerate(batched(self.sampler.rows(self._epoch, self._start), self.step_size)):
            done += len(step)
            if count % workers == number:
                yield self._load(step[self.rank :: self.world], done)

    def any_batch(self) -> Batch:
        """The first usable row as a batch."""
        encoded = (self.encoder(row)[0] for row in self.sampler.rows(0, 0))
        return self._collate([next(e for e in encoded if isinstance(e, Encoded))])

    def one(self, index: int) -> Batch | None:
        """One row as a batch; None where it cannot be used."""
        encoded = self.encoder(self.sampler.row(index))[0]
        return self._collate([encoded]) if isinstance(encoded, Encoded) else None

    def _load(self, step: Sequence[RowRef], rows_done: int) -> Loaded:
        """Encode and collate. The loss is normalised over the whole step (docs/architecture.md#loss), so samples may be
        grouped freely: by length, which saves padding."""
        items = [self.encoder(row) for row in step]
        usable = [item for item, _ in items if isinstance(item, Encoded)]
        usable.sort(key=lambda sample: -sample.length)
        parts = [usable[start : start + self.batch_size] for start in range(0, len(usable), self.batch_size)]
        errors = [item for item, _ in items if isinstance(item, RowError)]
        return Loaded(
            batches=[self._collate(part) for part in parts],
            errors=errors,
            left_out=sum(count for _, count in items),
            shortened=sum(sample.shortened for sample in usable),
            places_cut=sum(sample.places_cut for sample in usable),
            rows_done=rows_done,
        )

    def _collate(self, samples: Sequence[Encoded]) -> Batch:
        return collate(samples, self.encoder.processor.tokenizer.pad_token_id, self.mask_loss_per)


def _one_ahead(steps: Iterator[Loaded]) -> Iterator[Loaded]:
    """The same steps, each loaded by a thread while the one before is used; closing waits for the thread."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as thread:
        coming = thread.submit(next, steps, None)
        while (step := coming.result()) is not None:
            coming = thread.submit(next, steps, None)
            yield step


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process of a group, but the current step still needs its loaders."""
    ignore_signals()
