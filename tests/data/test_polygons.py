"""Every spelling of a polygon gives the same fractions; what cannot be read is refused by name."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from satlisa.data.polygons import find_regions, holds_coordinates, parse_regions
from satlisa.geometry.raster import rasterize
from satlisa.geometry.regions import Region

TRIANGLE = [[100, 200], [300, 200], [300, 600]]
FLAT = [100, 200, 300, 200, 300, 600]
KEYED = [{"x": 100, "y": 200}, {"x": 300, "y": 200}, {"x": 300, "y": 600}]
FRACTIONS = [[0.1, 0.2], [0.3, 0.2], [0.3, 0.6]]
SQUARE = [500, 500, 900, 500, 900, 900, 500, 900]
SQUARE_FRACTIONS = [[0.5, 0.5], [0.9, 0.5], [0.9, 0.9], [0.5, 0.9]]


def parse_object(value: Any) -> Region:
    """The one region of an object, in any spelling."""
    (region,) = parse_regions([value if isinstance(value, Mapping) else {"polygon": value}])
    return region


def as_lists(regions: list[Any]) -> list[list[list[list[float]]]]:
    return [[polygon.tolist() for polygon in region] for region in regions]


@pytest.mark.parametrize(
    "value",
    [
        TRIANGLE,
        FLAT,
        KEYED,
        [FLAT],  # COCO
        [TRIANGLE],
        [KEYED],
        {"polygon": TRIANGLE},
        {"segmentation": [FLAT], "bbox": [0, 0, 5, 5]},
        {"points": KEYED, "label": "building"},
        {"polygon": None, "points": FLAT},
        tuple(map(tuple, TRIANGLE)),
        np.array(TRIANGLE),
        FRACTIONS,
    ],
)
def test_spellings_of_one_polygon(value: Any) -> None:
    polygons = parse_object(value)
    assert len(polygons) == 1
    assert polygons[0].dtype == np.float64
    np.testing.assert_allclose(polygons[0], FRACTIONS, rtol=0, atol=1e-15)
    np.testing.assert_allclose(parse_regions([value, value])[1][0], FRACTIONS, rtol=0, atol=1e-15)


def test_parts_of_one_object_stay_together() -> None:
    parts = [polygon.tolist() for polygon in parse_object([FLAT, SQUARE])]
    assert parts == [FRACTIONS, SQUARE_FRACTIONS]
    regions = parse_regions([{"segmentation": [FLAT, SQUARE]}, {"polygon": SQUARE}])
    assert as_lists(regions) == [[FRACTIONS, SQUARE_FRACTIONS], [SQUARE_FRACTIONS]]


def test_a_list_of_polygons_is_a_list_of_regions() -> None:
    assert as_lists(parse_regions([FLAT, SQUARE])) == [[FRACTIONS], [SQUARE_FRACTIONS]]
    assert as_lists(parse_regions([TRIANGLE, KEYED])) == [[FRACTIONS], [FRACTIONS]]
    for single in (FLAT, TRIANGLE, KEYED, {"polygon": FLAT}):
        assert as_lists(parse_regions(single)) == [[FRACTIONS]]


def test_boxes_stand_in_for_missing_polygons() -> None:
    rectangle = [[0.1, 0.2], [0.3, 0.2], [0.3, 0.6], [0.1, 0.6]]
    assert as_lists([parse_object({"bbox": [100, 200, 300, 600]})]) == [[rectangle]]
    assert as_lists([parse_object({"box": [100, 200, 300, 600], "polygon": None})]) == [[rectangle]]
    assert as_lists([parse_object({"box": [100, 200, 300, 600], "polygon": FLAT})]) == [[FRACTIONS]]


def test_units_are_decided_for_the_whole_list() -> None:
    """Thousandths unless all are near 0..1 and one is broken; whole numbers never are fractions."""
    assert as_lists(parse_regions([[0, 0, 1, 0, 1, 1], [0, 0, 0.5, 0, 0.5, 0.5]]))[0] == [[[0, 0], [1, 0], [1, 1]]]
    assert as_lists(parse_regions([[0, 0, 1, 0, 1, 1]])) == [[[[0, 0], [0.001, 0], [0.001, 0.001]]]]
    assert as_lists(parse_regions([[0, 0, 0.5, 0, 500, 500]])) == [[[[0, 0], [0.0005, 0], [0.5, 0.5]]]]


def test_few_and_outlying_points_are_kept() -> None:
    assert parse_object([]) == ()
    assert parse_regions([]) == []
    assert as_lists(parse_regions([[], FLAT])) == [[], [FRACTIONS]]
    assert parse_object([[500, 500]])[0].tolist() == [[0.5, 0.5]]
    assert parse_object([500, 500])[0].tolist() == [[0.5, 0.5]]
    assert parse_object([-100, 0, 1008, 0])[0].tolist() == [[-0.1, 0.0], [1.008, 0.0]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([100, 200, 300], r"expected pairs of x and y, found 3 numbers in \[100, 200, 300\]"),
        ([[1, 2, 3], [4, 5, 6]], "found 3 numbers"),
        ([100, float("nan"), 5, 5], "expected a finite number as coordinate, found nan"),
        ([[100, float("inf")], [1, 2]], "found inf"),
        ([10**400, 0], "expected a finite number"),
        ([[True, 5], [1, 2]], "expected a number as coordinate, found True"),
        (["100", "200"], "expected a number as coordinate, found '100'"),
        ([[100, None], [1, 2]], "found None"),
        ([{"x": "1", "y": 2}], "found '1'"),
        ([100, 200, [300, 400]], r"expected a number as coordinate, found \[300, 400\]"),
        ([[100, 200], [[300, 400]], 7], "expected a list of coordinates, found 7"),
        ("M 0 0 L 5 5", "expected a list of coordinates, found 'M 0 0 L 5 5'"),
        (5, "found 5"),
        ({"label": "building"}, "expected an object with polygon, .* found an object with the keys label"),
        ({"bbox": [1, 2, 3]}, r"expected a box \[x0, y0, x1, y1\], found \[1, 2, 3\]"),
        ({"bbox": {"left": 1}}, "found an object with the keys left"),
        ({"bbox": [1, 2, 3, "4"]}, "found '4'"),
    ],
)
def test_what_cannot_be_read_is_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_object(value)
    with pytest.raises(ValueError, match=message):
        parse_regions([FLAT, value])


@pytest.mark.parametrize("value", [5, None, True, "text", 1.5])
def test_what_is_no_list_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match="expected polygons, found"):
        parse_regions(value)


def test_json_inside_of_a_list_is_read() -> None:
    for value in ([json.dumps(TRIANGLE)], [json.dumps(FLAT), json.dumps(KEYED)], json.dumps([json.dumps(TRIANGLE)])):
        regions = parse_regions(value)
        assert (
            all(np.allclose(ring, FRACTIONS, rtol=0, atol=1e-15) for region in regions for ring in region) and regions
        )
    with pytest.raises(ValueError, match=r"expected a number as coordinate, found '\[\[100"):
        parse_regions([json.dumps(TRIANGLE)[:-3]])


def test_outlines_too_wild_to_be_drawn_are_refused() -> None:
    """A real outline may have any number of points; one that runs across the image again and again may not."""
    zigzag = [[1000 * (number % 2), number % 1000] for number in range(6000)]
    with pytest.raises(ValueError, match="outlines run 6,000 times across the image; at most 5,000 are drawn"):
        parse_regions([zigzag])
    assert len(parse_regions([zigzag[:4900]])) == 1
    far = [[x - 5000, y] for x, y in zigzag]  # beside the image there is nothing to draw
    assert len(parse_regions([far])) == 1


def test_a_null_beside_polygons_is_no_polygon() -> None:
    """Alone it is refused; in a list of objects it is one that has no outline."""
    with pytest.raises(ValueError, match="found None"):
        parse_regions([None])
    (region,) = parse_regions([None, FLAT])
    assert np.array_equal(region[0], parse_object(FLAT)[0])


@pytest.mark.parametrize(
    "record",
    [
        {"polygons": [FLAT, TRIANGLE]},
        {"segmentation": [FLAT, FLAT], "width": 512},
        {"masks": [KEYED, KEYED]},
        {"instances": [{"polygon": FLAT}, {"points": KEYED}]},
        {"objects": [{"label": "a", "segmentation": [FLAT]}, {"polygon": TRIANGLE}]},
        {"objects": ["building", "road"], "polygons": [FLAT, FLAT]},
        [FLAT, FLAT],
    ],
)
def test_records(record: Any) -> None:
    np.testing.assert_allclose(as_lists(find_regions(record)), [[FRACTIONS], [FRACTIONS]], rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "record", [{}, None, 5, "text", [], {"objects": ["road"], "count": 2}, {"instances": 3}, {"polygons": []}]
)
def test_records_without_polygons(record: Any) -> None:
    assert find_regions(record) == []


def test_labels_and_counts_hold_no_coordinates() -> None:
    assert not any(map(holds_coordinates, [None, 5, "text", [], ["road"], {"count": 2}, [{"label": "road"}]]))
    assert all(map(holds_coordinates, [FLAT, TRIANGLE, KEYED, [FLAT], {"polygon": FLAT}, [{"bbox": [1, 2, 3, 4]}]]))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"polygons": [[1, 2, 3]]}, "`polygons`: expected pairs of x and y, found 3 numbers"),
        ({"masks": "rle:abc"}, "`masks`: expected polygons, found 'rle:abc'"),
        ({"objects": [{"polygon": ["a", "b"]}]}, "`objects`: expected a number as coordinate, found 'a'"),
    ],
)
def test_unreadable_records_name_the_key(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_regions(record)


@pytest.mark.parametrize("height, width", [(96, 128), (512, 512)])
def test_parsed_polygons_draw_what_pycocotools_draws(height: int, width: int) -> None:
    """From the file's thousandths to pixels: stars in every spelling, of at least 400 pixels."""
    rng, seen = np.random.default_rng(1), 0
    while seen < 60:
        angle = np.sort(rng.random(9)) * 2 * np.pi
        radius = 150 + 300 * rng.random(9)
        points = np.round(500 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(int)
        flat = (points / 1000 * (width, height)).ravel().tolist()
        theirs = coco.decode(coco.frPyObjects([flat], height, width))[..., 0].astype(bool)
        if theirs.sum() < 400:
            continue
        keyed = [{"x": int(x), "y": int(y)} for x, y in points]
        for value in (points.tolist(), points.ravel().tolist(), keyed):
            ours = rasterize(parse_object(value), height, width)
            assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.99
        seen += 1
