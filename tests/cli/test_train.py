"""`train.py` on the command line: help, mistakes, no hub."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.integration


def script(tmp_path: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_script_help_and_mistakes(tmp_path: Path) -> None:
    shown = script(tmp_path, "--help")
    assert shown.returncode == 0 and "GRAD_ACCUM" in shown.stdout
    wrong = script(tmp_path, BATCH_SIZE="two")
    assert wrong.returncode == 2
    assert wrong.stderr.strip() == "train.py: BATCH_SIZE: expected a whole number from 0 to 1048576, found 'two'"
    assert list(tmp_path.iterdir()) == []


def test_without_a_hub_the_message_names_the_ways_out(tmp_path: Path) -> None:
    done = script(tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "PRESET=demo" in last and "folder" in last
