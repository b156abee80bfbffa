"""The processes that share a training or an evaluation; the model itself is left to accelerate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import get_cpu_distributed_information
from torch import distributed

from satlisa.errors import SatlisaError, first_line

_LONGEST_WAIT = timedelta(days=7)  # for the slowest process of an evaluation; a dead one is noticed at once
_POLL = 0.05  # seconds
T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank among all processes of a run and on its machine, and how many processes there are.

    Every method but `device` is collective: all processes call it, in the same order.

    Attributes:
        gloo: the group for messages and barriers, on the CPU; None: the default group.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    gloo: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def join(cls) -> ProcessGroup:
        """The group that `accelerate launch` or `torch.distributed.run` started; without them, this process alone."""
        if get_cpu_distributed_information().world_size == 1:
            return cls()
        return cls._of(PartialState(cpu=True, timeout=_LONGEST_WAIT))

    @classmethod
    def of(cls, accelerator: Accelerator) -> ProcessGroup:
        """The processes of an accelerator. Their messages have a gloo group of their own: no GPU is waited for."""
        gloo = distributed.new_group(backend="gloo") if accelerator.num_processes > 1 else None
        return cls._of(accelerator, gloo)

    @classmethod
    def _of(cls, state: PartialState | Accelerator, gloo: Any = None) -> ProcessGroup:
        group = cls(state.process_index, state.local_process_index, state.num_processes, gloo)
        if not group.is_main:
            logging.getLogger("satlisa").setLevel(logging.WARNING)  # only the main process logs below WARNING
        return group

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def device(self, asked: str | None) -> str | None:
        """The device asked for. With None, or cuda without a number, each process gets a GPU of its own.

        More processes than GPUs share them.
        """
        if self.size == 1 or asked not in (None, "cuda") or not torch.cuda.is_available():
            return asked
        own = self.local_rank % torch.cuda.device_count()
        torch.cuda.set_device(own)  # for kernels that ask for the current device
        return f"cuda:{own}"

    def barrier(self) -> None:
        """Wait for all processes.

        It polls: Python runs signal handlers between its own instructions, so a process that waits inside C++ cannot
        be interrupted.

        Raises:
            SatlisaError: one of them has stopped.
        """
        if self.size == 1:
            return
        try:
            arrival = distributed.barrier(group=self.gloo, async_op=True)
            while not arrival.is_completed():
                time.sleep(_POLL)
            arrival.wait()
        except RuntimeError as error:
            raise SatlisaError(
                f"another process of this run has stopped ({first_line(error)}); its own message says why"
            ) from error

    def sum(self, numbers: Sequence[int]) -> list[int]:
        """Sums over all processes."""
        if self.size == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.int64)
        distributed.all_reduce(sums, group=self.gloo)
        return [int(number) for number in sums]

    def gather(self, items: list[T]) -> list[T]:
        """The items of all processes, in the order of their ranks."""
        if self.size == 1:
            return items
        gathered: list[list[T]] = [[]] * self.size
        distributed.all_gather_object(gathered, items, group=self.gloo)
        return [item for own in gathered for item in own]

    def on_main_process(self, work: Callable[[], T]) -> T:
        """Run `work` in the main process and return its result in every process; raise its `SatlisaError` in all."""
        result: list[Any] = [None]
        if self.is_main:
            try:
                result = [work()]
            except SatlisaError as error:
                result = [error]
        if self.size > 1:
            distributed.broadcast_object_list(result, src=0, group=self.gloo)
        if isinstance(result[0], SatlisaError):
            raise result[0]
        value: T = result[0]
        return value
