"""Time two sides alternately, and measure the memory of each side in its own process."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
        difference: largest difference between the two sides' results, as text; checked before timing.
    """

    work: str
    ours: float
    peer: float
    unit: str
    difference: str

    @property
    def ratio(self) -> float:
        """How many times faster or smaller ours is: peer / ours, or ours / peer where more is better."""
        return self.ours / self.peer if self.unit == "samples/s" else self.peer / self.ours

    def rate(self, work: str, amount: float) -> "Row":
        """The throughput row of a row in seconds, for `amount` samples."""
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
    """Median seconds of both sides after one warm-up each; they alternate, so that load affects both alike."""
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
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def operations(side: Side) -> int:
    """Floating-point operations of a side in matrix products, convolutions and attention, counted by torch.

    Triangular solves and kernels of other packages are not counted.
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
    """Floating-point operations per second of a large square matrix product, a median."""
    side = 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds, _ = race(lambda: one @ other, lambda: None, repeats, device)
    return 2 * side**3 / seconds


def extra_memory(prepare: Callable[[], Side], device: torch.device) -> tuple[float, float]:
    """Peak memory of a side in MB, beyond what it holds before it starts and in total; in a fresh process.

    On CPU: resident memory, so the total includes interpreter and libraries. On CUDA: allocated memory.
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
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the kernel's peak counter
    side()
    synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")
    results.put(((peak - before) / 1e6, peak / 1e6))


def _status(key: str) -> int:
    """A value of /proc/self/status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
