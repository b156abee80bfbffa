"""A lock on an output folder: two runs that write the same folder would mix their files."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from satlisa.errors import SatlisaError, first_line

logger = logging.getLogger(__name__)

_TIMEOUT = 10.0  # seconds; loader processes outlive a killed run for a moment and hold its lock


@contextmanager
def exclusive_lock(folder: Path, setting: str) -> Iterator[None]:
    """Keep other runs out of a folder. The operating system releases the lock when the process ends, also when killed.

    The lock file lies beside the folder, which need not exist. On network file systems, whether other machines see the
    lock depends on their configuration.

    Args:
        setting: the option or variable that names the folder, for the message.

    Raises:
        SatlisaError: another run holds the lock, or the folder is a disk's root or has no place.
    """
    try:
        place = folder.expanduser().resolve()
    except (OSError, RuntimeError) as error:  # `~user` of an unknown user, links in a circle
        raise SatlisaError(f"{setting}: {folder} cannot be found ({first_line(error)}); name another folder") from error
    if not place.name:
        raise SatlisaError(f"{setting}: {folder} is the root of a disk; name a folder below it")
    lock = FileLock(place.with_name(f".{place.name[:200]}.lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_TIMEOUT)
    except Timeout:
        raise SatlisaError(
            f"{setting}: another run is at work in {folder}; wait for it, stop it, or name another folder"
        ) from None
    except (OSError, NotImplementedError) as error:  # no permission beside the folder, a file system without locks
        logger.warning("%s is not locked against other runs (%s)", folder, first_line(error))
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                Path(lock.lock_file).unlink()  # while it is held: a waiting run finds it gone and creates a new one
        lock.release()
