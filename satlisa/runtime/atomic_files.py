"""Files that are whole or not there, also where the power fails."""

import os
from pathlib import Path

BESIDE = ".partial"


def write(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file by a new one, which is written beside it and renamed."""
    beside = path.with_name(path.name + BESIDE)
    try:
        write(beside, content)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    force(path.parent)


def force(path: Path) -> None:
    """Wait until a file, or a folder's entries, are on the disk.

    Where a system cannot wait for a folder (Windows), its entries follow in their own time.
    """
    if path.is_file() or hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def settle(path: Path) -> None:
    """Wait until what another library wrote, a file or a folder of files, is on the disk, and give its files the rights
    that any new file gets: safetensors keeps them to their owner."""
    mask = os.umask(0o077)
    os.umask(mask)
    for file in [path] if path.is_file() else filter(Path.is_file, path.rglob("*")):
        file.chmod(0o666 & ~mask)
        force(file)
    force(path.parent)
