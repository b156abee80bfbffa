"""What a name means on this machine: a file, a folder, a folder that can be written, or an id of the hub."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from satlisa.errors import SatlisaError, first_line

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_UNKNOWN_TO_DISK = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV)
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
    nearest = _nearest(folder)
    if not nearest.is_dir():
        raise SatlisaError(f"{setting}: expected a folder at {nearest}, found a file; name another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise SatlisaError(f"{setting}: {nearest} cannot be written; name another folder")


def check_disk(folder: Path, setting: str) -> None:
    """Try what a run does to its files later, in the folder or the nearest of its parents that exists; nothing is left.

    Permissions and fsync of folders are not tried: without them a run only loses comfort.

    Raises:
        SatlisaError: what the disk cannot do, and its reason.
    """
    nearest, what = _nearest(folder), "create a folder"
    times = nearest.stat()
    try:
        with tempfile.TemporaryDirectory(prefix=".satlisa-", suffix=".partial", dir=nearest) as name:
            one, other = Path(name, "one"), Path(name, "other")
            for doing, action in (
                ("write a file", lambda: [path.write_bytes(b"tried") for path in (one, other)]),
                ("bring a file safely to disk (fsync)", lambda: _fsync_file(one)),
                ("replace a file by another one", lambda: os.replace(one, other)),
                ("delete a file", other.unlink),
                ("create a folder", one.mkdir),
                ("rename a folder", lambda: one.rename(other)),
                ("delete a folder", other.rmdir),
            ):
                what = doing
                action()
    except OSError as error:
        reason = first_line(error)
        raise SatlisaError(f"{setting}: in {nearest} the disk cannot {what} ({reason}); {advice(error)}") from error
    finally:
        with suppress(OSError):
            os.utime(nearest, ns=(times.st_atime_ns, times.st_mtime_ns))


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))


def _fsync_file(path: Path) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def advice(error: BaseException) -> str:
    """What to do about an error of writing: make room, allow it, or take another disk."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _FORBIDDEN:
        return "allow writing there, or name another folder"
    if number in _UNKNOWN_TO_DISK:
        return "name a folder on another disk, and copy the result afterwards"
    if number is None or number in _FULL:
        return "make room"
    return "look at the disk, or name another folder"


@contextmanager
def writing_to(folder: Path, setting: str) -> Iterator[None]:
    """Turn an OSError meanwhile into one line that names the setting, the folder and what to do."""
    try:
        yield
    except OSError as error:
        raise SatlisaError(
            f"{setting}: {folder} cannot be written ({first_line(error)}); {advice(error)}, then run the same command "
            "again"
        ) from error
