"""What a run writes when the disk is full, or when somebody spoils its files."""

import errno
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.training import log as train_log
from satlisa.training import train as run_module
from satlisa.training import trainer
from satlisa.training.fault_tolerance import checkpoint_files
from satlisa.training.fault_tolerance.checkpoint_files import list_snapshots, read_snapshot
from stress.kills import differences
from tests.helpers.resume_fixtures import at_step, short
from tests.helpers.runs import log_of


def test_a_stop_without_room_for_a_checkpoint_says_so(
    tiny_config: ModelConfig, resume_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "atomic_replace", full)
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SatlisaError, match=r"stopped by SIGTERM after step 3, without a checkpoint of it .*No space"):
        run_module.train(short(tiny_config, resume_data, tmp_path / "run"))


def test_a_log_with_junk_in_it_is_read(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "train_summary.json").unlink()
    with open(tmp_path / "run" / "train_log.jsonl", "ab") as file:
        file.write(b'\xff\xfe\n{"step": "3"}\n[]\n')
    run_module.train(short(tiny_config, resume_data, tmp_path / "run", MODEL_CONFIG=dropping))
    assert differences(whole, tmp_path / "run") == []


def test_a_log_that_is_removed_comes_back(
    tiny_config: ModelConfig, resume_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 3, (tmp_path / "run" / "train_log.jsonl").unlink)
    run_module.train(short(tiny_config, resume_data, tmp_path / "run", EPOCHS="1"))
    assert [record["step"] for record in log_of(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_a_full_disk_costs_a_checkpoint_not_the_run(
    tiny_config: ModelConfig, resume_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    original = Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        if "step-00000004" in str(path) and path.name.startswith("optimizer"):
            original(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    folder = run_module.train(
        short(tiny_config, resume_data, tmp_path, EPOCHS="1", MAX_STEPS="5", KEEP_CHECKPOINTS="9")
    )
    assert "no checkpoint of step 4" in caplog.text and "No space left" in caplog.text
    assert [read_snapshot(place).state["step"] for place in list_snapshots(folder)] == [2, 5]
    assert not list((folder / "checkpoints").glob("*.partial")) and len(log_of(folder)) == 5


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


def test_a_model_that_cannot_be_written_is_one_line_and_can_be_gone_on_with(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = short(tiny_config, resume_data, tmp_path, MODEL_CONFIG=dropping)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_model", full)
        with pytest.raises(SatlisaError, match=r"cannot be written .*No space left.*resumes from the last checkpoint"):
            run_module.train(made)
    run_module.train(made)
    assert differences(whole, tmp_path) == []
