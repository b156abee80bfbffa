"""A bound on the time that long, deep or malicious input takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick(longest: float) -> Iterator[None]:
    """No more than that many seconds of this process's processor time, which other processes change less than the
    clock's."""
    started = time.process_time()
    yield
    taken = time.process_time() - started
    assert taken < longest, f"{taken:.1f} s of processor time, expected less than {longest:g}"
