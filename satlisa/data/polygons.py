"""Parse polygons: every common format becomes arrays of fractions of the image's width and height.

The dataset does not document its format, so all common ones are read, mixtures included. Unreadable input is an error
that names what was found, never a guess. `geometry/raster.py` turns the arrays into masks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from satlisa.data.coordinates import Reading, to_regions
from satlisa.data.holes import cut_out
from satlisa.data.json_cells import as_objects, describe, is_empty, parse_cell
from satlisa.data.labels import label_in
from satlisa.data.masks import Outline, is_encoded_mask, is_run_lengths, read_masks
from satlisa.geometry.regions import LabelledRegion, Region

POLYGON_KEYS = (
    *("polygons", "segmentation", "masks", "instances", "objects", "polygon", "points"),
    *("annotations", "features", "geometry", "coordinates", "exterior", "rle", "mask"),
)
"""Keys that may hold a record's polygons; the first one with coordinates is read."""

HOLE_KEYS = ("holes", "interiors", "hole", "interior", "inner")
"""Keys that hold what is cut out of the polygons beside them."""

_OBJECT_KEYS = ("polygon", "segmentation", "points", "polygons", "geometry", "coordinates", "exterior", "rle", "mask")
_BOX_KEYS = ("bbox", "box")
OUTLINE_KEYS = _OBJECT_KEYS + _BOX_KEYS
_LISTS = ("objects", "instances", "annotations", "features")  # may be an object of lists (`as_objects`)
_COUNTED = ("objects", "instances")  # other datasets use these keys for counts
_INNER_LEVELS = 8  # nesting limit of JSON inside a string; strings inside strings could add up and exhaust the stack


_Ring = np.ndarray | Outline


def parse_regions(value: Any, how: Reading | None = None, holes: Any = None) -> list[Region]:
    """Parse a list of objects into one region each; a single polygon or object counts as a list of one.

    A polygon is `[[x, y], …]`, flat `[x, y, x, y, …]`, `[{"x": …, "y": …}, …]`, a list of these (the parts of one
    object, as in COCO's `segmentation`), run lengths `{"counts", "size"}`, a GeoJSON geometry, a mask image, or an
    object with one of `_OBJECT_KEYS`. An object with only a `bbox`/`box` `[x0, y0, x1, y1]` gives its rectangle. Later
    polygons of a GeoJSON polygon, and those under `holes` or `interiors`, are cut out of the one around them.

    Coordinates are thousandths of the image. If all those of the list are within -1..2 and one is not an integer, or
    `how.fractions`, they are taken as fractions: in thousandths, such a polygon would be invisible. `holes` are further
    polygons to cut out.

    Returns:
        Per region, with the object's label (`label_in`), arrays (P, 2) float64, (x, y) as fractions; P may be 0, 1 or
        2, which draws nothing.

    Raises:
        ValueError: anything but finite numbers, an odd number of them, numbers beyond the image's edge, a box whose
            corners are swapped, or outlines too long to draw; the message names what was found.
    """
    how = how or Reading()
    value = _as_list(value)
    if is_encoded_mask(value):  # of instances it may hold several
        return [region for mask in read_masks(value, how.instances) for region in to_regions([[mask]], how)]
    if not isinstance(value, Mapping | list):
        raise ValueError(f"expected polygons, found {describe(value)}")
    is_one = isinstance(value, Mapping) or (value and (not _is_container(value[0]) or _is_ring(value)))
    items = [value] if is_one else value
    objects = [_rings(item) for item in items]
    cut_out(objects, [] if is_empty(holes) else _rings(holes))
    labels = map(label_in, items)
    return [LabelledRegion.of(*pair) for pair in zip(to_regions(objects, how), labels, strict=True)]


def find_regions(record: Any, how: Reading | None = None) -> list[Region]:
    """The regions under the first of a record's `POLYGON_KEYS` that holds coordinates; empty if none does.

    A list is read as the regions themselves. Counts under `objects` or `instances` are ignored; objects without points
    are none.

    Raises:
        ValueError: coordinates that cannot be read; the message names the key and what was found.
    """
    if not isinstance(record, Mapping):
        return _with_points(parse_regions(record, how)) if holds_coordinates(record) else []
    for key in POLYGON_KEYS:
        value = record.get(key)
        if holds_coordinates(value) and not (key in _COUNTED and _are_counts(value)):
            holes = next((record[name] for name in HOLE_KEYS if record.get(name)), None)
            value = {"coordinates": value, "type": record.get("type", "Polygon")} if key == "coordinates" else value
            try:
                return _with_points(parse_regions(_objects_under(key, value), how, holes))
            except ValueError as error:
                raise ValueError(f"`{key}`: {error}") from error
    for key in ("polygons", "segmentation", "masks", "polygon"):
        if isinstance(record.get(key), str | list | Mapping) and not is_empty(record[key]):
            raise ValueError(f"`{key}`: expected polygons, found {describe(record[key])}")
    return []


def holds_coordinates(value: Any) -> bool:
    """Whether a value looks like polygons or boxes, valid or not; labels, counts and empty values do not."""
    value = _as_list(value)
    if is_encoded_mask(value) or is_run_lengths(value):
        return True
    if isinstance(value, Mapping):
        return _is_point(value) or any(value.get(key) is not None for key in OUTLINE_KEYS)
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


def _objects_under(key: str, value: Any) -> Any:
    """The objects under a record's key. COCO's may not be boxes alone: there `bbox` is [x, y, width, height]."""
    value = as_objects(_decoded(value)) if key in _LISTS and not _is_one_object(value) else value
    if key == "annotations":
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping) and not any(item.get(name) is not None for name in _OBJECT_KEYS):
                raise ValueError(f"expected objects with `segmentation`, found {describe(item)}")
    return value


def _is_one_object(value: Any) -> bool:
    """Whether an object holds one polygon or box, and not a list of them."""
    if not isinstance(value, Mapping):
        return False
    held = [_as_list(value[key]) for key in OUTLINE_KEYS if value.get(key) is not None]
    return all(not isinstance(item, list) or not item or not _is_container(item[0]) or _is_ring(item) for item in held)


def _rings(value: Any) -> list[_Ring]:
    """The polygons of one object as (P, 2) arrays, in the units of the input."""
    value = _as_list(value)
    if is_encoded_mask(value) or is_run_lengths(value):
        return [*read_masks(value)]
    if isinstance(value, Mapping):
        rings = _object_rings(value)
        holes = next((value[name] for name in HOLE_KEYS if not is_empty(value.get(name))), None)
        cut_out([rings], [] if holes is None else _rings(holes))
        return rings
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


def _object_rings(value: Mapping[str, Any]) -> list[_Ring]:
    if value.get("coordinates") is not None:
        return _geojson_rings(value)
    for key in _OBJECT_KEYS:
        if value.get(key) is not None:
            return _rings(value[key])
    for key in _BOX_KEYS:
        if value.get(key) is not None:
            _refuse_coco_box(value, value[key])
            return [_box_ring(value[key])]
    if any(key in value for key in OUTLINE_KEYS):
        return []  # an explicit null: an object without outline
    raise ValueError(f"expected an object with polygon, segmentation, points or bbox, found {describe(value)}")


def _geojson_rings(value: Mapping[str, Any]) -> list[_Ring]:
    """The polygons of a GeoJSON geometry; the first ring of each is its outline, the others are holes (RFC 7946)."""
    kind = value.get("type", "Polygon")
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"expected a GeoJSON Polygon or MultiPolygon, found {describe(kind)}")
    rings = _as_list(value["coordinates"])
    if not isinstance(rings, list) or not rings or not _is_container(rings[0]) or _is_ring(rings):
        return _rings(rings)
    if not _is_polygon(rings):
        return [ring for item in rings for ring in _geojson_rings({"coordinates": item})]
    outer, *holes = map(_rings, rings)
    cut_out([outer], [ring for hole in holes for ring in hole])
    return outer


def _is_polygon(value: Sequence[Any]) -> bool:
    """Whether a list holds rings, and not lists of rings."""
    items = [_as_list(item) for item in value]
    return all(isinstance(item, list) and (not item or not _is_container(item[0]) or _is_ring(item)) for item in items)


def _flat_ring(value: Sequence[Any]) -> np.ndarray:
    numbers = [_number(item) for item in value]
    if len(numbers) % 2:
        raise ValueError(f"expected pairs of x and y, found {len(numbers)} numbers in {describe(value)}")
    return np.array(numbers).reshape(-1, 2)


def _box_ring(value: Any) -> np.ndarray:
    """A box [x0, y0, x1, y1] as a polygon (4, 2)."""
    value = _as_list(value)
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"expected a box [x0, y0, x1, y1], found {describe(value)}")
    x0, y0, x1, y1 = (_number(item) for item in value)
    if x1 < x0 or y1 < y0:
        raise ValueError(
            f"expected a box [x0, y0, x1, y1] with x0 <= x1 and y0 <= y1, found {describe(value)}; "
            "[x, y, width, height] is not read"
        )
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _refuse_coco_box(value: Mapping[str, Any], box: Any) -> None:
    """Refuse a box [x, y, width, height] that happens to be ordered, where COCO's other keys give it away."""
    box = _as_list(box)
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return
    x0, y0, x1, y1 = box
    area = value.get("area")
    looks_like = _is_number(area) and area and abs(x1 * y1 - area) < abs((x1 - x0) * (y1 - y0) - area)
    if looks_like or value.get("iscrowd") is not None:
        reason = f"found {describe(box)} beside COCO's `{'area' if looks_like else 'iscrowd'}`"
        raise ValueError(f"expected a box [x0, y0, x1, y1], {reason}, where boxes are [x, y, width, height]")


def _with_points(regions: list[Region]) -> list[Region]:
    return regions if any(len(ring) for region in regions for ring in region) else []


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
    if isinstance(value, str | bytes | Image.Image):
        return is_encoded_mask(value)
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
