"""Training: set up, fit, validate. `python train.py` comes here.

One optimizer step reads all its batches (the accumulation steps), counts their supervised tokens and masks over all
processes, and only then runs them: each batch's loss is its share of the effective batch's loss
(docs/architecture.md#loss), which plain averaging over accumulation steps would not give.

A step's losses are read one step later, when the next one is on its way: reading them at once would make the CPU wait
for the GPU, and then the GPU for the CPU.
"""

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NoReturn, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from satlisa.errors import SatlisaError, first_line
from satlisa.model.losses import LossSums, weigh
from satlisa.model.parameters import count_parameters, parameter_table
from satlisa.pretrained.model_directory import save_model
from satlisa.processing.collator import Batch
from satlisa.runtime.sharding import trained_state, whole
from satlisa.runtime.signals import Stopped
from satlisa.training.fault_tolerance.checkpointing import checkpoint_is_due, save_checkpoint
from satlisa.training.fault_tolerance.fault_handling import count_skips, halve_batch, is_out_of_memory, note_dropped
from satlisa.training.loader import Loaded
from satlisa.training.log import StepLog, peak_memory, without_nan
from satlisa.training.state import PendingStep, Run
from satlisa.training.validation import validate

logger = logging.getLogger(__name__)

T = TypeVar("T")


def fit(run: Run) -> dict[str, Any]:
    """Train what is left of the epochs, validate and save after each; returns what goes into `train_summary.json`.

    Raises:
        Stopped: the run was asked to stop; its checkpoint is written.
    """
    if run.processes.is_main:
        logger.info("%s", parameter_table(count_parameters(run.model)))
    run.progress = tqdm(
        total=run.total_steps, initial=run.step, desc="training", disable=not run.processes.is_main, unit="step"
    )
    if run.is_complete:
        write_model(run)  # from the last checkpoint of a run, into a folder of its own
    while not run.is_complete:
        within_memory(run, partial(train_epoch, run))
        if run.step == 0:
            reasons = "; ".join(run.skips.summary()) or "the split is empty"
            raise SatlisaError(f"DATASET: no row of {run.settings.dataset} could be used for training ({reasons})")
        validation = within_memory(run, partial(validate, run)) if len(run.val_loader.order) else {}
        if validation is None:
            stop(run)
        elif validation:
            report_validation(run, validation)
        write_model(run)
        run.epoch, run.rows_done = run.epoch + 1, 0
        save_checkpoint(run)
    run.progress.close()
    return summary(run)


def train_epoch(run: Run) -> None:
    """The steps that are left of the epoch under way."""
    run.clock = time.perf_counter()
    for loaded in run.train_loader.steps(run.epoch, run.rows_done):
        if run.step >= run.total_steps:
            break
        optimizer_step(run, loaded)
    write_pending(run)


def within_memory(run: Run, work: Callable[[], T]) -> T:
    """Do something, with smaller batches where memory ends."""
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)[:120]
        halve_batch(run, reason)  # outside of `except`, whose traceback holds on to the tensors of the failed step


def write_model(run: Run) -> None:
    """Put the model into the run folder; all processes take part.

    Raises:
        SatlisaError: no room or no right to write.
    """
    trained = trained_state(run.model)
    if not run.processes.is_main:
        return
    try:
        save_model(run.model, run.folder, trained)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have words of their own for it
        raise SatlisaError(
            f"OUTPUT_DIR: the model cannot be written to {run.folder} ({first_line(error)}); make room and run the "
            "same command again, which goes on from the last checkpoint"
        ) from error


def stop(run: Run) -> NoReturn:
    """Write a checkpoint and leave.

    Raises:
        Stopped: it is written.
        SatlisaError: it is not.
    """
    write_pending(run)
    if reason := save_checkpoint(run):
        raise SatlisaError(
            f"stopped by {run.stop_request.reason or 'another process'} after step {run.step}, without a checkpoint of "
            f"it ({reason}); the same command resumes from the one before"
        )
    raise Stopped


def report_validation(run: Run, validation: dict[str, float]) -> None:
    """Write down what `validate` found after an epoch."""
    epoch = run.epoch + 1
    run.log.validations.append({"epoch": epoch, "step": run.step, **without_nan(validation)})
    run.accelerator.log({f"validation/{name}": value for name, value in validation.items()}, step=run.step)
    if run.processes.is_main:
        run.progress.write(f"epoch {epoch}: " + ", ".join(f"{k} {v:.4g}" for k, v in validation.items()))


def optimizer_step(run: Run, loaded: Loaded) -> None:
    """One effective batch: count, run its batches, step; nothing where no row of it could be used.

    Every process takes part in the count, in the backward pass and in the step, so that none waits for another. What is
    counted of a step stands before anything else can fail.
    """
    before = run.pending
    num_tokens, num_masks, num_samples, num_errors, left_out = effective_counts(run, loaded)
    if num_tokens:
        terms = run_batches(run, loaded.batches, num_tokens, num_masks)
        terms = run.accelerator.reduce(terms, "sum")
        lr = run.scheduler.get_last_lr()[0]
        grad_norm = clip_and_step(run, terms)
        run.step += 1
        seconds, run.clock = time.perf_counter() - run.clock, time.perf_counter()
        rows = [index for batch in loaded.batches for index in batch.indices]
        run.pending = PendingStep(run.step, terms, grad_norm, lr, num_samples, rows, seconds)
    run.rows_done = loaded.rows_done
    run.left_out += left_out if run.epoch == 0 else 0  # the same ones in every epoch
    if num_errors:
        count_skips(run, run.processes.gather(loaded.errors))
    if num_tokens:
        write_down(run, before)
    stops, checkpoints = run.processes.sum([bool(run.stop_request.reason), bool(num_tokens) and checkpoint_is_due(run)])
    if stops:
        stop(run)
    if checkpoints:
        write_pending(run)
        # While steps are dropped nothing is learnt: further checkpoints would only push out those of before.
        if not run.streak:
            save_checkpoint(run)


def run_batches(run: Run, batches: list[Batch], num_tokens: int, num_masks: int) -> Tensor:
    """Forward and backward of a process's share of a step; returns its share of L_text, BCE and DICE, (3,).

    A process that has too few batches runs another row at weight 0: the others wait for its gradients, and with FSDP
    for its pieces of the model in each forward pass.
    """
    terms = torch.zeros(3, device=run.accelerator.device)
    missing = num_passes(run, len(batches)) - len(batches)
    todo = [*batches, *([run.train_loader.any_batch()] * missing if missing else [])]
    for number, batch in enumerate(todo):
        is_own = number < len(batches)
        weight = run.accelerator.num_processes if is_own else 0  # DDP averages; the loss is a share of a sum already
        with nullcontext() if number == len(todo) - 1 else run.accelerator.no_sync(run.wrapped):
            losses: LossSums = run.wrapped(batch.to(run.accelerator.device)).losses
            run.accelerator.backward(losses.total(run.model.config, num_tokens, num_masks) * weight)
        if is_own:
            terms += torch.stack(losses.means(num_tokens, num_masks)).detach()
    return terms


def num_passes(run: Run, num_batches: int) -> int:
    """How often this process runs the model in a step: at least once, and with FSDP as often as every other one."""
    if not run.accelerator.is_fsdp2:
        return max(1, num_batches)
    counts = [0] * run.accelerator.num_processes
    counts[run.accelerator.process_index] = num_batches
    return max(run.processes.sum(counts))


def effective_counts(run: Run, loaded: Loaded) -> list[int]:
    """Supervised tokens, masks, samples, broken rows and left-out instances of a step, summed over all processes."""
    batches = loaded.batches
    tokens, masks = sum(b.num_tokens for b in batches), sum(b.num_masks for b in batches)
    return run.processes.sum([tokens, masks, sum(len(b.indices) for b in batches), len(loaded.errors), loaded.left_out])


def clip_and_step(run: Run, terms: Tensor) -> Tensor:
    """Clip, step optimizer and schedule, clear gradients; returns the gradient norm before clipping, ().

    A step whose losses `terms` (3,) or gradients are no numbers changes nothing but the schedule.
    """
    trained = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    norm = whole(run.accelerator.clip_grad_norm_(trained, run.settings.max_grad_norm or math.inf))
    is_finite = norm.isfinite() & terms.isfinite().all()
    if run.accelerator.scaler is not None:
        run.optimizer.step()  # the scaler has seen the gradients
    elif run.optimizer.defaults["fused"]:
        run.optimizer.optimizer.found_inf = (~is_finite).float()
        run.optimizer.step()
    elif is_finite:
        run.optimizer.step()
    if not run.accelerator.optimizer_step_was_skipped:  # fp16 scaling skips a step that overflowed
        run.scheduler.step()
    run.optimizer.zero_grad(set_to_none=True)
    return norm


def write_pending(run: Run) -> None:
    """Write down the step that was taken last, if it is not written yet."""
    pending, run.pending = run.pending, None
    write_down(run, pending)


def write_down(run: Run, pending: PendingStep | None) -> None:
    """Write down a step, if there is one: this waits until the device has taken it."""
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
    )
    run.accelerator.log({f"train/{name}": value for name, value in vars(record).items()}, step=record.step)
    if run.processes.is_main:
        run.log.add(record)
        run.progress.update()
        run.progress.set_postfix(loss=f"{record.loss:.3f}", text=f"{text:.3f}", dice=f"{dice:.3f}")
    # With fp16, gradients overflow now and then, and the scaler takes care of it: there only the loss counts.
    if math.isfinite(record.loss) and (run.accelerator.scaler or math.isfinite(record.grad_norm)):
        run.streak = 0
    else:
        note_dropped(run, record.step, pending.rows)


def summary(run: Run) -> dict[str, Any]:
    """What the run did: steps, time, parameters, validation, and every row that was not used."""
    counts = count_parameters(run.model)
    return {
        "steps": run.step,
        "seconds": round(run.elapsed(), 1),
        "parameters": {part: {"parameters": n, "trainable": t} for part, (n, t) in counts.items()},
        "validation": run.log.validations,
        "peak_memory": peak_memory(run.accelerator.device),
        "dropped_steps": run.dropped,
        "skipped_rows": run.skips.summary(),
        "skipped_validation_rows": run.val_skips.summary(),
        "instances_left_out": run.left_out,
    }
