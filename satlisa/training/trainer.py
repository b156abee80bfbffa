"""Epochs and optimizer steps.

One optimizer step loads all its batches (the accumulation steps), counts their supervised tokens and masks over all
processes, and only then runs them: each batch contributes its share of the effective batch's loss
(docs/architecture.md#loss), which averaging over accumulation steps would not give.

A step's losses are read one step later, while the next one runs: reading them at once would make the CPU wait for the
GPU, and then the GPU for the CPU.
"""

import logging
import math
import time
from contextlib import nullcontext
from functools import partial

import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from satlisa.errors import SatlisaError, first_line
from satlisa.model.losses import LossSums
from satlisa.model.parameters import count_parameters, parameter_table
from satlisa.pretrained.model_directory import save_model
from satlisa.processing.collator import Batch
from satlisa.runtime.locations import advice
from satlisa.runtime.sharding import trained_state, unsharded
from satlisa.training.fault_tolerance.checkpointing import checkpoint_is_due, save_checkpoint, stop
from satlisa.training.fault_tolerance.fault_handling import advice_when_not_finite, count_skips, within_memory
from satlisa.training.loader import Loaded
from satlisa.training.log import without_nan
from satlisa.training.state import PendingStep, Run
from satlisa.training.step_log import log_pending, log_step
from satlisa.training.validation import validate

logger = logging.getLogger(__name__)


def fit(run: Run) -> None:
    """Train the remaining epochs; validate and save the model after each.

    Raises:
        Stopped: the run was asked to stop; its checkpoint is written.
    """
    progress, is_main = run.progress, run.processes.is_main
    if is_main:
        logger.info("%s", parameter_table(count_parameters(run.model)))
    run.bar = tqdm(total=run.total_steps, initial=progress.step, desc="training", disable=not is_main, unit="step")
    if run.is_complete:
        write_model(run)  # RESUME named the last checkpoint of a finished run: its model is all that is missing here
    while not run.is_complete:
        within_memory(run, partial(train_epoch, run))
        if progress.step == 0:
            reasons = "; ".join(progress.skips.summary()) or "the split is empty"
            raise SatlisaError(f"DATASET: no row of {run.settings.dataset} could be used for training ({reasons})")
        validation = within_memory(run, partial(validate, run)) if len(run.val_loader.sampler) else {}
        if validation is None:
            log_pending(run)
            stop(run)
        elif validation:
            report_validation(run, validation)
        if progress.taken:
            write_model(run)
        progress.epoch, progress.rows_done = progress.epoch + 1, 0
        if run.is_complete:
            refuse_untaken(run)
        save_checkpoint(run)
    run.bar.close()


def train_epoch(run: Run) -> None:
    """The remaining steps of the current epoch."""
    run.clock.step = time.perf_counter()
    for loaded in run.train_loader.steps(run.progress.epoch, run.progress.rows_done):
        if run.progress.step >= run.total_steps:
            break
        optimizer_step(run, loaded)
    log_pending(run)


def refuse_untaken(run: Run) -> None:
    """Raise an error at the end of a run of which no step was taken."""
    if not run.progress.taken:
        raise SatlisaError(
            f"none of {run.progress.step} steps was taken, because losses or gradients were not finite: nothing was "
            f"learnt and no model is written. {advice_when_not_finite(run)}"
        )


def write_model(run: Run) -> None:
    """Save the model into the run folder; all processes take part.

    Raises:
        SatlisaError: no space, or no permission to write.
    """
    trained = trained_state(run.model)
    if not run.processes.is_main:
        return
    try:
        save_model(run.model, run.folder, trained)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors raise errors of their own
        raise SatlisaError(
            f"OUTPUT_DIR: the model cannot be written to {run.folder} ({first_line(error)}); {advice(error)}, then "
            "run the same command again, which resumes from the last checkpoint"
        ) from error


def report_validation(run: Run, validation: dict[str, float | None]) -> None:
    """Log what `validate` found after an epoch."""
    epoch, step = run.progress.epoch + 1, run.progress.step
    run.log.validations.append({"epoch": epoch, "step": step, **without_nan(validation)})
    known = {name: value for name, value in validation.items() if value is not None}
    run.accelerator.log({f"validation/{name}": value for name, value in known.items()}, step=step)
    if run.processes.is_main:
        run.bar.write(f"epoch {epoch}: " + ", ".join(f"{k} {v:.4g}" for k, v in known.items()))


def optimizer_step(run: Run, loaded: Loaded) -> None:
    """One effective batch: count, run its batches, step; nothing when none of its rows could be used.

    Every process takes part in the count, in the backward pass and in the step, so that none waits for another. The
    progress is updated before anything else can fail.
    """
    progress, previous = run.progress, run.pending
    num_tokens, num_masks, num_samples, num_errors, *omitted = effective_counts(run, loaded)
    if num_tokens:
        terms = run_batches(run, loaded.batches, num_tokens, num_masks)
        terms = run.accelerator.reduce(terms, "sum")
        lr = run.scheduler.get_last_lr()[0]
        scale = run.scaler.scale(torch.ones_like(terms[0]))  # 1 except in float16
        grad_norm = clip_and_step(run, terms)
        progress.step += 1
        seconds, run.clock.step = time.perf_counter() - run.clock.step, time.perf_counter()
        rows = [index for batch in loaded.batches for index in batch.indices]
        run.pending = PendingStep(progress.step, terms, grad_norm, scale, lr, num_samples, rows, seconds)
    progress.rows_done = loaded.rows_done
    if progress.epoch == 0:  # the same ones in every epoch
        left_out, shortened, places_cut = omitted
        progress.left_out += left_out
        progress.shortened += shortened
        progress.places_cut += places_cut
    if num_errors:
        count_skips(run, run.processes.gather(loaded.errors))
    if num_tokens:
        log_step(run, previous)
    _stop_or_checkpoint(run, took_step=bool(num_tokens))


def _stop_or_checkpoint(run: Run, *, took_step: bool) -> None:
    """Stop when any process was asked to; write a checkpoint when one is due."""
    stops, checkpoints = run.processes.sum([bool(run.stop_request.reason), took_step and checkpoint_is_due(run)])
    if stops:
        log_pending(run)
        stop(run)
    if checkpoints:
        log_pending(run)
        # While steps are dropped nothing is learnt: further checkpoints would only replace the ones before.
        if not run.progress.streak:
            save_checkpoint(run)


def run_batches(run: Run, batches: list[Batch], num_tokens: int, num_masks: int) -> Tensor:
    """Forward and backward of a process's share of a step; returns its share of L_text, BCE and DICE, (3,).

    A process with too few batches runs another row at weight 0: the others wait for its gradients, and with FSDP for
    its shards in each forward pass.
    """
    terms = torch.zeros(3, device=run.accelerator.device)
    missing = num_passes(run, len(batches)) - len(batches)
    todo = [*batches, *([run.train_loader.any_batch()] * missing if missing else [])]
    for number, batch in enumerate(todo):
        is_own = number < len(batches)
        weight = run.processes.size if is_own else 0  # DDP averages; the loss is a share of a sum already
        with nullcontext() if number == len(todo) - 1 else run.accelerator.no_sync(run.wrapped):
            losses: LossSums = run.wrapped(batch.to(run.accelerator.device)).losses
            loss = losses.total(run.model.config, num_tokens, num_masks) * weight
            run.accelerator.backward(run.scaler.scale(loss))
        if is_own:
            terms += torch.stack(losses.means(num_tokens, num_masks)).detach()
    return terms


def num_passes(run: Run, num_batches: int) -> int:
    """Forward passes of this process in a step: at least one, and with FSDP as many as in every other process."""
    if not run.accelerator.is_fsdp2:
        return max(1, num_batches)
    counts = [0] * run.processes.size
    counts[run.processes.rank] = num_batches
    return max(run.processes.sum(counts))


def effective_counts(run: Run, loaded: Loaded) -> list[int]:
    """Supervised tokens, masks (or rows with masks, `MASK_LOSS_PER`), samples, broken rows, omitted instances, and rows
    with less text or fewer places of a step, summed over all processes."""
    batches = loaded.batches
    tokens, masks = sum(b.num_tokens for b in batches), sum(b.mask_divisor for b in batches)
    samples, omitted = sum(len(b.indices) for b in batches), [loaded.left_out, loaded.shortened, loaded.places_cut]
    return run.processes.sum([tokens, masks, samples, len(loaded.errors), *omitted])


def clip_and_step(run: Run, terms: Tensor) -> Tensor:
    """Clip, step optimizer and schedule, clear gradients; returns the gradient norm before clipping, ().

    A step with non-finite losses `terms` (3,) or gradients changes nothing but the schedule.
    """
    run.scaler.unscale_(run.optimizer.optimizer)
    trained = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    norm = unsharded(run.accelerator.clip_grad_norm_(trained, run.settings.max_grad_norm or math.inf))
    is_finite = norm.isfinite() & terms.isfinite().all()
    if run.optimizer.defaults["fused"]:
        run.optimizer.optimizer.found_inf = (~is_finite).float()
        run.optimizer.step()
    elif is_finite:
        run.optimizer.step()
    run.scaler.update()
    run.scheduler.step()
    run.optimizer.zero_grad(set_to_none=True)
    return norm
