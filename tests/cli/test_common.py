"""Every command's mistakes: one line on stderr, exit code 2, no traceback without --debug, no token."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from satlisa.cli.common import CommandParser, one_line, run_command
from satlisa.errors import SatlisaError
from tests.helpers.paths import ROOT

COMMANDS = [
    ("train.py", "train"),
    ("inference.py", "inference"),
    ("infer_dataset.py", "evaluate"),
    ("satlisa-train", "train"),
    ("satlisa-ask", "inference"),
    ("satlisa-evaluate", "evaluate"),
]
TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"


def failing(error: BaseException) -> int:
    raise error


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = SatlisaError("x.pt: cannot tell.\nexpected: a\n\tfound: b\x1b[31m")
    assert run_command("some.py", lambda: failing(error)) == 2
    assert capsys.readouterr().err == "some.py: x.pt: cannot tell. expected: a found: b?[31m\n"


def test_debug_shows_the_traceback_without_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    token = "hf_" + "aB3" * 12

    def fail() -> int:
        try:
            raise OSError(f"401 for https://user:secret@hub.co with {token}")
        except OSError as error:
            raise SatlisaError("mistake") from error

    assert run_command("some.py", fail, debug=True) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "OSError: 401 for" in shown and shown.endswith("some.py: mistake\n")
    assert token not in shown and "secret" not in shown


def test_our_own_bugs_are_not_hidden() -> None:
    with pytest.raises(KeyError):
        run_command("some.py", lambda: failing(KeyError("bug")))


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("some.py", lambda: failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "some.py: interrupted\n"


@pytest.mark.parametrize("code", [0, 1])
def test_the_body_gives_the_exit_code(code: int) -> None:
    assert run_command("some.py", lambda: code) == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--modle", "x"], "unrecognized arguments: --modle x"),
        (["--size", "large"], "argument --size: invalid int value: 'large'"),
        (["--size"], "argument --size: expected one argument"),
        (["--size", "1", "one\ntwo"], "unrecognized arguments: one two"),
        (["--size", "1", TOKEN], "unrecognized arguments: ***"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = CommandParser("some.py", "Does something.")
    parser.add_argument("--size", type=int)
    with pytest.raises(SystemExit) as left:
        parser.parse_args(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err == f"some.py: {said}; see --help\n"


def test_the_parser_knows_debug() -> None:
    parser = CommandParser("some.py", "Does something.")
    assert not parser.parse_args([]).debug and parser.parse_args(["--debug"]).debug


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--modle", "x"], 2)])
@pytest.mark.parametrize(("name", "module"), COMMANDS)
def test_help_and_mistakes_name_the_command_and_need_no_torch(
    name: str, module: str, arguments: list[str], code: int, tmp_path: Path
) -> None:
    """They must not wait for what the command loads."""
    path = ROOT / name
    if not path.exists():  # a console command: the script that pip writes
        path = tmp_path / name
        path.write_text(f"import sys\nfrom satlisa.cli.{module} import main\nsys.exit(main())\n")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(path), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    lines = done.stderr.splitlines()
    imported = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    assert "satlisa.cli.common" in imported
    assert not imported & {"torch", "transformers", "accelerate", "datasets"}
    if code == 0:
        assert done.stdout.startswith("usage: ") and f" {name} [" in done.stdout
    else:
        said = [line for line in lines if not line.startswith("import time:")]
        assert len(said) == 1 and said[0].startswith(f"{name}: ") and said[0].endswith("see --help")


def test_long_lists_are_cut() -> None:
    line = one_line("tensor " * 10_000)
    assert 1000 < len(line) < 2100 and line.endswith("(--debug shows all of it)")


def test_a_token_does_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert run_command("some.py", lambda: failing(SatlisaError(f"401 for https://u:{TOKEN}@h.co/x"))) == 2
    assert TOKEN not in capsys.readouterr().err + caplog.text
