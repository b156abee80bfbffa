"""Training: set up, fit, validate. `python train.py` comes here.

One optimizer step reads a group of batches (the accumulation steps), counts the supervised tokens and masks of the
whole group over all processes, and only then runs them: each batch's loss is its share of the effective batch's loss
(DESIGN §2), which plain averaging over accumulation steps would not give.
"""

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from satlisa.build import count_parameters, parameter_table
from satlisa.checkpoint import save_model
from satlisa.config import TrainConfig
from satlisa.dataset import Skips
from satlisa.loader import Loaded, accumulation_groups
from satlisa.losses import LossSums, weigh
from satlisa.model import SatLisa
from satlisa.train_log import StepLog, TrainLog, peak_memory

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """Everything that one training run holds: the wrapped model, what steps it, its data and its log."""

    settings: TrainConfig
    accelerator: Accelerator
    model: SatLisa
    wrapped: Any  # the model inside DDP when there are several processes
    optimizer: Any
    scheduler: Any
    train_loader: Any
    val_loader: Any
    log: TrainLog
    skips: Skips
    left_out: int = 0
    step: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training rows."""
        return math.ceil(len(self.train_loader) / self.settings.grad_accum)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = self.settings.epochs * self.steps_per_epoch
        return min(steps, self.settings.max_steps) if self.settings.max_steps else steps


def make_optimizer(model: SatLisa, settings: TrainConfig, total_steps: int) -> tuple[Any, Any]:
    """AdamW over everything trained, and its cosine schedule with warm-up over `total_steps` optimizer steps."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    warmup = math.ceil(settings.warmup_ratio * total_steps)
    return optimizer, get_cosine_schedule_with_warmup(optimizer, warmup, total_steps)


def fit(run: Run) -> dict[str, Any]:
    """Train all epochs, validate and save after each; returns what goes into `train_summary.json`."""
    settings, started = run.settings, time.perf_counter()
    if run.accelerator.is_main_process:
        logger.info("%s", parameter_table(count_parameters(run.model)))
    progress = tqdm(total=run.total_steps, desc="training", disable=not run.accelerator.is_main_process, unit="step")
    for epoch in range(settings.epochs):
        for group in accumulation_groups(run.train_loader, settings.grad_accum):
            if run.step == run.total_steps:
                break
            record = optimizer_step(run, group)
            if record is not None:
                progress.update()
                progress.set_postfix(
                    loss=f"{record.loss:.3f}", text=f"{record.loss_text:.3f}", dice=f"{record.loss_dice:.3f}"
                )
        validation = validate(run)
        run.log.validations.append({"epoch": epoch + 1, "step": run.step, **validation})
        run.accelerator.log({f"validation/{name}": value for name, value in validation.items()}, step=run.step)
        if run.accelerator.is_main_process:
            progress.write(f"epoch {epoch + 1}: " + ", ".join(f"{k} {v:.4g}" for k, v in validation.items()))
            save_model(run.model, Path(settings.output_dir))
        if run.step == run.total_steps:
            break
    progress.close()
    return summary(run, time.perf_counter() - started)


def optimizer_step(run: Run, group: list[Loaded]) -> StepLog | None:
    """One effective batch: count, run its batches, step. None when no row of the group could be used.

    Every process takes part in the count and in the step, so that none waits for another.
    """
    started = time.perf_counter()
    for loaded in group:
        run.left_out += loaded.left_out
        for error in loaded.errors:
            run.skips.add(error)
    batches = [loaded.batch for loaded in group if loaded.batch is not None]
    own = [sum(b.num_tokens for b in batches), sum(b.num_masks for b in batches), sum(len(b.indices) for b in batches)]
    counts = run.accelerator.reduce(torch.tensor(own, device=run.accelerator.device), "sum").tolist()
    if counts[0] == 0:
        return None
    terms = torch.zeros(3, device=run.accelerator.device)
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        with nullcontext() if last else run.accelerator.no_sync(run.wrapped):
            losses: LossSums = run.wrapped(batch.to(run.accelerator.device)).losses
            loss = losses.total(run.model.config, counts[0], counts[1])
            # DDP averages gradients over processes; the loss is a share of a sum already.
            run.accelerator.backward(loss * run.accelerator.num_processes)
        terms += torch.stack(losses.means(counts[0], counts[1])).detach()
    lr = run.scheduler.get_last_lr()[0]
    grad_norm = clip_and_step(run)
    run.step += 1
    return _record(run, terms, lr, grad_norm, counts[2] / (time.perf_counter() - started))


def clip_and_step(run: Run) -> float:
    """Clip, step optimizer and schedule, clear gradients; returns the gradient norm before clipping."""
    trained = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    norm = run.accelerator.clip_grad_norm_(trained, run.settings.max_grad_norm)
    run.optimizer.step()
    if not run.accelerator.optimizer_step_was_skipped:  # fp16 scaling skips a step that overflowed
        run.scheduler.step()
    run.optimizer.zero_grad(set_to_none=True)
    return float(norm) if norm is not None else math.nan


def _record(run: Run, terms: Tensor, lr: float, grad_norm: float, rate: float) -> StepLog:
    text, bce, dice = run.accelerator.reduce(terms, "sum").tolist()
    record = StepLog(
        step=run.step,
        epoch=round(run.step / run.steps_per_epoch, 4),
        loss=weigh(run.model.config, text, bce, dice),
        loss_text=text,
        loss_bce=bce,
        loss_dice=dice,
        lr=lr,
        grad_norm=grad_norm,
        samples_per_second=rate,
        peak_memory=peak_memory(run.accelerator.device),
    )
    if run.accelerator.is_main_process:
        run.log.add(record)
    run.accelerator.log({f"train/{name}": value for name, value in vars(record).items()}, step=run.step)
    return record


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Teacher-forced loss and mask IoU over the validation rows.

    Returns:
        loss, loss_text, loss_bce, loss_dice (means over all tokens and masks), mask_iou (mean over masks, in the
        mask frame without its padding; empty in both counts 1), masks.
    """
    run.wrapped.eval()
    sums = torch.zeros(6, dtype=torch.float64, device=run.accelerator.device)
    for loaded in tqdm(run.val_loader, desc="validating", leave=False, disable=not run.accelerator.is_main_process):
        if loaded.batch is None:
            continue
        batch = loaded.batch.to(run.accelerator.device)
        output = run.wrapped(batch)
        truth = (batch.mask_targets > 0.5) & batch.mask_valid
        predicted = (output.mask_logits > 0) & batch.mask_valid
        union = (predicted | truth).sum((1, 2))
        iou = torch.where(union > 0, (predicted & truth).sum((1, 2)) / union.clamp(min=1), 1.0)
        losses = output.losses
        values = [losses.text, losses.bce, losses.dice, iou.sum(), losses.num_tokens, losses.num_masks]
        sums += torch.tensor([float(value) for value in values], dtype=torch.float64, device=sums.device)
    run.wrapped.train()
    text, bce, dice, iou, tokens, masks = run.accelerator.reduce(sums, "sum").tolist()
    text, bce, dice = text / max(tokens, 1), bce / max(masks, 1), dice / max(masks, 1)
    terms = {"loss": weigh(run.model.config, text, bce, dice), "loss_text": text, "loss_bce": bce, "loss_dice": dice}
    return {**terms, "mask_iou": iou / max(masks, 1), "masks": masks}


def summary(run: Run, seconds: float) -> dict[str, Any]:
    """What the run did: steps, time, parameters, validation, and every row that was not used."""
    counts = count_parameters(run.model)
    return {
        "steps": run.step,
        "seconds": round(seconds, 1),
        "parameters": {part: {"parameters": n, "trainable": t} for part, (n, t) in counts.items()},
        "validation": run.log.validations,
        "peak_memory": peak_memory(run.accelerator.device),
        "skipped_rows": run.skips.summary(),
        "instances_left_out": run.left_out,
    }
