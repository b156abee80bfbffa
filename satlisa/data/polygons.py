"""Parse polygons: every common format becomes arrays of fractions of the image's width and height.

The dataset does not document its format, so all common ones are read, mixtures included. Unreadable input is an error
that names what was found, never a guess. `geometry/raster.py` turns the arrays into masks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satlisa.data.json_cells import describe, parse_cell
from satlisa.geometry.regions import Region

POLYGON_KEYS = ("polygons", "segmentation", "masks", "instances", "objects", "polygon", "points")
"""Keys that may hold a record's polygons; the first one with coordinates is read."""

_OBJECT_KEYS = ("polygon", "segmentation", "points", "polygons")
_BOX_KEYS = ("bbox", "box")
_COUNTED = ("objects", "instances")  # other datasets use these keys for counts
_UNITS = 1000.0  # coordinates are thousandths of the image's width and height
_INNER_LEVELS = 8  # nesting limit of JSON inside a string; strings inside strings could add up and exhaust the stack
# Limit on the horizontal length of all outlines, in image widths: 2,500 outlines of the full image. No annotation has
# more, and more take seconds to draw.
_MOST_WIDTHS = 5000


def parse_regions(value: Any) -> list[Region]:
    """Parse a list of objects into one region each; a single polygon or object counts as a list of one.

    A polygon is `[[x, y], …]`, flat `[x, y, x, y, …]`, `[{"x": …, "y": …}, …]`, a list of these (the parts of one
    object, as in COCO's `segmentation`), or an object with `polygon`, `segmentation` or `points`. An object with only a
    `bbox`/`box` `[x0, y0, x1, y1]` gives its rectangle. Coordinates are thousandths of the image. If all those of the
    list are within -1..2 and one is not an integer, they are taken as fractions: in thousandths, such a polygon would
    be invisible.

    Returns:
        Per region, arrays (P, 2) float64, (x, y) as fractions; P may be 0, 1 or 2, which draws nothing.

    Raises:
        ValueError: anything but finite numbers, an odd number of them, or outlines too long to draw; the message names
            what was found.
    """
    value = _as_list(value)
    if not isinstance(value, Mapping | list):
        raise ValueError(f"expected polygons, found {describe(value)}")
    is_one = isinstance(value, Mapping) or (value and (not _is_container(value[0]) or _is_ring(value)))
    objects = [_rings(value)] if is_one else [_rings(item) for item in value]
    return [tuple(rings) for rings in _to_fractions(objects)]


def find_regions(record: Any) -> list[Region]:
    """The regions under the first of a record's `POLYGON_KEYS` that holds coordinates; empty if none does.

    A list is read as the regions themselves. Labels, and counts under `objects` or `instances`, are ignored.

    Raises:
        ValueError: coordinates that cannot be read; the message names the key and what was found.
    """
    if not isinstance(record, Mapping):
        return parse_regions(record) if holds_coordinates(record) else []
    for key in POLYGON_KEYS:
        if holds_coordinates(record.get(key)) and not (key in _COUNTED and _are_counts(record[key])):
            try:
                return parse_regions(record[key])
            except ValueError as error:
                raise ValueError(f"`{key}`: {error}") from error
    for key in ("polygons", "segmentation", "masks", "polygon"):
        if isinstance(record.get(key), str | list | Mapping) and record[key]:
            raise ValueError(f"`{key}`: expected polygons, found {describe(record[key])}")
    return []


def holds_coordinates(value: Any) -> bool:
    """Whether a value looks like polygons or boxes, valid or not; labels, counts and empty values do not."""
    value = _as_list(value)
    if isinstance(value, Mapping):
        return _is_point(value) or any(value.get(key) is not None for key in _OBJECT_KEYS + _BOX_KEYS)
    return isinstance(value, list) and any(_is_number(item) or holds_coordinates(item) for item in value)


def find_outline(value: Any, place: str = "") -> str | None:
    """Path of the first value in a record that parses as polygons under any key, "annotation.shapes"; None if none."""
    if isinstance(value, Mapping):
        found = (find_outline(item, f"{place}.{key}".lstrip(".")) for key, item in value.items())
        return next((where for where in found if where), None)
    value = _as_list(value)
    if not isinstance(value, list) or not value or not _is_container(value[0]):
        return None
    try:
        if any(len(ring) > 2 for region in parse_regions(value) for ring in region):
            return place
    except ValueError:
        pass  # not polygons
    return next((where for item in value if (where := find_outline(item, place))), None)


def _rings(value: Any) -> list[np.ndarray]:
    """The polygons of one object as (P, 2) arrays, in the units of the input."""
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
    """A box as a polygon (4, 2); its two corners may come in either order."""
    value = _as_list(value)
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"expected a box [x0, y0, x1, y1], found {describe(value)}")
    x0, y0, x1, y1 = (_number(item) for item in value)
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _to_fractions(objects: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Convert thousandths to fractions; numbers that are fractions already are kept (see `parse_regions`)."""
    numbers = np.concatenate([np.empty((0, 2)), *(ring for rings in objects for ring in rings)])
    near = bool(np.all((numbers >= -1) & (numbers <= 2)))
    units = 1.0 if near and np.any(numbers % 1) else _UNITS
    fractions = [[ring / units for ring in rings] for rings in objects]
    if len(numbers) > _MOST_WIDTHS:
        steps = (np.diff(np.clip(ring[:, 0], 0, 1), append=np.clip(ring[:1, 0], 0, 1)) for r in fractions for ring in r)
        widths = sum(float(np.abs(step).sum()) for step in steps)
        if widths > _MOST_WIDTHS:
            raise ValueError(f"outlines run {widths:,.0f} times across the image; at most {_MOST_WIDTHS:,} are drawn")
    return fractions


def _as_list(value: Any) -> Any:
    """Convert arrays, tuples and JSON inside a string to lists; nulls between lists are dropped."""
    value = _decoded(value)
    if not isinstance(value, list | tuple):
        return value
    items = [_decoded(item) for item in value]
    of_lists = any(map(_is_container, items))  # a null among numbers is kept, and is an error later
    return [item for item in items if item is not None] if of_lists else items


def _decoded(value: Any) -> Any:
    """Decode an array, or a string with a JSON list or object; any other value passes through."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return parse_cell(value, _INNER_LEVELS)
        except ValueError:
            pass  # plain text; a caller that expects numbers reports it
    return value


def _are_counts(value: Any) -> bool:
    """Whether a value is a list of bare numbers too short for a polygon."""
    return isinstance(value, list | tuple) and len(value) < 6 and all(map(_is_number, value))


def _is_container(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping | np.ndarray)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_point(value: Any) -> bool:
    """Whether a value is `{"x", "y"}` or a pair of scalars."""
    if isinstance(value, Mapping):
        return "x" in value and "y" in value and not any(key in value for key in _OBJECT_KEYS)
    return isinstance(value, list | tuple | np.ndarray) and len(value) == 2 and not any(map(_is_container, value))


def _is_ring(value: Sequence[Any]) -> bool:
    """Whether every item is a point; the items of a list of flat polygons are longer."""
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
