"""Long tests of the guarantees: `python -m stress kills|cases|stream|all`.

Each part prints how much was tried, survived and lost; the exit code is 1 if anything was lost.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import datasets
import transformers

from satlisa.cli.common import start_logging

PARTS = ("kills", "cases", "stream")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    parser.add_argument("part", choices=(*PARTS, "all"))
    parser.add_argument("--kills", type=int, default=24, help="number of kills of a training run (%(default)s)")
    parser.add_argument("--cases", type=int, default=10_000, help="cases per property (%(default)s)")
    parser.add_argument("--rows", type=int, default=10_000, help="rows of the stream (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kill times (%(default)s)")
    options = parser.parse_args(arguments)
    start_logging()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    lost_anything = False
    for part in PARTS if options.part == "all" else (options.part,):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            tried, survived, lost = run_part(part, Path(folder), options)
        seconds = time.perf_counter() - started
        print(f"{part}: tried {tried}, survived {survived}, lost {len(lost)} ({seconds:.0f} s)", flush=True)
        for line in lost[:20]:
            print(f"  {line}")
        lost_anything = lost_anything or bool(lost)
    return int(lost_anything)


def run_part(part: str, folder: Path, options: argparse.Namespace) -> tuple[int, int, list[str]]:
    """Run one part; returns how many were tried, how many survived, and a line per loss."""
    if part == "kills":
        from stress import kills

        return kills.main(folder, options.kills, options.seed)
    if part == "cases":
        from stress import cases

        return cases.main(options.cases)
    from stress import stream

    return stream.main(folder, options.rows)


if __name__ == "__main__":
    raise SystemExit(main())
