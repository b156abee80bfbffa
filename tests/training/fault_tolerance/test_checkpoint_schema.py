"""A checkpoint whose hashes match and whose content is nonsense: one line, and the one before it is used."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from satlisa.errors import SatlisaError
from satlisa.training.fault_tolerance import checkpoint_schema
from satlisa.training.fault_tolerance.checkpoint_files import read_checkpoint
from satlisa.training.fault_tolerance.resume import Start, choose_start
from satlisa.training.state import Progress
from tests.helpers.run_folders import make_run, place_of, rewrite, settings

IDENTITY = {"DATASET rows": 24, "EPOCHS": 2, "BATCH_SIZE × GRAD_ACCUM": 1, "LEARNING_RATE": 0.1}
VALIDATION = {"epoch": 1, "step": 3, "loss": 1.0, "mask_iou": None}


def make(folder: Path) -> Path:
    """A run folder with checkpoints of the steps 2 and 4."""
    return make_run(folder, 2, 4, identity=IDENTITY)


def state_of(place: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((place / "state.json").read_text())
    del stored["sha256"]
    return stored


def is_refused(folder: Path, said: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SatlisaError, match=said) as error:
        read_checkpoint(place_of(folder, 4))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    caplog.clear()
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 2))
    assert said in caplog.text and "trying the checkpoint before it" in caplog.text


NAMES = (
    "step", "epoch", "rows_done", "step_size", "num_processes", "dtype", "identity", "scheduler", "scaler",
    "validations", "skips", "val_skips", "left_out", "dropped", "streak", "seconds",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_entry(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path / "run")
    state = state_of(place_of(folder, 4))
    assert set(state) == {*NAMES, "overflows", "places_cut", "shortened"}  # which checkpoints of earlier versions lack
    del state[name]
    rewrite(place_of(folder, 4), state)
    is_refused(folder, f"`{name}` is missing", caplog)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-5, "4", [[]], {"a": None}, True, 1e999, [1, 2]], ids=repr)
def test_a_wrong_entry(name: str, value: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if name == "identity" and isinstance(value, dict):
        return  # another run's, see test_resume.py
    folder = make(tmp_path / "run")
    rewrite(place_of(folder, 4), {**state_of(place_of(folder, 4)), name: value})
    is_refused(folder, f"`{name}`: expected ", caplog)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", 10**9),
        ("step", 4.0),
        ("epoch", 3),
        ("epoch", 10**400),
        ("rows_done", 25),
        ("step_size", 0),
        ("num_processes", 0),
        ("num_processes", 10**9),
        ("dtype", "int8"),
        ("seconds", 1e300),
        ("seconds", float("nan")),
        ("left_out", 10**12),
        ("skips", [[24, "image", "broken"]]),
        ("skips", [[1, "image"]]),
        ("skips", [[1, None, "broken"]]),
        ("dropped", [{"step": 5, "rows": []}]),
        ("dropped", [{"step": 2, "rows": ["x"]}]),
        ("dropped", [{"step": 2}]),
        ("validations", [{**VALIDATION, "step": 99}]),
        ("validations", [{**VALIDATION, "loss": "low"}]),
        ("validations", [{"epoch": 1, "step": 3}]),
        ("validations", [VALIDATION] * 3),
        ("scaler", {"scale": -1.0}),
        ("scaler", {"scale": 1e300}),
        ("scaler", {"scale": "65536"}),
    ],
)
def test_a_number_that_no_run_has(name: str, value: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path / "run")
    rewrite(place_of(folder, 4), {**state_of(place_of(folder, 4)), name: value})
    is_refused(folder, f"`{name}`: expected ", caplog)


@pytest.mark.parametrize(
    "change",
    [
        {"base_lrs": [0.5], "_last_lr": [0.5]},  # of another LEARNING_RATE
        {"_last_lr": [0.2]},
        {"_last_lr": [0.1, 0.1]},
        {"_last_lr": []},
        {"last_epoch": 10**6},
        {"last_epoch": -1},
        {"_step_count": "5"},
    ],
    ids=repr,
)
def test_a_schedule_of_other_steps(change: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path / "run")
    state = state_of(place_of(folder, 4))
    rewrite(place_of(folder, 4), {**state, "scheduler": {**state["scheduler"], **change}})
    is_refused(folder, "`scheduler`: expected ", caplog)


@pytest.mark.parametrize(
    ("rates", "fits"), [([0.1, 0.2], True), ([0.1], False), ([0.1, 0.1], False), ([0.2, 0.1], False)], ids=repr
)
def test_the_rate_of_the_projector(
    rates: list[float], fits: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path / "run")
    state = state_of(place_of(folder, 4))
    state["identity"] = {**IDENTITY, "PROJECTOR_LR_FACTOR": 2.0}
    state["scheduler"] = {**state["scheduler"], "base_lrs": rates, "_last_lr": [rate / 2 for rate in rates]}
    rewrite(place_of(folder, 4), state)
    if fits:
        assert read_checkpoint(place_of(folder, 4)).state["scheduler"]["base_lrs"] == rates
    else:
        is_refused(folder, "`scheduler`: expected ", caplog)


def test_numbers_of_a_real_run_pass(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    more = {
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000},
        "validations": [VALIDATION],
        "skips": [[23, "image", "broken"]],
        "dropped": [{"step": 2, "rows": [5], "reason": "overflow"}],
        "streak": 1,
        "of a later version": [1],
    }
    rewrite(place_of(folder, 4), {**state_of(place_of(folder, 4)), **more})
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 4))


def test_fields_that_progress_gains_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclass
    class Later(Progress):
        overflows: int = 0
        reasons: list[str] = field(default_factory=list)

    monkeypatch.setattr(checkpoint_schema, "Progress", Later)
    folder = make(tmp_path / "run")
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 4))  # written before there were any
    state = state_of(place_of(folder, 4))
    rewrite(place_of(folder, 4), {**state, "overflows": 3, "reasons": ["a"]})
    assert choose_start(settings(folder), IDENTITY) == Start(place_of(folder, 4))
    for wrong in ({"overflows": "3"}, {"overflows": 10**30}, {"reasons": [float("nan")]}):
        rewrite(place_of(folder, 4), {**state, **wrong})
        is_refused(folder, f"`{next(iter(wrong))}`: expected a value like ", caplog)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a/exp_avg": torch.zeros(2)}, "as the parameter"),
        ({"a/exp_avg_sq": torch.zeros(1, 1)}, "as the parameter"),
        ({"a/exp_avg": torch.zeros(1, dtype=torch.int64)}, "as the parameter"),
        ({"a/step": torch.tensor(-1.0)}, "as the parameter"),
        ({"a/step": torch.tensor(1e9)}, "as the parameter"),
        ({"a/step": torch.tensor([4.0])}, "as the parameter"),
        ({"b/step": torch.tensor(4.0)}, "the name of a parameter"),
        ({"step": torch.tensor(4.0)}, "the name of a parameter"),
        ({"a/exp_avg": None}, "some missing"),
        ({"a/momentum": torch.zeros(1)}, "some missing"),
    ],
)
def test_optimizer_tensors_of_other_shapes(
    change: dict[str, Any], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fused AdamW ends the process with a segmentation fault on some of them."""
    folder = make(tmp_path / "run")
    tensors = {**read_checkpoint(place_of(folder, 4)).optimizer, **change}
    rewrite(place_of(folder, 4), optimizer={name: tensor for name, tensor in tensors.items() if tensor is not None})
    is_refused(folder, said, caplog)


@pytest.mark.parametrize("change", ["missing", "of another type"])
def test_states_of_no_random_generator(change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path / "run")
    tensors = read_checkpoint(place_of(folder, 4)).random
    del tensors["0/numpy"]
    if change != "missing":
        tensors["0/numpy"] = torch.zeros(624)
    rewrite(place_of(folder, 4), random=tensors)
    is_refused(folder, "no states of random generators of process 0", caplog)
