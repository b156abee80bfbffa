"""Atomic, durable writes: write under a temporary name beside the target, fsync, rename, fsync the folder.

`NAME.satlisa-partial` is being written, `NAME.satlisa-old` is being removed. Nobody else uses these names, and nothing
else is ever deleted; what others put into a folder that is replaced is copied into the new one (`ours`). A killed run
may leave either behind: the next write of the same name, or `remove_leftovers`, deletes it (not those with a random
part in their names).
"""

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

PARTIAL, OLD, INCOMPLETE = ".satlisa-partial", ".satlisa-old", ".satlisa-incomplete"
Ours = Callable[[str], bool]  # whether an entry of a folder, by name, is of the kind that we write
_UMASK = os.umask(0o022)  # of the process; it can be read only by setting it, which other threads would notice later
os.umask(_UMASK)


def atomic_write(path: Path, content: bytes) -> None:
    """Replace a file, or create it."""
    atomic_replace(path, lambda temporary: temporary.write_bytes(content))


def everything(_: str) -> bool:
    """For folders that are ours with all that is in them."""
    return True


def atomic_replace(
    path: Path,
    write: Callable[[Path], object],
    *,
    unique: bool = False,
    durable: bool = True,
    ours: Ours = everything,
) -> None:
    """Let `write` create a file or a folder under a temporary name, then rename it to `path`.

    When anything fails, the temporary file is deleted and `path` is as it was.

    Args:
        unique: add a random part to the temporary name, where several processes may write `path` at the same time.
        durable: fsync before and after the rename; without it a power cut may leave a damaged file.
        ours: which entries of an earlier folder are left behind; the others are copied into the new one.
    """
    tag = f".{secrets.token_hex(8)}" if unique else ""
    temporary = path.with_name(path.name + tag + PARTIAL)
    try:
        _write_temporary(temporary, write, durable)
        _carry_over(path, temporary, ours)
        _swap(temporary, path)
    except BaseException:
        with suppress(OSError):
            _remove(temporary)
        raise
    if durable:
        fsync_path(path.parent)
    _forget_old(path)


def replace_together(
    folder: Path, name: str, writes: Mapping[str, Callable[[Path], object]], ours: Ours = everything
) -> None:
    """Replace several files and folders of `folder`, which belong together and form `name`.

    All are written before the first is renamed: until then a failure, such as a full disk, changes nothing. From the
    first to the last rename `name.satlisa-incomplete` lies beside them (`is_incomplete`), and stays after a kill.

    Args:
        writes: for each name in the folder, what creates it under a temporary name.
        ours: which entries of earlier folders are left behind; the others are copied into the new ones.
    """
    temporaries = {folder / part: folder / (part + PARTIAL) for part in writes}
    mark = folder / (name + INCOMPLETE)
    stays = is_incomplete(folder, name)  # left by an earlier interruption, or from the first rename on
    try:
        for (path, temporary), write in zip(temporaries.items(), writes.values(), strict=True):
            _write_temporary(temporary, write, durable=True)
            _check_kinds(temporary, path)
            _carry_over(path, temporary, ours)
        mark_incomplete(folder, name)
        stays = True
        for path, temporary in temporaries.items():
            _swap(temporary, path)
    except BaseException:
        with suppress(OSError):
            for temporary in [*temporaries.values(), *([] if stays else [mark])]:
                _remove(temporary)
        raise
    fsync_path(folder)
    mark.unlink()
    for path in temporaries:
        _forget_old(path)


def is_incomplete(folder: Path, name: str) -> bool:
    """Whether `replace_together` is at work on `name`, or was interrupted between its renames."""
    return os.path.lexists(folder / (name + INCOMPLETE))


def atomic_remove(folder: Path, ours: Ours = everything) -> None:
    """Delete a folder. It is renamed first, so that nobody reads a half-deleted folder under its name.

    Args:
        ours: which of its entries are deleted; where there are others, the folder stays with them.
    """
    entries = [] if folder.is_symlink() else list(folder.iterdir())
    if all(ours(entry.name) for entry in entries):
        _discard(_rename_to_old(folder))
        return
    for entry in entries:
        if ours(entry.name):
            _remove(entry)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Delete what killed runs left of folders whose names match a glob pattern."""
    for ending in (PARTIAL, OLD):
        for path in folder.glob(pattern + ending):
            _discard(path)


def fsync_path(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk.

    Windows and some network disks cannot fsync a folder: its entries are then written when the system decides.
    """
    is_file = path.is_file()
    with nullcontext() if is_file else suppress(OSError):
        descriptor = os.open(path, os.O_RDWR if is_file else os.O_RDONLY)  # Windows fsyncs writable descriptors only
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def mark_incomplete(folder: Path, name: str) -> None:
    """Let `is_incomplete` say so of `name`, until `replace_together` has replaced it."""
    mark = folder / (name + INCOMPLETE)
    mark.write_text("Parts of two versions lie in this folder. Run the command that wrote them again.\n")
    fsync_path(mark)
    fsync_path(mark.parent)


def _write_temporary(temporary: Path, write: Callable[[Path], object], durable: bool) -> None:
    _remove(temporary)
    write(temporary)
    _settle(temporary, durable)


def _carry_over(path: Path, temporary: Path, ours: Ours) -> None:
    """Copy into a new folder what others put into the one that it replaces. A killed run may have left that as OLD."""
    place = path if os.path.lexists(path) else path.with_name(path.name + OLD)
    if not temporary.is_dir() or not place.is_dir():
        return
    for entry in place.iterdir():
        target = temporary / entry.name
        if ours(entry.name) or os.path.lexists(target):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, target, symlinks=True)
        else:
            shutil.copy2(entry, target, follow_symlinks=False)


def _swap(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`. When that fails, `path` is as it was. A link is replaced, not followed."""
    _check_kinds(temporary, path)
    is_swap = temporary.is_dir() and os.path.lexists(path)  # a rename replaces files and empty folders only
    old = _rename_to_old(path) if is_swap else None
    try:
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            if old is not None and not os.path.lexists(path):
                os.rename(old, path)
        raise


def _check_kinds(temporary: Path, path: Path) -> None:
    """Refuse to put a file in the place of a folder, or the reverse: what lies there is not ours.

    Raises:
        FileExistsError: names the path.
    """
    if path.is_symlink() or not path.exists() or path.is_dir() == temporary.is_dir():
        return
    new, found = ("folder", "file") if temporary.is_dir() else ("file", "folder")
    raise FileExistsError(f"a {new} is to be written to {path}, where a {found} lies; move that away")


def _forget_old(path: Path) -> None:
    _discard(path.with_name(path.name + OLD))


def _settle(path: Path, durable: bool) -> None:
    """Let others read the files below a path as they may read any new file (safetensors denies it), and fsync."""
    for entry in (path, *path.rglob("*")):
        if entry.is_file():
            with suppress(OSError):  # disks without permissions
                entry.chmod(entry.stat().st_mode | 0o666 & ~_UMASK)
        if durable:
            fsync_path(entry)


def _rename_to_old(folder: Path) -> Path:
    old = folder.with_name(folder.name + OLD)
    _discard(old)
    os.rename(folder, old)
    return old


def _discard(path: Path) -> None:
    """Delete as much as can be deleted; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
