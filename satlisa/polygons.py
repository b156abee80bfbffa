"""Polygons: every spelling of them becomes arrays of fractions, and arrays become masks.

Unusual here: the rasteriser is our own numpy scanline, because ground truth is drawn at arbitrary sizes straight into a
padded frame, and because it must say what happens to polygons that cover no pixel centre.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satlisa.sample import Region

POLYGON_KEYS = ("polygons", "segmentation", "masks", "instances", "objects")
"""Where a record keeps its polygons; the first of them that holds coordinates is read."""
_OBJECT_KEYS = ("polygon", "segmentation", "points", "polygons")
_BOX_KEYS = ("bbox", "box")
_UNITS = 1000.0  # coordinates are thousandths of the image's width and height
_FAR = 1e6  # fractions are clipped to this before drawing: keeps the arithmetic finite, far outside any frame


def parse_polygons(value: Any) -> list[np.ndarray]:
    """The polygons of one object, in any spelling.

    `[[x, y], …]`, flat `[x, y, x, y, …]`, `[{"x": …, "y": …}, …]`, a list of several of these (parts, as in COCO's
    `segmentation`), or an object with `polygon`, `segmentation` or `points`; an object with only a `bbox`/`box`
    `[x0, y0, x1, y1]` stands for its rectangle. Coordinates are thousandths of the image; where all lie within -1..2
    and one is not whole they are taken as fractions already, since such a polygon in thousandths would be invisible.

    Returns:
        arrays (P, 2) float64, (x, y) as fractions; P may be 0, 1 or 2, which draws nothing.

    Raises:
        ValueError: something else than finite numbers was found, or an odd count of them; the message names it.
    """
    return _to_fractions([_rings(value)])[0]


def parse_regions(value: Any) -> list[Region]:
    """The objects of a list, one region each; a single polygon or object is a list of one.

    The parts of one object (a list of polygons inside the list) are one region. Units are decided once for the whole
    list. Spellings and errors as in `parse_polygons`.
    """
    value = _as_list(value)
    if isinstance(value, Mapping) or (value and (not _is_container(value[0]) or _is_ring(value))):
        objects = [_rings(value)]
    elif isinstance(value, list):
        objects = [_rings(item) for item in value]
    else:
        raise ValueError(f"expected polygons, found {describe(value)}")
    return [tuple(rings) for rings in _to_fractions(objects)]


def find_regions(record: Any) -> list[Region]:
    """The regions of a metadata record: under the first of `POLYGON_KEYS` that holds coordinates, else none.

    A list is read as the regions themselves, an object with its own `polygon` as one region. Labels and counts under
    `objects`, `instances` and their like are no polygons and are passed over.

    Raises:
        ValueError: coordinates that cannot be read; the message names the key and what was found.
    """
    if not isinstance(record, Mapping):
        return parse_regions(record) if holds_coordinates(record) else []
    for key in POLYGON_KEYS:
        if holds_coordinates(record.get(key)):
            try:
                return parse_regions(record[key])
            except ValueError as error:
                raise ValueError(f"`{key}`: {error}") from error
    if holds_coordinates(record):
        return parse_regions(record)
    for key in ("polygons", "segmentation", "masks"):
        if isinstance(record.get(key), str | list | Mapping) and record[key]:
            raise ValueError(f"`{key}`: expected polygons, found {describe(record[key])}")
    return []


def holds_coordinates(value: Any) -> bool:
    """Whether a value looks like polygons or boxes, readable or not; labels, counts and nothing do not."""
    value = _as_list(value)
    if isinstance(value, Mapping):
        return _is_point(value) or any(value.get(key) is not None for key in _OBJECT_KEYS + _BOX_KEYS)
    return isinstance(value, list) and any(_is_number(item) or holds_coordinates(item) for item in value)


def describe(value: Any) -> str:
    """What was found, short enough for an error message."""
    if isinstance(value, Mapping):
        return f"an object with the keys {', '.join(map(str, value)) or '(none)'}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _rings(value: Any) -> list[np.ndarray]:
    """The polygons of one object as (P, 2) arrays in the units of the file."""
    value = _as_list(value)
    if isinstance(value, Mapping):
        return _object_rings(value)
    if not isinstance(value, list):
        raise ValueError(f"expected a list of coordinates, found {describe(value)}")
    if not value:
        return []
    if not _is_container(value[0]):
        return [_flat_ring(value)]
    if _is_ring(value):
        points = [(p["x"], p["y"]) if isinstance(p, Mapping) else p for p in value]
        return [np.array([[_number(x), _number(y)] for x, y in points])]
    return [ring for item in value for ring in _rings(item)]


def _object_rings(value: Mapping[str, Any]) -> list[np.ndarray]:
    for key in _OBJECT_KEYS:
        if value.get(key) is not None:
            return _rings(value[key])
    for key in _BOX_KEYS:
        if value.get(key) is not None:
            return [_box_ring(value[key])]
    if any(key in value for key in _OBJECT_KEYS + _BOX_KEYS):
        return []  # an explicit null: an object without outline
    raise ValueError(f"expected an object with polygon, segmentation, points or bbox, found {describe(value)}")


def _flat_ring(value: Sequence[Any]) -> np.ndarray:
    numbers = [_number(item) for item in value]
    if len(numbers) % 2:
        raise ValueError(f"expected pairs of x and y, found {len(numbers)} numbers in {describe(value)}")
    return np.array(numbers).reshape(-1, 2)


def _box_ring(value: Any) -> np.ndarray:
    """A box's corners as a polygon (4, 2); corners may come in either order."""
    value = _as_list(value)
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"expected a box [x0, y0, x1, y1], found {describe(value)}")
    x0, y0, x1, y1 = (_number(item) for item in value)
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _to_fractions(objects: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Thousandths to fractions, unless the numbers are fractions already (see `parse_polygons`)."""
    numbers = np.concatenate([np.empty(0), *(ring.ravel() for rings in objects for ring in rings)])
    near = bool(np.all((numbers >= -1) & (numbers <= 2)))
    units = 1.0 if near and np.any(numbers % 1) else _UNITS
    return [[ring / units for ring in rings] for rings in objects]


def _as_list(value: Any) -> Any:
    """Arrays and tuples as the lists that JSON would give."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _is_container(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping | np.ndarray)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_point(value: Any) -> bool:
    """`{"x", "y"}`, or two values that are not lists themselves."""
    if isinstance(value, Mapping):
        return "x" in value and "y" in value and not any(key in value for key in _OBJECT_KEYS)
    return isinstance(value, list | tuple | np.ndarray) and len(value) == 2 and not any(map(_is_container, value))


def _is_ring(value: Sequence[Any]) -> bool:
    """Whether every item is a point; a list of flat polygons has longer items."""
    return all(map(_is_point, value))


def _number(value: Any) -> float:
    if not _is_number(value):
        raise ValueError(f"expected a number as coordinate, found {describe(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not np.isfinite(number):
        raise ValueError(f"expected a finite number as coordinate, found {describe(value)}")
    return number


def rasterize(
    polygons: Sequence[np.ndarray], height: int, width: int, *, scale: tuple[float, float] | None = None
) -> np.ndarray:
    """Draw the union of polygons.

    A pixel belongs to a polygon when its centre does, by the even-odd rule, so overlapping parts of *one* polygon
    cancel and several polygons add up. Parts outside the frame are clipped. Fewer than three distinct points, or
    points on one line, draw nothing. A polygon with an area that holds no pixel centre draws the one pixel under the
    middle of its bounding box (if that is in the frame): an instance too small for the mask frame is still somewhere.

    pycocotools rounds corners to fifths of a pixel and then samples at pixel centres too: against it, centres agree to
    a tenth of a pixel along the outline, and any other sampling point (corners, cover) is off by half a pixel.

    Args:
        polygons: (P, 2) arrays of (x, y) in fractions.
        height, width: of the frame, in pixels.
        scale: (width, height) in pixels that fraction 1.0 stands for; the frame's own size by default.

    Returns:
        (height, width) bool.
    """
    mask = np.zeros((height, width), dtype=bool)
    factors = np.array(scale if scale is not None else (width, height), dtype=np.float64)
    for polygon in polygons:
        points = np.clip(np.asarray(polygon, dtype=np.float64).reshape(-1, 2), -_FAR, _FAR) * factors
        if not _has_area(points):
            continue
        top, left, inside = _fill(points, height, width)
        if inside.any():
            mask[top : top + inside.shape[0], left : left + inside.shape[1]] |= inside
        else:
            column, row = np.floor((points.min(axis=0) + points.max(axis=0)) / 2).astype(int)
            if 0 <= row < height and 0 <= column < width:
                mask[row, column] = True
    return mask


def _has_area(points: np.ndarray) -> bool:
    """Whether the points (P, 2) span a plane; they do not when all lie on one line."""
    if len(points) < 3:
        return False
    offsets = points - points[0]
    far = offsets[np.argmax(np.abs(offsets).sum(axis=1))]
    cross = offsets[:, 0] * far[1] - offsets[:, 1] * far[0]
    # Scaling by 1/1000 and by the frame rounds: what is straight in whole numbers is off by 1e-15 of its length here.
    return bool(np.abs(cross).max() > 1e-9 * np.abs(far).max() ** 2)


def _fill(points: np.ndarray, height: int, width: int) -> tuple[int, int, np.ndarray]:
    """Even-odd fill of one polygon (P, 2) in pixels: top row, left column and a bool window of its clipped box.

    An edge crosses the centre line of row r where one end is at or above r + 0.5 and the other below. Each crossing
    toggles all pixels whose centre is right of it (a running count along the row), so a horizontal edge, a repeated
    point and a corner that touches a centre line need no special case.
    """
    sides = (width, height)
    low = [int(np.clip(np.floor(points[:, axis].min()), 0, sides[axis])) for axis in (0, 1)]
    high = [int(np.clip(np.ceil(points[:, axis].max()), 0, sides[axis])) for axis in (0, 1)]
    (left, top), (columns, rows) = low, (high[0] - low[0], high[1] - low[1])
    if rows <= 0 or columns <= 0:
        return top, left, np.zeros((0, 0), dtype=bool)
    start, end = points, np.roll(points, -1, axis=0)
    # Row r is crossed when first <= r < last, in both directions of the edge: half-open, so shared corners count once.
    first = np.clip(np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5), top, top + rows).astype(int)
    last = np.clip(np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5), top, top + rows).astype(int)
    counts = last - first
    edge = np.repeat(np.arange(len(points)), counts)  # one entry per crossing
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    x0, y0 = start[edge].T
    x1, y1 = end[edge].T
    x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    column = np.clip(np.ceil(x - 0.5), left, left + columns).astype(int)
    flat = (row - top) * (columns + 1) + column - left
    toggles = np.bincount(flat, minlength=rows * (columns + 1)).reshape(rows, columns + 1)
    return top, left, np.cumsum(toggles, axis=1)[:, :columns] % 2 == 1


def covered_pixels(region: Region, height: int, width: int) -> int:
    """How many pixels of a (height, width) frame a region covers; 0 means that it draws nothing."""
    return int(rasterize(region, height, width).sum())


def reading_order(regions: Sequence[Region]) -> list[int]:
    """Indices of the regions from top to bottom, then from left to right.

    The key is the top of the bounding box, then its left side, then the input order: one total order without
    thresholds. Regions without points come last.
    """

    def corner(index: int) -> tuple[float, float]:
        points = [polygon for polygon in regions[index] if len(polygon)]
        if not points:
            return float("inf"), float("inf")
        left, top = np.concatenate(points).min(axis=0)
        return float(top), float(left)

    return sorted(range(len(regions)), key=corner)
