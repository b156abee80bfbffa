"""Collages, and what SAM is asked about them."""

import numpy as np

from satlisa.demo.collages import SIDE, draw_collage


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
