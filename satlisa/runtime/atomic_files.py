"""Atomic, durable writes: write under a temporary name beside the target, fsync, rename, fsync the folder.

`NAME.partial` is being written, `NAME.old` is being removed. A killed run may leave either behind: the next write of
the same name, or `remove_leftovers`, deletes it.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PARTIAL, OLD = ".partial", ".old"


def atomic_write(path: Path, content: bytes) -> None:
    """Replace a file, or create it."""
    atomic_replace(path, lambda temporary: temporary.write_bytes(content))


def atomic_replace(path: Path, write: Callable[[Path], object], *, unique: bool = False, durable: bool = True) -> None:
    """Let `write` create a file or a folder under a temporary name, then rename it to `path`.

    When `write` raises, the temporary file is deleted and `path` is as it was.

    Args:
        unique: add a random part to the temporary name, where several processes may write `path` at the same time.
        durable: fsync before and after the rename; without it a power cut may leave a damaged file.
    """
    tag = f".{secrets.token_hex(8)}" if unique else ""
    temporary = path.with_name(path.name + tag + PARTIAL)
    try:
        _remove(temporary)
        write(temporary)
        _settle(temporary, durable)
        if temporary.is_dir() and path.is_dir():  # a rename replaces files and empty folders only
            _rename_to_old(path)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            _remove(temporary)
        raise
    if durable:
        fsync_path(path.parent)
    if path.is_dir():
        shutil.rmtree(path.with_name(path.name + OLD), ignore_errors=True)


def atomic_remove(folder: Path) -> None:
    """Delete a folder. It is renamed first, so that nobody reads a half-deleted folder under its name."""
    shutil.rmtree(_rename_to_old(folder), ignore_errors=True)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Delete what killed runs left of folders whose names match a glob pattern."""
    for ending in (PARTIAL, OLD):
        for path in folder.glob(pattern + ending):
            shutil.rmtree(path, ignore_errors=True)


def fsync_path(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk. Windows cannot fsync a folder: it is skipped."""
    if path.is_file() or hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _settle(path: Path, durable: bool) -> None:
    """Give the files below a path the permissions of any new file (safetensors denies them to others), and fsync."""
    umask = os.umask(0o077)
    os.umask(umask)
    for entry in (path, *path.rglob("*")):
        if entry.is_file():
            entry.chmod(0o666 & ~umask)
        if durable:
            fsync_path(entry)


def _rename_to_old(folder: Path) -> Path:
    old = folder.with_name(folder.name + OLD)
    shutil.rmtree(old, ignore_errors=True)
    os.rename(folder, old)
    return old


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
