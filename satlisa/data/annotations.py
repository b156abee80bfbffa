"""Where a row's masks are: in its metadata or in columns of its own; and what in them would go unread."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from satlisa.data.conversations import is_wkt
from satlisa.data.coordinates import Reading
from satlisa.data.dataset import COLUMNS
from satlisa.data.dataset_paths import MASK_COLUMNS, REFUSED
from satlisa.data.json_cells import describe, is_empty, parse_cell
from satlisa.data.masks import is_encoded_mask, is_run_lengths, mask_source, read_run_lengths
from satlisa.data.polygons import OUTLINE_KEYS, POLYGON_KEYS, find_outline, find_regions, parse_regions
from satlisa.geometry.regions import Region

_ITSELF = "a list"  # the name of metadata that are not an object
_LISTED = (_ITSELF, "objects", "instances")  # may be names or counts of objects
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
# Names of what metadata say about an image besides where its objects are.
_ABOUT = re.compile(
    r"""(?:num|n)_.*|.*_count|(?:image_|img_)?(?:width|height|size|shape|id|index|idx|name|file_?name|file|url|seed|split
    |source|dataset|subset|license|author|version|sensor|satellite|platform|bands|gsd|resolution|scale|zoom|crs|epsg
    |lat|lon|latitude|longitude|location|place|city|country|continent|date|time|datetime|timestamp|year|month|season
    |tile|type|scene|scene_class|clouds?|cloud_cover|event|disaster|disaster_type|count|score|difficulty|captions?
    |description|text|question|answer|prompt|comment|notes?|images|info|licenses)""",
    re.IGNORECASE | re.VERBOSE,
)
_NAMES = re.compile(r"labels?|class|classes|class_id|category|categories|category_id|tags", re.IGNORECASE)
_COORDINATES = 4  # as many numbers may be a box
_COORDINATE_RUN = re.compile(r"(?<![\w.])(?:-?\d+(?:\.\d+)?[\s,;()]+){5}-?\d")  # three points, and nothing but numbers
# Names of what says where objects are, in the columns and metadata of other datasets.
_SHAPES = re.compile(
    r"""(?:.*[_.-])?(?:b?box|b?boxes|bounding_?box(?:es)?|rles?|wkt|masks?|seg|segmentations?|segments?|polys?|polygons?
    |outlines?|contours?|shapes|rings?|geom|geometry|geometries|geojson|vertices|points|coords|coordinates|all_points_[xy]
    |shape_attributes)(?:_(?:path|file|file_?name|url|uri|name|json|text|string|rle|wkt|png|tif|id))?""",
    re.IGNORECASE | re.VERBOSE,
)


class ColumnError(ValueError):
    """A column whose masks cannot be read.

    Attributes:
        column: its name.
    """

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


def find_masks(row: Mapping[str, Any], metadata: Any, how: Reading) -> tuple[list[Region], str, bool]:
    """The regions of a row, the column they come from, and whether the row says that it has no objects.

    Metadata go first, then columns named like its keys, then mask images (`MASK_COLUMNS`).

    Raises:
        ColumnError: masks that cannot be read.
    """
    for column, record in (("metadata", metadata), *_encoded(metadata), *_own_columns(row)):
        try:
            regions = find_regions(record, how)
        except ValueError as error:
            raise ColumnError(column, str(error)) from error
        if regions:
            return regions, column, False
    said_none = _says_none(metadata)
    for column in MASK_COLUMNS:
        if (source := _mask_file(row.get(column), column)) is not None:
            try:
                regions = parse_regions(source, how) if how.decode else [()]
            except ValueError as error:
                raise ColumnError(column, str(error)) from error
            if regions:
                return regions, column, False
            said_none = True
    return [], "metadata", said_none


def _encoded(metadata: Any) -> list[tuple[str, Any]]:
    """Mask images in metadata under the name of a column, as records."""
    if not isinstance(metadata, Mapping):
        return []
    return [("metadata", {"mask": metadata[name]}) for name in MASK_COLUMNS if is_encoded_mask(metadata.get(name))]


def _own_columns(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Columns beside the metadata that are named like its keys, as records."""
    found = []
    for name in POLYGON_KEYS:
        if row.get(name) is not None and (name not in MASK_COLUMNS or _mask_file(row[name], name) is None):
            is_json = isinstance(row[name], str) and row[name].lstrip()[:1] in ("[", "{")
            try:
                found.append((name, {name: parse_cell(row[name]) if is_json else row[name]}))
            except ValueError as error:
                raise ColumnError(name, str(error)) from error
    return found


def _mask_file(cell: Any, column: str) -> Any:
    """The file of a mask image in a cell; None: the cell holds none."""
    if isinstance(cell, Mapping) and cell.get(REFUSED):
        raise ColumnError(column, str(cell[REFUSED]))
    if isinstance(cell, Mapping) and cell.get("bytes") is None and isinstance(cell.get("path"), str):
        return Path(cell["path"])
    return mask_source(cell)


def _says_none(metadata: Any) -> bool:
    """Whether metadata name the objects of a row, and there are none."""
    return isinstance(metadata, Mapping) and any(
        metadata.get(key) is not None and _has_no_points(metadata[key]) for key in POLYGON_KEYS
    )


def _has_no_points(value: Any) -> bool:
    """Whether a value is nothing, or objects whose outlines are nothing: `[]`, `[{"label": "a", "polygon": []}]`."""
    if isinstance(value, list | tuple):
        return all(map(_has_no_points, value))
    held = [value[key] for key in OUTLINE_KEYS if key in value] if isinstance(value, Mapping) else []
    return all(map(_has_no_points, held)) if held else is_empty(value) or _is_blank(value)


def _is_blank(value: Any) -> bool:
    """Whether a value is a mask in run lengths without a pixel."""
    try:
        return is_run_lengths(value) and not read_run_lengths(value).any()
    except ValueError:
        return False


def refuse_unread(row: Mapping[str, Any], metadata: Any) -> None:
    """Refuse a row without masks that holds what may be masks: it would silently become a text row.

    Raises:
        ColumnError: names what is not read.
    """
    expected = ", ".join(POLYGON_KEYS)
    if place := find_outline(metadata):
        raise ColumnError("metadata", f"has polygons under `{place}`, expected them under one of {expected}")
    for name, value in metadata.items() if isinstance(metadata, Mapping) else [(_ITSELF, metadata)]:
        if not _is_description(str(name), value):
            found = f"has `{name}` ({describe(value)}), which is not read as masks"
            raise ColumnError("metadata", f"{found}; leave it out, or put the masks under one of {expected}")
    for name, cell in row.items():
        if name in COLUMNS or (name in MASK_COLUMNS and _mask_file(cell, name) is not None):
            continue
        if _mask_file(cell, name) is not None:
            raise ColumnError(name, f"holds an image, and masks are read from {', '.join(MASK_COLUMNS)}; rename it")
        if not _is_description(name, cell) if name in POLYGON_KEYS else _may_be_masks(name, cell):
            found = f"({describe(cell)}) is not read as masks"
            raise ColumnError(name, f"{found}; remove the column, or put the masks under one of {expected}")


def _is_description(name: str, value: Any) -> bool:
    """Whether a value of metadata says something about the image, and nothing about where its objects are."""
    if _has_no_points(value) or (name in POLYGON_KEYS and isinstance(value, int)):
        return True
    if name in _LISTED or _NAMES.fullmatch(name):
        items = value if isinstance(value, list | tuple) else [value]
        is_words = not any(isinstance(item, Mapping | list) for item in items) or name not in _LISTED
        return is_words and all(len(_NUMBER.findall(str(item))) < _COORDINATES for item in items)
    return _ABOUT.fullmatch(name) is not None and not _may_be_masks(name, value)


def _may_be_masks(name: str, value: Any) -> bool:
    """Whether a value, by its name or by what it holds, may say where objects are."""
    if value is None or isinstance(value, bool | int | float) or _has_no_points(value):
        return False
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("[", "{"):
            try:
                return _may_be_masks(name, parse_cell(text))
            except ValueError:
                pass  # words in brackets
        return _SHAPES.fullmatch(name) is not None or is_wkt(text) or _COORDINATE_RUN.search(text) is not None
    if isinstance(value, Mapping):
        return _SHAPES.fullmatch(name) is not None or any(_may_be_masks(str(key), item) for key, item in value.items())
    if _SHAPES.fullmatch(name) or find_outline(value, name):
        return True
    items = value if isinstance(value, list | tuple) else []
    return any(_may_be_masks(name, item) for item in items)
