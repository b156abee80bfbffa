"""Two runs in one folder: the second is refused, and a killed one leaves no lock behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.evaluation.partial_report import PartialReport
from satlisa.runtime import lock
from satlisa.runtime.lock import exclusive_lock
from satlisa.training import train as run_module
from tests.helpers.paths import ROOT
from tests.helpers.runs import rows, settings, write_dataset

HOLD = """
import sys, time
from pathlib import Path
from satlisa.runtime.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "X"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_TIMEOUT", 0.2)


def hold(folder: Path) -> "subprocess.Popen[str]":
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, env=environ
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_another_process_is_kept_out_until_this_one_is_gone(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    process = hold(tmp_path / "run")
    try:
        for folder in (tmp_path / "run", tmp_path / "." / "run", tmp_path / "link"):
            with pytest.raises(SatlisaError, match="X: another run is at work in"), exclusive_lock(folder, "X"):
                pass
        with exclusive_lock(tmp_path / "other", "X"):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with exclusive_lock(tmp_path / "run", "X"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"link"}  # nothing is left behind


def test_waits_a_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_TIMEOUT", 30)
    process = hold(tmp_path)
    os.kill(process.pid, signal.SIGSTOP)
    killed = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {process.pid}"])
    started = time.monotonic()
    with exclusive_lock(tmp_path, "X"):
        assert time.monotonic() - started > 0.5
    process.wait()
    killed.wait()


def test_training_and_evaluation_ask_for_it(tiny_config: ModelConfig, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"train": rows(4)})
    run, report = tmp_path / "run", tmp_path / "report"
    with exclusive_lock(run, "X"), exclusive_lock(report, "X"):
        with pytest.raises(SatlisaError, match="OUTPUT_DIR: another run is at work in"):
            run_module.train(settings(tiny_config, tmp_path / "data", run))
        with pytest.raises(SatlisaError, match="--output_dir: another run is at work in"), PartialReport(report):
            pass
        assert not run.exists() and not report.exists()
    with pytest.raises(ZeroDivisionError), PartialReport(report):
        raise ZeroDivisionError
    with exclusive_lock(report, "X"):  # let go of, also where nothing came of it
        pass
    report.write_text("a file")
    with pytest.raises(SatlisaError, match="found a file"), PartialReport(report):
        pass
    with exclusive_lock(report, "X"):
        pass


def test_folders_that_have_no_place_beside_them(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for folder, said in (
        (Path("/"), "the root of a disk; name a folder below it"),
        (Path("~nobody-of-this-name"), "cannot be found"),
    ):
        with pytest.raises(SatlisaError, match=f"X: .*{said}"), exclusive_lock(folder, "X"):
            pass
    with contextlib.suppress(SatlisaError), exclusive_lock(tmp_path / "circle", "X"):  # by the version of Python
        pass
