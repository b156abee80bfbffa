"""The training loop of all pretraining stages."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


def fit(
    model: Any, loss_of: Callable[[int], Tensor], steps: int, learning_rate: float, helpers: Sequence[nn.Module] = ()
) -> None:
    """Train all of a model in place: AdamW, one-cycle cosine with 5 % warm-up, gradient norm clipped to 1.

    `loss_of(step)` draws a batch and returns its loss; `helpers` are trained with the model, unclipped.
    """
    parameters = [p for module in (model, *helpers) for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.05)
    model.train()
    for step in range(steps):
        loss_of(step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def load(batches: Dataset[Any], workers: int) -> Iterator[Any]:
    """A dataset's items in order, each a whole batch, made ahead by `workers` processes (0: by this one)."""
    return iter(DataLoader(batches, batch_size=None, num_workers=workers))


def moved(part: Any, device: torch.device) -> Any:
    """A tensor, or a batch (a dataclass, dict, list or tuple of such parts), on another device.

    Anything else is unchanged.
    """
    if isinstance(part, Tensor):
        return part.to(device)
    if isinstance(part, dict):
        return {name: moved(value, device) for name, value in part.items()}
    if isinstance(part, (tuple, list)):
        return type(part)(moved(value, device) for value in part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{item.name: moved(getattr(part, item.name), device) for item in fields(part)})
    return part


def say(line: str) -> None:
    """Print a line with the time, unbuffered."""
    print(time.strftime("%H:%M:%S"), line, flush=True)
