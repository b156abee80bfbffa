"""The state of a run into a checkpoint and back: parameters, optimizer, random generators, progress."""

import logging
import random
import time
from dataclasses import fields
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.hardware import dtype_name
from satlisa.runtime.sharding import shard_like, trained_state, unsharded
from satlisa.runtime.signals import Stopped
from satlisa.training.fault_tolerance.checkpoint_files import Checkpoint, write_checkpoint
from satlisa.training.fault_tolerance.skipped_rows import Skips
from satlisa.training.settings import parse_interval
from satlisa.training.state import Progress, Run

logger = logging.getLogger(__name__)


def take_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by the names of the parameters that they belong to."""
    return {
        f"{name}/{key}": unsharded(value.detach()).cpu().clone()
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
        value = shard_like(tensor, parameters[name]) if tensor.ndim else tensor  # the step count is not sharded
        states.setdefault(places[name], {})[key] = value
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
    """Whether CHECKPOINT_EVERY wants one after this step; the clock of the main process decides."""
    steps, seconds = parse_interval(run.settings.checkpoint_every)
    if steps:
        return run.progress.step % steps == 0
    return bool(seconds) and run.processes.is_main and time.perf_counter() - run.clock.checkpoint >= seconds


def save_checkpoint(run: Run) -> str:
    """Write a checkpoint; all processes take part. A full disk costs this checkpoint, not the run.

    Returns:
        In the main process, why it could not be written, or ""; "" in the others.
    """
    own = {f"{run.processes.rank}/{name}": state for name, state in take_random().items()}
    states = run.processes.gather([own])
    checkpoint = capture_state(run, states)
    run.clock.checkpoint = time.perf_counter()
    if not run.processes.is_main:
        return ""
    run.log.fsync()
    try:
        write_checkpoint(checkpoint, run.folder, run.settings.keep_checkpoints)
    except OSError as error:
        reason = first_line(error)
        logger.warning(
            "no checkpoint of step %d (%s); the earlier checkpoints are untouched", run.progress.step, reason
        )
        return reason
    return ""


def capture_state(run: Run, random_states: list[dict[str, Tensor]]) -> Checkpoint:
    """The state of a run between two steps; all processes take part. The latest step must have been logged."""
    assert run.pending is None
    progress = run.progress
    scheduler = {key: value for key, value in run.scheduler.state_dict().items() if key != "lr_lambdas"}
    state = {
        "step": progress.step,
        "epoch": progress.epoch,
        "rows_done": progress.rows_done,
        "step_size": run.train_loader.step_size,
        "num_processes": run.processes.size,
        "dtype": dtype_name(run.model.compute_dtype),
        "identity": run.identity,
        "scheduler": scheduler,
        "scaler": run.scaler.state_dict(),
        "validations": run.log.validations,
        "skips": progress.skips.as_lists(),
        "val_skips": progress.val_skips.as_lists(),
        "left_out": progress.left_out,
        "shortened": progress.shortened,
        "dropped": progress.dropped,
        "streak": progress.streak,
        "overflows": progress.overflows,
        "seconds": run.elapsed(),
    }
    random_state = {name: tensor for states in random_states for name, tensor in states.items()}
    return Checkpoint(state, trained_state(run.model), take_optimizer(run.model, run.optimizer.optimizer), random_state)


def restore_state(run: Run, checkpoint: Checkpoint) -> None:
    """Restore a run from a checkpoint; the number of processes may differ.

    Its loader must keep the rows per step, so that the same rows come next and the schedule is the same.

    Raises:
        SatlisaError: the checkpoint is of another model.
    """
    state = checkpoint.state
    assert run.train_loader.step_size == state["step_size"]
    parameters = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    if shapes != (found := {name: tuple(tensor.shape) for name, tensor in checkpoint.trained.items()}):
        wrong = sorted(name for name in {*shapes, *found} if shapes.get(name) != found.get(name))
        raise SatlisaError(f"checkpoint of step {state['step']}: of another model; {wrong[0]} does not fit")
    for name, parameter in parameters.items():
        parameter.data.copy_(shard_like(checkpoint.trained[name], parameter))
    put_optimizer(run.model, run.optimizer.optimizer, checkpoint.optimizer)
    run.scheduler.load_state_dict({**state["scheduler"], "lr_lambdas": [None]})
    for group, lr in zip(run.optimizer.param_groups, state["scheduler"]["_last_lr"], strict=True):
        group["lr"] = lr
    if state["scaler"]:
        run.scaler.load_state_dict(state["scaler"])
    stored = {item.name: state[item.name] for item in fields(Progress) if item.name in state}
    skips = {name: Skips.from_lists(state[name]) for name in ("skips", "val_skips")}
    run.progress, run.log.validations = Progress(**{**stored, **skips}), state["validations"]
    own = f"{run.processes.rank}/"
    if random_states := {k.removeprefix(own): t for k, t in checkpoint.random.items() if k.startswith(own)}:
        put_random(random_states)


def stop(run: Run) -> NoReturn:
    """Write a checkpoint and leave; the latest step must have been logged.

    Raises:
        Stopped: the checkpoint is written.
        SatlisaError: it is not.
    """
    if reason := save_checkpoint(run):
        raise SatlisaError(
            f"stopped by {run.stop_request.reason or 'another process'} after step {run.progress.step}, without a "
            f"checkpoint of it ({reason}); the same command resumes from the one before"
        )
    raise Stopped
