"""Hashes of files and texts, and the differences of two records."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError, first_line

_PROBES, _PROBE = 64, 2**16  # places in a model's file that are looked at, and bytes there

_MOST_SHOWN = 6

Identity = dict[str, Any]


def differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings in which two runs differ, in words; "" where there are none."""
    missing = "nothing"
    found = [
        f"{name} was {known.get(name, missing)!r}, is {wanted.get(name, missing)!r}"
        for name in sorted({*known, *wanted})
        if known.get(name, missing) != wanted.get(name, missing)
    ]
    more = [f"and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
    return "; ".join([*found[:_MOST_SHOWN], *more])


def files_key(folder: Path) -> str:
    """A hash of a folder's files: their names and sizes, and what stands in some places of them.

    Raises:
        SatlisaError: one cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode(errors="surrogatepass"))
            with open(path, "rb") as file:
                for number in range(_PROBES):
                    file.seek(max(0, size - _PROBE) * number // (_PROBES - 1))
                    digest.update(file.read(_PROBE))
    except OSError as error:
        raise SatlisaError(f"{folder}: cannot be read ({first_line(error)})") from error
    return f"folder {digest.hexdigest()[:16]}"


def fingerprint(*parts: Path | str) -> str:
    """12 hex digits that change with a text, with a file, or with the name or content of any file in a folder."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode(errors="surrogatepass"))
            continue
        for path in sorted(path for path in (part, *part.rglob("*")) if path.is_file()):
            digest.update(
                path.relative_to(part.parent).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest()
            )
    return digest.hexdigest()[:12]
