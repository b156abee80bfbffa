"""Resuming a pretraining of several stages."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from satlisa.demo.checkpoint import Checkpoint
from satlisa.demo.fit import Loop
from satlisa.errors import SatlisaError

STEPS = {"first": 3, "second": 4}
SETTINGS = {"seed": 0, "chips": 121}


def train(path: Path | None, stop_before: int | None = None, every: float = 0.0) -> tuple[list[Tensor], list[int]]:
    """Two stages with a helper in the second; the trained parameters, and the steps made, counted over both."""
    torch.manual_seed(1)
    model, made, before = nn.Linear(3, 2), [], 0
    loop = Loop(checkpoint=Checkpoint(path, SETTINGS, every) if path else None)
    for stage, steps in STEPS.items():
        helper = nn.Linear(2, 2)

        def loss_of(step: int, batch: tuple[Tensor], helper: nn.Module = helper, before: int = before) -> Tensor:
            if before + step == stop_before:
                raise KeyboardInterrupt
            made.append(before + step)
            return helper(model(batch[0])).square().sum()

        batches = TensorDataset(torch.randn(steps, 5, 3, generator=torch.Generator().manual_seed(before)))
        loop.fit(stage, model, batches, loss_of, 0.1, helpers=[helper] if stage == "second" else [])
        before += steps
    return [parameter.detach() for parameter in (*model.parameters(), *helper.parameters())], made


@pytest.mark.parametrize("stop", range(1, 7))
def test_an_interrupted_run_ends_with_the_same_weights(stop: int, tmp_path: Path) -> None:
    path = tmp_path / "vlm.checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train(path, stop_before=stop)
    resumed, made = train(path)
    whole, all_steps = train(None)
    assert made == all_steps[stop:]
    assert all(torch.equal(one, other) for one, other in zip(resumed, whole, strict=True))


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "vlm.checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train(path, stop_before=5, every=1e6)  # written at the end of a stage only
    assert train(path)[1] == [3, 4, 5, 6]
    again, made = train(path)
    assert made == []
    assert all(torch.equal(one, other) for one, other in zip(again, train(None)[0], strict=True))


def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vlm.checkpoint.pt"
    train(path)
    content = path.read_bytes()
    with pytest.raises(SatlisaError, match=r"found chips 121 instead of 0, seed 0 instead of 1; repeat the command"):
        Checkpoint(path, {"seed": 1, "chips": 0})
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"no archive", "half", "other"])
def test_a_damaged_file_is_refused(content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "vlm.checkpoint.pt"
    train(path)
    if content == "other":
        torch.save({"weights": torch.zeros(2)}, path)
    else:
        path.write_bytes(path.read_bytes()[:1000] if isinstance(content, str) else content)
    with pytest.raises(SatlisaError, match=r"vlm\.checkpoint\.pt: expected the state of a pretraining.*delete it"):
        Checkpoint(path, SETTINGS)
