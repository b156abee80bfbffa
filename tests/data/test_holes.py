"""Holes: cut out where a format says so, and nowhere else."""

from typing import Any

import pytest

from satlisa.data.polygons import find_regions
from satlisa.geometry.raster import rasterize

OUTER = [[100, 100], [900, 100], [900, 900], [100, 900]]  # 0.64 of the image
HOLE = [[400, 400], [600, 400], [600, 600], [400, 600]]  # 0.04
OTHER = [[0, 0], [50, 0], [50, 50], [0, 50]]  # 0.0025


def flat(ring: list[list[int]]) -> list[int]:
    return [number for point in ring for number in point]


def share(record: Any) -> float:
    regions = find_regions(record)
    return float(rasterize([ring for region in regions for ring in region], 200, 200).mean())


@pytest.mark.parametrize(
    "record",
    [
        {"coordinates": [OUTER, HOLE]},
        {"coordinates": [[OUTER, HOLE]]},
        {"type": "Polygon", "coordinates": [OUTER + OUTER[:1], HOLE[::-1] + HOLE[-1:]]},
        {"geometry": {"type": "MultiPolygon", "coordinates": [[OUTER, HOLE]]}},
        {"features": [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [OUTER, HOLE]}}]},
        {"objects": [{"geometry": {"type": "Polygon", "coordinates": [OUTER, HOLE]}}]},
        {"polygons": [OUTER], "holes": [HOLE]},
        {"polygon": OUTER, "interiors": [flat(HOLE)]},
        {"exterior": OUTER, "interiors": [HOLE]},
        {"objects": [{"polygon": OUTER, "holes": HOLE}]},
        {"exterior": OUTER, "interior": [HOLE]},
        {"polygon": OUTER, "hole": HOLE},
        {"objects": [{"points": {"exterior": OUTER, "interior": [HOLE]}}]},
    ],
)
def test_holes_are_cut_out(record: Any) -> None:
    assert share(record) == pytest.approx(0.60, abs=1e-9)


@pytest.mark.parametrize(
    "record", [{"polygons": [[OUTER, HOLE]]}, {"segmentation": [flat(OUTER), flat(HOLE)]}, {"polygons": [OUTER, HOLE]}]
)
def test_parts_stay_a_union(record: Any) -> None:
    assert share(record) == pytest.approx(0.64, abs=1e-9)


def test_the_hole_belongs_to_the_polygon_around_it() -> None:
    assert share({"polygons": [OTHER, OUTER], "holes": [HOLE]}) == pytest.approx(0.6025, abs=1e-9)
    assert len(find_regions({"polygons": [OTHER, OUTER], "holes": [HOLE]})) == 2
    inner = [[450, 450], [550, 450], [550, 550], [450, 550]]
    assert share({"polygons": [OUTER, HOLE], "holes": [inner]}) == pytest.approx(0.64, abs=1e-9)  # OUTER covers it


L_SHAPE = [[100, 100], [900, 100], [900, 300], [300, 300], [300, 900], [100, 900]]  # HOLE is in its box, outside of it
WHOLE = [[0, 0], [1000, 0], [1000, 1000], [0, 1000]]


def test_a_hole_is_cut_out_of_what_is_around_it_and_not_of_what_has_a_box_around_it() -> None:
    assert share({"polygons": [WHOLE, L_SHAPE], "holes": [HOLE]}) == pytest.approx(0.96, abs=1e-9)
    inside = [[100, 100], [200, 100], [200, 200], [100, 200]]  # shares a corner with its outline
    assert share({"coordinates": [L_SHAPE, inside]}) == pytest.approx(0.27, abs=1e-9)


@pytest.mark.parametrize("record", [{"coordinates": [L_SHAPE, HOLE]}, {"polygons": [L_SHAPE], "holes": [HOLE]}])
def test_a_hole_beside_an_outline_is_refused(record: Any) -> None:
    with pytest.raises(ValueError, match="expected holes inside of a polygon"):
        find_regions(record)


@pytest.mark.parametrize("record", [{"polygons": [OTHER], "holes": [HOLE]}, {"coordinates": [OTHER, HOLE]}])
def test_a_hole_in_nothing_is_refused(record: Any) -> None:
    with pytest.raises(ValueError, match="expected holes inside of a polygon"):
        find_regions(record)


def test_other_geometries_are_refused() -> None:
    with pytest.raises(ValueError, match="Polygon or MultiPolygon, found 'LineString'"):
        find_regions({"geometry": {"type": "LineString", "coordinates": OUTER}})
