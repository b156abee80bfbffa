"""AdamW and its schedule, by hand."""

import math

import pytest

from satlisa.model.satlisa import SatLisa
from satlisa.training.optimizer import make_optimizer
from satlisa.training.settings import TrainConfig


def test_warm_up_and_cosine_of_everything_trained(tiny_model: SatLisa) -> None:
    environ = {"LEARNING_RATE": "0.1", "WEIGHT_DECAY": "0.5", "WARMUP_RATIO": "0.25"}
    optimizer, scheduler = make_optimizer(tiny_model, TrainConfig.from_env(environ), total_steps=8)
    (group,) = optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in tiny_model.parameters() if p.requires_grad}
    assert group["weight_decay"] == 0.5
    rates = []
    for _ in range(9):
        rates.append(group["lr"])
        optimizer.step()
        scheduler.step()
    cosine = [0.05 * (1 + math.cos(math.pi * step / 6)) for step in range(7)]
    assert rates == pytest.approx([0, 0.05, *cosine])  # two steps of warm-up, six of decay
