"""Fault handling: unusable rows, non-finite losses, out of memory."""

import gc
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from satlisa.data.sample import RowError
from satlisa.errors import SatlisaError, first_line
from satlisa.model.losses import weigh
from satlisa.runtime.memory import is_out_of_memory
from satlisa.runtime.sharding import unsharded_parameters
from satlisa.training.state import Run

logger = logging.getLogger(__name__)

T = TypeVar("T")
_MOST_AT_START = 20  # steps whose gradients overflow before the first step that is taken; the scale is 2^-4 then
MOST_DROPPED = 5  # steps in a row with a non-finite loss or gradient, after which a run stops
_DEAD_LOADER = "DataLoader worker (pid"  # how torch's messages about a killed loader process begin


def count_skips(run: Run, errors: Sequence[RowError]) -> None:
    """Count rows that cannot be used.

    Raises:
        SatlisaError: more than MAX_SKIP of all rows, with the reasons counted.
    """
    for error in errors:
        run.progress.skips.add(error)
    skips, num_rows, share = run.progress.skips, len(run.train_loader.sampler), run.settings.max_skip
    if len(skips) > share * num_rows:
        reasons = "; ".join(skips.summary())
        raise SatlisaError(
            f"MAX_SKIP: {len(skips)} of {num_rows} training rows cannot be used, more than the allowed "
            f"{share:.3g} of them, after {run.progress.step} steps: {reasons}. "
            "Repair them, or allow it with a larger MAX_SKIP"
        )


def note_dropped(run: Run, step: int, rows: Sequence[int]) -> None:
    """Record a step that was dropped for a non-finite loss or gradient; all processes take part.

    Args:
        step: its number.
        rows: this process's rows in it.

    Raises:
        SatlisaError: it was the fifth in a row.
    """
    with unsharded_parameters(run.model, run.accelerator):
        own = find_culprits(run, rows)
    culprits, together = zip(*run.processes.gather([own]), strict=True)
    found = sorted(row for rows in culprits for row in rows)
    named = found or sorted(row for rows in together for row in rows)
    run.progress.dropped.append({"step": step, "rows": named})
    run.progress.streak += 1
    what = "row" if len(named) == 1 else "rows" if found else "together rows"
    where = f"{what} {', '.join(map(str, named))}"
    if run.processes.is_main:
        logger.warning("step %d: the loss or its gradient is not finite, the step is dropped (%s)", step, where)
    if run.progress.streak == MOST_DROPPED:
        raise SatlisaError(
            f"step {step}: {MOST_DROPPED} steps in a row had a loss or gradient that is not finite (the last one: "
            f"{where}). Nothing was learnt from them, and the checkpoints in {run.folder} are from before. Look at "
            f"these rows. {advice_when_not_finite(run)}"
        )


def note_overflow(run: Run, step: int, loss_scale: float) -> None:
    """Record a step of a float16 run that was not taken, because its gradients overflowed at this loss scale.

    Each such step halves the scale, so a few of them at the start are normal.

    Raises:
        SatlisaError: the scale falls below 1, no step was taken in many, or it was the fifth in a row after one was.
    """
    progress, scale_now = run.progress, loss_scale / 2
    had_taken = step - 1 > len(progress.dropped) + progress.overflows  # not `taken`: later steps may be on their way
    progress.overflows += 1
    progress.streak += had_taken
    if run.processes.is_main:
        logger.info("step %d: not taken, gradients overflow in float16; loss scale now %g", step, scale_now)
    is_hopeless = not had_taken and progress.overflows >= _MOST_AT_START  # norms can overflow at any scale
    if scale_now < 1 or is_hopeless or progress.streak == MOST_DROPPED:
        raise SatlisaError(
            f"step {step}: gradients overflow in float16 even at a loss scale of {loss_scale:g}; "
            f"{progress.overflows} of {step} steps were not taken. {advice_when_not_finite(run)}"
        )


def advice_when_not_finite(run: Run) -> str:
    """What to do about losses or gradients that are not finite."""
    if run.scaler.is_enabled():
        return (
            "Train again in another OUTPUT_DIR with PRECISION=fp32, which fits a T4 as well (bf16 is emulated and slow "
            "there), or with a lower LEARNING_RATE"
        )
    is_full = run.model.compute_dtype == torch.float32
    return f"Train again in another OUTPUT_DIR with a lower LEARNING_RATE{'' if is_full else ' or PRECISION=fp32'}"


@torch.no_grad()
def find_culprits(run: Run, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """The rows whose own loss is non-finite, and all rows."""
    found = []
    run.model.eval()  # dropout would advance the random generator, and later steps would differ
    try:
        for row in rows:
            if (batch := run.train_loader.one(row)) is None:
                continue
            losses = run.model(batch.to(run.accelerator.device)).losses
            loss = weigh(run.model.config, *losses.means(losses.num_tokens, losses.num_masks))
            if not math.isfinite(loss):
                found.append(row)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        found = []  # it cannot be found out
    finally:
        run.model.train()
    return found, list(rows)


def within_memory(run: Run, work: Callable[[], T]) -> T:
    """Run `work`, again with smaller batches whenever it runs out of memory.

    Raises:
        SatlisaError: a loader process was killed, as Linux does when memory runs out.
    """
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if str(error).startswith(_DEAD_LOADER):
                raise SatlisaError(
                    f"NUM_WORKERS: a loader process has died ({first_line(error)}), as happens when memory runs out; "
                    "run the same command again to resume, with a smaller NUM_WORKERS: 0 needs the least memory"
                ) from error
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)[:120]
        halve_batch(run, reason)  # outside of `except`, whose traceback keeps the failed step's tensors alive


def halve_batch(run: Run, reason: str) -> None:
    """Continue with batches of half the size and twice as many of them, which takes half the memory.

    Raises:
        SatlisaError: the user set the size, it is 1 already, or other processes wait for this one.
    """
    size, accumulate = run.settings.batch_size, run.settings.grad_accum
    shared = run.processes.size > 1
    if run.settings.batch_size_given or size == 1 or shared:
        less = f"BATCH_SIZE={size // 2} GRAD_ACCUM={accumulate * 2}" if size > 1 else "a lower max_image_tokens"
        raise SatlisaError(f"BATCH_SIZE: out of memory at {size} ({reason}); try GRAD_CHECKPOINT=1, or {less}")
    origins = {**run.settings.origins, "batch_size": "halved: out of memory", "grad_accum": "doubled: out of memory"}
    run.settings = replace(
        run.settings, batch_size=size // 2, grad_accum=-(-size * accumulate // (size // 2)), origins=origins
    )
    run.train_loader.batch_size = run.val_loader.batch_size = size // 2
    logger.warning(
        "out of memory at BATCH_SIZE=%d (%s): continuing with BATCH_SIZE=%d GRAD_ACCUM=%d, the same %d rows a step",
        size,
        reason,
        run.settings.batch_size,
        run.settings.grad_accum,
        run.train_loader.step_size,
    )
    run.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if run.accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
