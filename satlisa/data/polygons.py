"""Polygons: every spelling of them becomes arrays of fractions of the image's width and height.

Unusual here: the dataset does not publish its spelling, so all the usual ones are read, and a mixture of them too.
What cannot be read is an error that names what was found, never a guess. `raster.py` turns the arrays into masks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satlisa.data.json_cells import describe, parse_cell
from satlisa.geometry.regions import Region

POLYGON_KEYS = ("polygons", "segmentation", "masks", "instances", "objects", "polygon", "points")
"""Where a record keeps its polygons; the first of them that holds coordinates is read."""

_OBJECT_KEYS = ("polygon", "segmentation", "points", "polygons")

_BOX_KEYS = ("bbox", "box")

_COUNTED = ("objects", "instances")  # keys that other datasets use for counts as well

_UNITS = 1000.0  # coordinates are thousandths of the image's width and height

_INNER_LEVELS = 8  # JSON in a string in JSON in a string …: each is shallow, or reading it could exhaust the stack

_MOST_WIDTHS = 5000  # 2,500 outlines around the whole image; more take seconds to draw, and no annotation has them


def parse_regions(value: Any) -> list[Region]:
    """The objects of a list, one region each; a single polygon or object is a list of one.

    A polygon is `[[x, y], …]`, flat `[x, y, x, y, …]`, `[{"x": …, "y": …}, …]`, a list of several of these (the parts
    of one object, as in COCO's `segmentation`), or an object with `polygon`, `segmentation` or `points`; an object with
    only a `bbox`/`box` `[x0, y0, x1, y1]` stands for its rectangle. Coordinates are thousandths of the image; where all
    of the list lie within -1..2 and one is not a whole number they are taken as fractions already, since such a polygon
    in thousandths would be invisible.

    Returns:
        Per region, arrays (P, 2) float64, (x, y) as fractions; P may be 0, 1 or 2, which draws nothing.

    Raises:
        ValueError: something else than finite numbers was found, or an odd count of them, or outlines too wild to be
            drawn; the message names it.
    """
    value = _as_list(value)
    if not isinstance(value, Mapping | list):
        raise ValueError(f"expected polygons, found {describe(value)}")
    is_one = isinstance(value, Mapping) or (value and (not _is_container(value[0]) or _is_ring(value)))
    objects = [_rings(value)] if is_one else [_rings(item) for item in value]
    return [tuple(rings) for rings in _to_fractions(objects)]


def find_regions(record: Any) -> list[Region]:
    """The regions of a record: those under the first of `POLYGON_KEYS` that holds coordinates, else none.

    A list is read as the regions themselves. Labels and counts under `objects`, `instances` and their like are no
    polygons and are passed over.

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
    """Whether a value looks like polygons or boxes, readable or not; labels, counts and nothing do not."""
    value = _as_list(value)
    if isinstance(value, Mapping):
        return _is_point(value) or any(value.get(key) is not None for key in _OBJECT_KEYS + _BOX_KEYS)
    return isinstance(value, list) and any(_is_number(item) or holds_coordinates(item) for item in value)


def find_outline(value: Any, place: str = "") -> str | None:
    """Where in a record something looks like polygons, under whatever name: "annotation.shapes"; None for nowhere."""
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
        pass  # not polygons, whatever it is
    return next((where for item in value if (where := find_outline(item, place))), None)


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
    """Thousandths to fractions, unless the numbers are fractions already (see `parse_regions`)."""
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
    """Arrays, tuples and JSON inside a string as the lists that JSON would give; nulls between lists are left out."""
    value = _decoded(value)
    if not isinstance(value, list | tuple):
        return value
    items = [_decoded(item) for item in value]
    of_lists = any(map(_is_container, items))  # among numbers a null is a mistake that nobody can repair
    return [item for item in items if item is not None] if of_lists else items


def _decoded(value: Any) -> Any:
    """What an array holds, or a string that is JSON of a list or an object; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return parse_cell(value, _INNER_LEVELS)
        except ValueError:
            pass  # text; whoever expects numbers names it
    return value


def _are_counts(value: Any) -> bool:
    """A list of a few bare numbers, fewer than a polygon has."""
    return isinstance(value, list | tuple) and len(value) < 6 and all(map(_is_number, value))


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
