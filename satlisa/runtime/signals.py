"""Being asked to stop: SIGTERM (Slurm, Colab, `kill`) and the first Ctrl-C are noted, and the run ends its step."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Stopped(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop, and has."""


class Interrupt:
    """While it is entered, SIGTERM and the first SIGINT set `reason` instead of ending the process.

    A second Ctrl-C interrupts at once. Outside of the main thread, where Python allows no handlers, nothing is noted.

    Attributes:
        reason: "SIGTERM" or "Ctrl-C" once asked to stop, "" before.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _NAMES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.reason = _NAMES[signal.Signals(number)]
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


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
