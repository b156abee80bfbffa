"""One run at a time in a folder: two that write the same one would each take the other's files for its own."""

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from satlisa.errors import SatlisaError

logger = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds; loader processes of a run that was killed outlive it a little, and hold its lock


@contextmanager
def alone_in(folder: Path, name: str) -> Iterator[None]:
    """Keep other runs on this machine out of a folder meanwhile. However a process ends, its lock ends with it.

    The lock lies among the system's temporary files, so that the folder need not exist and nothing is left in it.

    Args:
        name: the setting that names the folder, for the message.

    Raises:
        SatlisaError: another run is at work there.
    """
    key = hashlib.sha256(str(folder.expanduser().resolve()).encode(errors="surrogatepass")).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"satlisa-{key}.lock")
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise SatlisaError(
            f"{name}: another run is at work in {folder}; wait for it, stop it, or name another folder"
        ) from None
    except (OSError, NotImplementedError) as error:  # a file system without locks, another user's file
        logger.debug("%s is not locked against other runs (%s)", folder, error)
    try:
        yield
    finally:
        lock.release()
