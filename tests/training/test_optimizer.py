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


@pytest.mark.parametrize("rate", [0.1, 0.0])
def test_the_projector_has_a_rate_of_its_own(rate: float, tiny_model: SatLisa) -> None:
    environ = {"LEARNING_RATE": str(rate), "PROJECTOR_LR_FACTOR": "3", "WARMUP_RATIO": "0.25"}
    optimizer, scheduler = make_optimizer(tiny_model, TrainConfig.from_env(environ), total_steps=8)
    rest, projector = optimizer.param_groups
    assert {id(p) for p in projector["params"]} == {id(p) for p in tiny_model.projector.parameters()}
    # Checkpoints name the optimizer's tensors by their place among the trained parameters.
    trained = [p for p in tiny_model.parameters() if p.requires_grad]
    assert [id(p) for p in (*rest["params"], *projector["params"])] == [id(p) for p in trained]
    for _ in range(9):
        assert projector["lr"] == pytest.approx(3 * rest["lr"])
        optimizer.step()
        scheduler.step()
    assert scheduler.base_lrs == [rate, rate * 3]
