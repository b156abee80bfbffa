"""The training loop of all pretraining stages."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from satlisa.demo.checkpoint import Checkpoint, Stateful


class Loop:
    """Trains a model in place, in stages.

    Args:
        workers: processes that draw batches ahead; 0: none but this one.
        checkpoint: where the state is saved, and resumed from; None: nowhere.
    """

    def __init__(self, workers: int = 0, checkpoint: Checkpoint | None = None) -> None:
        self._workers, self._checkpoint = workers, checkpoint

    def fit(
        self,
        stage: str,
        model: nn.Module,
        batches: Dataset[Any],
        loss_of: Callable[[int, Any], Tensor],
        learning_rate: float,
        helpers: Sequence[nn.Module] = (),
    ) -> None:
        """Train all of a model: AdamW, one-cycle cosine with 5 % warm-up, gradient norm clipped to 1.

        Args:
            stage: its name in the checkpoint.
            batches: the batch of each step.
            loss_of: the loss of a step and its batch.
            helpers: trained with the model, unclipped.
        """
        steps = len(batches)  # type: ignore[arg-type]
        parameters = [p for module in (model, *helpers) for p in module.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.05)
        parts: list[Stateful] = [model, *helpers, optimizer, schedule]
        done = self._checkpoint.resume(stage, parts, steps) if self._checkpoint else 0
        if self._checkpoint and done:
            say(f"{stage}: {done} of {steps} steps were done before ({self._checkpoint.path})")
        model.train()
        for step, batch in enumerate(load(batches, self._workers, done), done):
            loss_of(step, batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if self._checkpoint:
                self._checkpoint.save(stage, parts, step + 1, steps)


def load(batches: Dataset[Any], workers: int = 0, start: int = 0) -> Iterator[Any]:
    """A dataset's items in order from `start` on, each a whole batch, made ahead by `workers` processes."""
    rest = Subset(batches, range(start, len(batches)))  # type: ignore[arg-type]
    # A generator of its own: the global one, from which later layers are drawn, is as if nothing had been loaded.
    return iter(DataLoader(rest, batch_size=None, num_workers=workers, generator=torch.Generator()))


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
