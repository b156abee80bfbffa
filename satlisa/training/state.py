"""Everything that one training run holds, and how its state goes into a checkpoint and comes back."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from satlisa.data.sample import RowError
from satlisa.errors import SatlisaError, first_line
from satlisa.model.satlisa import SatLisa
from satlisa.runtime.hardware import dtype_name
from satlisa.runtime.sharding import laid_out_like, trained_state
from satlisa.runtime.signals import Interrupt
from satlisa.training.fault_tolerance.checkpoint_files import (
    Snapshot,
    put_optimizer,
    put_random,
    take_optimizer,
    take_random,
    write_snapshot,
)
from satlisa.training.fault_tolerance.skipped_rows import Skips
from satlisa.training.loader import StepLoader
from satlisa.training.log import TrainLog
from satlisa.training.settings import TrainConfig, parse_interval

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PendingStep:
    """A step that was taken and whose numbers are still on the device.

    `terms` (3,) are L_text, BCE and DICE of all processes; `rows` this process's row numbers; `seconds` counts from
    the step before, loading included.
    """

    step: int
    terms: Tensor
    grad_norm: Tensor
    lr: float
    num_samples: int
    rows: list[int]
    seconds: float


@dataclass
class Run:
    """The wrapped model, what steps it, its data and its log, and how far it has come.

    Attributes:
        wrapped: the model inside DDP when there are several processes; with FSDP the model itself, in pieces.
        identity: what must be the same for the run to go on (`identity.identify`).
        epoch, rows_done: whole epochs, and rows of the epoch under way, that lie behind; of all processes.
        dropped: steps whose loss was no number, and the rows at fault; `streak` counts the last ones in a row.
        seconds: what earlier starts of this run took.
    """

    settings: TrainConfig
    accelerator: Accelerator
    model: SatLisa
    wrapped: Any
    optimizer: Any
    scheduler: Any
    train_loader: StepLoader
    val_loader: StepLoader
    log: TrainLog
    identity: dict[str, Any]
    interrupt: Interrupt
    control: Any = None  # the group of processes that `add_up` talks to
    skips: Skips = field(default_factory=Skips)
    val_skips: Skips = field(default_factory=Skips)
    left_out: int = 0
    step: int = 0
    epoch: int = 0
    rows_done: int = 0
    dropped: list[dict[str, Any]] = field(default_factory=list)
    streak: int = 0
    seconds: float = 0.0
    pending: PendingStep | None = None
    started: float = field(default_factory=time.perf_counter)
    clock: float = 0.0  # when the last step was taken
    saved: float = field(default_factory=time.perf_counter)  # when the last checkpoint was written
    progress: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return bool(self.accelerator.is_main_process)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.settings.output_dir)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = self.settings.epochs * len(self.train_loader)
        return min(steps, self.settings.max_steps) if self.settings.max_steps else steps

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to train or to validate."""
        return self.epoch >= self.settings.epochs or (self.step >= self.total_steps and self.rows_done == 0)

    def add_up(self, numbers: list[int]) -> list[int]:
        """Sums over all processes, which all take part; by way of the CPU, so that no GPU is waited for."""
        if self.accelerator.num_processes == 1:
            return numbers
        sums = torch.tensor(numbers)
        torch.distributed.all_reduce(sums, group=self.control)
        return [int(number) for number in sums]

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all processes, which all take part, in the order of the processes."""
        gathered: list[Any] = gather_object(items) if self.accelerator.num_processes > 1 else items
        return gathered

    def elapsed(self) -> float:
        """Seconds of this start and of the earlier ones."""
        return self.seconds + time.perf_counter() - self.started


def checkpoint_is_due(run: Run) -> bool:
    """Whether CHECKPOINT_EVERY wants one after this step; of the processes the main one's clock counts."""
    steps, seconds = parse_interval(run.settings.checkpoint_every)
    if steps:
        return run.step % steps == 0
    return bool(seconds) and run.is_main and time.perf_counter() - run.saved >= seconds


def save_checkpoint(run: Run) -> str:
    """Write a checkpoint; all processes take part. A disk that is full costs this checkpoint, not the run.

    Returns:
        Why there is none, in the main process; "" where it is written, and in the others.
    """
    own = {f"{run.accelerator.process_index}/{name}": state for name, state in take_random().items()}
    states = run.gather([own])
    snapshot = take_snapshot(run, states)
    run.saved = time.perf_counter()
    if not run.is_main:
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
