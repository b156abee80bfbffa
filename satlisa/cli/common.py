"""What the commands share: a mistake is one line on stderr and exit code 2, Ctrl-C is one line and 130.

Tracebacks are shown with `--debug` alone, except those of our own bugs. Nothing here imports torch: `--help` and a
mistyped option answer at once.
"""

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from satlisa.errors import SatlisaError, redact

MISTAKE, INTERRUPTED = 2, 130  # exit codes
_LONGEST_LINE = 2000  # characters; lists of tensors can be longer than a terminal


def called_as(script: str, command: str) -> str:
    """The name for usage and error lines: the installed command where that was called, else the repository's script."""
    return command if Path(sys.argv[0]).stem == command else script


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, "inference.py: … ; see --help", and exit code 2. It brings `--debug`."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and leave."""
        self.exit(MISTAKE, f"{self.prog}: {one_line(message)}; see --help\n")


def run_command(prog: str, run: Callable[[], int], debug: bool = False) -> int:
    """Run the body of a command; returns its exit code, 2 after a `SatlisaError` or 130 after Ctrl-C.

    The last two have a line on stderr that starts with `prog`. With `debug`, the traceback comes first.
    """
    try:
        return run()
    except SatlisaError as error:
        if debug:
            print(redact(traceback.format_exc()), file=sys.stderr)
        print(f"{prog}: {one_line(str(error))}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED


def start_logging(debug: bool = False) -> None:
    """Send logs to stderr, of libraries from warnings up. Announced changes of libraries, which are for developers, are
    shown only with `debug`; other warnings as one line each."""
    if not debug:
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", category)
        warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {one_line(str(message))}\n"
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("satlisa").setLevel(logging.DEBUG if debug else logging.INFO)


def one_line(text: str) -> str:
    """A message as a terminal may show it: one line, no control characters, no tokens, not endless."""
    line = " ".join(redact(text).split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} … (--debug shows all of it)"
