"""`python -m satlisa.web`: ask a model in the browser."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from satlisa.cli.common import CommandParser, run_command, start_logging
from satlisa.errors import SatlisaError
from satlisa.web.limits import Limits
from satlisa.web.serving import LOCAL, serve
from satlisa.web.space import write_space

PROG = "python -m satlisa.web"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 for a mistake."""
    options = parser().parse_args(arguments)
    start_logging(options.debug)
    return run_command(PROG, partial(_run, options), options.debug)


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(PROG, "Ask a model in the browser. Needs: bash setup.sh --web")
    add, default = parser.add_argument, Limits()
    add("--model_dir", required=True, help="folder that train.py wrote, or a hub id")
    add("--device", help="cuda, cuda:1 or 1, cpu or mps (default: best available)")
    add("--host", default=LOCAL, help="address to listen on; any but %(default)s opens the page to others")
    add("--port", type=int, help="default: the first free one from 7860 on")
    add("--space", type=Path, metavar="OUT", help="write a folder for Hugging Face Spaces instead, and leave")
    limits = parser.add_argument_group("limits")
    for name, what in (
        ("megabytes", "of an uploaded file"),
        ("megapixels", "of its picture"),
        ("queue", "questions and clicks that may wait"),
        ("minutes", "after which uploads and answers are deleted"),
        ("max_new_tokens", "of an answer"),
    ):
        value = getattr(default, name)
        kind = float if name == "megapixels" else int
        limits.add_argument(f"--{name}", type=kind, default=value, help=f"{what} (default: %(default)s)")
    return parser


def _run(options: argparse.Namespace) -> int:
    limits = Limits(**{name: getattr(options, name) for name in vars(Limits())})
    if options.space is not None:
        write_space(options.space, options.model_dir, limits)
        return 0
    if find_spec("gradio") is None:
        raise SatlisaError("the page needs gradio, which is not installed: bash setup.sh --web")
    from satlisa.inference.api import load_model

    model = load_model(options.model_dir, options.device)
    if options.host != LOCAL:
        print(f"the page listens on {options.host}: whoever reaches it can ask, without a password", file=sys.stderr)
    serve(model, limits, options.host, options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
