"""What SAM is asked in its first stage."""

import numpy as np
import pytest
import torch

from satlisa.demo.collages import SIDE
from satlisa.demo.fit import Loop
from satlisa.demo.pretrain_sam import BATCH_SIZE, KINDS, PROMPTS_PER_IMAGE, SceneLessons, train_sam
from satlisa.demo.tiny_models import new_sam
from tests.helpers.scenes import unseen_scenes


@pytest.fixture(scope="module")
def lessons() -> SceneLessons:
    return SceneLessons(unseen_scenes(8), 3, seed=0)


@pytest.mark.parametrize("step", range(3))
def test_prompts_lie_on_their_masks(lessons: SceneLessons, step: int) -> None:
    pixels, prompts, masks = lessons[step]
    count = 1 if KINDS[step] == "all" else PROMPTS_PER_IMAGE
    assert pixels.shape == (BATCH_SIZE, SIDE, SIDE, 3) and pixels.dtype == torch.uint8
    assert masks.shape == (BATCH_SIZE, count, SIDE // 2, SIDE // 2) and masks.flatten(2).any(-1).all()
    for picture, number in np.ndindex(BATCH_SIZE, count):
        mask = masks[picture, number]
        if KINDS[step] == "box":
            rows, columns = np.nonzero(mask.numpy())
            found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 2
            assert np.abs(prompts["input_boxes"][picture, number].numpy() - found).max() <= 5
        else:
            real = prompts["input_labels"][picture, number] == 1
            near = torch.nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0]  # halving loses edges
            for x, y in (prompts["input_points"][picture, number][real] / 2).long():
                assert near[y, x]


def test_a_step_has_one_batch_in_any_process(lessons: SceneLessons) -> None:
    one, other = lessons[1], SceneLessons(unseen_scenes(8), 3, seed=0)[1]
    assert torch.equal(one[0], other[0]) and torch.equal(one[2], other[2])
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])
    assert not torch.equal(lessons[0][0], lessons[1][0])


def test_encoder_and_decoder_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satlisa.demo.pretrain_sam.BATCH_SIZE", 2)
    model = new_sam(0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train_sam(model, unseen_scenes(8), 2, 0, Loop())
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    for part in ("vision_encoder", "prompt_encoder", "mask_decoder"):
        assert any(name.startswith(part) for name in changed)
