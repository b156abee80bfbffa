"""The state of one training run."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from satlisa.model.satlisa import SatLisa
from satlisa.runtime.processes import ProcessGroup
from satlisa.runtime.signals import StopRequest
from satlisa.training.fault_tolerance.skipped_rows import Skips
from satlisa.training.loader import StepLoader
from satlisa.training.log import TrainLog
from satlisa.training.settings import TrainConfig


@dataclass(frozen=True)
class PendingStep:
    """A step that was taken and whose numbers are still on the device.

    `terms` (3,) are L_text, BCE and DICE over all processes; `loss_scale` () scaled the loss, against underflow in
    float16; `rows` this process's row numbers; `seconds` is the time since the previous step, loading included.
    """

    step: int
    terms: Tensor
    grad_norm: Tensor
    loss_scale: Tensor
    lr: float
    num_samples: int
    rows: list[int]
    seconds: float


@dataclass
class Progress:
    """How far a run has come, over all processes. Checkpoints store every field.

    Attributes:
        step: optimizer steps, those included that changed nothing.
        epoch, rows_done: complete epochs, and rows taken of the current one.
        skips, val_skips: rows that could not be used.
        left_out: instances omitted from answers.
        shortened: rows whose conversation was cut to `max_seq_length`.
        places_cut: rows whose answer has less about places than `instance_places`, to fit `max_seq_length`.
        dropped: steps with a non-finite loss or gradient, and the rows at fault; `streak` counts the latest in a row.
        overflows: steps of a float16 run whose gradients were too large for the loss scale.
        seconds: duration of earlier starts of this run.
    """

    step: int = 0
    epoch: int = 0
    rows_done: int = 0
    skips: Skips = field(default_factory=Skips)
    val_skips: Skips = field(default_factory=Skips)
    left_out: int = 0
    shortened: int = 0
    places_cut: int = 0
    dropped: list[dict[str, Any]] = field(default_factory=list)
    streak: int = 0
    overflows: int = 0
    seconds: float = 0.0

    @property
    def taken(self) -> int:
        """Steps that changed the weights: all but the dropped ones and those that overflowed."""
        return self.step - len(self.dropped) - self.overflows


@dataclass
class Clock:
    """Readings of `time.perf_counter`, in seconds: when this start began, the last step and the last checkpoint."""

    start: float = field(default_factory=time.perf_counter)
    step: float = field(default_factory=time.perf_counter)
    checkpoint: float = field(default_factory=time.perf_counter)


@dataclass
class Run:
    """A training run: the model and what trains it, its data, its log and its progress.

    Attributes:
        wrapped: the model inside DDP when there are several processes; with FSDP the model itself, sharded.
        identity: what must match for the run to be resumed (`run_identity.identify`).
        scaler: scales the loss of a float16 run; disabled in the others.
        total_steps: optimizer steps of the complete run.
        pending: the latest step, not yet logged.
        bar: the tqdm bar.
    """

    settings: TrainConfig
    accelerator: Accelerator
    processes: ProcessGroup
    stop_request: StopRequest
    identity: dict[str, Any]
    model: SatLisa
    wrapped: Any
    optimizer: Any
    scheduler: Any
    scaler: torch.amp.GradScaler
    train_loader: StepLoader
    val_loader: StepLoader
    total_steps: int
    log: TrainLog
    progress: Progress = field(default_factory=Progress)
    clock: Clock = field(default_factory=Clock)
    pending: PendingStep | None = None
    bar: Any = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.log.folder

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to train or to validate."""
        progress = self.progress
        is_last_step = progress.step >= self.total_steps and progress.rows_done == 0
        return progress.epoch >= self.settings.epochs or is_last_step

    def elapsed(self) -> float:
        """Seconds of this start and of the earlier ones."""
        return self.progress.seconds + time.perf_counter() - self.clock.start
