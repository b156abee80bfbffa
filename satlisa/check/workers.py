"""Work on many items in all cores; a process that is killed costs the item that it died of, and no other."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from satlisa.runtime.signals import ignore_signals

_CHUNK = 16  # items that a process is given at a time
_AHEAD = 4  # chunks for each process that are waiting or done, which bounds the memory of a stream

Work = Callable[[Any], Any]
_work: Work | None = None  # of this process


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(work: Work, items: Iterable[Any], lost: Work, processes: int) -> Iterator[Any]:
    """The results of `work` on each item, in any order.

    Args:
        work: runs in the processes, which are forked where that is possible; else it is pickled.
        lost: the result of an item whose process was killed, twice: by the system for its memory, by a library's crash.
    """
    stream = iter(items)
    chunks: Iterator[list[Any]] = iter(lambda: list(islice(stream, _CHUNK)), [])
    waiting: deque[list[Any]] = deque()
    while waiting or (waiting := deque(islice(chunks, 1))):
        suspects: list[list[Any]] = []
        yield from _run(work, waiting, chunks, processes, suspects)
        waiting.clear()
        for chunk in suspects:
            yield from _run_alone(work, chunk, lost)


def _run(
    work: Work, waiting: deque[list[Any]], chunks: Iterator[list[Any]], processes: int, suspects: list[list[Any]]
) -> Iterator[Any]:
    """Results until all is done or a process dies; then the chunks that were not done are `suspects`."""
    running: deque[tuple[list[Any], Future[list[Any]]]] = deque()
    with _pool(work, processes) as pool:
        try:
            while True:
                while len(running) < processes * _AHEAD:
                    chunk = waiting.popleft() if waiting else next(chunks, None)
                    if chunk is None:
                        break
                    running.append((chunk, _submit(pool, chunk)))
                if not running:
                    return
                yield from running[0][1].result()
                running.popleft()
        except BrokenProcessPool:
            for chunk, future in running:
                if future.done() and future.exception() is None:
                    yield from future.result()
                else:
                    suspects.append(chunk)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _submit(pool: ProcessPoolExecutor, chunk: Sequence[Any]) -> Future[list[Any]]:
    try:
        return pool.submit(_do, chunk)
    except BrokenProcessPool as error:
        failed: Future[list[Any]] = Future()
        failed.set_exception(error)
        return failed


def _run_alone(work: Work, chunk: Sequence[Any], lost: Work) -> Iterator[Any]:
    """The results of a chunk in a process of its own; where that dies too, of its halves."""
    try:
        with _pool(work, 1) as pool:
            results = pool.submit(_do, chunk).result()
    except BrokenProcessPool:
        if len(chunk) == 1:
            yield lost(chunk[0])
            return
        middle = len(chunk) // 2
        yield from _run_alone(work, chunk[:middle], lost)
        yield from _run_alone(work, chunk[middle:], lost)
        return
    yield from results


def _pool(work: Work, processes: int) -> ProcessPoolExecutor:
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(work,))


def _start(work: Work) -> None:
    global _work
    _work = work
    ignore_signals()
    os.putenv("TOKENIZERS_PARALLELISM", "false")  # read by tokenizers, which is no Python


def _do(chunk: Sequence[Any]) -> list[Any]:
    assert _work is not None
    return [_work(item) for item in chunk]
