"""What SAM is asked about collages, and the losses."""

import numpy as np
import pytest
import torch

from satlisa.data.synthetic.painter import draw_scene
from satlisa.data.synthetic.plan import Plan
from satlisa.data.synthetic.rows import scene_seeds
from satlisa.demo.broaden_sam import as_collage, make_prompts, rare_pixel_weights, rebuild_loss, turned
from satlisa.demo.collages import SIDE, draw_collage
from satlisa.demo.gallery import Exhibit
from satlisa.demo.pretrain_sam import draw_mask, prompt_loss


@pytest.fixture(scope="module")
def scene() -> Exhibit:
    seed = next(s for s in scene_seeds("pretrain", 50) if len(Plan(s).objects) > 2)
    return Exhibit(np.asarray(draw_scene(seed)), Plan(seed))


def test_a_scene_as_collage_holds_its_objects(scene: Exhibit) -> None:
    collage = as_collage(scene)
    for number, thing in enumerate(scene.plan.objects, start=1):
        assert (collage.shapes == number).sum() > 0.95 * draw_mask([thing], SIDE).sum()
    assert set(np.unique(collage.surfaces)) == set(range(1 + len({t.label for t in scene.plan.objects})))


@pytest.mark.parametrize("number", range(8))
def test_turning_is_that_of_exhibits(scene: Exhibit, number: int) -> None:
    a, b = turned(as_collage(scene), number), scene.turned(number)
    assert np.array_equal(a.pixels, b.pixels)
    union = draw_mask(b.plan.objects, SIDE)
    assert ((a.shapes > 0) & union).sum() / ((a.shapes > 0) | union).sum() > 0.9  # an edge may fall on the next pixel


@pytest.mark.parametrize("kind", ["box", "point", "all"])
def test_prompts_lie_on_their_masks(kind: str) -> None:
    collages = [draw_collage(1), draw_collage(2)]
    prompts, targets = make_prompts(collages, [0, 0], kind, np.random.default_rng(0))
    count = 1 if kind == "all" else 4
    assert targets.shape == (2, count, SIDE // 2, SIDE // 2) and set(targets.unique().tolist()) == {0.0, 1.0}
    for picture, number in np.ndindex(2, count):
        rows, columns = np.nonzero(targets[picture, number].numpy())
        if kind == "box":
            found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 2
            assert np.abs(prompts["input_boxes"][picture, number].numpy() - found).max() <= 4
        else:
            points = prompts["input_points"][picture, number].numpy().astype(int)
            numbers = collages[picture].surfaces if kind == "all" else collages[picture].shapes
            assert len({numbers[y, x] for x, y in points}) == 1
            assert prompts["input_labels"].shape == prompts["input_points"].shape[:-1]


def test_losses_want_what_they_should() -> None:
    targets = torch.zeros(1, 1, 32, 32)
    targets[..., 10:14, 10:14] = 1
    scores = torch.ones(1, 1)
    weights = rare_pixel_weights(targets)
    right = prompt_loss(20 * (targets - 0.5), targets, scores, weights)
    empty = prompt_loss(targets - 10, targets, scores, weights)
    assert right < 0.01 and empty > 1
    pixels = torch.randn(1, 3, 64, 64)
    halved = torch.nn.functional.avg_pool2d(pixels, 2)
    perfect = torch.nn.functional.pixel_unshuffle(halved, 4)
    assert rebuild_loss(perfect, pixels) == 0 and perfect.shape == (1, 48, 8, 8)
    assert rebuild_loss(perfect.roll(1, dims=3), pixels) > 0.1
