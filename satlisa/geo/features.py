"""Masks → polygons with areas, on the map.

Polygons follow pixel borders. They are made in grid positions (whole numbers) and brought to the CRS by one affine map,
so that every corner is the corner of a pixel. Long edges get further points at pixel corners before a change of
projection, in which a straight line bends.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from pyproj import CRS
from rasterio.features import shapes

from satlisa.geo.answers import WindowAnswer
from satlisa.geo.grid import Grid, Window
from satlisa.geo.objects import blend, extent, join
from satlisa.geo.places import LON_LAT, Ground, at
from satlisa.geo.polygons import Reprojection, valid
from satlisa.geo.raster_files import quiet_open

logger = logging.getLogger(__name__)

_TOGETHER = 1024  # features whose coordinates are computed at once
_BEND = 0.1 * 6.4e6  # a tenth of a pixel at the Earth's radius: edges of √(_BEND / pixel) pixels bend less


@dataclass(frozen=True)
class Feature:
    """A polygon or multipolygon on the map.

    Attributes:
        geometry: in grid positions at first, in the CRS of the output at the end.
        answer: what the model said about `window`, the window with the largest weight there.
        score: SAM's guess at the IoU, None for text.
        area: m²; square pixels without a CRS.
    """

    geometry: Any
    answer: str
    score: float | None
    window: Window
    area: float = 0.0


Answered = Sequence[tuple[Window, WindowAnswer]]


def mask_features(rows_file: Path, grid: Grid, answered: Answered) -> Iterator[Feature]:
    """Polygons with holes of the value 1 in a raster of the grid's size, read block by block."""
    answers = {window.number: (window, answer) for window, answer in answered}
    with quiet_open(rows_file) as dataset:
        band = rasterio.band(dataset, 1)
        for outline, value in shapes(band, mask=band, connectivity=4, transform=Affine.identity()):
            if value == 1:
                geometry = valid(shapely.geometry.shape(outline))
                point = geometry.representative_point()
                window, answer = _voice(answers, grid, point.x, point.y)
                score = max((piece.score for piece in answer.pieces), default=None)
                yield Feature(geometry, answer.text, score, window)


def object_features(grid: Grid, answered: Answered) -> Iterator[Feature]:
    """One feature per object, those of several windows joined."""
    texts = {window.number: answer.text for window, answer in answered}
    for group in join(grid, [(window, answer.pieces) for window, answer in answered]):
        top, left, _, _ = extent(group)
        mask = blend(grid, group).astype(np.uint8)
        parts = [
            shapely.geometry.shape(outline)
            for outline, _ in shapes(mask, mask=mask > 0, connectivity=4, transform=Affine.translation(left, top))
        ]
        if not parts:
            continue
        sizes = [int(np.count_nonzero(one.piece.mask())) for one in group]
        largest = group[int(np.argmax(sizes))]
        score = float(np.average([one.piece.score for one in group], weights=sizes))
        geometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
        yield Feature(valid(geometry), texts[largest.window.number], score, largest.window)


def window_features(answered: Answered) -> Iterator[Feature]:
    """Each window with its answer."""
    for window, answer in answered:
        rows, columns = window.place
        yield Feature(shapely.box(columns.start, rows.start, columns.stop, rows.stop), answer.text, None, window)


def place(
    features: Iterable[Feature],
    ground: Ground,
    corner: tuple[int, int],
    *,
    output_crs: CRS | None = None,
    in_degrees: bool = False,
    min_area: float = 0.0,
    simplify: float = 0.0,
) -> Iterator[Feature]:
    """Bring features from grid positions to the map.

    Args:
        corner: (column, row) of the grid's corner in the file.
        output_crs: by default the scene's own.
        in_degrees: longitudes are from -180 to 180, also where the scene's own run on.
        min_area: m² that a feature has at least.
        simplify: metres that an outline may move.
    """
    change = None
    if ground.crs is not None and output_crs is not None and (in_degrees or not ground.crs.equals(output_crs)):
        change = Reprojection(ground.crs, output_crs)
    lost = 0
    for some in _batches(features):
        for feature, on_ground, geometry, area in _measured(some, ground, corner, simplify):
            if geometry.is_empty or area < min_area:
                continue
            placed = _map(geometry, ground.transform) if change is None else change(on_ground)
            if np.isfinite(shapely.get_coordinates(placed)).all():
                yield Feature(valid(placed), feature.answer, feature.score, feature.window, area)
            else:
                lost += 1
    if lost:
        logger.warning("%d features lie where %s has no coordinates; they are left out", lost, output_crs)


def _batches(features: Iterable[Feature]) -> Iterator[list[Feature]]:
    waiting = iter(features)
    while some := list(islice(waiting, _TOGETHER)):
        yield some


def _measured(
    features: Sequence[Feature], ground: Ground, corner: tuple[int, int], simplify: float
) -> Iterator[tuple[Feature, Any, Any, float]]:
    """Each feature, its polygon in the CRS with points along its edges, and on the file's grid; its area."""
    geometries = shapely.transform([feature.geometry for feature in features], lambda xy: xy + corner)
    sizes = ground.pixel_sizes(shapely.get_coordinates(shapely.centroid(geometries)))
    known = np.ones((len(features), 2)) if sizes is None else np.where(np.isfinite(sizes), sizes, 1.0)
    if simplify > 0:
        geometries = [_simplified(one, tuple(size), simplify) for one, size in zip(geometries, known, strict=True)]
    steps = [max(1, math.floor(math.sqrt(_BEND / size))) for size in known.max(axis=1).tolist()]
    bent = [_with_points(one, step) for one, step in zip(geometries, steps, strict=True)]
    on_ground = _map(bent, ground.transform)
    areas = ground.areas(on_ground, known)
    found = shapely.area(geometries) if areas is None else areas
    return zip(features, on_ground, geometries, found.tolist(), strict=True)


def _voice(
    answers: dict[int, tuple[Window, WindowAnswer]], grid: Grid, x: float, y: float
) -> tuple[Window, WindowAnswer]:
    """The answer with a mask whose window has the largest weight at (x, y)."""
    owner = answers.get(grid.owner(x, y).number)
    if owner is not None and owner[1].levels is not None:
        return owner
    around = [
        (window, answer)
        for window, answer in answers.values()
        if answer.levels is not None
        and window.top <= y < window.top + window.height
        and window.left <= x < window.left + window.width
    ]
    return max(around, key=lambda one: float(grid.weight(one[0])[int(y) - one[0].top, int(x) - one[0].left]))


def _map(geometry: Any, transform: Affine) -> Any:
    return shapely.transform(geometry, lambda xy: np.stack(at(transform, *xy.T), axis=-1))


def _simplified(geometry: Any, size: tuple[float, float], metres: float) -> Any:
    scaled = shapely.transform(geometry, lambda xy: xy * size)
    return shapely.transform(valid(shapely.simplify(scaled, metres)), lambda xy: xy / size)


def _with_points(geometry: Any, step: int) -> Any:
    """The geometry with further points every `step` pixels along its edges."""
    left, bottom, right, top = geometry.bounds if not geometry.is_empty else (0, 0, 0, 0)
    if max(right - left, top - bottom) <= step:
        return geometry
    parts = [
        shapely.Polygon(_fill(part.exterior, step), [_fill(hole, step) for hole in part.interiors])
        for part in getattr(geometry, "geoms", [geometry])
    ]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _fill(ring: Any, step: int) -> np.ndarray:
    points = np.asarray(ring.coords)
    edges = np.diff(points, axis=0)
    filled = []
    for start, edge in zip(points[:-1], edges, strict=True):
        length = float(np.abs(edge).max())
        filled.append(start + np.outer(np.arange(0, length, step) / length if length else [0.0], edge))
    return np.concatenate([*filled, points[-1:]])


def is_lon_lat(crs: CRS | None) -> bool:
    """Whether coordinates are longitude and latitude on WGS 84."""
    return crs is not None and crs.equals(LON_LAT, ignore_axis_order=True)
