"""Where a row's masks are: in its metadata or in columns of its own; and what in them would go unread."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from satlisa.data.dataset_paths import MASK_COLUMNS, REFUSED
from satlisa.data.json_cells import describe, is_empty, parse_cell
from satlisa.data.masks import is_run_lengths, mask_source
from satlisa.data.polygons import OUTLINE_KEYS, POLYGON_KEYS, Reading, find_outline, find_regions, parse_regions
from satlisa.geometry.regions import Region

_ITSELF = "a list"  # the name of metadata that are not an object
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
# Names of what metadata say about an image besides where its objects are.
_ABOUT = re.compile(
    r"""(?:num|n)_.*|.*_count|(?:image_|img_)?(?:width|height|size|shape|id|index|idx|name|file_?name|file|url|seed|split
    |source|dataset|subset|license|author|version|sensor|satellite|platform|bands|gsd|resolution|scale|zoom|crs|epsg
    |lat|lon|latitude|longitude|location|place|city|country|continent|date|time|datetime|timestamp|year|month|season
    |tile|scene|scene_class|clouds?|cloud_cover|event|disaster|disaster_type|labels?|class|classes|class_id|category
    |categories|category_id|tags|count|score|difficulty|captions?|description|text|question|answer|prompt|comment
    |notes?)""",
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
        ColumnError: masks that cannot be read, or anything that may be masks and is not read.
    """
    for column, record in (("metadata", metadata), *_own_columns(row)):
        try:
            regions = parse_regions([record], how) if is_run_lengths(record) else find_regions(record, how)
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
    _refuse_unread(row, metadata)
    return [], "metadata", said_none


def _own_columns(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Columns beside the metadata that are named like its keys, as records."""
    found = []
    for name in POLYGON_KEYS:
        if row.get(name) is not None and (name not in MASK_COLUMNS or _mask_file(row[name], name) is None):
            try:
                found.append((name, {name: parse_cell(row[name]) if str(row[name])[:1] in "[{" else row[name]}))
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
    return all(map(is_empty, held)) if held else is_empty(value)


def _refuse_unread(row: Mapping[str, Any], metadata: Any) -> None:
    """Refuse what may be masks and is not read: it would silently turn a mask row into a text row."""
    expected = ", ".join(POLYGON_KEYS)
    if place := find_outline(metadata):
        raise ColumnError("metadata", f"has polygons under `{place}`, expected them under one of {expected}")
    items = metadata.items() if isinstance(metadata, Mapping) else [(_ITSELF, metadata)]
    for name, value in items:
        if not _is_description(str(name), value):
            found = f"has `{name}` ({describe(value)}), which is not read as masks"
            raise ColumnError("metadata", f"{found}; expected one of {expected}, or nothing where there are no objects")
    for name, cell in row.items():
        if name != "image" and name not in MASK_COLUMNS and (_mask_file(cell, name) is not None):
            raise ColumnError(name, f"holds an image, and masks are read from {', '.join(MASK_COLUMNS)}; rename it")


def _is_description(name: str, value: Any) -> bool:
    """Whether a value of metadata says something about the image, and nothing about where its objects are."""
    if _has_no_points(value):
        return True
    if name in POLYGON_KEYS or name == _ITSELF:
        return _are_labels(value)
    return _ABOUT.fullmatch(name) is not None


def _are_labels(value: Any) -> bool:
    """Whether a value is a count, a name, or a list of them."""
    if isinstance(value, list | tuple):
        return all(_are_labels(item) and not isinstance(item, list | tuple) for item in value)
    return isinstance(value, int | float) or (isinstance(value, str) and len(_NUMBER.findall(value)) < 4)
