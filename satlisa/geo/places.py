"""Where a grid lies on the ground: sizes in metres, coordinates, areas, and the part of a bounding box."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS, Geod, Transformer

from satlisa.errors import SatlisaError

LON_LAT = CRS.from_epsg(4326)
_LONG = 1 / 50  # share of a long edge that counts as straight on the ellipsoid
_FAR = 20_000.0  # metres; edges of smaller polygons are straight enough


@dataclass(frozen=True)
class Ground:
    """The ground below a grid; without a CRS it has no metres."""

    crs: CRS | None
    transform: Affine

    @cached_property
    def geod(self) -> Geod | None:
        """The ellipsoid, None for a local grid."""
        return self.crs.get_geod() if self.crs is not None and self.crs.geodetic_crs is not None else None

    @cached_property
    def _to_degrees(self) -> Transformer:
        """To the CRS's own longitude and latitude: no shift of datum."""
        assert self.crs is not None and self.crs.geodetic_crs is not None
        return Transformer.from_crs(self.crs, self.crs.geodetic_crs.to_2d(), always_xy=True)

    def pixel_size(self, column: float, row: float) -> tuple[float, float] | None:
        """Width and height of a pixel in metres, None without a CRS and off its map."""
        sizes = self.pixel_sizes(np.array([[column, row]]))
        return None if sizes is None or not np.isfinite(sizes).all() else (float(sizes[0, 0]), float(sizes[0, 1]))

    def pixel_sizes(self, places: np.ndarray) -> np.ndarray | None:
        """The same at grid positions (K, 2): (K, 2), NaN off the map."""
        if self.crs is None:
            return None
        steps = np.array([(0, 0), (1, 0), (0, 1)])[:, None]
        x, y = at(self.transform, *np.moveaxis(places + steps, -1, 0))  # (3, K)
        if self.geod is None:
            return np.asarray(np.hypot(x[1:] - x[0], y[1:] - y[0]).T * self._unit)
        x, y = self._to_degrees.transform(x, y)
        x, y = np.where(np.isfinite(x), x, np.nan), np.where(np.isfinite(y), y, np.nan)
        return np.stack([self.geod.inv(x[0], y[0], x[n], y[n])[2] for n in (1, 2)], axis=-1)

    def areas(self, geometries: np.ndarray, sizes: np.ndarray | None) -> np.ndarray | None:
        """Square metres of polygons (K,) in the CRS: geodesic, or planar on a local grid; None without a CRS.

        Args:
            sizes: (K, 2), of a pixel there in metres.
        """
        if self.crs is None or sizes is None:
            return None
        if self.geod is None:
            return np.asarray(shapely.area(geometries) * self._unit**2)
        left, bottom, right, top = shapely.bounds(geometries).T
        per_unit = np.nanmax(sizes, axis=1) / max(np.hypot(self.transform.a, self.transform.d), 1e-300)
        longest = np.maximum(right - left, top - bottom)
        far = longest * per_unit > _FAR  # long edges are no geodesics
        geometries = shapely.orient_polygons(geometries)  # before degrees jump at 180
        geometries[far] = shapely.segmentize(geometries[far], longest[far] * _LONG)
        degrees = shapely.transform(geometries, lambda xy: np.stack(self._to_degrees.transform(*xy.T), axis=-1))
        return np.array([self._geodesic(one) for one in degrees])

    def _geodesic(self, polygons: Any) -> float:
        assert self.geod is not None
        parts = getattr(polygons, "geoms", [polygons])
        return float(sum(abs(self.geod.geometry_area_perimeter(part)[0]) for part in parts))

    @property
    def _unit(self) -> float:
        """Metres per unit of a local grid."""
        assert self.crs is not None
        return float(self.crs.axis_info[0].unit_conversion_factor) if self.crs.axis_info else 1.0


def at(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Where a transform brings numbers or arrays; affine 2 and 3 write that differently."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f


def locate(bbox: Sequence[float], ground: Ground, size: tuple[int, int], name: str) -> tuple[int, int, int, int]:
    """The part of a grid that a bounding box covers: (column, row, width, height), whole pixels.

    Args:
        bbox: (left, bottom, right, top) in the CRS; or in degrees, where in the CRS it lies beside the grid.
        size: (height, width) of the grid.

    Raises:
        SatlisaError: the box is empty or lies beside the grid.
    """
    left, bottom, right, top = bbox if len(bbox) == 4 else (0, 0, 0, 0)
    if not (left < right and bottom < top):
        raise SatlisaError(f"--bbox: expected left,bottom,right,top with left < right and bottom < top, found {bbox}")
    found = _clip(_to_pixels(bbox, ground, None), size)
    are_degrees = abs(left) <= 180 and abs(right) <= 180 and abs(bottom) <= 90 and abs(top) <= 90
    if found is None and are_degrees and ground.crs is not None and ground.geod is not None:
        found = _clip(_to_pixels(bbox, ground, LON_LAT), size)
    if found is None:
        corners = np.array([at(ground.transform, *place) for place in ((0, 0), (size[1], 0), (0, size[0]), size[::-1])])
        extent = ", ".join(f"{value:.8g}" for value in (*corners.min(axis=0), *corners.max(axis=0)))
        raise SatlisaError(f"--bbox: {bbox} lies beside {name}, whose extent is {extent} (left, bottom, right, top)")
    return found


def _to_pixels(bbox: Sequence[float], ground: Ground, crs: CRS | None) -> np.ndarray:
    """The outline of a box as grid positions (P, 2)."""
    outline = np.array(
        shapely.segmentize(shapely.box(*bbox), max(bbox[2] - bbox[0], bbox[3] - bbox[1]) / 64).exterior.coords
    )
    if crs is not None:
        outline = np.stack(Transformer.from_crs(crs, ground.crs, always_xy=True).transform(*outline.T), axis=-1)
    if not np.isfinite(outline).all():  # outside of what the projection maps
        return outline
    return np.stack(at(~ground.transform, *outline.T), axis=-1)


def _clip(pixels: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    if not np.isfinite(pixels).all():
        return None
    first = np.floor(np.round(pixels.min(axis=0), 6)).clip(0, size[::-1]).astype(int)
    last = np.ceil(np.round(pixels.max(axis=0), 6)).clip(0, size[::-1]).astype(int)
    width, height = (last - first).tolist()
    return (int(first[0]), int(first[1]), width, height) if width > 0 and height > 0 else None
