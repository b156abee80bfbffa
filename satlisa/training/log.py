"""The readable files of a training run: `train_log.jsonl`, `loss_curve.png`, `train_summary.json`."""

import json
import logging
import math
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from satlisa.errors import first_line
from satlisa.runtime.atomic_files import atomic_write, fsync_path

logger = logging.getLogger(__name__)

LOG_FILE = "train_log.jsonl"
CURVE_FILE = "loss_curve.png"
SUMMARY_FILE = "train_summary.json"


@dataclass(frozen=True)
class StepLog:
    """One optimizer step. Losses are means over the effective batch; `peak_memory` is in bytes, of the GPU or, without
    one, of the process; `samples_per_second` is over all processes. `loss_scale` is 1 except in float16; where the
    gradient norm is not finite, the step was not taken."""

    step: int
    epoch: float
    loss: float
    loss_text: float
    loss_bce: float
    loss_dice: float
    lr: float
    grad_norm: float
    samples_per_second: float
    peak_memory: int
    loss_scale: float = 1.0


class TrainLog:
    """Appends each step to `train_log.jsonl`, and draws all of them at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[StepLog] = []
        self.validations: list[dict[str, float | None]] = []  # None: not finite
        self._unwritten = ""  # lines that a full disk refused

    def begin(self, earlier: Path | None = None, step: int = 0) -> None:
        """Start an empty log, or one with the steps up to `step` of the run folder `earlier`: the later ones are taken
        again."""
        self.steps = read_log(earlier / LOG_FILE, step) if earlier else []
        self._write_all()

    def add(self, step: StepLog) -> None:
        """Append one step. The file is closed after each line, so that a killed run keeps its log.

        A log that cannot be written, as on a full disk, does not stop the run: the line is written together with the
        next one, or at the next checkpoint.
        """
        self.steps.append(step)
        self._unwritten += _line(step)
        try:
            self._append()
            self._unwritten = ""
        except OSError as error:
            logger.warning("step %d is not in %s yet (%s)", step.step, LOG_FILE, first_line(error))

    def _append(self) -> None:
        path = self.folder / LOG_FILE
        if not path.exists():  # deleted by somebody
            self._unwritten = "".join(map(_line, self.steps))
        elif not path.is_file():  # a pipe would wait for a reader
            raise OSError("not a regular file")
        size = path.stat().st_size if path.exists() else 0
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(self._unwritten)
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)  # remove a line that was written in part
            raise

    def settle(self) -> None:
        """Wait until the log is on the disk, so that no checkpoint is ahead of it. One that could not be appended to is
        replaced: a file without permission to write can be, in a folder with it."""
        try:
            if self._unwritten:
                self._write_all()
            fsync_path(self.folder / LOG_FILE)
        except OSError as error:
            logger.warning("%s cannot be written (%s)", LOG_FILE, first_line(error))

    def _write_all(self) -> None:
        atomic_write(self.folder / LOG_FILE, "".join(map(_line, self.steps)).encode())
        self._unwritten = ""

    def draw(self) -> None:
        """Write `loss_curve.png`: the loss and its terms per step, and the validation points."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
        steps = [record.step for record in self.steps]
        for name, label in (("loss", "L"), ("loss_text", "text"), ("loss_bce", "BCE"), ("loss_dice", "DICE")):
            top.plot(steps, [getattr(record, name) for record in self.steps], label=label, linewidth=1)
        if self.validations:
            at = [point["step"] for point in self.validations]
            loss, iou = ([_or_nan(point[name]) for point in self.validations] for name in ("loss", "mask_iou"))
            top.plot(at, loss, "ko-", label="L, validation", markersize=4)
            bottom.plot(at, iou, "o-", label="mask IoU, validation")
        top.set(yscale="log", ylabel="loss", title="Training")
        bottom.set(ylim=(0, 1), xlabel="optimizer step", ylabel="mask IoU")
        for axis in (top, bottom):
            axis.grid(alpha=0.3)
            if axis.get_legend_handles_labels()[0]:
                axis.legend()
        figure.savefig(self.folder / CURVE_FILE, dpi=110)
        plt.close(figure)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `train_summary.json`."""
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        atomic_write(self.folder / SUMMARY_FILE, text.encode())


def read_log(path: Path, last_step: int) -> list[StepLog]:
    """The steps of a log up to `last_step`; lines that cannot be read, as a killed process leaves them, are skipped."""
    steps = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            values = json.loads(line)
            numbers: dict[str, Any] = {name: _or_nan(value) for name, value in values.items()}
            record = StepLog(**numbers)
            if record.step <= last_step:
                steps.append(record)
        except (ValueError, TypeError, AttributeError):
            continue
    return steps


def _line(step: StepLog) -> str:
    """A step as a line of strict JSON: non-finite losses and norms become null."""
    return json.dumps(without_nan(asdict(step))) + "\n"


def without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """The values, with None for non-finite numbers, which strict JSON cannot hold; None stays."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value


def peak_memory(device: torch.device) -> int:
    """Peak memory so far in bytes: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil  # comes with accelerate

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
