"""What a name means on this machine: a file, a folder, a folder that can be written, or an id of the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from satlisa.errors import SatlisaError, first_line

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id, owner/name or name, rather than of a path or an address."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name


def existing_place(name: str) -> Path | None:
    """The file or folder of this name, `~` expanded; None where it does not exist."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long for a path, `~user` of an unknown user, a NUL byte
        return None


def existing_folder(name: str) -> Path | None:
    """The folder of this name, `~` expanded; None where it does not exist or is a file."""
    place = existing_place(name)
    return place if place is not None and place.is_dir() else None


def check_writable(folder: Path, setting: str) -> None:
    """Refuse a folder that cannot be written or created, before anything is loaded for it.

    Args:
        setting: the option or variable that names the folder, for the message.

    Raises:
        SatlisaError: it, or the nearest of its parents that exists, is a file or not writable.
    """
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise SatlisaError(f"{setting}: expected a folder at {nearest}, found a file; name another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise SatlisaError(f"{setting}: {nearest} cannot be written; name another folder")


@contextmanager
def writing_to(folder: Path, setting: str) -> Iterator[None]:
    """Turn an OSError meanwhile into one line that names the setting and the folder."""
    try:
        yield
    except OSError as error:
        raise SatlisaError(
            f"{setting}: {folder} cannot be written ({first_line(error)}); make room and run the same command again"
        ) from error
