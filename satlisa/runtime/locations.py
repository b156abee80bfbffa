"""What a name means: a file or folder on this machine, or an id of the hub."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of an id of the hub, owner/name or name: no path, no address."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name


def existing_place(name: str) -> Path | None:
    """The file or folder that a name means, `~` filled in; None where there is none."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long for a path, the home of nobody, a NUL
        return None


def existing_folder(name: str) -> Path | None:
    """The same for folders only."""
    place = existing_place(name)
    return place if place is not None and place.is_dir() else None
