"""Polygons in other projections: exact, valid, and cut at the 180th meridian."""

import numpy as np
import pyproj
import pytest

pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

import shapely
from pyproj import CRS

from satlisa.geo.polygons import Reprojection, cut


@pytest.mark.parametrize(
    ("crs", "place"),
    [
        ("EPSG:3035", (4.3e6, 3.2e6)),
        ("EPSG:5514", (-7e5, -1.05e6)),
        ("EPSG:27700", (4e5, 3e5)),
        ("+proj=laea +lat_0=27 +lon_0=85 +ellps=bessel +units=m", (1000, 50000)),
    ],
)
def test_the_way_there_and_back_is_exact(crs: str, place: tuple[float, float]) -> None:
    """PROJ alone is 0.3 to 5 millimetres off in these."""
    box = shapely.box(*place, place[0] + 500, place[1] + 500)
    moved = shapely.get_coordinates(Reprojection(CRS(crs), CRS(4326))(box))
    back = np.stack(pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(*moved.T), axis=-1)
    assert np.abs(back - shapely.get_coordinates(box)).max() < 1e-7


def test_a_polygon_with_a_hole_is_cut_at_the_meridian() -> None:
    ring = shapely.box(178, -2, 183, 2).difference(shapely.box(181, -1, 182, 1))
    found = cut(ring)
    assert found.is_valid and sorted(part.bounds for part in found.geoms) == [(-180, -2, -177, 2), (178, -2, 180, 2)]
    assert found.area == pytest.approx(ring.area)
    assert cut(shapely.box(181, 0, 182, 1)).bounds == (-179, 0, -178, 1)
    world = shapely.segmentize(shapely.box(-180, 0, 180, 1), 90)
    assert cut(world).equals(world)


@pytest.mark.parametrize("left", [-60_000, -30_000, 20_000])  # around the pole, its hole beside it, beside it
def test_rings_about_a_pole(left: float) -> None:
    ring = shapely.Point(left + 60_000, 0).buffer(60_000, 90).difference(shapely.Point(left + 60_000, 0).buffer(20_000))
    found = Reprojection(CRS(3413), CRS(4326))(ring)
    assert found.is_valid and found.bounds[0] >= -180 and found.bounds[2] <= 180
    points = np.random.default_rng(0).uniform(-130_000, 150_000, (4000, 2))
    degrees = pyproj.Transformer.from_crs(3413, 4326, always_xy=True).transform(*points.T)
    away = shapely.distance(ring.boundary, shapely.points(points)) > 1000  # edges bend
    assert np.array_equal(shapely.contains_xy(found, *degrees)[away], shapely.contains_xy(ring, *points.T)[away])


def test_what_a_projection_does_not_map_is_infinite() -> None:
    found = Reprojection(CRS(4326), CRS("+proj=geos +h=35785831 +lon_0=-75"))(shapely.box(85, 27, 86, 28))
    assert not np.isfinite(shapely.get_coordinates(found)).any()
