"""SIGTERM (Slurm, Colab, `kill`) and Ctrl-C: training finishes its step and stops, an evaluation stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Stopped(Exception):  # noqa: N818 - not an error
    """The run was asked to stop, and has stopped."""


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C; a `BaseException`, so that no `except Exception` catches it. As text, the user's message.

    Attributes:
        number: the signal.
        progress: how far the work had come.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.progress = ""

    def __str__(self) -> str:
        return f"interrupted {self.progress}".rstrip()


@dataclass
class StopRequest:
    """`reason`: "SIGTERM" or "Ctrl-C" once the run was asked to stop, "" before."""

    reason: str = ""


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a handler for both signals, and restore the previous handlers afterwards.

    Outside the main thread, where Python allows no handlers, nothing is installed.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    previous = {number: signal.signal(number, handler) for number in _NAMES} if is_main_thread else {}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)


def ignore_signals() -> None:
    """Ignore both signals in this process until other handlers are installed."""
    for number in _NAMES:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def note_signals() -> Iterator[StopRequest]:
    """SIGTERM and the first Ctrl-C set `reason` of the request; a second Ctrl-C raises KeyboardInterrupt at once."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.reason = _NAMES[signal.Signals(number)]
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    with _handled_by(note):
        yield request


@contextmanager
def raise_on_signal() -> Iterator[None]:
    """The first SIGTERM or Ctrl-C raises `Interrupted`. Launchers send several: later ones are ignored, so that the
    clean-up after the first one completes."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        ignore_signals()
        raise Interrupted(number)

    with _handled_by(interrupt):
        yield
