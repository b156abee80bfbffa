"""The state of a run into a checkpoint and back: parameters, optimizer, random generators, progress."""

import logging
import time
from dataclasses import fields
from typing import NoReturn

import torch
from torch import Tensor, nn

from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.hardware import dtype_name
from satlisa.runtime.sharding import shard_like, trained_state, unsharded
from satlisa.runtime.signals import Stopped
from satlisa.training.fault_tolerance.checkpoint_files import Checkpoint, write_checkpoint
from satlisa.training.fault_tolerance.random_states import put_random, take_random
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
    run.log.settle()
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
    values = {item.name: getattr(run.progress, item.name) for item in fields(Progress)}
    scheduler = {key: value for key, value in run.scheduler.state_dict().items() if key != "lr_lambdas"}
    state = {
        **{name: value.as_lists() if isinstance(value, Skips) else value for name, value in values.items()},
        "step_size": run.train_loader.step_size,
        "num_processes": run.processes.size,
        "dtype": dtype_name(run.model.compute_dtype),
        "identity": run.identity,
        "scheduler": scheduler,
        "scaler": run.scaler.state_dict(),
        "validations": run.log.validations,
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
    known = run.scheduler.state_dict()  # only its own entries: the rest would become attributes of the object
    scheduler = {key: value for key, value in state["scheduler"].items() if key in known}
    run.scheduler.load_state_dict({**scheduler, "lr_lambdas": [None] * len(run.optimizer.param_groups)})
    for group, lr in zip(run.optimizer.param_groups, scheduler["_last_lr"], strict=True):
        group["lr"] = lr
    if state["scaler"] and run.scaler.is_enabled():
        run.scaler.load_state_dict({**run.scaler.state_dict(), **state["scaler"]})
    # A checkpoint of an earlier version lacks newer fields, which then have their defaults.
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
