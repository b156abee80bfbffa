import numpy as np
import pytest

from satlisa.web.outlines import trace


def drawn(*lines: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in lines])


def test_a_pixel_is_a_square() -> None:
    [[ring]] = trace(drawn("...", ".#."))
    assert ring.tolist() == [[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]]


def test_a_hole_belongs_to_the_polygon_around_it() -> None:
    outer, lone = trace(drawn("####.", "#..#.", "####.", ".....", "....#"))
    assert [len(outer), len(lone)] == [2, 1]
    assert outer[0].tolist() == [[0, 0], [4, 0], [4, 3], [0, 3], [0, 0]]
    assert sorted(map(tuple, outer[1].tolist()[1:])) == [(1, 1), (1, 2), (3, 1), (3, 2)]


def test_pixels_that_touch_at_a_corner_are_apart() -> None:
    assert len(trace(drawn("#.", ".#"))) == 2 and len(trace(drawn(".#", "#."))) == 2


def test_a_hole_that_touches_the_border_is_a_ring_of_its_own() -> None:
    [rings] = trace(drawn("##.", "#.#", "###"))  # the hole in the middle meets the outside at a corner
    assert len(rings) == 2


def test_an_empty_mask_has_no_polygon() -> None:
    assert trace(np.zeros((3, 4), dtype=bool)) == []


def test_polygons_are_valid_and_cover_the_pixels() -> None:
    shapely = pytest.importorskip("shapely", reason="the oracle needs the extra geo")
    rng = np.random.default_rng(3)
    for _ in range(150):
        mask = rng.random(rng.integers(1, 12, 2)) < rng.random()
        polygons = [shapely.Polygon(rings[0], rings[1:]) for rings in trace(mask)]
        assert all(polygon.is_valid and polygon.exterior.is_ccw for polygon in polygons)
        assert sum(polygon.area for polygon in polygons) == mask.sum()
        pixels = shapely.union_all([shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(mask)])
        assert shapely.union_all(polygons).equals(pixels)
