"""Profile of a training step."""

from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Row, synchronize
from benchmarks.works import Bench, batch_of, mixed_samples, take_step

_SHOWN = 12


def costs(bench: Bench) -> list[Row]:
    """Print the most expensive operations (CPU) or kernels (CUDA) of our step and their share; there is no peer."""
    model = bench.model().train()
    batch, _ = batch_of(model, mixed_samples(bench))
    take_step(model, batch)
    on_cuda = bench.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as profiled:
        take_step(model, batch)
        synchronize(bench.device)

    # On CUDA only kernels: an operation's entry counts the time of its kernels a second time.
    entries = [
        e for e in profiled.key_averages() if not on_cuda or (e.device_type.name == "CUDA" and not e.is_user_annotation)
    ]
    seconds = {e.key: (e.self_device_time_total if on_cuda else e.self_cpu_time_total) / 1e6 for e in entries}
    entries.sort(key=lambda entry: -seconds[entry.key])
    total = sum(seconds.values())
    print(f"| what a training step ({bench.size}) spends its {total:.2f} s on | share | calls |\n|---|---:|---:|")
    for entry in entries[:_SHOWN]:
        print(f"| {entry.key[:80]} | {seconds[entry.key] / total:.1%} | {entry.count:,} |")
    print()
    return []
