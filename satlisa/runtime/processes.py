"""The processes that share an evaluation, and how each of them is stopped.

They exchange no tensors, only files and barriers, so gloo on the CPU does, whatever device the models are on. Python
runs signal handlers between its own instructions: a process that waits inside C++ cannot be stopped, so `wait` polls.
"""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

from satlisa.errors import SatlisaError, first_line

_LONGEST_WAIT = timedelta(days=7)  # for the slowest process; one that stopped is noticed at once
_POLL = 0.05  # seconds


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C, which no `except Exception` may keep; as text, what the user is told.

    Attributes:
        number: the signal's.
        progress: how far the work was.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.progress = ""

    def __str__(self) -> str:
        return f"interrupted {self.progress}".rstrip()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and Ctrl-C raise `Interrupted`, once: launchers send several, and what follows the first must end."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
