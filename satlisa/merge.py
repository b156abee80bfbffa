"""`python -m satlisa.merge --model_dir D --output M`: a trained model as a plain `transformers` folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from satlisa.cli.common import CommandParser, run_command, start_logging

PROG = "python -m satlisa.merge"
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(PROG, "Merge LoRA layers and <SEG> row into the VLM, as a folder that transformers loads.")
    parser.add_argument("--model_dir", required=True, help="model directory or hub id")
    parser.add_argument("--output", required=True, type=Path, help="the new folder; it must not exist, or be empty")
    parser.add_argument(
        "--precision",
        choices=("exact", "stored", *_DTYPES),
        default="exact",
        help="of the weights; stored: as the base model's; exact (default): the same, merged matrices in float32",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parser().parse_args(arguments)
    start_logging(options.debug)
    return run_command(PROG, lambda: _run(options), options.debug)


def _run(options: argparse.Namespace) -> int:
    import torch  # takes seconds; mistakes do not wait for it

    from satlisa.pretrained.merging import merge_model

    dtype = getattr(torch, _DTYPES[options.precision]) if options.precision in _DTYPES else None
    output = options.output.expanduser()
    merge = merge_model(options.model_dir, output, dtype, is_exact=options.precision == "exact")
    print(f"{output}: {len(merge.layers)} layers merged; rounding takes {merge.lost:.2%} of what LoRA changes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
