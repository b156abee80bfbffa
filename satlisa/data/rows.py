"""Read one row of a dataset into a `Sample`."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from satlisa.data.annotations import ColumnError, find_masks, refuse_unread
from satlisa.data.conversations import (
    count_segs,
    find_mask_answer,
    find_other_marker,
    has_boxes_alone,
    has_typed_coordinates,
    is_wkt,
    parse_turns,
    split_answer,
    take_coordinates,
    without_none,
)
from satlisa.data.coordinates import Reading
from satlisa.data.dataset_paths import MASK_COLUMNS, REFUSED
from satlisa.data.image_cells import is_image, unpack
from satlisa.data.images import open_oriented
from satlisa.data.json_cells import describe, parse_cell
from satlisa.data.masks import is_run_lengths
from satlisa.data.sample import RowError, Sample, Turn, answer_places
from satlisa.errors import SatlisaError
from satlisa.geometry.raster import covered_pixels
from satlisa.geometry.regions import Region, reading_order

_AREA_SIDE = 1024  # longest side, in pixels, at which areas are measured: SAM's input size, the finest in training
_SEG_WORD = re.compile(r"segmentation|(?<![a-z])seg(?:ment)?(?![a-z])")  # in a task's name
_NOTHING = "There is nothing to segment."  # in place of an answer of `[]`

MASKS, NEGATIVE, BARE, TEXT = "mask rows", "negatives", "rows of segmentation tasks without geometry", "text rows"


@dataclass(frozen=True)
class RowText:
    """What a row says, without its image.

    Attributes:
        task, source: the row's own columns.
        turns: the conversation up to its last answer, without coordinates where there are masks.
        place: which of the turns is the answer that evaluation asks for, and that the masks belong to.
        regions: every region, in the order of the row; column: the one that they come from.
        instances: whether each region is a mask of its own.
        kind: `MASKS`, `NEGATIVE` (a segmentation task's row that says that there are no objects), `BARE` (one that says
            nothing about objects) or `TEXT`.
        metadata: of a text row, parsed.
    """

    task: str
    source: str
    turns: tuple[Turn, ...]
    place: int
    regions: list[Region]
    column: str
    instances: bool
    kind: str
    metadata: Any = None


def read_sample(
    row: Mapping[str, Any],
    index: int,
    *,
    max_instances: int = 32,
    seg_tasks: Collection[str] = (),
    fractions: bool = False,
) -> Sample:
    """Read one row.

    A mask row has polygons or a mask, and a task that contains "segmentation" or is in `seg_tasks`, or `<SEG>` in an
    answer. The polygons come from the metadata, else from columns of the row's own, else from JSON in the answer; an
    object with only a `bbox`/`box` gives its rectangle. A task that contains "instance" has one region per object, any
    other one region of all polygons. Instances that cover no pixel at `_AREA_SIDE`, and the smallest ones beyond
    `max_instances`, get no region and are counted in `left_out`. A text row keeps its answers unchanged.

    Args:
        fractions: the dataset's coordinates are fractions (`survey`), also where a row alone does not tell.

    Raises:
        RowError: unusable row; names the row, the column and what was found.
    """
    cell = row.get("image")
    if isinstance(cell, Mapping) and (refused := cell.get(REFUSED)):
        raise RowError(index, "image", refused)
    try:
        stored = unpack(cell)
        opened = open_oriented(stored)
    except SatlisaError as error:
        raise RowError(index, "image", f"cannot be read: {error}") from error
    except ValueError as error:
        raise RowError(index, "image", str(error)) from error
    image = opened.rgb
    how = Reading(size=image.size, orientation=opened.orientation, fractions=fractions)
    text = read_text(row, index, seg_tasks, how)
    for name in row:
        if name != "image" and name not in MASK_COLUMNS and is_image(row[name]):
            reason = "holds a second image; a row is about one image"
            raise RowError(
                index, name, f"{reason} and its mask ({', '.join(MASK_COLUMNS)}); remove or rename the column"
            )
    chosen, left_out = _choose_regions(text.regions, text.instances, image.size, max_instances)
    if text.regions and not chosen:
        count = f"{len(text.regions)} polygon{'s' * (len(text.regions) != 1)}"
        raise RowError(index, text.column, f"holds {count}, none of which covers any of the image")
    answer = text.turns[text.place].text
    if not chosen and not answer.strip():
        raise RowError(index, "conversations", "has an empty answer")
    if chosen and not answer:
        answer = "Here is the mask." if len(chosen) == 1 else "Here are the masks."
    before, after = text.turns[: text.place], text.turns[text.place + 1 :]
    return Sample(index, text.task, text.source, image, before, answer, chosen, left_out, after, stored, text.metadata)


def is_mask_task(task: str, seg_tasks: Collection[str] = ()) -> bool:
    """Whether a task asks for masks, by its name ("building_segmentation", "reason_seg") or by `seg_tasks`; a row of it
    without polygons is a negative sample."""
    name = task.casefold()
    return _SEG_WORD.search(name) is not None or name in {other.casefold() for other in seg_tasks}


def read_text(row: Mapping[str, Any], index: int, seg_tasks: Collection[str], how: Reading) -> RowText:
    """Read everything of a row but its image.

    Raises:
        RowError: as `read_sample`.
    """
    task = row.get("task")
    if not isinstance(task, str) or not task.strip():
        raise RowError(index, "task", f"is not a task's name: found {describe(task)}")
    source = row.get("source")
    source = source if isinstance(source, str) else "" if source is None else describe(source)
    metadata = _parse_metadata(row.get("metadata"), index)
    try:
        spoken = parse_turns(row.get("conversations"))
        context, answer = split_answer(spoken)
    except ValueError as error:
        raise RowError(index, "conversations", str(error)) from error
    turns = (*context, Turn("assistant", answer))
    num_segs = sum(count_segs(turn.text) for turn in spoken if turn.role == "assistant")
    marker = next(
        (found for turn in turns if turn.role == "assistant" and (found := find_other_marker(turn.text))), None
    )
    is_named = is_mask_task(task, seg_tasks)
    if not is_named and not num_segs and marker is None:
        return RowText(task, source, turns, len(turns) - 1, [], "", False, TEXT, metadata)
    how.instances = "instance" in task.casefold()
    try:
        regions, column, said_none = find_masks(row, metadata, how)
        _refuse_unasked(spoken, how)
        cleared, place, in_answer = _clear_answers(turns, how, come_from_answer=not regions)
        if not regions and not in_answer and (is_named or num_segs):
            refuse_unread(row, metadata)
    except ColumnError as error:
        raise RowError(index, error.column, str(error)) from error
    except ValueError as error:
        raise RowError(index, "conversations", str(error)) from error
    regions, column = (regions, column) if regions else (in_answer, "conversations")
    if marker and regions:
        raise RowError(
            index, "conversations", f"has the marker {marker} in an answer; write <SEG> where a mask belongs"
        )
    if not is_named and not num_segs:  # the marker stands for something else
        return RowText(task, source, turns, len(turns) - 1, [], "", False, TEXT, metadata)
    if not regions and num_segs:
        raise RowError(index, "conversations", "has <SEG> in its answer, and the row has no polygons for it")
    if regions:
        is_one = is_named and len(regions) == 1
        instances = how.instances or (num_segs > 1 and not is_one)
        if 1 < num_segs != len(regions) and not is_one:
            reason = (
                f"has {num_segs} <SEG> in its answer for {len(regions)} polygons; expected one for all, or one for each"
            )
            raise RowError(index, "conversations", reason)
        return RowText(task, source, cleared, place, regions, column, instances, MASKS)
    turns, emptied = _word_negatives(turns)
    return RowText(task, source, turns, len(turns) - 1, [], "", False, NEGATIVE if said_none or emptied else BARE)


def _parse_metadata(value: Any, index: int) -> Any:
    """Metadata as an object or a list; missing, empty and null metadata become an empty object.

    Run lengths get the key under which they are read.
    """
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
    return {"rle": value} if is_run_lengths(value) else value


def _refuse_unasked(spoken: Sequence[Turn], how: Reading) -> None:
    """Refuse masks in a turn that is no answer (`answer_places`): they would be lost, or stay as letters.

    So would coordinates that are no JSON in any turn.
    """
    asked = answer_places(spoken)
    for place, turn in enumerate(spoken):
        if turn.role == "assistant" and has_typed_coordinates(turn.text, how):
            kind = "well-known text" if is_wkt(turn.text) else "text"
            raise ValueError(f"has polygons as {kind} in turn {place}; expected them as JSON")
        is_unasked = turn.role == "assistant" and place not in asked
        if is_unasked and (count_segs(turn.text) or take_coordinates(turn.text, how)[1]):
            raise ValueError(
                f"has masks in turn {place}, an answer that does not follow a user's turn; join the answers"
            )


def _clear_answers(
    turns: tuple[Turn, ...], how: Reading, come_from_answer: bool
) -> tuple[tuple[Turn, ...], int, list[Region]]:
    """The turns of a mask row without coordinates and `<SEG>`, the place of its masks' answer, and that one's regions.

    Boxes in the other answers stay: they answer another question.
    """
    cleared = {place: take_coordinates(turns[place].text, how) for place in answer_places(turns) or [len(turns) - 1]}
    held = [number for number, (_, regions) in cleared.items() if regions]
    outlined = [number for number in held if not has_boxes_alone(turns[number].text)]
    if come_from_answer and not held:
        return turns, len(turns) - 1, []
    place = find_mask_answer(turns, outlined or held if come_from_answer else outlined, come_from_answer)
    found = list(turns)
    for number, (text, _) in cleared.items():
        if number == place or number in outlined:
            found[number] = Turn("assistant", text)
    return tuple(found), place, cleared[place][1]


def _word_negatives(turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], bool]:
    """Turns in which an answer of empty JSON has words, and whether there was one."""
    found = list(turns)
    for place in answer_places(turns):
        if (text := without_none(turns[place].text)) is not None:
            found[place] = Turn("assistant", text or _NOTHING)
    return tuple(found), found != list(turns)


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
