"""A table of answers on disk: one JSON line per image and prompt, resumed after an interruption at any moment.

```
results.jsonl            the lines, only ever appended to; a line that a kill cut short is dropped on opening
results.jsonl.run.json   what was asked of which model: a run that goes on must match it
```
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.atomic_files import atomic_write, fsync_path
from satlisa.runtime.fingerprint import Identity, differences
from satlisa.runtime.locations import writing_to
from satlisa.runtime.lock import exclusive_lock

logger = logging.getLogger(__name__)

RUN = ".run.json"  # of the file beside the table
Row = dict[str, Any]
Key = tuple[str, str]
"""Image and prompt."""


class Table:
    """The table in `path`; a context manager that keeps other runs out of it.

    Attributes:
        done: of each line in the table its image and prompt, and the size in bytes of the image's file (None: it could
            not be read).
        num_answered: lines without an error.
        first_error: of the table, "" where there is none.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path, self.identity = path, json.loads(json.dumps(identity))
        self.done: dict[Key, int | None] = {}
        self.num_answered, self.first_error = 0, ""
        self._lock = contextlib.ExitStack()
        self._file = -1

    def __enter__(self) -> "Table":
        """Open or create the table, and read what it holds.

        Raises:
            SatlisaError: it is not ours, of a run with another model, prompts or options, damaged, or in use.
        """
        with contextlib.ExitStack() as lock:
            lock.enter_context(exclusive_lock(self.path, "--output"))
            with writing_to(self.path, "--output"):
                if self.path.exists() and self.path.stat().st_size:
                    self._check_run()
                    self._read()
                else:
                    atomic_write(run_file(self.path), json.dumps(self.identity, indent=1).encode())
                self._file = os.open(
                    self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
                )
                fsync_path(self.path.parent)
            self._lock = lock.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            os.close(self._file)

    def add(self, rows: Iterable[Row]) -> None:
        """Append lines, durably. A kill meanwhile leaves some of them, and at most one that is incomplete."""
        rows = list(rows)
        data = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
        with writing_to(self.path, "--output"):
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        for row in rows:
            self._count(row)

    def check_unchanged(self, images: Iterable[str], prompts: Iterable[str]) -> None:
        """Refuse images whose files have another size than when they were answered.

        Raises:
            SatlisaError: names the first one.
        """
        prompts = list(prompts)
        for image in images:
            before = {self.done[image, prompt] for prompt in prompts if (image, prompt) in self.done}
            if before and before != {file_size(image)}:
                raise SatlisaError(
                    f"{image} is not the file that {self.path} has lines about (its size was "
                    f"{', '.join(map(str, before))}, is {file_size(image)} bytes); remove its lines to ask again, or "
                    "name another --output"
                )

    def _check_run(self) -> None:
        try:
            before = json.loads(run_file(self.path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SatlisaError(
                f"--output: {self.path} holds something, and {run_file(self.path).name} beside it, which says what, "
                f"cannot be read ({first_line(error)}); name another file, nothing was changed"
            ) from None
        if different := differences(before, self.identity):
            raise SatlisaError(
                f"--output: {self.path} is of another run ({different}); set that back to go on with it, name another "
                "--output, or delete the file to start over"
            )

    def _read(self) -> None:
        """Read all lines; an incomplete last one is removed."""
        with self.path.open("r+b") as file:
            for number, (place, line) in enumerate(_lines(file), 1):
                if not line.endswith(b"\n"):
                    logger.info("%s: line %d is incomplete and is written again", self.path, number)
                    file.truncate(place)
                    return
                self._count(_parsed(line, f"{self.path}, line {number}"))

    def _count(self, row: Row) -> None:
        self.done[row["image"], row["prompt"]] = row["bytes"]
        if row["error"] is None:
            self.num_answered += 1
        self.first_error = self.first_error or row["error"] or ""


def read_rows(path: Path) -> Iterator[Row]:
    """The lines of a table.

    Raises:
        SatlisaError: names a line that is none of ours.
    """
    with path.open("rb") as file:
        for number, (_, line) in enumerate(_lines(file), 1):
            yield _parsed(line, f"{path}, line {number}")


def run_file(path: Path) -> Path:
    """The file that says what a table's lines are about."""
    return path.with_name(path.name + RUN)


def file_size(image: str) -> int | None:
    """Size in bytes of a file, None where there is none."""
    with contextlib.suppress(OSError):
        return os.path.getsize(image)
    return None


def _lines(file: Any) -> Iterator[tuple[int, bytes]]:
    """Each line of a binary file and where it starts."""
    place = 0
    while line := file.readline():
        yield place, line
        place += len(line)


def _parsed(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise SatlisaError(f"{where} is not JSON ({first_line(error)}); remove it, and it is asked again") from None
    if not isinstance(row, Mapping) or not {"image", "prompt", "bytes", "error"} <= row.keys():
        raise SatlisaError(f"{where} is no line of a table of answers; remove it, or name another --output")
    return dict(row)
