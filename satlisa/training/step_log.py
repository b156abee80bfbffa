"""Steps into the log, the trackers and the progress bar, once their numbers are read from the device."""

import math

from satlisa.model.losses import weigh
from satlisa.training.fault_tolerance.fault_handling import note_dropped, note_overflow
from satlisa.training.log import StepLog, peak_memory
from satlisa.training.state import PendingStep, Run


def log_pending(run: Run) -> None:
    """Log the latest step, if that has not been done."""
    pending, run.pending = run.pending, None
    log_step(run, pending)


def log_step(run: Run, pending: PendingStep | None) -> None:
    """Log a step, if there is one; this waits until the device has taken it."""
    if pending is None:
        return
    text, bce, dice = pending.terms.tolist()
    record = StepLog(
        step=pending.step,
        epoch=round(pending.step / len(run.train_loader), 4),
        loss=weigh(run.model.config, text, bce, dice),
        loss_text=text,
        loss_bce=bce,
        loss_dice=dice,
        lr=pending.lr,
        grad_norm=float(pending.grad_norm),
        samples_per_second=pending.num_samples / pending.seconds,
        peak_memory=peak_memory(run.accelerator.device),
        loss_scale=float(pending.loss_scale),
    )
    run.accelerator.log({f"train/{name}": value for name, value in vars(record).items()}, step=record.step)
    if run.processes.is_main:
        run.log.add(record)
    if math.isfinite(record.loss) and math.isfinite(record.grad_norm):
        run.progress.streak = 0
    elif math.isfinite(record.loss) and run.scaler.is_enabled():
        note_overflow(run, record.step, record.loss_scale)
    else:
        note_dropped(run, record.step, pending.rows)
    if run.processes.is_main:
        run.bar.update()
        overflows = {"overflows": run.progress.overflows} if run.progress.overflows else {}
        run.bar.set_postfix(loss=f"{record.loss:.3f}", text=f"{text:.3f}", dice=f"{dice:.3f}", **overflows)
