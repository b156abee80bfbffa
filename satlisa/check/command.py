"""`python -m satlisa.check DATASET` and `python train.py --check`: exit code 1 where something would surprise."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from satlisa.cli.common import CommandParser, one_line, run_command, start_logging

PROG = "python -m satlisa.check"
PROBLEMS = 1  # exit code


def parser(prog: str = PROG, with_dataset: bool = True) -> CommandParser:
    """The command line."""
    parser = CommandParser(
        prog,
        "Read all rows of a dataset as training reads them, and write CHECK.md. Settings are train.py's variables.",
    )
    if with_dataset:
        parser.add_argument("dataset", help="hub id, local folder, demo, or several: a,b:0.3")
    else:
        parser.add_argument("--check", action="store_true", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--output_dir", type=Path, default=Path("check"), help="folder of CHECK.md (%(default)s)")
    parser.add_argument("--processes", type=int, default=0, help="that read rows (one for each core)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m satlisa.check`: all rows of a dataset, and of its validation split too."""
    options = parser().parse_args(arguments)
    return _run(PROG, options)


def check_training(prog: str, arguments: Sequence[str]) -> int:
    """`train.py --check`: the rows that a run with the same variables reads."""
    return _run(prog, parser(prog, with_dataset=False).parse_args(arguments))


def _run(prog: str, options: argparse.Namespace) -> int:
    start_logging(options.debug)
    return run_command(prog, partial(_check, options), options.debug)


def _check(options: argparse.Namespace) -> int:
    from satlisa.data.mixing import parse_datasets
    from satlisa.errors import SatlisaError
    from satlisa.training.settings import TrainConfig

    settings, dataset = TrainConfig.from_env(), getattr(options, "dataset", "")
    if dataset:
        is_default = settings.origins["val_samples"] == "default"
        settings = replace(settings, dataset=dataset, val_samples=0 if is_default else settings.val_samples)
        if settings.streaming and len(parse_datasets(dataset)) > 1:
            raise SatlisaError("STREAMING: several datasets can be mixed, or one can be streamed; set STREAMING=0")

    from satlisa.check.check import check  # torch and transformers take seconds; mistakes do not wait for them

    problems = check(settings, options.output_dir, estimate=bool(dataset), processes=options.processes)
    for line in problems:
        print(one_line(line))
    count = f"{len(problems):,} problem{'s' * (len(problems) != 1)}" if problems else "no problem found"
    print(f"{count}; the report: {options.output_dir / 'CHECK.md'}")
    return PROBLEMS if problems else 0
