"""Outlines in pixels → what a row's reader sees."""

from pathlib import Path

import numpy as np
import pytest

from satlisa.convert.picture import STORED, UPRIGHT, Picture
from satlisa.convert.scene import Thing
from satlisa.convert.shapes import NoAreaError, box_of, mask_thing, polygon_thing, reaches_outside
from satlisa.data.polygons import Reading, parse_regions
from satlisa.geometry.raster import rasterize

SIZE = (100, 80)
PICTURE = Picture(Path("a.png"), SIZE)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def pixels(thing: Thing, picture: Picture = PICTURE) -> np.ndarray:
    how = Reading(size=picture.upright, orientation=picture.orientation)
    (region,) = parse_regions([thing.shape], how)
    return rasterize(region, *picture.upright[::-1])


def test_holes_and_parts() -> None:
    thing = polygon_thing(
        "a", [[box(10, 10, 40, 40), box(20, 20, 30, 30)], [box(60, 10, 70, 20)]], PICTURE, SIZE, STORED
    )
    expected = np.zeros((80, 100), dtype=bool)
    expected[10:40, 10:40] = expected[10:20, 60:70] = True
    expected[20:30, 20:30] = False
    assert np.array_equal(pixels(thing), expected)
    assert thing.box == (100, 125, 700, 500) and thing.is_visible


def test_a_hole_that_reaches_the_edge_of_its_polygon() -> None:
    thing = polygon_thing("a", [[box(10, 10, 40, 40), box(9, 20, 30, 30)]], PICTURE, SIZE, STORED)
    assert pixels(thing)[10:20, 10:40].all() and not pixels(thing)[20:30, 10:30].any()


def test_what_is_beyond_the_image_is_clipped_and_not_moved() -> None:
    """A triangle with its tip outside: clamping the tip to the edge would change its sides."""
    tip = np.array([[20.0, 70], [50, -70], [80, 70]])
    expected = rasterize([tip / SIZE], 80, 100)
    found = pixels(polygon_thing("a", [[tip]], PICTURE, SIZE, STORED))
    assert (found & expected).sum() / (found | expected).sum() > 0.995
    assert reaches_outside(tip, SIZE) and not reaches_outside(box(0, -0.9, 100.9, 80), SIZE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("grid", [STORED, UPRIGHT])
@pytest.mark.parametrize("stored", [SIZE, (80, 80)])
def test_polygons_and_masks_turn_alike(orientation: int, grid: str, stored: tuple[int, int]) -> None:
    picture = Picture(Path("a.jpg"), stored, orientation)
    size = stored if grid == STORED else picture.upright
    mask = np.zeros(size[::-1], dtype=bool)
    mask[5:20, 10:40] = True
    of_polygon = pixels(polygon_thing("a", [[box(10, 5, 40, 20)]], picture, size, grid), picture)
    of_mask = pixels(mask_thing("a", mask, picture, grid), picture)
    assert np.array_equal(of_polygon, of_mask) and of_mask.sum() == 450
    if grid == UPRIGHT:
        assert np.array_equal(of_mask, mask)
    x0, y0, x1, y1 = box_of((10, 5, 40, 20), picture, size, grid)
    rows, columns = np.nonzero(of_mask)
    width, height = picture.upright
    found = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
    assert (x0, y0, x1, y1) == pytest.approx([1000 * side for side in found])


@pytest.mark.parametrize("side", [0.5, 1.3, 1.7])
def test_tiny_objects_in_the_corner_are_not_taken_for_fractions(side: float) -> None:
    """Thousandths from 0 to 2 would be read as fractions: most of the image."""
    picture = Picture(Path("a.png"), (10_000, 10_000))
    thing = polygon_thing("a", [[box(0.2, 0.2, side * 10, side * 10)]], picture, (10_000, 10_000), STORED)
    (region,) = parse_regions([thing.shape], Reading(size=picture.upright))
    assert rasterize(region, 10_000, 10_000).sum() == pytest.approx((side * 10) ** 2, rel=0.1)
    assert thing.box[3] == pytest.approx(side)


def test_nothing_and_no_shape_are_told_apart() -> None:
    with pytest.raises(NoAreaError):
        polygon_thing("a", [[box(200, 10, 300, 20)]], PICTURE, SIZE, STORED)
    with pytest.raises(NoAreaError):
        polygon_thing("a", [[np.array([[1, 1], [9, 9], [5, 5]])]], PICTURE, SIZE, STORED)
    with pytest.raises(NoAreaError):
        mask_thing("a", np.zeros((80, 100), dtype=bool), PICTURE, STORED)
    with pytest.raises(ValueError, match="finite"):
        polygon_thing("a", [[box(np.inf, 10, 300, 20)]], PICTURE, SIZE, STORED)
    with pytest.raises(ValueError, match="shape"):
        mask_thing("a", np.ones((80, 80), dtype=bool), PICTURE, STORED)
