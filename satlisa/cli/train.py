"""`python train.py`: settings are environment variables."""

import sys
from collections.abc import Sequence

from satlisa.cli.common import MISTAKE, run_command, start_logging
from satlisa.training.settings import TrainConfig, help_text
from satlisa.training.train import train


def main(arguments: Sequence[str] | None = None) -> int:
    """`python train.py`; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--help"], ["-h"]):
        print("usage: [VARIABLE=value …] python train.py [--help] [--debug]\n\n" + help_text())
        return 0
    if arguments not in ([], ["--debug"]):
        print(f"train.py: unknown option {arguments[0]}; settings are variables, see --help", file=sys.stderr)
        return MISTAKE
    start_logging(bool(arguments))
    return run_command("train.py", _train_from_env, bool(arguments))


def _train_from_env() -> int:
    train(TrainConfig.from_env())
    return 0
