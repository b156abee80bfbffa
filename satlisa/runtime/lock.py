"""One run at a time in a folder: two that write the same one would each take the other's files for its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from satlisa.errors import SatlisaError, first_line

logger = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds; loader processes of a run that was killed outlive it a little, and hold its lock


@contextmanager
def alone_in(folder: Path, name: str) -> Iterator[None]:
    """Keep other runs out of a folder meanwhile. However a process ends, its lock ends with it.

    The lock lies beside the folder, which need not exist and gets nothing new; file systems that several machines share
    pass it on or not, as they are set up.

    Args:
        name: the setting that names the folder, for the message.

    Raises:
        SatlisaError: another run is at work there.
    """
    place = folder.expanduser().resolve()
    lock = FileLock(place.with_name(f".{place.name[:200]}.lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise SatlisaError(
            f"{name}: another run is at work in {folder}; wait for it, stop it, or name another folder"
        ) from None
    except (OSError, NotImplementedError) as error:  # no right to write beside it, a file system without locks
        logger.warning("%s is not locked against other runs (%s)", folder, first_line(error))
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                Path(lock.lock_file).unlink()  # while it is held: who waits for it finds it gone, and makes a new one
        lock.release()
