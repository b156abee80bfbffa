"""A command that is killed once its output has grown to a size: `run_and_kill`."""

import os
import signal
import time
from pathlib import Path

from tests.helpers.inference_fixtures import command

_LONGEST = 60.0  # seconds


def run_and_kill(arguments: list[object], path: Path, size: int) -> bool:
    """Run `inference.py` in a copy of this process; returns whether SIGKILL found it at work.

    Args:
        size: bytes of `path` at which SIGKILL comes.
    """
    child = os.fork()
    if child == 0:
        try:
            command(*arguments)
        finally:
            os._exit(0)
    end = time.monotonic() + _LONGEST
    while time.monotonic() < end and (path.stat().st_size if path.exists() else -1) < size:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
