"""Training end to end on tiny models: the script's files, its numbers, its refusals."""

import errno
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.training import train as run_module
from satlisa.training import trainer
from stress.kills import differences
from tests.helpers.fork_server import launch
from tests.helpers.paths import ROOT
from tests.helpers.resume_fixtures import short
from tests.helpers.runs import LAUNCH, log_of, rows, settings, write_dataset

pytestmark = pytest.mark.integration


def test_the_same_seed_gives_the_same_run(tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path) -> None:
    logs = []
    for name in ("a", "b"):
        torch.manual_seed(int.from_bytes(os.urandom(2)))  # whatever ran before must not matter
        folder = run_module.train(settings(tiny_config, dataset_dir, tmp_path / name, MAX_STEPS="2"))
        log = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
        logs.append([(record["loss"], record["grad_norm"]) for record in log])
    assert logs[0] == logs[1] and len(logs[0]) == 2


def test_accumulation_does_not_change_the_first_step(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path
) -> None:
    """1×16, 2×8 and 16×1 of the same rows report the same losses and gradient norm."""
    records = []
    for size in (1, 2, 16):
        made = settings(
            tiny_config,
            dataset_dir,
            tmp_path / str(size),
            BATCH_SIZE=str(size),
            GRAD_ACCUM=str(16 // size),
            MAX_STEPS="1",
            VAL_SAMPLES="1",
        )
        folder = run_module.train(made)
        records.append(json.loads((folder / "train_log.jsonl").read_text()))
    for key in ("loss", "loss_text", "loss_bce", "loss_dice", "grad_norm"):
        np.testing.assert_allclose([record[key] for record in records], records[0][key], rtol=1e-5)


def test_checkpointed_layers_give_the_same_run(tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path) -> None:
    logs = [
        log_of(
            run_module.train(settings(tiny_config, dataset_dir, tmp_path / flag, MAX_STEPS="3", GRAD_CHECKPOINT=flag))
        )
        for flag in ("0", "1")
    ]
    for key in ("loss", "grad_norm"):
        np.testing.assert_allclose([r[key] for r in logs[0]], [r[key] for r in logs[1]], rtol=1e-5)


def test_a_step_is_timed_by_itself(tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path) -> None:
    """Each record tells the time of its own step, the last one's too: together they are the run."""
    started = time.perf_counter()
    folder = run_module.train(settings(tiny_config, dataset_dir, tmp_path, EPOCHS="1", VAL_SAMPLES="1"))
    total = time.perf_counter() - started
    log = log_of(folder)
    assert len(log) == 3
    seconds = [8 / record["samples_per_second"] for record in log]
    assert all(0.001 < s < total for s in seconds) and sum(seconds) < 1.3 * total
    assert max(record["samples_per_second"] for record in log) < 50 * min(r["samples_per_second"] for r in log)


def test_no_clipping_is_not_no_training(tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path) -> None:
    more = {"MAX_GRAD_NORM": "0", "EPOCHS": "1", "WARMUP_RATIO": "0"}
    log = log_of(run_module.train(settings(tiny_config, dataset_dir, tmp_path, **more)))
    assert all(record["grad_norm"] > 0 for record in log) and log[-1]["loss"] < log[0]["loss"]


@pytest.mark.parametrize(("count", "broken"), [(8, ()), (7, (0, 1, 2))])
def test_two_processes_train_like_one(
    count: int, broken: tuple[int, ...], tiny_config: ModelConfig, tmp_path: Path
) -> None:
    """The same losses and gradients: masks on one process only, a process with nothing but broken rows or with none.

    Without broken rows two processes are started by torch's launcher.
    """
    made = [{**row, "conversations": "{"} if n in broken else row for n, row in enumerate(rows(count))]
    write_dataset(tmp_path / "data", {"train": made, "validation": rows(3)})
    environ = {
        "DATASET": str(tmp_path / "data"),
        "VLM_MODEL": tiny_config.vlm_model_id,
        "SAM_MODEL": tiny_config.sam_model_id,
        "DEVICE": "cpu",
        "ACCELERATE_USE_CPU": "1",
        "EPOCHS": "1",
        "GRAD_ACCUM": "1",
        "MAX_SKIP": "1",
        "OMP_NUM_THREADS": "1",
    }
    logs = []
    for processes, size in ((1, 4), (2, 2), (4, 1)):
        folder = tmp_path / f"run{processes}"
        script = str(ROOT / "train.py")
        given = {**environ, "BATCH_SIZE": str(size), "OUTPUT_DIR": str(folder)}
        if processes == 2 and not broken:
            command, variables = [*LAUNCH, "2", script], {**os.environ, **given}
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
        else:
            done = launch(processes, script, environ=given, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        logs.append(log_of(folder))
    assert [len(log) for log in logs] == [2, 2, 2]
    summaries = [json.loads((tmp_path / f"run{n}" / "train_summary.json").read_text()) for n in (1, 2, 4)]
    assert all(summary["skipped_rows"] == summaries[0]["skipped_rows"] for summary in summaries)
    for summary in summaries:
        assert summary["validation"][0] == pytest.approx(summaries[0]["validation"][0], rel=1e-4)
    for key in ("loss", "loss_text", "loss_bce", "loss_dice", "grad_norm"):
        for log in logs[1:]:
            np.testing.assert_allclose([r[key] for r in log], [r[key] for r in logs[0]], rtol=1e-5, err_msg=key)


def test_cached_embeddings_leave_the_losses(tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path) -> None:
    """Without a cache, with an empty one, a full one and one in memory; loader processes read entries back too."""
    cache = {"CACHE_SAM": str(tmp_path / "cache"), "MAX_STEPS": "2"}
    cases = {"plain": {"MAX_STEPS": "2"}, "cold": cache, "warm": cache, "workers": {**cache, "NUM_WORKERS": "1"}}
    cases["memory"] = {"MAX_STEPS": "2", "CACHE_MEMORY_GB": "1"}
    logs = {
        name: log_of(run_module.train(settings(tiny_config, dataset_dir, tmp_path / name, **more)))
        for name, more in cases.items()
    }
    losses = {name: [record["loss"] for record in log] for name, log in logs.items()}
    assert losses["cold"] == losses["warm"] == losses["workers"]
    np.testing.assert_allclose(losses["cold"], losses["plain"], rtol=1e-3)
    np.testing.assert_allclose(losses["memory"], losses["plain"], rtol=1e-5)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) > 8


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
