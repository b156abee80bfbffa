"""Outlines and boxes in pixels → objects as a row's metadata hold them, in thousandths of the upright image.

Polygons are clipped at the image's edge, turned with the image where they are on its stored grid, and rounded to
millionths of the image. Masks of pixels become COCO's run lengths on the stored grid, which a row's reader turns with
the image. Every object is read back as training reads it, so nothing is written that means something else there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from satlisa.convert.picture import STORED, UPRIGHT, Picture, Size
from satlisa.convert.scene import Box, Thing
from satlisa.data.coordinates import Reading
from satlisa.data.images import Opened
from satlisa.data.masks import Outline
from satlisa.data.polygons import parse_regions
from satlisa.geometry.raster import covered_pixels

Part = Sequence[np.ndarray]
"""A polygon and the holes in it: arrays (P, 2) of (x, y)."""

NO_AREA = "objects without area in the image, left out"
OUTSIDE = "objects that reach more than a pixel beyond the image, clipped"
NO_FIT = "images of another size than their annotations say, left out"

_SAM_SIDE = 1024  # longest side in pixels at which SAM sees an image
_NEAR = 2.0  # a row's reader takes numbers up to this for fractions of the image


class NoAreaError(ValueError):
    """An object that covers nothing of the image: harmless to leave out."""


def polygon_thing(
    label: str, parts: Sequence[Part], picture: Picture, size: Size, grid: str, is_group: bool = False
) -> Thing:
    """An object of polygons.

    Args:
        parts: in units of which the image has `size`: pixels, or fractions with a size of (1, 1).
        grid: `STORED` or `UPRIGHT`, on which the coordinates are.

    Raises:
        NoAreaError: nothing of it lies in the image, or it has no area.
        ValueError: fewer than three points, or numbers that are not finite.
    """
    placed = [_place(part, picture, size, grid) for part in parts]
    kept = [part for part in placed if part]
    if not kept:
        raise NoAreaError("no area in the image")
    if any(len(part) > 1 for part in kept):
        shape: dict[str, Any] = {"type": "MultiPolygon", "coordinates": [[_listed(ring) for ring in p] for p in kept]}
    elif len(kept) > 1:
        shape = {"polygons": [_listed(ring) for (ring,) in kept]}
    else:
        shape = {"polygon": _listed(kept[0][0])}
    rings = [ring for part in kept for ring in part]
    try:
        return _seen(label, shape, picture, is_group, rings)
    except ValueError:  # a hole along the edge, which rounding puts outside
        joined = {"polygons": [_listed(_with_holes(part)) for part in kept]}
        return _seen(label, joined, picture, is_group, rings)


def mask_thing(label: str, mask: np.ndarray, picture: Picture, grid: str, is_group: bool = False) -> Thing:
    """An object of pixels (H, W) bool, of the image's shape at any scale.

    Raises:
        NoAreaError: an empty mask; ValueError: another shape than the image's.
    """
    if not mask.any():
        raise NoAreaError("an empty mask")
    if grid == UPRIGHT:
        mask = Opened(Image.new("RGB", (1, 1)), picture.orientation).to_stored(mask)
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    shape = {"segmentation": {"size": [*map(int, packed["size"])], "counts": packed["counts"].decode("ascii")}}
    return _seen(label, shape, picture, is_group)


def box_thing(label: str, corners: Sequence[float], picture: Picture, size: Size, grid: str) -> Thing:
    """An object of which only a box (x0, y0, x1, y1) is known; units as in `polygon_thing`.

    Raises:
        NoAreaError: nothing of it lies in the image; ValueError: swapped corners, or numbers that are not finite.
    """
    return Thing(label, box_of(corners, picture, size, grid))


def box_of(corners: Sequence[float], picture: Picture, size: Size, grid: str) -> Box:
    """A box in thousandths of the upright image, clipped at its edge; errors as in `box_thing`."""
    x0, y0, x1, y1 = map(float, corners)
    if not np.isfinite([x0, y0, x1, y1]).all():
        raise ValueError(f"expected finite numbers as corners of a box, found {[x0, y0, x1, y1]}")
    if x1 < x0 or y1 < y0:
        raise ValueError(f"expected a box with x0 <= x1 and y0 <= y1, found {[x0, y0, x1, y1]}")
    turned = _turned(np.array([[x0, y0], [x1, y1]]), picture, size, grid)
    low, high = (np.clip(turn(axis=0), 0, 1) * 1000 for turn in (turned.min, turned.max))
    if (high <= low).any():
        raise NoAreaError("no area in the image")
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def pixel_size(picture: Picture, grid: str) -> Size:
    """(width, height) of a grid in pixels."""
    return picture.stored if grid == STORED else picture.upright


def reaches_outside(points: np.ndarray, size: Size) -> bool:
    """Whether points (P, 2) lie more than a pixel (of pixels) or rounding (of fractions) beyond the image."""
    slack = 1.0 if max(size) > 1 else 0.001
    return bool((points < -slack).any() or (points > np.array(size) + slack).any())


def _with_holes(part: Part) -> np.ndarray:
    """A polygon that runs to each of its holes, around it, and back: the way there and back encloses nothing."""
    ring = part[0]
    for hole in part[1:]:
        ring = np.concatenate([ring, ring[:1], hole, hole[:1]])
    return ring


def _place(part: Part, picture: Picture, size: Size, grid: str) -> list[np.ndarray]:
    """A polygon and its holes in thousandths, clipped; empty where nothing is left."""
    rings = []
    for number, ring in enumerate(part):
        points = np.asarray(ring, dtype=np.float64)
        if points.ndim != 2 or points.shape[1:] != (2,) or len(points) < 3:
            raise ValueError(f"expected polygons of three points or more, found {len(points)}")
        if not np.isfinite(points).all():
            raise ValueError("expected finite numbers as coordinates, found NaN or infinity")
        clipped = np.round(_clip(_turned(points, picture, size, grid)) * 1000, 3)
        if _has_area(clipped):
            rings.append(clipped)
        elif number == 0:
            return []
    return rings


def _turned(points: np.ndarray, picture: Picture, size: Size, grid: str) -> np.ndarray:
    """Points as fractions of the upright image."""
    fractions = points / np.array(size, dtype=np.float64)
    if grid == STORED:
        return Outline(fractions, picture.stored).fit(picture.upright, picture.orientation)
    return np.asarray(fractions)


def _clip(ring: np.ndarray) -> np.ndarray:
    """The part of a polygon inside of the image, by Sutherland and Hodgman; what runs along the edge cancels."""
    for axis, edge, sign in ((0, 0.0, 1), (0, 1.0, -1), (1, 0.0, 1), (1, 1.0, -1)):
        depth = sign * (ring[:, axis] - edge)
        if not len(ring) or (depth >= 0).all():
            continue
        points = []
        for here, there, inside, next_inside in zip(ring, np.roll(ring, -1, 0), depth, np.roll(depth, -1), strict=True):
            if inside >= 0:
                points.append(here)
            if (inside >= 0) != (next_inside >= 0):
                crossing = here + (there - here) * (inside / (inside - next_inside))
                crossing[axis] = edge
                points.append(crossing)
        ring = np.array(points).reshape(-1, 2)
    return ring


def _has_area(ring: np.ndarray) -> bool:
    """Whether points do not all lie on a line."""
    return len(ring) > 2 and bool(np.linalg.matrix_rank(ring - ring[0], tol=1e-3) == 2)


def _listed(ring: np.ndarray) -> list[list[float]]:
    """A polygon as lists, whole numbers without decimals.

    One within the first two thousandths could be read as fractions: it gets a line down and back, which encloses
    nothing.
    """
    points = [[int(number) if number == int(number) else float(number) for number in point] for point in ring.tolist()]
    return points if ring.max() > _NEAR else [*points, points[0], [points[0][0], 3]]


def _seen(
    label: str, shape: Mapping[str, Any], picture: Picture, is_group: bool, rings: Sequence[np.ndarray] = ()
) -> Thing:
    """The object as a row's reader sees it; its extent is that of the `rings` in thousandths, by default what is read.

    Raises:
        ValueError: what the reader refuses.
    """
    (region,) = parse_regions([shape], Reading(size=picture.upright, orientation=picture.orientation))
    scale = _SAM_SIDE / max(picture.upright)
    width, height = (max(1, round(side * scale)) for side in picture.upright)
    extent = _extent(rings or [ring * 1000 for ring in region])
    return Thing(label, extent, shape, bool(covered_pixels([region], height, width)[0]), is_group)


def _extent(rings: Sequence[np.ndarray]) -> Box:
    points = np.concatenate(rings)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)
