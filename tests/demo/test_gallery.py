"""Scenes for pretraining, turned and mirrored."""

import numpy as np
import pytest

from satlisa.data.synthetic.plan import Plan
from satlisa.data.synthetic.rows import scene_seeds
from satlisa.demo.gallery import Exhibit
from tests.helpers.scenes import drawn


@pytest.mark.parametrize("number", range(8))
def test_a_turned_scene_carries_its_objects_along(number):
    seed = next(s for s in scene_seeds("pretrain", 50) if len(Plan(s).objects) >= 3)
    size = 500  # of the canvas: 1 pixel for 2 units, so that turning moves whole pixels
    scene = Exhibit(np.zeros((8, 8, 3), np.uint8), Plan(seed))
    before = np.any([drawn(thing, size) for thing in scene.plan.objects], axis=0)
    pixels = np.repeat(before[..., None], 3, axis=2).astype(np.uint8)
    turned = Exhibit(pixels, scene.plan).turned(number)
    after = np.any([drawn(thing, size) for thing in turned.plan.objects], axis=0)
    expected = turned.pixels[..., 0].astype(bool)
    assert (after & expected).sum() / (after | expected).sum() > 0.97  # edges may round the other way
    places = [(thing.box[1], thing.box[0]) for thing in turned.plan.objects]
    assert places == sorted(places)


def test_eight_turns_are_eight_views():
    exhibit = Exhibit(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), Plan(scene_seeds("pretrain", 1)[0]))
    assert len({exhibit.turned(number).pixels.tobytes() for number in range(8)}) == 8
