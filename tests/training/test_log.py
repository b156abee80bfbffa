"""`train_log.jsonl` with a full disk, with junk in it, and after it was deleted."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from satlisa.config import ModelConfig
from satlisa.training import log as train_log
from satlisa.training import train as run_module
from stress.kills import differences
from tests.helpers.resume_fixtures import at_step, short
from tests.helpers.runs import log_of


def record(step: int) -> train_log.StepLog:
    return train_log.StepLog(step, 0.1, 1.0, 1.0, 0.0, 0.0, 1e-3, 1.0, 4.0, 10**6)


def test_a_log_that_cannot_be_written_any_more_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, path = train_log.TrainLog(tmp_path), tmp_path / "train_log.jsonl"
    log.begin()
    log.add(record(1))
    path.unlink()
    path.mkdir()
    log.add(record(2))
    log.settle()
    path.rmdir()
    os.mkfifo(path)  # nobody reads from it
    log.add(record(3))
    assert [f"step {step} is not in train_log.jsonl yet" in caplog.text for step in (1, 2, 3)] == [False, True, True]
    assert "train_log.jsonl cannot be written (" in caplog.text
    log.settle()  # at a checkpoint the pipe is replaced by a file
    log.add(record(4))
    assert [step.step for step in train_log.read_log(path, 99)] == [1, 2, 3, 4]


def test_a_log_that_may_not_be_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, path = train_log.TrainLog(tmp_path), tmp_path / "train_log.jsonl"
    log.begin()

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:  # root may write anything
        patch.setattr(train_log, "open", refuse, raising=False)
        patch.setattr(os, "truncate", refuse)
        log.add(record(1))
        log.settle()
    assert [step.step for step in train_log.read_log(path, 99)] == [1]


def test_a_pipe_is_no_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train_log.jsonl")
    assert train_log.read_log(tmp_path / "train_log.jsonl", 99) == []


@pytest.mark.integration
def test_a_log_with_junk_in_it_is_read(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "train_summary.json").unlink()
    with open(tmp_path / "run" / "train_log.jsonl", "ab") as file:
        file.write(b'\xff\xfe\n{"step": "3"}\n[]\n')
    run_module.train(short(tiny_config, resume_data, tmp_path / "run", MODEL_CONFIG=dropping))
    assert differences(whole, tmp_path / "run") == []


@pytest.mark.integration
def test_a_log_that_is_removed_comes_back(
    tiny_config: ModelConfig, resume_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 3, (tmp_path / "run" / "train_log.jsonl").unlink)
    run_module.train(short(tiny_config, resume_data, tmp_path / "run", EPOCHS="1"))
    assert [record["step"] for record in log_of(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.integration
def test_a_full_disk_costs_no_line_of_the_log(
    tiny_config: ModelConfig, resume_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    tried = []

    def full_at_times(path: Path, *arguments: Any, **more: Any) -> Any:
        tried.append(path)
        if len(tried) in (2, 3):
            with open(path, "a") as file:
                file.write('{"step": 2, "epo')
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, *arguments, **more)

    monkeypatch.setattr(train_log, "open", full_at_times, raising=False)
    run_module.train(short(tiny_config, resume_data, tmp_path, EPOCHS="1"))
    assert [record["step"] for record in log_of(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert "step 3 is not in train_log.jsonl yet" in caplog.text
