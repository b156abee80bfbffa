"""AdamW and its schedule."""

import math
from itertools import groupby
from typing import Any

import torch
from transformers import get_cosine_schedule_with_warmup

from satlisa.model.parameters import part_of
from satlisa.model.satlisa import SatLisa
from satlisa.training.settings import TrainConfig


def make_optimizer(
    model: SatLisa, settings: TrainConfig, total_steps: int, *, sharded: bool = False
) -> tuple[Any, Any]:
    """AdamW over everything trained, and its cosine schedule with warm-up over `total_steps` optimizer steps.

    The fused optimizer skips a step with a non-finite loss on the device itself (`found_inf`), so the CPU need not wait
    for the loss. For a sharded model `found_inf` would have to be sharded too, so the plain optimizer is used there,
    and the CPU waits.
    """
    fused = model.device.type in ("cpu", "cuda") and not sharded
    groups = _parameter_groups(model, settings.learning_rate, settings.projector_lr_factor)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)
    warmup = math.ceil(settings.warmup_ratio * total_steps)
    return optimizer, get_cosine_schedule_with_warmup(optimizer, warmup, total_steps)


def _parameter_groups(model: SatLisa, learning_rate: float, projector_factor: float) -> list[dict[str, Any]]:
    """Everything trained, in the model's order (`put_optimizer`); the projector, which comes last, apart if it has a
    factor of its own."""
    factors = {"projector": projector_factor}
    trained = [(factors.get(part_of(name), 1.0), p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for _, p in group], "lr": learning_rate * factor}
        for factor, group in groupby(trained, key=lambda pair: pair[0])
    ]


def continue_schedule(optimizer: Any, scheduler: Any) -> list[float]:
    """Set the learning rates to those of the schedule's step, after a state of a run with fewer steps was restored."""
    step = scheduler.last_epoch
    rates = [rate * at(step) for rate, at in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
    return rates
