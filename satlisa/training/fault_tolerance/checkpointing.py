"""The state of a run into a checkpoint and back."""

import logging
import random
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from satlisa.data.sample import RowError
from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.hardware import dtype_name
from satlisa.runtime.sharding import laid_out_like, trained_state, whole
from satlisa.training.fault_tolerance.checkpoint_files import Snapshot, write_snapshot
from satlisa.training.fault_tolerance.skipped_rows import Skips
from satlisa.training.settings import parse_interval
from satlisa.training.state import Run

logger = logging.getLogger(__name__)


def take_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by the names of the parameters that they belong to."""
    return {
        f"{name}/{key}": whole(value.detach()).cpu().clone()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def put_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put tensors of `take_optimizer` back. The optimizer holds the model's trained parameters in their order."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    places = {name: place for place, name in enumerate(parameters)}
    states: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit("/", 1)
        laid_out = laid_out_like(tensor, parameters[name]) if tensor.ndim else tensor  # a count of steps is nobody's
        states.setdefault(places[name], {})[key] = laid_out
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def take_random() -> dict[str, Tensor]:
    """The states of this process's random generators: Python's, numpy's, torch's and that of its GPU."""
    version, words, gauss = random.getstate()
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    inner = state["state"]
    found = {
        "python": torch.tensor([version, *words]),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(inner["key"].astype(np.int64)),
        "numpy_place": torch.tensor([inner["pos"], state["has_gauss"]]),
        "numpy_gauss": torch.tensor(state["gauss"], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        found["mps"] = torch.mps.get_rng_state()
    return found


def put_random(tensors: dict[str, Tensor]) -> None:
    """Put states of `take_random` back; that of a GPU only where there is one."""
    version, *words = tensors["python"].tolist()
    gauss = tensors["python_gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    place, has_gauss = tensors["numpy_place"].tolist()
    inner = {"key": tensors["numpy"].numpy().astype(np.uint32), "pos": place}
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": inner,
            "has_gauss": has_gauss,
            "gauss": float(tensors["numpy_gauss"]),
        }
    )
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    if "mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["mps"])


def checkpoint_is_due(run: Run) -> bool:
    """Whether CHECKPOINT_EVERY wants one after this step; of the processes the main one's clock counts."""
    steps, seconds = parse_interval(run.settings.checkpoint_every)
    if steps:
        return run.step % steps == 0
    return bool(seconds) and run.processes.is_main and time.perf_counter() - run.saved >= seconds


def save_checkpoint(run: Run) -> str:
    """Write a checkpoint; all processes take part. A disk that is full costs this checkpoint, not the run.

    Returns:
        Why there is none, in the main process; "" where it is written, and in the others.
    """
    own = {f"{run.accelerator.process_index}/{name}": state for name, state in take_random().items()}
    states = run.processes.gather([own])
    snapshot = take_snapshot(run, states)
    run.saved = time.perf_counter()
    if not run.processes.is_main:
        return ""
    run.log.force()
    try:
        write_snapshot(snapshot, run.folder, run.settings.keep_checkpoints)
    except OSError as error:
        reason = first_line(error)
        logger.warning("no checkpoint of step %d (%s); the checkpoints before are as they were", run.step, reason)
        return reason
    return ""


def take_snapshot(run: Run, random_states: list[dict[str, Tensor]]) -> Snapshot:
    """The state of a run between two steps, made by all processes together; the step before must have been written
    down (`write_pending`)."""
    assert run.pending is None
    scheduler = {key: value for key, value in run.scheduler.state_dict().items() if key != "lr_lambdas"}
    state = {
        "step": run.step,
        "epoch": run.epoch,
        "rows_done": run.rows_done,
        "step_size": run.train_loader.step_size,
        "num_processes": run.accelerator.num_processes,
        "dtype": dtype_name(run.model.compute_dtype),
        "identity": run.identity,
        "scheduler": scheduler,
        "scaler": run.accelerator.scaler.state_dict() if run.accelerator.scaler else None,
        "validations": run.log.validations,
        "skips": _as_lists(run.skips),
        "val_skips": _as_lists(run.val_skips),
        "left_out": run.left_out,
        "dropped": run.dropped,
        "streak": run.streak,
        "seconds": run.elapsed(),
    }
    random_state = {name: tensor for states in random_states for name, tensor in states.items()}
    return Snapshot(state, trained_state(run.model), take_optimizer(run.model, run.optimizer.optimizer), random_state)


def restore(run: Run, snapshot: Snapshot) -> None:
    """Put a run where a checkpoint left it; the number of processes may be another one.

    Its loader must hold as many rows a step as before, so that the same rows come next and the schedule is the same.

    Raises:
        SatlisaError: the checkpoint is of another model.
    """
    state = snapshot.state
    assert run.train_loader.step_size == state["step_size"]
    parameters = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    if shapes != (found := {name: tuple(tensor.shape) for name, tensor in snapshot.trained.items()}):
        wrong = sorted(name for name in {*shapes, *found} if shapes.get(name) != found.get(name))
        raise SatlisaError(f"checkpoint of step {state['step']}: of another model; {wrong[0]} does not fit")
    for name, parameter in parameters.items():
        parameter.data.copy_(laid_out_like(snapshot.trained[name], parameter))
    put_optimizer(run.model, run.optimizer.optimizer, snapshot.optimizer)
    run.scheduler.load_state_dict({**state["scheduler"], "lr_lambdas": [None]})
    for group, lr in zip(run.optimizer.param_groups, state["scheduler"]["_last_lr"], strict=True):
        group["lr"] = lr
    if run.accelerator.scaler and state["scaler"]:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.step, run.epoch, run.rows_done = state["step"], state["epoch"], state["rows_done"]
    run.skips, run.val_skips = _from_lists(state["skips"]), _from_lists(state["val_skips"])
    run.left_out, run.dropped, run.streak = state["left_out"], state["dropped"], state["streak"]
    run.seconds, run.log.validations = state["seconds"], state["validations"]
    own = f"{run.accelerator.process_index}/"
    if random_states := {k.removeprefix(own): t for k, t in snapshot.random.items() if k.startswith(own)}:
        put_random(random_states)


def _as_lists(skips: Skips) -> list[list[Any]]:
    return [[error.index, error.column, error.reason] for error in skips.rows()]


def _from_lists(rows: list[list[Any]]) -> Skips:
    return Skips(RowError(*row) for row in rows)
