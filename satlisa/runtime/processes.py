"""The processes that share an evaluation, and how each of them is stopped.

They exchange no tensors, only files and barriers, so gloo on the CPU does, whatever device the models are on. Python
runs signal handlers between its own instructions: a process that waits inside C++ cannot be stopped, so `wait` polls.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from satlisa.errors import SatlisaError, first_line

_LONGEST_WAIT = timedelta(days=7)  # for the slowest process; one that stopped is noticed at once

_POLL = 0.05  # seconds

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """The processes of a run: this one's number among all and on its machine, and how many there are."""

    index: int = 0
    local_index: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process prepares the folder, talks to the user and writes the report."""
        return self.index == 0

    def device(self, asked: str | None) -> str | None:
        """The device asked for; where none is, or cuda without a number, each process has a GPU of its own.

        More processes than GPUs share them.
        """
        import torch

        if self.size == 1 or asked not in (None, "cuda") or not torch.cuda.is_available():
            return asked
        own = self.local_index % torch.cuda.device_count()
        torch.cuda.set_device(own)  # for kernels that ask for the current device
        return f"cuda:{own}"

    def wait(self) -> None:
        """Go on when every process is here.

        Raises:
            SatlisaError: one of them has stopped.
        """
        if self.size == 1:
            return
        import torch

        try:
            arrival = torch.distributed.barrier(async_op=True)
            while not arrival.is_completed():
                time.sleep(_POLL)
            arrival.wait()
        except RuntimeError as error:
            raise SatlisaError(
                f"another process of this run has stopped ({first_line(error)}); its own message says why"
            ) from error


def join() -> Team:
    """This process among those that `accelerate launch` or `torch.distributed.run` started; alone without them."""
    from accelerate import PartialState
    from accelerate.utils import get_cpu_distributed_information

    if get_cpu_distributed_information().world_size == 1:
        return Team()
    state = PartialState(cpu=True, timeout=_LONGEST_WAIT)
    team = Team(state.process_index, state.local_process_index, state.num_processes)
    if not team.is_main:
        logging.getLogger("satlisa").setLevel(logging.WARNING)  # what goes well, the main process says
    return team


def on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What the main process finds out, told to all; its error is everybody's."""
    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            found = [work()]
        except SatlisaError as error:
            found = [error]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    if isinstance(found[0], SatlisaError):
        raise found[0]
    result: T = found[0]
    return result
