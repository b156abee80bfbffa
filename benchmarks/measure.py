"""Two sides, timed alternately and checked against each other; memory of each side in a process of its own."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Side = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what was done.
        ours, peer: medians, in `unit` (s or MB).
        difference: largest difference of the two sides' results, in words; checked before anything was timed.
    """

    work: str
    ours: float
    peer: float
    unit: str
    difference: str

    @property
    def ratio(self) -> float:
        """Peer over ours: how many times faster, or smaller, ours is."""
        return self.peer / self.ours

    def cells(self) -> list[str]:
        """The row as text."""
        digits = 3 if self.unit == "s" else 0
        values = [f"{value:,.{digits}f} {self.unit}" for value in (self.ours, self.peer)]
        return [self.work, *values, f"{self.ratio:.2f}×", self.difference]


def table(rows: list[Row]) -> str:
    """All rows as a Markdown table."""
    lines = [["work", "ours", "peer", "ratio", "largest difference"], ["---", "---:", "---:", "---:", "---"]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*lines, *(row.cells() for row in rows)])


def race(ours: Side, peer: Side, repeats: int, device: torch.device) -> tuple[float, float]:
    """Median seconds of both sides, after one warm-up each, run in turn so that a busy machine troubles both alike."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(repeats + 1):
        for side, times in zip((ours, peer), seconds, strict=True):
            synchronize(device)
            started = time.perf_counter()
            side()
            synchronize(device)
            if number:
                times.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def extra_memory(prepare: Callable[[], Side], device: torch.device) -> tuple[float, float]:
    """MB that a side needs at its peak beyond what it needs before it starts, and in all; in a fresh process.

    On CPU: resident memory, so the interpreter and libraries are in the second number. On CUDA: allocated memory.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_measure_memory, args=(prepare, device, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"a memory measurement failed with exit code {process.exitcode}")
    extra, total = results.get()
    return extra, total


def _measure_memory(prepare: Callable[[], Side], device: torch.device, results: Any) -> None:
    side = prepare()
    synchronize(device)
    before = _current(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the peak that the kernel keeps
    side()
    synchronize(device)
    peak = _peak(device)
    results.put((peak - before, peak))


def _current(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 1e6
    return _status("VmRSS")


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return _status("VmHWM")


def _status(key: str) -> float:
    """A line of Linux's account of this process, in MB."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6
