"""Long tests of the guarantees: `python -m stress kills|cases|stream|large_images|all`.

Each part prints how much was tried, survived and lost; the exit code is 1 if anything was lost.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import transformers

from satlisa.cli.common import start_logging
from stress import cases, kills, large_images, stream


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requested parts; each returns how many were tried, how many survived, and a line per loss."""
    parts: dict[str, Callable[[Path], tuple[int, int, list[str]]]] = {
        "kills": lambda folder: kills.main(folder, options.kills, options.seed),
        "cases": lambda _: cases.main(options.cases),
        "stream": lambda folder: stream.main(folder, options.rows),
        "large_images": lambda folder: large_images.main(folder, options.images),
    }
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    parser.add_argument("part", choices=(*parts, "all"))
    parser.add_argument("--kills", type=int, default=24, help="number of kills of a training run (%(default)s)")
    parser.add_argument("--cases", type=int, default=10_000, help="cases per property (%(default)s)")
    parser.add_argument("--rows", type=int, default=10_000, help="rows of the stream (%(default)s)")
    parser.add_argument("--images", type=int, default=24, help="images of 12 megapixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kill times (%(default)s)")
    options = parser.parse_args(arguments)
    start_logging()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    lost_anything = False
    for part in parts if options.part == "all" else (options.part,):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            tried, survived, lost = parts[part](Path(folder))
        seconds = time.perf_counter() - started
        print(f"{part}: tried {tried}, survived {survived}, lost {len(lost)} ({seconds:.0f} s)", flush=True)
        for line in lost[:20]:
            print(f"  {line}")
        lost_anything = lost_anything or bool(lost)
    return int(lost_anything)


if __name__ == "__main__":
    raise SystemExit(main())
