"""Fingerprints of files, and the differences between two records of what a run depends on."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError, first_line

_PROBES, _PROBE_SIZE = 64, 2**16  # places of a file that are hashed, and bytes at each: all of it up to 4 MiB
_MAX_SHOWN = 6

Identity = dict[str, Any]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two records, for a message: "SEED was 0, is 1; …"; "" where nothing does."""
    found = [
        f"{name} was {_shown(before, name)}, is {_shown(now, name)}"
        for name in sorted({*before, *now})
        if (name in before, before.get(name)) != (name in now, now.get(name))
    ]
    more = [f"and {len(found) - _MAX_SHOWN} more"] if len(found) > _MAX_SHOWN else []
    return "; ".join([*found[:_MAX_SHOWN], *more])


def _shown(record: Mapping[str, Any], name: str) -> str:
    return repr(record[name]) if name in record else "not set"


def fingerprint_files(folder: Path, patterns: Iterable[str] = ("*",), *, complete: bool = False) -> str:
    """16 hex digits of a SHA-256 over the names and the contents of files.

    Args:
        folder: names count from here, so that a copy of it has the same fingerprint.
        patterns: globs of the files; by default those that lie in the folder itself.
        complete: hash every byte; without it, the size and up to 4 MiB of each file: base models have gigabytes.

    Raises:
        SatlisaError: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if folder.is_dir():
            next(folder.iterdir(), None)  # raises where the folder cannot be read; glob would find nothing
        for path in (path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()):
            name = path.relative_to(folder).as_posix().encode(errors="surrogatepass")
            if complete:
                digest.update(name + hashlib.sha256(path.read_bytes()).digest())
                continue
            size = path.stat().st_size
            digest.update(name + f" {size}\n".encode())
            with open(path, "rb") as file:
                for number in range(_PROBES):
                    file.seek(max(0, size - _PROBE_SIZE) * number // (_PROBES - 1))
                    digest.update(file.read(_PROBE_SIZE))
    except OSError as error:
        raise SatlisaError(f"{folder}: cannot be read ({first_line(error)})") from error
    return digest.hexdigest()[:16]
