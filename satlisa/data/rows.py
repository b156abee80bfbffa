"""Read one row of a dataset into a `Sample`."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from satlisa.data.conversations import parse_turns, says_seg, split_answer, take_coordinates
from satlisa.data.dataset_paths import REFUSED
from satlisa.data.images import open_image
from satlisa.data.json_cells import describe, parse_cell
from satlisa.data.polygons import POLYGON_KEYS, find_outline, find_regions
from satlisa.data.sample import RowError, Sample
from satlisa.errors import SatlisaError
from satlisa.geometry.raster import covered_pixels
from satlisa.geometry.regions import Region, reading_order

_AREA_SIDE = 1024  # longest side, in pixels, at which areas are measured: SAM's input size, the finest in training


def read_sample(
    row: Mapping[str, Any], index: int, *, max_instances: int = 32, seg_tasks: Collection[str] = ()
) -> Sample:
    """Read one row.

    A segmentation row has polygons and a task that contains "segmentation" or is in `seg_tasks`. The polygons come from
    the metadata, else from JSON in the answer; an object with only a `bbox`/`box` gives its rectangle. A task that
    contains "instance" has one region per object, any other one region of all polygons. Instances that cover no pixel
    at `_AREA_SIDE`, and the smallest ones beyond `max_instances`, get no region and are counted in `left_out`. A text
    row keeps its answer unchanged.

    Raises:
        RowError: unusable row; names the row, the column and what was found.
    """
    task = row.get("task")
    if not isinstance(task, str) or not task.strip():
        raise RowError(index, "task", f"is not a task's name: found {describe(task)}")
    metadata = _parse_metadata(row.get("metadata"), index)
    try:
        turns, answer = split_answer(parse_turns(row.get("conversations")))
    except ValueError as error:
        raise RowError(index, "conversations", str(error)) from error
    regions: list[Region] = []
    if is_mask_task(task, seg_tasks):
        regions, column, text = _read_regions(metadata, answer, index)
        answer = text if regions else answer
    cell = row.get("image")
    if isinstance(cell, Mapping) and (refused := cell.get(REFUSED)):
        raise RowError(index, "image", refused)
    try:
        image = open_image(cell)  # type: ignore[arg-type]  # open_image refuses other types
    except SatlisaError as error:
        raise RowError(index, "image", f"cannot be read: {error}") from error
    chosen, left_out = _choose_regions(regions, "instance" in task.casefold(), image.size, max_instances)
    if regions and not chosen:
        count = f"{len(regions)} polygon{'s' * (len(regions) != 1)}"
        raise RowError(index, column, f"holds {count}, none of which covers any of the image")
    if not chosen and not answer.strip():
        raise RowError(index, "conversations", "has an empty answer")
    if chosen and not answer:
        answer = "Here is the mask." if len(chosen) == 1 else "Here are the masks."
    source = row.get("source")
    source = source if isinstance(source, str) else "" if source is None else describe(source)
    return Sample(index, task, source, image, turns, answer, chosen, left_out, cell)


def is_mask_task(task: str, seg_tasks: Collection[str] = ()) -> bool:
    """Whether a task asks for masks; a row of it without polygons is a negative sample."""
    return "segmentation" in task.casefold() or task.casefold() in {name.casefold() for name in seg_tasks}


def _parse_metadata(value: Any, index: int) -> Any:
    """Metadata as an object or a list; missing, empty and null metadata become an empty object."""
    if isinstance(value, str) and not value.strip():
        return {}
    try:
        value = parse_cell(value)
    except ValueError as error:
        raise RowError(index, "metadata", str(error)) from error
    if value is None:
        return {}
    if not isinstance(value, Mapping | list):
        raise RowError(index, "metadata", f"is not a JSON object: found {describe(value)}")
    return value


def _read_regions(metadata: Any, answer: str, index: int) -> tuple[list[Region], str, str]:
    """All regions of a segmentation row, the column they come from, and the answer without coordinates."""
    column = "metadata"
    try:
        regions = find_regions(metadata)
        column = "conversations"
        text, in_answer = take_coordinates(answer)
    except ValueError as error:
        raise RowError(index, column, str(error)) from error
    if not regions and not in_answer:
        _refuse_unread(metadata, answer, index)
    return (regions, "metadata", text) if regions else (in_answer, "conversations", text)


def _refuse_unread(metadata: Any, answer: str, index: int) -> None:
    """Refuse polygons under an unknown key: they would silently turn a mask sample into a text sample."""
    if place := find_outline(metadata):
        expected = ", ".join(POLYGON_KEYS)
        raise RowError(index, "metadata", f"has polygons under `{place}`, expected them under one of {expected}")
    if says_seg(answer):
        raise RowError(index, "conversations", "has <SEG> in its answer, and the row has no polygons for it")


def _choose_regions(
    regions: list[Region], instances: bool, size: tuple[int, int], max_instances: int
) -> tuple[tuple[Region, ...], int]:
    """The regions that get a `<SEG>`, in reading order, and the number of instances left out."""
    if not instances:
        regions = [tuple(ring for region in regions for ring in region)] if regions else []
    scale = _AREA_SIDE / max(size)
    width, height = (max(1, round(side * scale)) for side in size)
    areas = covered_pixels(regions, height, width)
    largest = np.argsort(-areas, kind="stable")[:max_instances]
    kept = [regions[place] for place in sorted(largest) if areas[place] > 0]
    return tuple(kept[place] for place in reading_order(kept)), len(regions) - len(kept)
