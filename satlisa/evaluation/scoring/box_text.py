"""Read boxes [x0, y0, x1, y1] out of text and records, in the forms that vision-language models write.

`building [10, 20, 30, 40]; plane [...]`, boxes alone, JSON with `bbox`, `bbox_2d` or `box` in a code fence or not
(Qwen2.5-VL and Qwen3-VL), `<ref>building</ref><box>(10,20),(30,40)</box>` (Qwen-VL, Qwen2-VL) and with `[[10, 20, 30,
40]]` (InternVL). Whatever looks like coordinates and is no box is counted: other numbers than four, swapped corners,
numbers that are not finite, JSON that is cut off.

The label of a box in text is the noun phrase directly before it, without articles, counts and "is at" ("The plane is at
[...]"), or else after it as ": building" or "(building)". Where only connectives come before ("and", "also at"), a list
goes on: "buildings: [...] and [...]". Any other words leave the box without label.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from satlisa.data.json_cells import decode_at, is_empty
from satlisa.evaluation.scoring.count_text import as_label


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keys in lower case, without `_`, `-` and blanks. Not `box_2d`: it is Gemini's, in the order y0, x0, y1, x1.
_BOX_KEYS = ("bbox", "bbox2d", "box", "boundingbox", "bboxes", "bboxes2d", "boxes", "boundingboxes")
_LABEL_KEYS: tuple[str, ...] = (
    "label",
    "classname",
    "categoryname",
    "class",
    "category",
    "name",
    "objectname",
    "objecttype",
    "object",
)
_LABEL_KEYS += ("type", "labels", "classes", "categories", "names", "classnames", "categorynames", "objects", "types")
_LIST_KEYS = ("objects", "instances", "detections", "boxes", "bboxes")  # hold objects
_NO_NAMES = (*_LIST_KEYS, "object", "results", "predictions", "annotations", "items", "output", "answer", "data")
_MOST_FAILURES = 200  # JSON that fails may have been read to the end of the text each time

_NUMBER = r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)\s*"
_FOUR = re.compile(
    rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]|\({_NUMBER},{_NUMBER}\)\s*,?\s*\({_NUMBER},{_NUMBER}\)",
    re.IGNORECASE,
)
_OPENS = re.compile(r"[\[{]|\((?=\s*[-+]?\.?\d+(?:\.\d*)?\s*,)")
_VALUE = re.compile(r"\d|\b(?:nan|inf|infinity)\b", re.IGNORECASE)
_LIST_END = re.compile(r"[\])]|(?=[\[{(;\n])")
_NESTED = re.compile(r"\[\s*[\[{]")
_TAG = re.compile(r"<[^<>]*>|```(?:json)?", re.IGNORECASE)
_SEPARATOR = re.compile(r"[:;,\n]|[.!?](?=\s|$)")
_AFTER = re.compile(r"\s*(?:\(([^()]*)\)|:([^;,\n.:]*))")
_WORDS_APART = re.compile(r"[^\W\d_][^;,\n]{0,100}[;,][^\S\n]{0,9}\Z")
_NUMBERED = re.compile(r"\(\s*#?\d+\s*\)")
_PUNCTUATION = " -–—=.\"'`“”*•#[]{}()|&"
_REACH = 300  # characters before and after a box that may hold its label
_MOST_WORDS = 5  # of a label, and after a preposition; more are a sentence

_NUMBER_WORDS = _words("zero one two three four five six seven eight nine ten eleven twelve dozen")
_FILLS = _NUMBER_WORDS | _words(
    "and or but also then plus the a an this that these those following another other more each both first second "
    "third last next several some many few all label bbox of"
)  # before a noun
_TAILS = _FILLS | _words(
    "is are was were be at in located found detected seen visible situated positioned with has have its their it they "
    "bounding box boxes bbox bboxes coordinate coordinates position positions location locations region regions for as "
    "follows to here there confidence score parked moored docked"
)  # between a noun and its box
_VERBS = _words(
    "is are was were be see sees saw seen find found detect detected contains contain shows show shown has have there "
    "here i we can could identified identify located visible includes include"
)
_PREPOSITIONS = _words(
    "in on at near to from by for along around beside behind within across through between under over above below "
    "inside with without"
)
_CLAUSE = _words("which who whose where because")
_NO_LABELS = _words("object item instance detection target answer result")


@dataclass(frozen=True)
class Box:
    """A box: its label as `normalise_label` gives it, None without one, and its corners x0, y0, x1, y1 as written."""

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
    first = 0  # of the boxes that end at `start`
    going_on: str | None = None  # the label that a list goes on with
    while opened := _OPENS.search(text, place):
        place = opened.start()
        start = _name_after(found.boxes, first, text, start, place)
        words = text[max(start, place - _REACH) : place]
        is_apart = bool(found.boxes) and _WORDS_APART.search(words) is not None  # "[...] building, [...]"
        label = None if is_apart else _label_before(words, going_on)
        before = len(found.boxes)
        try:
            end = _add_at(found, text, place, label)
        except (ValueError, RecursionError):
            failures += 1
            if failures > _MOST_FAILURES:
                found.unparsed += 1
                return found
            if _NESTED.match(text, place, place + 100):  # what it holds may still be readable
                is_broken, place = True, place + 1
                continue
            end = _end_of_broken(text, place)
            found.unparsed += _VALUE.search(text, place, end) is not None
        first, start, place = before, end, end
        going_on = found.boxes[-1].label if len(found.boxes) > before else going_on
    _name_after(found.boxes, first, text, start, len(text))
    found.unparsed += is_broken and not found.unparsed
    return found


def read_record(record: Any) -> BoxList:
    """The boxes in parsed JSON: an object with a box or boxes, a list of these or of boxes, or an object with such a
    list under one of `_LIST_KEYS`. Other lists of numbers, such as sizes, are no boxes."""
    found = BoxList()
    if isinstance(record, Mapping):
        lists = [item for key, item in record.items() if _plain_key(key) in _LIST_KEYS]
        objects = [
            item for item in lists if isinstance(item, list | tuple) and any(isinstance(one, Mapping) for one in item)
        ]
        if objects or not any(_plain_key(key) in _BOX_KEYS for key in record):  # `bbox` beside objects is the image's
            record = objects or lists
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
    fields = {_plain_key(key): item for key, item in value.items()}
    key = next((key for key in _BOX_KEYS if key in fields), None)
    boxes = fields[key] if key else None
    names = [fields[name] for name in _LABEL_KEYS if name in fields and (key or name != "type")]
    written = [name for name in names if _is_name(name)]
    label = next(filter(None, (normalise_label(str(name)) for name in sorted(written, key=_is_number))), label)
    columns = [name for name in names if isinstance(name, list | tuple) and name and all(map(_is_name, name))]
    if isinstance(boxes, list | tuple) and boxes:
        rows = [boxes] if all(map(_is_number, boxes)) else boxes
        of_rows = next(
            ([normalise_label(str(one)) for one in many] for many in columns if len(many) == len(rows)), None
        )
        for row, name in zip(rows, of_rows or [label] * len(rows), strict=True):
            _add(found, row, name)
    elif key:
        _add(found, boxes, label)
    else:
        for name, item in value.items():
            _add(found, item, label or (None if _plain_key(name) in _NO_NAMES else normalise_label(str(name))))
    is_missed = len(found.boxes) + found.unparsed == before and not (
        is_empty(boxes) and boxes is not None and not written
    )
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


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _plain_key(key: Any) -> str:
    return re.sub(r"[\s_-]", "", str(key).casefold())


def normalise_label(label: str) -> str | None:
    """A label as it is compared: lower case, singular, without article, hyphens and repeated spaces; None if nothing is
    left."""
    words = unicodedata.normalize("NFKC", label).casefold().split()
    while len(words) > 1 and words[0] in ("a", "an", "the"):
        words = words[1:]
    return as_label(words) or None


def _add_at(found: BoxList, text: str, place: int, label: str | None) -> int:
    """Add the boxes of the coordinates or the JSON that start at a place, and return where they end."""
    if four := _FOUR.match(text, place):
        _add_box(found, [float(number) for number in four.groups() if number is not None], label)
        return four.end()
    value, end = decode_at(text, place)
    _add(found, value, label)
    return end


def _name_after(boxes: list[Box], first: int, text: str, start: int, stop: int) -> int:
    """Give boxes without label, from the `first` on, the one that is written after them: ": building", "(building)".
    Returns where the text before the next box starts."""
    after = _AFTER.match(text, start, min(stop, start + _REACH))
    if after is None:
        return start
    is_free = first < len(boxes) and all(box.label is None for box in boxes[first:])
    label = _phrase(_words_of(after[1] or after[2] or "")) if is_free else None
    if label:
        boxes[first:] = [replace(box, label=label) for box in boxes[first:]]
    is_apart = after[1] is not None or re.match(r"[;,\n]", text[after.end() : after.end() + 1]) is not None
    return after.end() if label or is_apart else start


def _label_before(text: str, going_on: str | None) -> str | None:
    """The label in the text before a box; `going_on` if it has only connectives, None if it cannot be told."""
    for piece in reversed(_SEPARATOR.split(_NUMBERED.sub(" ", _TAG.sub(" ", text)))):
        words = _words_of(piece)
        label = _phrase(words)
        if label:
            return None if label in _NO_LABELS else label
        if not all(word in _TAILS or word in _VERBS or word.isdecimal() for word in words):
            return None
    return going_on


def _words_of(text: str) -> list[str]:
    words = (word.strip(_PUNCTUATION) for word in unicodedata.normalize("NFKC", text).casefold().split())
    return [word for word in words if any(map(str.isalnum, word))]


def _phrase(words: list[str]) -> str | None:
    """The label in words next to a box: "I found 2 large buildings at" has "large building"; None without one."""
    if words == ["a"]:  # a class named A
        return "a"
    words = _without_tail(words)
    if not _CLAUSE.isdisjoint(words):
        return None
    verbs = [place for place, word in enumerate(words) if word in _VERBS]
    words = words[verbs[-1] + 1 :] if verbs else words
    of = next((place for place, word in enumerate(words) if word in ("of", "for")), 0)
    if of and all(word in _TAILS for word in words[:of]):  # "bounding box of the plane"
        words = words[of + 1 :]
    while words and (words[0] in _FILLS or words[0].isdecimal()):
        words = words[1:]
    end = next((place for place, word in enumerate(words) if word in _PREPOSITIONS), len(words))
    words, rest = _without_tail(words[:end]), words[end:]
    is_number = all(not any(map(str.isalpha, word)) for word in words)
    return None if is_number or max(len(words), len(rest)) > _MOST_WORDS else as_label(words) or None


def _without_tail(words: list[str]) -> list[str]:
    end = len(words)
    while end and words[end - 1] in _TAILS:
        end -= 1
    return words[:end]


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
