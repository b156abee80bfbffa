"""What a training step spends its time on."""

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Row
from benchmarks.works import Bench, mixed_samples, training_sides

_SHOWN = 12


def costs(bench: Bench) -> list[Row]:
    """Print the dearest operations (CPU) or kernels (CUDA) of our step, with their share; there is no peer."""
    step, _, _ = training_sides(bench.model(), mixed_samples(bench))
    step()
    on_cuda = bench.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as profiled:
        step()
        if on_cuda:
            torch.cuda.synchronize(bench.device)

    def microseconds(entry: Any) -> float:
        return float(entry.self_device_time_total if on_cuda else entry.self_cpu_time_total)

    entries = sorted(profiled.key_averages(), key=microseconds, reverse=True)
    total = sum(microseconds(entry) for entry in entries)
    print(f"| what a training step ({bench.size}) spends its {total / 1e6:.2f} s on | share | calls |\n|---|---:|---:|")
    for entry in entries[:_SHOWN]:
        print(f"| {entry.key[:80]} | {microseconds(entry) / total:.1%} | {entry.count:,} |")
    print()
    return []
