"""A run that is interrupted ends as if it had never stopped, whatever interrupts it."""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.runtime.atomic_files import PARTIAL
from satlisa.training import train as run_module
from satlisa.training import trainer
from satlisa.training.fault_tolerance import checkpoint_files
from satlisa.training.fault_tolerance.checkpoint_files import list_checkpoints, read_checkpoint
from stress.kills import differences, steps_of
from tests.helpers.fork_server import launch
from tests.helpers.paths import ROOT
from tests.helpers.resume_fixtures import at_step, short
from tests.helpers.run_folders import rewrite
from tests.helpers.runs import log_of, rows, write_dataset

pytestmark = pytest.mark.integration


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("step", [1, 4, 6, 7, 12])
def test_a_crash_changes_nothing(
    step: int, tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = short(tiny_config, resume_data, tmp_path / "run", MODEL_CONFIG=dropping)

    def crash() -> None:
        raise PowerCutError

    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        at_step(patch, step, crash)
        run_module.train(made)
    kept = [read_checkpoint(place).state["step"] for place in list_checkpoints(tmp_path / "run")]
    assert kept == [n for n in (2, 4, 6, 6, 8, 10) if n < step][-2:]  # two of step 6: its epoch ends there
    run_module.train(made)
    assert differences(whole, tmp_path / "run") == []
    assert [s["step"] for s in steps_of(tmp_path / "run")] == list(range(1, 13))


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_finishes_the_step(
    number: int, name: str, tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    made = short(tiny_config, resume_data, tmp_path, MODEL_CONFIG=dropping, CHECKPOINT_EVERY="0")
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), number))
        run_module.train(made)
    assert f"stopped by {name} after 3 of 12 steps" in caplog.text
    assert [s["step"] for s in steps_of(tmp_path)] == [1, 2, 3] and signal.getsignal(number) == before
    run_module.train(made)
    assert "resuming from" in caplog.text and "3 of 12 steps, 12 rows into epoch 1" in caplog.text
    assert differences(whole, tmp_path) == []


def test_a_signal_in_validation_is_heard(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = short(tiny_config, resume_data, tmp_path, MODEL_CONFIG=dropping)
    original = trainer.validate

    def validate(run: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(run)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validate", validate)
        run_module.train(made)
    (*_, last) = list_checkpoints(tmp_path)
    state = read_checkpoint(last).state
    assert (state["step"], state["epoch"], state["rows_done"], state["validations"]) == (6, 0, 24, [])
    run_module.train(made)
    assert differences(whole, tmp_path) == []


def test_sigterm_from_outside_exits_with_0(resume_data: Path, tiny_config: ModelConfig, tmp_path: Path) -> None:
    environ = {
        "DATASET": str(resume_data), "OUTPUT_DIR": str(tmp_path / "run"), "VLM_MODEL": tiny_config.vlm_model_id,
        "SAM_MODEL": tiny_config.sam_model_id, "DEVICE": "cpu", "BATCH_SIZE": "1", "GRAD_ACCUM": "1",
        "EPOCHS": "500", "MAX_SKIP": "1", "NUM_WORKERS": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py")], env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    log = tmp_path / "run" / "train_log.jsonl"
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 2):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: the loader processes get it too
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr[-2000:]
    assert "stopped by SIGTERM" in stderr and "Traceback" not in stderr
    assert len(list_checkpoints(tmp_path / "run")) >= 1


def test_kills_at_random_moments(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stress", "kills", "--kills", "3"], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kills: tried 3, survived 3, lost 0" in done.stdout


def test_a_run_with_other_settings_is_refused(
    tiny_config: ModelConfig, resume_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder, other = tmp_path / "run", tmp_path / "other"
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run_module.train(short(tiny_config, resume_data, run_folder))
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}
    write_dataset(other, {"train": [{**row, "source": "else"} for row in rows(24)]})
    for more, message in (
        ({"LEARNING_RATE": "0.5", "SEED": "7"}, r"LEARNING_RATE was 0.01, is 0.5; SEED was 0, is 7"),
        ({"GRAD_ACCUM": "2"}, r"BATCH_SIZE × GRAD_ACCUM was 4, is 8"),
        ({"DATASET": str(other)}, "DATASET contents"),
        ({"MAX_SAMPLES": "20"}, "DATASET rows was 24, is 20"),
    ):
        with pytest.raises(SatlisaError, match=message):
            run_module.train(short(tiny_config, resume_data, run_folder, **more))
    with pytest.raises(SatlisaError, match="OVERWRITE=1"):
        run_module.train(short(tiny_config, resume_data, run_folder, RESUME="never"))
    with pytest.raises(SatlisaError, match="RESUME: expected auto, never or"):
        run_module.train(short(tiny_config, resume_data, run_folder, RESUME="nowhere"))
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")} == before
    run_module.train(short(tiny_config, resume_data, run_folder, VAL_SAMPLES="1", NUM_WORKERS="1", MAX_STEPS="0"))
    assert [s["step"] for s in steps_of(run_folder)] == list(range(1, 13))


def test_a_finished_run_is_left_alone(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    shutil.copytree(whole, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    run_module.train(short(tiny_config, resume_data, tmp_path / "run", MODEL_CONFIG=dropping))
    assert "is finished" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_from_a_named_checkpoint_into_another_folder(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path
) -> None:
    place = list_checkpoints(whole)[1]
    assert place.name == "step-00000004"
    made = short(tiny_config, resume_data, tmp_path / "new", MODEL_CONFIG=dropping, RESUME=str(place))
    run_module.train(made)
    assert differences(whole, tmp_path / "new") == []


def test_from_a_finished_run_into_another_folder(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path
) -> None:
    """Nothing is left to train, and the model is there all the same."""
    run_module.train(short(tiny_config, resume_data, tmp_path / "new", MODEL_CONFIG=dropping, RESUME=str(whole)))
    for name in ("seg_projector.pt", "sam_mask_decoder.pt", "vlm_lora/adapter_model.safetensors"):
        assert (tmp_path / "new" / name).read_bytes() == (whole / name).read_bytes()
        mode = (tmp_path / "new" / name).stat().st_mode
        assert mode == (tmp_path / "new" / "model_config.json").stat().st_mode  # others may read it, too
    assert [record["step"] for record in log_of(tmp_path / "new")] == list(range(1, 13))


def test_a_start_that_fails_costs_nothing(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for folder in ("run", "new"):
        made = short(tiny_config, resume_data, tmp_path / folder, OVERWRITE="1", VLM_MODEL=str(tmp_path / "nowhere"))
        with pytest.raises(SatlisaError, match="nowhere"):
            run_module.train(made)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "train_summary.json").unlink()
    *_, older, newest = list_checkpoints(folder)
    content = bytearray((newest / "optimizer.safetensors").read_bytes())
    content[-5] ^= 255
    (newest / "optimizer.safetensors").write_bytes(content)
    run_module.train(short(tiny_config, resume_data, folder, MODEL_CONFIG=dropping))
    assert "damaged" in caplog.text and older.is_dir() and differences(whole, folder) == []
    (folder / "train_summary.json").unlink()
    for place in list_checkpoints(folder):
        (place / "state.json").write_text("{")
    with pytest.raises(SatlisaError, match=r"none of its .* checkpoints can be read.*RESUME=never OVERWRITE=1"):
        run_module.train(short(tiny_config, resume_data, folder, MODEL_CONFIG=dropping))


def test_on_another_number_of_processes(tiny_config: ModelConfig, tmp_path: Path) -> None:
    """Two processes train, one resumes from the middle, and two again from the middle of that: each row of the rest
    comes once, the losses are the same."""
    write_dataset(tmp_path / "data", {"train": [row for n, row in enumerate(rows(26)) if n % 10 != 9]})
    environ = {
        "DATASET": str(tmp_path / "data"), "VLM_MODEL": tiny_config.vlm_model_id,
        "SAM_MODEL": tiny_config.sam_model_id, "DEVICE": "cpu", "ACCELERATE_USE_CPU": "1", "EPOCHS": "2",
        "BATCH_SIZE": "2", "GRAD_ACCUM": "1", "CHECKPOINT_EVERY": "3",
        "KEEP_CHECKPOINTS": "99",
    }  # fmt: skip

    def train(processes: int, folder: Path, **more: str) -> str:
        given = {**environ, "OUTPUT_DIR": str(folder), **more}
        done = launch(processes, str(ROOT / "train.py"), environ=given, timeout=180)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    train(2, tmp_path / "two")
    for before, now, source, folder, last in ((2, 1, "two", "one", 6), (1, 2, "one", "again", 9)):
        shutil.copytree(tmp_path / source, tmp_path / folder)
        (tmp_path / folder / "train_summary.json").unlink()
        for place in list_checkpoints(tmp_path / folder):
            if place.name > f"step-{last:08d}":
                shutil.rmtree(place)
        said = train(now, tmp_path / folder)
        assert f"{before} processes before, {now} now, the same 4 rows a step" in said
        for key in ("step", "loss", "grad_norm", "lr"):
            a, b = ([record[key] for record in log_of(tmp_path / name)] for name in ("two", folder))
            np.testing.assert_allclose(b, a, rtol=1e-4, err_msg=key)


def test_time_between_checkpoints(
    tiny_config: ModelConfig, resume_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = short(tiny_config, resume_data, tmp_path, CHECKPOINT_EVERY="0.000001m", KEEP_CHECKPOINTS="99", EPOCHS="1")
    run_module.train(made)
    assert len(list_checkpoints(tmp_path)) == 7  # six steps and the end of the epoch


def test_a_stop_without_room_for_a_checkpoint_says_so(
    tiny_config: ModelConfig, resume_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "atomic_replace", full)
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SatlisaError, match=r"stopped by SIGTERM after step 3, without a checkpoint of it .*No space"):
        run_module.train(short(tiny_config, resume_data, tmp_path / "run"))


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
    assert [read_checkpoint(place).state["step"] for place in list_checkpoints(folder)] == [2, 5]
    assert not list((folder / "checkpoints").glob("*" + PARTIAL)) and len(log_of(folder)) == 5


def test_checkpoints_of_another_run_change_nothing(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Those of another seed and learning rate come later and are copied in; the newest own one has broken tensors."""
    caplog.set_level("INFO")
    other = short(tiny_config, resume_data, tmp_path / "other", MODEL_CONFIG=dropping, SEED="3", LEARNING_RATE="0.1")
    run_module.train(other)
    made = short(tiny_config, resume_data, tmp_path / "run", MODEL_CONFIG=dropping)
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run_module.train(made)
    own = list_checkpoints(tmp_path / "run")
    for place in list_checkpoints(tmp_path / "other"):
        shutil.copytree(place, tmp_path / "run" / "checkpoints" / place.name)
    broken = read_checkpoint(own[-1]).optimizer
    rewrite(own[-1], optimizer={name: t.new_zeros(3) if t.ndim else t for name, t in broken.items()})
    caplog.clear()
    run_module.train(made)
    assert "SEED was 3, is 0" in caplog.text and "optimizer.safetensors: expected" in caplog.text
    assert f"resuming from {own[-2]}" in caplog.text
    assert steps_of(tmp_path / "run") == steps_of(whole)
    for name in ("seg_projector.pt", "vlm_lora/adapter_model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


def test_a_killed_loader_is_one_line_and_the_run_resumes(
    tiny_config: ModelConfig, resume_data: Path, dropping: str, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = short(tiny_config, resume_data, tmp_path, MODEL_CONFIG=dropping, NUM_WORKERS="1")

    def kill_loaders() -> None:
        loaders = multiprocessing.active_children()
        assert loaders
        for loader in loaders:
            loader.kill()
        time.sleep(1)  # until torch notices, as in a step that takes a while

    with monkeypatch.context() as patch:
        at_step(patch, 4, kill_loaders)
        with pytest.raises(
            SatlisaError, match=r"NUM_WORKERS: a loader process has died .*Killed.* to resume, with a sm"
        ):
            run_module.train(made)
    run_module.train(replace(made, num_workers=0))
    assert differences(whole, tmp_path) == []
