"""Collages."""

import numpy as np
import pytest

from satlisa.demo.collages import SIDE, draw_collage
from satlisa.demo.pretrain_sam import draw_mask
from satlisa.demo.sam_lessons import as_picture
from tests.helpers.scenes import unseen_scenes


def test_a_seed_draws_one_collage() -> None:
    one, again, other = draw_collage(3), draw_collage(3), draw_collage(4)
    assert all(np.array_equal(getattr(one, n), getattr(again, n)) for n in ("pixels", "shapes", "surfaces"))
    assert not np.array_equal(one.pixels, other.pixels)
    assert one.pixels.shape == (SIDE, SIDE, 3) and one.pixels.dtype == np.uint8


def test_shapes_and_surfaces_say_what_is_drawn() -> None:
    """A shape is of one surface, and a collage has several of both."""
    for seed in range(10):
        collage = draw_collage(seed)
        for number in np.unique(collage.shapes):
            assert len(np.unique(collage.surfaces[collage.shapes == number])) == 1
        assert len(np.unique(collage.shapes)) > 2 and len(np.unique(collage.surfaces)) > 1


@pytest.mark.parametrize("number", range(8))
def test_turning_is_that_of_exhibits(number: int) -> None:
    scene = next(scene for scene in unseen_scenes(20) if len(scene.plan.objects) > 2)
    a, b = as_picture(scene).collage.turned(number), scene.turned(number)
    assert np.array_equal(a.pixels, b.pixels)
    union = draw_mask(b.plan.objects, SIDE)
    assert ((a.shapes > 0) & union).sum() / ((a.shapes > 0) | union).sum() > 0.9  # an edge may fall on the next pixel
