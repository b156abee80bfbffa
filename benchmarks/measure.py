"""Two sides, timed alternately and checked against each other; memory of each side in a process of its own."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Side = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what was done.
        ours, peer: medians, in `unit`: s and MB, or samples/s, of which more is better.
        difference: largest difference of the two sides' results, in words; checked before anything was timed.
    """

    work: str
    ours: float
    peer: float
    unit: str
    difference: str

    @property
    def ratio(self) -> float:
        """How many times faster, or smaller, ours is: peer over ours, or the other way round where more is better."""
        return self.ours / self.peer if self.unit == "samples/s" else self.peer / self.ours

    def rate(self, work: str, amount: float) -> "Row":
        """Another row out of one in seconds: the samples a second, where `amount` samples take this time."""
        return Row(work, amount / self.ours, amount / self.peer, "samples/s", "as timed")

    def cells(self) -> list[str]:
        """The row as text."""
        digits = {"s": 3, "samples/s": 2}.get(self.unit, 0)
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


def operations(side: Side) -> int:
    """Floating-point operations of a side in matrix products, convolutions and attention, by torch's own count.

    Triangular systems and kernels of other packages are not in it.
    """
    aten = torch.ops.aten
    cpu_attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda *sizes, **_: _attention(*sizes[:3]),
        # the scores once more, and the gradients of queries, keys, values and scores
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *sizes, **_: 5 * _attention(*sizes[1:4]) // 2,
    }
    with FlopCounterMode(display=False, custom_mapping=cpu_attention) as counter:
        side()
    return int(counter.get_total_flops())


def _attention(query: torch.Size, key: torch.Size, value: torch.Size) -> int:
    batch, heads, tokens, depth = query
    return 2 * batch * heads * tokens * key[2] * (depth + value[3])


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 9) -> float:
    """Floating-point operations a second of a large square matrix product, the median of some."""
    side = 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds, _ = race(lambda: one @ other, lambda: None, repeats, device)
    return 2 * side**3 / seconds


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
