"""What a run does when something is wrong in the middle of it."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.runtime.hardware import Hardware
from satlisa.training import train as run_module
from satlisa.training import trainer
from satlisa.training.fault_tolerance.checkpoint_files import list_checkpoints, read_checkpoint
from stress.kills import differences
from tests.helpers.paths import ROOT
from tests.helpers.runs import LAUNCH, log_of, rows, settings, write_dataset

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    made = [row for number, row in enumerate(rows(24)) if number % 10 != 9]  # 22 rows that can be used
    write_dataset(folder, {"train": made})
    return folder


def poison(monkeypatch: pytest.MonkeyPatch, bad: set[int]) -> None:
    """Rows whose loss is no number."""
    original = SatLisa.forward

    def forward(self: SatLisa, batch: Any) -> Any:
        output = original(self, batch)
        if bad & set(batch.indices):
            output.losses.text = output.losses.text * float("nan")
        return output

    monkeypatch.setattr(SatLisa, "forward", forward)


def test_a_loss_that_is_no_number_drops_the_step(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The weights are those of before, the row is named, the steps after it are taken."""
    poison(monkeypatch, {7})
    made = settings(
        tiny_config, dataset_dir, tmp_path, GRAD_ACCUM="1", CHECKPOINT_EVERY="1", EPOCHS="1", KEEP_CHECKPOINTS="99"
    )
    original, after = trainer.clip_and_step, []

    def clip_and_step(run: Any, terms: Any) -> Any:
        norm = original(run, terms)
        after.append({name: p.detach().clone() for name, p in run.model.named_parameters() if p.requires_grad})
        return norm

    monkeypatch.setattr(trainer, "clip_and_step", clip_and_step)
    run_module.train(made)
    log = log_of(tmp_path)
    (dropped,) = [record["step"] for record in log if record["loss"] is None]
    assert f"step {dropped}: the loss or its gradient is not finite" in caplog.text and "(row 7)" in caplog.text
    summary = json.loads((tmp_path / "train_summary.json").read_text())
    assert summary["dropped_steps"] == [{"step": dropped, "rows": [7]}]
    found = {s.state["step"]: s for s in map(read_checkpoint, list_checkpoints(tmp_path))}
    for step in range(2, len(log)):
        same = all(torch.equal(after[step - 1][name], after[step - 2][name]) for name in after[0])
        assert same == (step == dropped)
    assert set(found) == {*range(1, len(log) + 1)} - {dropped}  # which would push out one in which something was learnt
    assert all(tensor.isfinite().all() for tensor in found[len(log)].trained.values())
    assert all(tensor.isfinite().all() for tensor in found[len(log)].optimizer.values())


def test_five_in_a_row_stop_the_run(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings(tiny_config, dataset_dir, tmp_path, BATCH_SIZE="1", GRAD_ACCUM="1", CHECKPOINT_EVERY="3")
    original, forwards = SatLisa.forward, []

    def forward(self: SatLisa, batch: Any) -> Any:
        output = original(self, batch)
        forwards.append(batch.indices)
        if len(forwards) > 3:
            output.losses.text = output.losses.text * float("inf")
        return output

    monkeypatch.setattr(SatLisa, "forward", forward)
    with pytest.raises(SatlisaError, match=r"step 8: 5 steps in a row .*checkpoints in .* from before.*LEARNING_RATE"):
        run_module.train(made)
    assert [record["loss"] is None for record in log_of(tmp_path)] == [False] * 3 + [True] * 5
    (good,) = (read_checkpoint(place) for place in list_checkpoints(tmp_path))
    assert (good.state["step"], good.state["streak"]) == (3, 0)
    monkeypatch.setattr(SatLisa, "forward", original)
    run_module.train(made)
    assert all(record["loss"] is not None for record in log_of(tmp_path))


def test_a_dropped_step_takes_no_random_numbers(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout: the rows at fault are looked for at once before a checkpoint, else a step later."""
    (tmp_path / "config.json").write_text(json.dumps({**tiny_config.to_dict(), "lora_dropout": 0.3}))
    poison(monkeypatch, {7})
    more = {"MODEL_CONFIG": str(tmp_path / "config.json"), "EPOCHS": "1", "GRAD_ACCUM": "1"}
    for name, every in (("often", "1"), ("never", "0")):
        made = settings(tiny_config, dataset_dir, tmp_path / name, CHECKPOINT_EVERY=every, **more)
        run_module.train(made)
    assert json.loads((tmp_path / "often" / "train_summary.json").read_text())["dropped_steps"]
    assert differences(tmp_path / "often", tmp_path / "never") == []


def overflow_in(monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[int], bool]) -> None:
    """The loss is finite, one gradient is not, in the steps (from 1) that `is_bad` names."""
    original = trainer.clip_and_step

    def clip_and_step(run: Any, terms: Any) -> Any:
        if is_bad(run.progress.step + 1):
            next(run.model.projector.parameters()).grad.view(-1)[0] = torch.nan
        return original(run, terms)

    monkeypatch.setattr(trainer, "clip_and_step", clip_and_step)


FP16 = {"PRECISION": "fp16", "GRAD_ACCUM": "1", "BATCH_SIZE": "2", "VAL_SAMPLES": "1"}


@pytest.mark.parametrize("steps", ["24", "4"])
def test_a_float16_run_without_one_step_taken_is_no_success(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    """The scale falls below 1 in step 17; a shorter run ends before that, and writes no model either."""
    overflow_in(monkeypatch, lambda _: True)
    made = settings(tiny_config, dataset_dir, tmp_path, **FP16, MAX_STEPS=steps, EPOCHS="9")
    words = "step 17: gradients overflow in float16 even at a loss scale of 1;" if steps == "24" else "none of 4 steps"
    with pytest.raises(SatlisaError, match=rf"{words}.*PRECISION=fp32, which fits a T4"):
        run_module.train(made)
    assert not list(tmp_path.glob("*.pt")) and not (tmp_path / "vlm_lora").exists()
    assert [record["loss_scale"] for record in log_of(tmp_path)][:3] == [65536, 32768, 16384]
    assert all(record["grad_norm"] is None and record["loss"] for record in log_of(tmp_path))


def test_a_few_overflows_at_the_start_are_normal_and_shown(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    overflow_in(monkeypatch, lambda step: step <= 7)
    caplog.set_level("INFO", "satlisa")
    run_module.train(settings(tiny_config, dataset_dir, tmp_path, **FP16, MAX_STEPS="9", EPOCHS="3", MAX_SAMPLES="8"))
    summary = json.loads((tmp_path / "train_summary.json").read_text())
    assert (summary["overflowed_steps"], summary["dropped_steps"], summary["loss_scale"]) == (7, [], 512)
    assert "step 7: not taken, gradients overflow in float16; loss scale now 512" in caplog.text
    assert "7 of 9 steps not taken" in caplog.text
    assert (tmp_path / "seg_projector.pt").exists()


def test_five_overflows_in_a_row_stop_a_float16_run_that_had_learnt(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints are from before them; four in a row, and five over and over but not in a row, are endured."""
    overflow_in(monkeypatch, lambda step: step in (3, 4, 5, 6) or step >= 8)
    made = settings(tiny_config, dataset_dir, tmp_path, **FP16, CHECKPOINT_EVERY="1", EPOCHS="9")
    with pytest.raises(SatlisaError, match=r"step 12: gradients overflow .* 9 of 12 steps were not taken"):
        run_module.train(made)
    newest = read_checkpoint(list_checkpoints(tmp_path)[0]).state
    assert (newest["step"], newest["streak"], newest["overflows"]) == (7, 0, 4)


def test_five_losses_in_a_row_that_are_no_number_stop_a_float16_run(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(99)))
    with pytest.raises(SatlisaError, match=r"step 5: 5 steps in a row .*PRECISION=fp32, which fits a T4"):
        run_module.train(settings(tiny_config, dataset_dir, tmp_path, **FP16))


def test_a_resumed_float16_run_goes_on_with_its_loss_scale(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow_in(monkeypatch, lambda step: step in (1, 2))
    options = {**FP16, "MAX_STEPS": "6", "EPOCHS": "1", "CHECKPOINT_EVERY": "3"}
    run_module.train(settings(tiny_config, dataset_dir, tmp_path / "whole", **options))
    made = settings(tiny_config, dataset_dir, tmp_path / "parts", **options)
    original = trainer.optimizer_step

    def killed(run: Any, loaded: Any) -> None:
        if run.progress.step == 4:
            raise KeyboardInterrupt
        original(run, loaded)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "optimizer_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run_module.train(made)
    run_module.train(made)
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    assert [record["loss_scale"] for record in log_of(tmp_path / "parts")] == [65536, 32768, *[16384] * 4]


def out_of_memory_above(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    original = SatLisa.forward

    def forward(self: SatLisa, batch: Any) -> Any:
        if len(batch.indices) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, batch)

    monkeypatch.setattr(SatLisa, "forward", forward)


def test_out_of_memory_halves_a_detected_batch(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    hardware = Hardware(torch.device("cpu"), torch.float32, 8, "a card with too little memory")
    monkeypatch.setattr(run_module, "detect", lambda *_: hardware)
    more = {"BATCH_SIZE": "0", "GRAD_ACCUM": "0", "EPOCHS": "1"}
    run_module.train(settings(tiny_config, dataset_dir, tmp_path / "enough", **more))
    out_of_memory_above(monkeypatch, 2)
    run_module.train(settings(tiny_config, dataset_dir, tmp_path / "little", **more))
    assert "continuing with BATCH_SIZE=4 GRAD_ACCUM=4, the same 16 rows a step" in caplog.text
    assert "continuing with BATCH_SIZE=2 GRAD_ACCUM=8, the same 16 rows a step" in caplog.text
    a, b = log_of(tmp_path / "enough"), log_of(tmp_path / "little")
    assert [r["step"] for r in a] == [r["step"] for r in b] == [1, 2]
    assert [r["loss"] for r in a] == pytest.approx([r["loss"] for r in b], rel=1e-4)


@pytest.mark.parametrize(("size", "advice"), [("4", "BATCH_SIZE=2 GRAD_ACCUM=4"), ("1", "GRAD_CHECKPOINT=1")])
def test_out_of_memory_at_a_size_that_was_set_stops(
    size: str, advice: str, tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out_of_memory_above(monkeypatch, 0)
    with pytest.raises(SatlisaError, match=f"out of memory at {size} .*{advice}"):
        run_module.train(settings(tiny_config, dataset_dir, tmp_path, BATCH_SIZE=size))


def test_other_errors_are_not_taken_for_memory(
    tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: SatLisa, batch: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(SatLisa, "forward", forward)
    with pytest.raises(RuntimeError, match="mat1"):
        run_module.train(settings(tiny_config, dataset_dir, tmp_path))


def test_too_many_skipped_rows_stop_the_run(tiny_config: ModelConfig, tmp_path: Path) -> None:
    broken = [{**row, "conversations": "{", "metadata": "{"} if n in (3, 8) else row for n, row in enumerate(rows(9))]
    broken[5]["task"] = None
    write_dataset(tmp_path / "data", {"train": broken})
    with pytest.raises(SatlisaError, match=r"MAX_SKIP: 3 of 9 .*2 rows skipped: `metadata`.*1 row skipped: `task`"):
        run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run", MAX_SKIP="0.3"))
    folder = run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "run2", MAX_SKIP="0.4", EPOCHS="2"))
    lines = json.loads((folder / "train_summary.json").read_text())["skipped_rows"]
    assert len(lines) == 2 and "2 rows skipped" in lines[0]  # each once, though they were met twice


def test_one_process_fails_and_all_stop(tiny_config: ModelConfig, dataset_dir: Path, tmp_path: Path) -> None:
    """The second process dies in its third step: its traceback is shown, and nobody waits for it for long."""
    script = tmp_path / "worker.py"
    script.write_text(
        f"""import os, sys
sys.path.insert(0, {str(ROOT)!r})
from satlisa.training import trainer
from satlisa.cli.train import main
original = trainer.run_batches
def run_batches(run, *arguments):
    if os.environ["RANK"] == "1" and run.progress.step == 2:
        raise ZeroDivisionError("the second process fails")
    return original(run, *arguments)
trainer.run_batches = run_batches
sys.exit(main([]))
"""
    )
    environ = {
        "DATASET": str(dataset_dir), "OUTPUT_DIR": str(tmp_path / "run"), "VLM_MODEL": tiny_config.vlm_model_id,
        "SAM_MODEL": tiny_config.sam_model_id, "DEVICE": "cpu", "ACCELERATE_USE_CPU": "1", "EPOCHS": "9",
        "BATCH_SIZE": "1", "GRAD_ACCUM": "2", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    started = time.monotonic()
    done = subprocess.run(
        [*LAUNCH, "2", str(script)],
        env={**os.environ, **environ}, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "ZeroDivisionError: the second process fails" in done.stderr
    lines = (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()
    assert len(lines) <= 2
    assert time.monotonic() - started < 100  # starting up included; the launcher waits 30 s for the other process


def test_out_of_memory_in_validation_and_between_steps(
    tiny_config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Batches are halved there too; no step is taken twice or lost from the log."""
    write_dataset(tmp_path / "data", {"train": rows(9), "validation": rows(9)})
    hardware = Hardware(torch.device("cpu"), torch.float32, 4, "a card with too little memory")
    monkeypatch.setattr(run_module, "detect", lambda *_: hardware)
    more = {"BATCH_SIZE": "0", "GRAD_ACCUM": "1", "EPOCHS": "2"}
    run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "enough", **more))
    original, log_step, failures = SatLisa.forward, trainer.log_step, []

    def forward(self: SatLisa, batch: Any) -> Any:
        if not self.training and len(batch.indices) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, batch)

    def failing(run: Any, pending: Any) -> None:
        log_step(run, pending)
        if pending and pending.step == 5 and not failures:
            failures.append(5)
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SatLisa, "forward", forward)
    monkeypatch.setattr(trainer, "log_step", failing)
    run_module.train(settings(tiny_config, tmp_path / "data", tmp_path / "little", **more))
    assert failures and "BATCH_SIZE=2 GRAD_ACCUM=2" in caplog.text and "BATCH_SIZE=1 GRAD_ACCUM=4" in caplog.text
    a, b = log_of(tmp_path / "enough"), log_of(tmp_path / "little")
    assert [r["step"] for r in a] == [r["step"] for r in b] == [1, 2, 3, 4, 5, 6]
    assert [r["loss"] for r in a] == pytest.approx([r["loss"] for r in b], rel=1e-3)
