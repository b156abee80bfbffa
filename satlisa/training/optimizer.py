"""AdamW and its schedule."""

import math
from typing import Any

import torch
from transformers import get_cosine_schedule_with_warmup

from satlisa.model.satlisa import SatLisa
from satlisa.training.settings import TrainConfig


def make_optimizer(
    model: SatLisa, settings: TrainConfig, total_steps: int, *, sharded: bool = False
) -> tuple[Any, Any]:
    """AdamW over everything trained, and its cosine schedule with warm-up over `total_steps` optimizer steps.

    The fused form leaves a step out on the device itself when it is told to (`found_inf`), so that nobody has to wait
    for a loss to see that it is a number; with fp16 the gradient scaler does that. Of a sharded model it would want
    a sharded answer, so there the plain form is used, and the loss waited for.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = model.device.type in ("cpu", "cuda") and model.compute_dtype != torch.float16 and not sharded
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)
    warmup = math.ceil(settings.warmup_ratio * total_steps)
    return optimizer, get_cosine_schedule_with_warmup(optimizer, warmup, total_steps)
