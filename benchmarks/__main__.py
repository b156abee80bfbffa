"""Benchmarks: encoder|delta_net|train_step|costs|cache|inference|evaluate|scoring|check|memory|merging|t4|all."""

import argparse
import json
import sys
from dataclasses import asdict

import torch

from benchmarks import works
from benchmarks.check import checking
from benchmarks.costs import costs
from benchmarks.delta_net import delta_net
from benchmarks.measure import Row, table
from benchmarks.merging import merging
from benchmarks.scoring import scoring
from benchmarks.small_card import small_card
from satlisa.errors import SatlisaError
from satlisa.runtime.hardware import DTYPES, detect, dtype_name

WORKS = {
    "encoder": works.encoder,
    "delta_net": delta_net,
    "train_step": works.train_step,
    "costs": costs,
    "cache": works.cache,
    "inference": works.inference,
    "evaluate": works.evaluation,
    "scoring": scoring,
    "check": checking,
    "memory": works.memory,
    "merging": merging,
    "t4": small_card,
}


def main() -> int:
    """Measure and print one table; exit code 2 for a usage error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("work", choices=[*WORKS, "all"])
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, cpu or mps (the best there is)")
    parser.add_argument("--size", choices=("demo", "full"), default="demo", help="of the models (%(default)s)")
    parser.add_argument("--precision", choices=("auto", *DTYPES), default="auto", help="of the VLM (the device's own)")
    parser.add_argument(
        "--batch_size", type=int, help="of encoder, train_step and memory (8 on CUDA; else 2, encoder 1)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the rows to this file")
    options = parser.parse_args()
    try:
        hardware = detect(options.device, options.precision)
    except SatlisaError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    where = f"{hardware.name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{where}, VLM in {dtype_name(hardware.dtype)}\n", flush=True)
    rows: list[Row] = []
    for name in WORKS if options.work == "all" else [options.work]:
        batch_size = options.batch_size or (8 if hardware.device.type == "cuda" else 1 if name == "encoder" else 2)
        bench = works.Bench(hardware.device, options.size, hardware.dtype, options.repeats, batch_size)
        rows += WORKS[name](bench)
    if rows:
        print(table(rows))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([asdict(row) | {"ratio": row.ratio} for row in rows], file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
