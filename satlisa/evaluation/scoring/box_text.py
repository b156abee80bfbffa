"""Read boxes [x0, y0, x1, y1] out of text and records, in the forms that vision-language models write.

`building [10, 20, 30, 40]; plane [...]`, boxes alone, JSON with `bbox`, `bbox_2d` or `box` in a code fence or not
(Qwen2.5-VL and Qwen3-VL), `<ref>building</ref><box>(10,20),(30,40)</box>` (Qwen-VL, Qwen2-VL) and with `[[10, 20, 30,
40]]` (InternVL). A box without words before it has the label of the box before it. Whatever looks like coordinates and
is no box is counted: other numbers than four, swapped corners, numbers that are not finite, JSON that is cut off.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from satlisa.data.json_cells import as_objects, decode_at

_BOX_KEYS = ("bbox", "bbox_2d", "box")
_LABEL_KEYS = ("label", "class", "category", "name")
_LIST_KEYS = ("objects", "instances", "detections", "boxes", "bboxes")  # name no object
_MOST_FAILURES = 200  # JSON that fails may have been read to the end of the text each time

_NUMBER = r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)\s*"
_FOUR = re.compile(
    rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]|\({_NUMBER},{_NUMBER}\)\s*,?\s*\({_NUMBER},{_NUMBER}\)",
    re.IGNORECASE,
)
_OPENS = re.compile(r"[\[{]|\((?=\s*[-+]?\.?\d+(?:\.\d*)?\s*,)")
_VALUE = re.compile(r"\d|\b(?:nan|inf|infinity)\b", re.IGNORECASE)
_LIST_END = re.compile(r"[\])]|(?=[\[{(;\n])")
_TAG = re.compile(r"<[^<>]*>|```(?:json)?", re.IGNORECASE)
_BULLET = re.compile(r"^(?:[\s\-*•]|\d+[.)]\s)+|^and\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Box:
    """A box as it was written: its label, lower case, None without one, and its corners x0, y0, x1, y1."""

    label: str | None
    corners: tuple[float, float, float, float]


@dataclass
class BoxList:
    """The boxes of a text or record, in order, and the number of coordinates in it that are no box."""

    boxes: list[Box] = field(default_factory=list)
    unparsed: int = 0


def read_text(text: str) -> BoxList:
    """The boxes in a text."""
    found, start, place, failures, is_broken = BoxList(), 0, 0, 0, False
    while opened := _OPENS.search(text, place):
        place = opened.start()
        label = _label_before(text[start:place]) or (found.boxes[-1].label if found.boxes else None)
        if four := _FOUR.match(text, place):
            _add_box(found, [float(number) for number in four.groups() if number is not None], label)
            start = place = four.end()
            continue
        try:
            value, end = decode_at(text, place)
            _add(found, value, label)
            start = place = end
        except (ValueError, RecursionError):
            failures += 1
            if failures > _MOST_FAILURES:
                found.unparsed += 1
                return found
            if re.match(r"\[\s*[\[{]", text[place : place + 100]):  # what it holds may still be readable
                is_broken, place = True, place + 1
                continue
            end = _end_of_broken(text, place)
            found.unparsed += _VALUE.search(text, place, end) is not None
            start = place = end
    if is_broken and not found.unparsed:
        found.unparsed = 1
    return found


def read_record(record: Any) -> BoxList:
    """The boxes in parsed JSON: an object with a box, a list of these or of boxes, or an object with such a list under
    one of `_LIST_KEYS`. Other lists of numbers, such as sizes, are no boxes."""
    found = BoxList()
    if isinstance(record, Mapping) and not any(key in record for key in _BOX_KEYS):
        record = [record[key] for key in _LIST_KEYS if key in record]
    _add(found, record, None)
    return found


def as_thousandths(boxes: Sequence[Box]) -> list[Box]:
    """Boxes in thousandths of the image. If no coordinate of any exceeds 1 and one is not an integer, they were written
    as fractions."""
    numbers = [number for box in boxes for number in box.corners]
    is_fraction = all(0 <= number <= 1 for number in numbers) and any(number % 1 for number in numbers)
    scale = 1000.0 if is_fraction else 1.0
    return [Box(box.label, _corners([scale * number for number in box.corners])) for box in boxes]


def _add(found: BoxList, value: Any, label: str | None) -> None:
    """Add the boxes of parsed JSON."""
    if isinstance(value, Mapping):
        _add_object(found, value, label)
    elif isinstance(value, list | tuple):
        if value and all(map(_is_number, value)):
            _add_box(found, value, label)
            return
        found.unparsed += any(map(_is_number, value))
        for item in value:
            _add(found, item, label)


def _add_object(found: BoxList, value: Mapping[str, Any], label: str | None) -> None:
    before = len(found.boxes) + found.unparsed
    names = (value[key] for key in _LABEL_KEYS if isinstance(value.get(key), str | int))
    label = normalise_label(str(next(names, label or ""))) or label
    key = next((key for key in _BOX_KEYS if key in value), None)
    boxes = value[key] if key else None
    if isinstance(boxes, list | tuple) and boxes and isinstance(boxes[0], list | tuple):
        columns = as_objects(value)  # as `datasets` stores a list of objects
        _add(found, boxes if isinstance(columns, Mapping) else columns, label)
    elif key:
        _add(found, boxes, label)
    else:
        for name, item in value.items():
            _add(found, item, label or (None if name in _LIST_KEYS else normalise_label(str(name))))
    is_missed = len(found.boxes) + found.unparsed == before
    found.unparsed += is_missed and (key is not None or (bool(value) and all(map(_is_number, value.values()))))


def _add_box(found: BoxList, numbers: Sequence[Any], label: str | None) -> None:
    try:
        corners = _corners(numbers)
    except (ValueError, OverflowError):
        found.unparsed += 1
        return
    found.boxes.append(Box(label, corners))


def _corners(numbers: Sequence[Any]) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, numbers)
    if not all(map(math.isfinite, (left, top, right, bottom))) or right < left or bottom < top:
        raise ValueError(f"expected a box [x0, y0, x1, y1], found {numbers}")
    return left, top, right, bottom


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def normalise_label(label: str) -> str | None:
    """A label in lower case without repeated spaces; None if nothing is left."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split()) or None


def _label_before(text: str) -> str | None:
    """The label in the text between two boxes: the words of its last part that has some."""
    pieces = [_BULLET.sub("", piece) for piece in re.split(r"[;,\n]", _TAG.sub(" ", text).strip())]
    words = [piece.strip(" \t\r\n:-–=.\"'`*[]{}()") for piece in pieces]
    return normalise_label(next((word for word in reversed(words) if re.search(r"\w", word)), ""))


def _end_of_broken(text: str, start: int) -> int:
    """Where unreadable coordinates end: at the end of the list, at the brace that closes an object, or nowhere."""
    if text[start] != "{":
        end = _LIST_END.search(text, start + 1)
        return end.end() if end else len(text)
    depth = 0
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return start + brace.end()
    return len(text)
