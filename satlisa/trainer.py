"""Training: set up, fit, validate. `python train.py` comes here.

One optimizer step reads all its batches (the accumulation steps), counts their supervised tokens and masks over all
processes, and only then runs them: each batch's loss is its share of the effective batch's loss (DESIGN §2), which
plain averaging over accumulation steps would not give.

A step's losses are read one step later, when the next one is on its way: reading them at once would make the CPU wait
for the GPU, and then the GPU for the CPU.
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
from satlisa.collator import Batch, Encoded, collate
from satlisa.config import TrainConfig
from satlisa.dataset import Skips
from satlisa.errors import SatlisaError
from satlisa.loader import Loaded
from satlisa.losses import LossSums, weigh
from satlisa.model import SatLisa
from satlisa.train_log import StepLog, TrainLog, peak_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PendingStep:
    """A step that was taken and whose numbers are still on the device.

    `terms` (3,) are L_text, BCE and DICE; `seconds` counts from the step before, loading included.
    """

    step: int
    terms: Tensor
    grad_norm: Tensor
    lr: float
    num_samples: int
    seconds: float


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
    val_skips: Skips
    left_out: int = 0
    step: int = 0
    pending: PendingStep | None = None
    clock: float = 0.0  # when the last step was taken
    progress: Any = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps: int = self.settings.epochs * len(self.train_loader)
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
    run.progress = tqdm(
        total=run.total_steps, desc="training", disable=not run.accelerator.is_main_process, unit="step"
    )
    for epoch in range(settings.epochs):
        run.clock = time.perf_counter()
        for loaded in run.train_loader:
            if run.step == run.total_steps:
                break
            optimizer_step(run, loaded)
        write_pending(run)
        if run.step == 0:
            reasons = "; ".join(run.skips.summary()) or "the split is empty"
            raise SatlisaError(f"DATASET: no row of {settings.dataset} could be used for training ({reasons})")
        if run.accelerator.is_main_process:
            save_model(run.model, Path(settings.output_dir))
        if len(run.val_loader):
            report_validation(run, epoch + 1, validate(run))
        if run.step == run.total_steps:
            break
    run.progress.close()
    return summary(run, time.perf_counter() - started)


def report_validation(run: Run, epoch: int, validation: dict[str, float]) -> None:
    """Write down what `validate` found after an epoch."""
    run.log.validations.append({"epoch": epoch, "step": run.step, **validation})
    run.accelerator.log({f"validation/{name}": value for name, value in validation.items()}, step=run.step)
    if run.accelerator.is_main_process:
        run.progress.write(f"epoch {epoch}: " + ", ".join(f"{k} {v:.4g}" for k, v in validation.items()))


def optimizer_step(run: Run, loaded: Loaded) -> None:
    """One effective batch: count, run its batches, step; nothing where no row of it could be used.

    Every process takes part in the count, in the backward pass and in the step, so that none waits for another.
    """
    run.left_out += loaded.left_out
    for error in loaded.errors:
        run.skips.add(error)
    num_tokens, num_masks, num_samples = effective_counts(run, loaded.batches)
    if num_tokens == 0:
        return
    terms = run_batches(run, loaded.batches, num_tokens, num_masks)
    lr = run.scheduler.get_last_lr()[0]
    grad_norm = clip_and_step(run)
    run.step += 1
    write_pending(run)
    seconds, run.clock = time.perf_counter() - run.clock, time.perf_counter()
    run.pending = PendingStep(run.step, terms, grad_norm, lr, num_samples, seconds)


def run_batches(run: Run, batches: list[Batch], num_tokens: int, num_masks: int) -> Tensor:
    """Forward and backward of a process's share of a step; returns its share of L_text, BCE and DICE, (3,).

    A process whose rows were all broken runs another one at weight 0: the others wait for its gradients.
    """
    terms = torch.zeros(3, device=run.accelerator.device)
    weight = run.accelerator.num_processes if batches else 0  # DDP averages; the loss is a share of a sum already
    for number, batch in enumerate(todo := batches or [any_batch(run)]):
        with nullcontext() if number == len(todo) - 1 else run.accelerator.no_sync(run.wrapped):
            losses: LossSums = run.wrapped(batch.to(run.accelerator.device)).losses
            run.accelerator.backward(losses.total(run.model.config, num_tokens, num_masks) * weight)
        if batches:
            terms += torch.stack(losses.means(num_tokens, num_masks)).detach()
    return terms


def any_batch(run: Run) -> Batch:
    """The first row of the dataset that can be used, as a batch."""
    rows = run.train_loader.dataset
    encoded = (rows[index][0] for index in range(len(rows)))
    return collate([next(e for e in encoded if isinstance(e, Encoded))], run.model.processor.tokenizer.pad_token_id)


def effective_counts(run: Run, batches: list[Batch]) -> list[int]:
    """Supervised tokens, masks and samples of a step, summed over all processes."""
    own = [sum(b.num_tokens for b in batches), sum(b.num_masks for b in batches), sum(len(b.indices) for b in batches)]
    if run.accelerator.num_processes == 1:
        return own
    counts: list[int] = run.accelerator.reduce(torch.tensor(own, device=run.accelerator.device), "sum").tolist()
    return counts


def clip_and_step(run: Run) -> Tensor:
    """Clip, step optimizer and schedule, clear gradients; returns the gradient norm before clipping, ()."""
    trained = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    norm: Tensor = run.accelerator.clip_grad_norm_(trained, run.settings.max_grad_norm or math.inf)
    run.optimizer.step()
    if not run.accelerator.optimizer_step_was_skipped:  # fp16 scaling skips a step that overflowed
        run.scheduler.step()
    run.optimizer.zero_grad(set_to_none=True)
    return norm


def write_pending(run: Run) -> None:
    """Write down the step that was taken last, if it is not written yet."""
    pending, run.pending = run.pending, None
    if pending is None:
        return
    text, bce, dice = run.accelerator.reduce(pending.terms, "sum").tolist()
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
    if run.accelerator.is_main_process:
        run.log.add(record)
        run.progress.update()
        run.progress.set_postfix(loss=f"{record.loss:.3f}", text=f"{text:.3f}", dice=f"{dice:.3f}")


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Teacher-forced loss and mask IoU over the validation rows.

    Returns:
        loss, loss_text, loss_bce, loss_dice (means over all tokens and masks), mask_iou (mean over masks, in the
        mask frame without its padding; empty in both counts 1), masks.
    """
    run.wrapped.eval()
    sums = torch.zeros(6, dtype=torch.float64)  # on the CPU: MPS has no float64
    for loaded in tqdm(run.val_loader, desc="validating", leave=False, disable=not run.accelerator.is_main_process):
        for error in loaded.errors:
            run.val_skips.add(error)
        for batch in loaded.batches:
            batch = batch.to(run.accelerator.device)
            output = run.wrapped(batch)
            losses, counts = output.losses, torch.tensor([batch.num_tokens, batch.num_masks])
            iou = mask_iou(output.mask_logits > 0, batch.mask_targets > 0.5, batch.mask_valid)
            sums += torch.cat([torch.stack([losses.text, losses.bce, losses.dice, iou.sum()]).cpu(), counts])
    run.wrapped.train()
    totals = run.accelerator.reduce(sums.float().to(run.accelerator.device), "sum")
    text, bce, dice, iou, tokens, masks = totals.tolist()
    text, bce, dice = text / max(tokens, 1), bce / max(masks, 1), dice / max(masks, 1)
    terms = {"loss": weigh(run.model.config, text, bce, dice), "loss_text": text, "loss_bce": bce, "loss_dice": dice}
    return {**terms, "mask_iou": iou / max(masks, 1), "masks": masks}


def mask_iou(predicted: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """IoU of masks within their valid pixels, 1 where both are empty. All (N, m, m) bool; returns (N,) float32."""
    union = ((predicted | truth) & valid).sum((1, 2))
    return torch.where(union > 0, (predicted & truth & valid).sum((1, 2)) / union.clamp(min=1), 1.0)


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
        "skipped_validation_rows": run.val_skips.summary(),
        "instances_left_out": run.left_out,
    }
