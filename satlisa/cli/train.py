"""`python train.py` and `satlisa-train`: settings are environment variables."""

import sys
from collections.abc import Sequence

from satlisa.cli.common import MISTAKE, called_as, run_command, start_logging
from satlisa.training.settings import TrainConfig, help_text

PROG = called_as("train.py", "satlisa-train")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--help"], ["-h"]):
        call = f"python {PROG}" if PROG.endswith(".py") else PROG
        print(f"usage: [VARIABLE=value …] {call} [--help] [--debug] [--check [--output_dir DIR]]\n\n{help_text()}")
        print("--check reads all rows that the run would read, trains nothing, and writes CHECK.md (docs/check.md).")
        return 0
    if "--check" in arguments:
        from satlisa.check.command import check_training

        return check_training(PROG, arguments)
    if arguments not in ([], ["--debug"]):
        print(f"{PROG}: unknown option {arguments[0]}; settings are variables, see --help", file=sys.stderr)
        return MISTAKE
    start_logging(bool(arguments))
    return run_command(PROG, _train_from_env, bool(arguments))


def _train_from_env() -> int:
    settings = TrainConfig.from_env()

    from satlisa.training.train import train  # torch and transformers take seconds; mistakes do not wait for them

    train(settings)
    return 0
