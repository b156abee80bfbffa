"""Everything that one training run holds, and how its state goes into a checkpoint and comes back."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    processes: ProcessGroup
    stop_request: StopRequest
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

    def elapsed(self) -> float:
        """Seconds of this start and of the earlier ones."""
        return self.seconds + time.perf_counter() - self.started
