"""What a run does when something is wrong: rows that cannot be used, losses that are no numbers, memory that ends."""

import gc
import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from satlisa.data.sample import RowError
from satlisa.errors import SatlisaError
from satlisa.model.losses import weigh
from satlisa.runtime.sharding import gathered
from satlisa.training.state import Run

logger = logging.getLogger(__name__)

MOST_DROPPED = 5  # steps in a row whose loss is no number, after which a run stops
_LITTLE_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


def count_skips(run: Run, errors: Sequence[RowError]) -> None:
    """Count rows that cannot be used.

    Raises:
        SatlisaError: more than MAX_SKIP of all rows, with the reasons counted.
    """
    for error in errors:
        run.skips.add(error)
    num_rows, share = len(run.train_loader.order), run.settings.max_skip
    if len(run.skips) > share * num_rows:
        reasons = "; ".join(run.skips.summary())
        raise SatlisaError(
            f"MAX_SKIP: {len(run.skips)} of {num_rows} training rows cannot be used, more than the allowed "
            f"{share:.3g} of them, after {run.step} steps: {reasons}. Repair them, or allow it with a larger MAX_SKIP"
        )


def note_dropped(run: Run, step: int, rows: Sequence[int]) -> None:
    """Write down a step that was dropped because its loss or gradient is no number; all processes take part.

    Args:
        step: its number.
        rows: this process's rows in it.

    Raises:
        SatlisaError: it was the fifth in a row.
    """
    with gathered(run.model, run.accelerator):
        own = find_culprits(run, rows)
    culprits, together = zip(*run.processes.gather([own]), strict=True)
    found = sorted(row for rows in culprits for row in rows)
    named = found or sorted(row for rows in together for row in rows)
    run.dropped.append({"step": step, "rows": named})
    run.streak += 1
    what = "row" if len(named) == 1 else "rows" if found else "together rows"
    where = f"{what} {', '.join(map(str, named))}"
    if run.processes.is_main:
        logger.warning("step %d: the loss or its gradient is not finite, the step is dropped (%s)", step, where)
    if run.streak == MOST_DROPPED:
        raise SatlisaError(
            f"step {step}: {MOST_DROPPED} steps in a row had a loss or gradient that is not finite (the last one: "
            f"{where}). Nothing was learnt from them, and the checkpoints in {run.folder} are from before. Look at "
            "these rows, or train anew in another OUTPUT_DIR with a lower LEARNING_RATE or PRECISION=fp32"
        )


@torch.no_grad()
def find_culprits(run: Run, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """Those of these rows whose loss alone is no number, and all of them."""
    found = []
    run.model.eval()  # dropout would take numbers from the random generator, which other steps are to get
    try:
        for row in rows:
            if (batch := run.train_loader.one(row)) is None:
                continue
            losses = run.model(batch.to(run.accelerator.device)).losses
            loss = weigh(run.model.config, *losses.means(batch.num_tokens, batch.num_masks))
            if not math.isfinite(loss):
                found.append(row)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        found = []  # it cannot be told which
    finally:
        run.model.train()
    return found, list(rows)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has ended, the GPU's or the computer's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _LITTLE_MEMORY)


def halve_batch(run: Run, reason: str) -> None:
    """Go on with batches of half the size and twice as many of them, which takes half the memory.

    Raises:
        SatlisaError: the user set the size, it is 1 already, or other processes wait for this one.
    """
    size, accumulate = run.settings.batch_size, run.settings.grad_accum
    shared = run.accelerator.num_processes > 1
    if run.settings.origins.get("batch_size") == "environment" or size == 1 or shared:
        less = f"BATCH_SIZE={size // 2} GRAD_ACCUM={accumulate * 2}" if size > 1 else "a lower max_image_tokens"
        raise SatlisaError(f"BATCH_SIZE: out of memory at {size} ({reason}); try GRAD_CHECKPOINT=1, or {less}")
    origins = {**run.settings.origins, "batch_size": "halved: out of memory", "grad_accum": "doubled: out of memory"}
    run.settings = replace(
        run.settings, batch_size=size // 2, grad_accum=-(-size * accumulate // (size // 2)), origins=origins
    )
    run.train_loader.batch_size = run.val_loader.batch_size = size // 2
    logger.warning(
        "out of memory at BATCH_SIZE=%d (%s): going on with BATCH_SIZE=%d GRAD_ACCUM=%d, the same %d rows a step",
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
