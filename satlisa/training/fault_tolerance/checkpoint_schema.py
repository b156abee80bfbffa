"""What a checkpoint must hold, checked before any of it is used: what does not fit is one line and no crash.

`state.json` is checked entry by entry against `_ENTRIES`, the tensors against each other: the optimizer's fused kernels
trust the shapes that they are given, and a wrong one ends the process.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from satlisa.errors import SatlisaError
from satlisa.training.fault_tolerance.random_states import random_states_fault
from satlisa.training.state import Progress

State = Mapping[str, Any]
_MOST = 10**9  # of anything that is counted
_LONGEST = 10**10  # seconds of a run
_ADAM = {"step", "exp_avg", "exp_avg_sq"}  # the optimizer's tensors of a parameter
_SHOWN = 60  # characters of a wrong entry in a message


def check_state(state: State) -> None:
    """Check the content of `state.json`.

    Fields of `Progress` that `_ENTRIES` does not name may be missing, as in checkpoints of earlier versions; where they
    are there, they must be of their default's type. Entries that nobody reads are allowed.

    Raises:
        SatlisaError: an entry is missing, or is not what it should be; without the place of the file.
    """
    for name, (expected, fits) in _ENTRIES.items():
        if name not in state:
            raise SatlisaError(f"`{name}` is missing")
        try:
            is_right = fits(state[name], state)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, RecursionError):
            is_right = False
        if not is_right:
            raise SatlisaError(f"`{name}`: expected {expected}, found {_shown(state[name])}")
    defaults = vars(Progress())
    for name in (item.name for item in fields(Progress) if item.name not in _ENTRIES and item.name in state):
        if type(state[name]) is not type(defaults[name]) or not _is_simple(state[name]):
            expected = f"a value like {defaults[name]!r}"
            raise SatlisaError(f"`{name}`: expected {expected}, found {_shown(state[name])}")


def check_tensors(
    state: State, trained: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], random: Mapping[str, Tensor]
) -> None:
    """Check the tensors of a checkpoint (`checkpoint_files.Checkpoint`) against each other; `state` is checked already.

    Raises:
        SatlisaError: optimizer tensors that do not fit their parameters, or random states that are none.
    """
    if wrong := [name for name, tensor in trained.items() if not tensor.is_floating_point()]:
        raise SatlisaError(f"trained.safetensors: expected floating-point numbers in {wrong[0]}, found others")
    keys: dict[str, set[str]] = {}
    for full_name, tensor in optimizer.items():
        name, _, key = full_name.rpartition("/")
        keys.setdefault(name, set()).add(key)
        if name not in trained or not _fits_parameter(key, tensor, trained[name], state):
            of = f"{tuple(trained[name].shape)} as the parameter" if name in trained else "the name of a parameter"
            raise SatlisaError(f"optimizer.safetensors: expected {of}, found {full_name} {tuple(tensor.shape)}")
    if partial := [name for name, found in keys.items() if found != _ADAM]:
        raise SatlisaError(f"optimizer.safetensors: expected {', '.join(sorted(_ADAM))} of {partial[0]}, some missing")
    for rank in range(state["num_processes"]):
        own = {name.removeprefix(f"{rank}/"): t for name, t in random.items() if name.startswith(f"{rank}/")}
        if fault := random_states_fault(own):
            raise SatlisaError(f"random.safetensors: no states of random generators of process {rank} ({fault})")


def _fits_parameter(key: str, tensor: Tensor, parameter: Tensor, state: State) -> bool:
    """Whether an optimizer tensor is one that AdamW keeps for a parameter; its count is at most that of the run."""
    if key == "step":
        return tensor.ndim == 0 and 0 <= float(tensor) <= state["step"]
    return tensor.shape == parameter.shape and tensor.dtype == parameter.dtype


def _count(low: int = 0, high: int = _MOST) -> Callable[[Any, State], bool]:
    return lambda value, _: _is_count(value, low, high)


def _is_count(value: Any, low: int = 0, high: int = _MOST) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def _is_simple(value: Any) -> bool:
    """Whether a value is text, a truth value, a number that is no nonsense, or a list or object of these."""
    if isinstance(value, dict):
        return all(map(_is_simple, value.values()))
    if isinstance(value, list):
        return all(map(_is_simple, value))
    return value is None or isinstance(value, str | bool) or _is_number(value, -_LONGEST, _LONGEST)


def _limit(state: State, name: str) -> int:
    """A whole number of the run's settings, from its identity; where it is not known, the largest count."""
    value = state["identity"].get(name)
    return value if _is_count(value, 1) else _MOST


def _is_step_size(value: Any, state: State) -> bool:
    product = state["identity"].get("BATCH_SIZE × GRAD_ACCUM")
    return _is_count(value, 1) and (not _is_count(product, 1) or value % product == 0)


def _is_step(step: Any, state: State) -> bool:
    """Whether a run can have taken so many optimizer steps: each takes `step_size` rows of its epoch."""
    size, rows = state["step_size"], _limit(state, "DATASET rows")
    return _is_count(step, 0, state["epoch"] * -(-rows // size) + -(-state["rows_done"] // size))


def _is_scheduler(value: Any, state: State) -> bool:
    base, last = value["base_lrs"], value["_last_lr"]
    peak, factor = state["identity"].get("LEARNING_RATE"), state["identity"].get("PROJECTOR_LR_FACTOR", 1)
    peaks = [base[0] if peak is None else peak]
    if factor != 1:  # the projector's own
        peaks.append(peaks[0] * factor)
    return (
        base == peaks
        and len(last) == len(base)
        and all(_is_number(rate, 0) for rate in base)
        and all(_is_number(rate, 0, most) for rate, most in zip(last, base, strict=True))
        and _is_count(value["last_epoch"], 0, state["step"])
        and _is_count(value["_step_count"], 0, state["step"] + 1)
        and _is_simple(value)
    )


def _is_scaler(value: Any, _: State) -> bool:
    return value is None or (type(value) is dict and all(_is_number(n, 0, 2.0**64) for n in value.values()))


def _are_validations(value: Any, state: State) -> bool:
    return len(value) <= state["epoch"] + 1 and all(
        {"epoch", "step", "loss", "mask_iou"} <= point.keys()
        and _is_count(point["step"], 0, state["step"])
        and all(number is None or _is_number(number) for number in point.values())
        for point in value
    )


def _are_skips(value: Any, state: State, high: int) -> bool:
    return type(value) is list and all(
        len(row) == 3 and _is_count(row[0], 0, high) and isinstance(row[1], str) and isinstance(row[2], str)
        for row in value
    )


def _are_dropped(value: Any, state: State) -> bool:
    return type(value) is list and all(
        _is_count(step["step"], 0, state["step"]) and all(map(_is_count, step["rows"])) and _is_simple(step)
        for step in value
    )


# What `state.json` must hold: what is expected, in words and as a check, which may look at the entries before it.
_ENTRIES: dict[str, tuple[str, Callable[[Any, State], bool]]] = {
    "identity": ("the settings of the run by name", lambda value, _: isinstance(value, dict)),
    "num_processes": ("a number of processes", _count(1, 10**6)),
    "step_size": ("a multiple of BATCH_SIZE × GRAD_ACCUM", _is_step_size),
    "epoch": ("complete epochs, at most EPOCHS", lambda v, state: _is_count(v, 0, _limit(state, "EPOCHS"))),
    "rows_done": ("rows of an epoch", lambda value, state: _is_count(value, 0, _limit(state, "DATASET rows"))),
    "step": ("the steps that so many rows allow", _is_step),
    "dtype": ("a precision", lambda value, _: value in ("float32", "float16", "bfloat16")),
    "scheduler": ("the state of the schedule of these steps", _is_scheduler),
    "scaler": ("numbers of the gradient scaler", _is_scaler),
    "validations": ("the numbers of each validation", _are_validations),
    "skips": ("[row, column, reason] of skipped rows", lambda v, s: _are_skips(v, s, _limit(s, "DATASET rows") - 1)),
    "val_skips": ("[row, column, reason] of skipped rows", lambda v, s: _are_skips(v, s, _MOST)),
    "left_out": ("a count", _count()),
    "dropped": ("steps that were dropped, with their rows", _are_dropped),
    "streak": ("a count", _count()),
    "seconds": ("a duration in seconds", lambda value, _: _is_number(value, 0, _LONGEST)),
}


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, an integer of too many digits
        return type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
