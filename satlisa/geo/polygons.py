"""Polygons that are valid, in another projection, and cut at the 180th meridian."""

import math
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.enums import TransformDirection
from shapely.geometry.polygon import orient

_OFF = 0.1  # metres; a way there and back that ends further away is of two different operations


def valid(geometry: Any) -> Any:
    """The geometry as valid polygons, exteriors counterclockwise."""
    if not geometry.is_valid:
        made = shapely.make_valid(geometry)
        parts = [part for part in getattr(made, "geoms", [made]) if part.geom_type in ("Polygon", "MultiPolygon")]
        geometry = shapely.union_all(parts)
    if geometry.geom_type == "Polygon":
        return orient(geometry)
    return shapely.MultiPolygon([orient(part) for part in geometry.geoms])


class Reprojection:
    """From `source` to `target`; coordinates are (x, y) or (longitude, latitude)."""

    def __init__(self, source: CRS, target: CRS) -> None:
        self.source, self.target = source, target

    @cached_property
    def _there(self) -> Transformer:
        return Transformer.from_crs(self.source, self.target, always_xy=True)

    def __call__(self, geometry: Any) -> Any:
        """The geometry in `target`; infinite where that has no coordinates. What crosses the 180th meridian is cut."""
        if not self.source.equals(self.target, ignore_axis_order=True):
            geometry = shapely.transform(geometry, self._move)
        if not self.target.is_geographic or not np.isfinite(shapely.get_coordinates(geometry)).all():
            return geometry
        return cut(geometry, 2 * math.pi / float(self.target.axis_info[0].unit_conversion_factor))

    def _move(self, points: np.ndarray) -> np.ndarray:
        """(P, 2) → (P, 2). PROJ inverts some projections (LAEA, Krovak) to millimetres; one more step leaves 1e-8 m."""
        moved = np.stack(self._there.transform(*points.T), axis=-1)
        off = points - np.stack(self._there.transform(*moved.T, direction=TransformDirection.INVERSE), axis=-1)
        near = (np.abs(off) < (_OFF / 1e5 if self.source.is_geographic else _OFF)).all(axis=-1)
        if near.any():
            moved[near] = np.stack(self._there.transform(*(points + off)[near].T), axis=-1)
        return moved


def cut(geometry: Any, turn: float = 360.0) -> Any:
    """Polygons in longitude and latitude, inside ±half a turn; one around a pole gets a border along it.

    Points follow each other by less than half a turn; more is a step over the meridian.
    """
    rings = [ring for part in _parts(geometry) for ring in (part.exterior, *part.interiors)]
    jumps = any(np.abs(np.diff(shapely.get_coordinates(ring)[:, 0])).max(initial=0) > turn / 2 for ring in rings)
    left, _, right, _ = geometry.bounds if rings else (0, 0, 0, 0)
    if not jumps and -turn / 2 <= left and right <= turn / 2:
        return geometry
    inside = [piece for part in _parts(geometry) for piece in _cut_one(part, turn)]
    found = [piece for one in inside for piece in _parts(one) if piece.geom_type == "Polygon" and piece.area > 0]
    return shapely.union_all(found) if len(found) > 1 else found[0]


def _parts(geometry: Any) -> list[Any]:
    return list(getattr(geometry, "geoms", [geometry]))


def _cut_one(polygon: Any, turn: float) -> list[Any]:
    whole = _unrolled(polygon.exterior, turn)
    left, _, right, _ = whole.bounds
    for ring in polygon.interiors:
        hole = _unrolled(ring, turn)
        first = math.floor((left - hole.bounds[2]) / turn)
        for times in range(first, math.ceil((right - hole.bounds[0]) / turn) + 1):
            whole = whole.difference(_shifted(hole, times * turn))
    turns = range(math.floor(left / turn + 0.5), math.ceil(right / turn - 0.5) + 1)
    if len(turns) == 1:
        return [_shifted(whole, -turns[0] * turn)]
    strips = [(number, shapely.box((number - 0.5) * turn, -turn, (number + 0.5) * turn, turn)) for number in turns]
    return [_shifted(whole.intersection(strip), -number * turn) for number, strip in strips]


def _unrolled(ring: Any, turn: float) -> Any:
    """The area of a ring whose longitudes run on past the meridian; one around a pole is closed along it."""
    points = shapely.get_coordinates(ring)
    points[:, 0] = np.unwrap(points[:, 0], period=turn)
    around = round((points[-1, 0] - points[0, 0]) / turn)
    points[-1, 0] = points[0, 0] + around * turn
    if around:
        pole = math.copysign(turn / 4, points[:, 1].mean())
        points = np.concatenate([points, [(points[-1, 0], pole), (points[0, 0], pole), points[0]]])
    return valid(shapely.Polygon(points))


def _shifted(geometry: Any, by: float) -> Any:
    return shapely.transform(geometry, lambda xy: xy + np.array([by, 0.0])) if by else geometry
