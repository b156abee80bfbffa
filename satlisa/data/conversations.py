"""Parse the `conversations` column: its turns, the answer that the masks belong to, its text without coordinates."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from satlisa.data.coordinates import Reading
from satlisa.data.json_cells import as_objects, decode_at, describe, is_empty, parse_cell, without_surrogates
from satlisa.data.polygons import OUTLINE_KEYS, POLYGON_KEYS, find_regions, holds_coordinates, parse_regions
from satlisa.data.sample import Turn, answer_places
from satlisa.geometry.regions import Region

_ROLES = {"system": "system", "human": "user", "user": "user"}
_ROLES |= dict.fromkeys(("gpt", "assistant", "model", "bot"), "assistant")
_IMAGE_PARTS = ("image", "image_url", "img")

# The lookbehind lets a match start only at the first blank of a run, here and in _tidy: without it 100 KB take minutes.
_IMAGE_MARKER = re.compile(r"(?:(?<![ \t])[ \t]+)?<image>[ \t]*")
_IMAGES = re.compile(  # in any spelling
    r"<image(?:[ _-]?\d+|_placeholder)?>|<\|image(?:_\d+)?\|>|<imagehere>|<img>.*?</img>|\[img\d*\]",
    re.IGNORECASE,
)
_SEG = re.compile(r"[<\[] ?\|? ?SEG(?:[ _-]?\d+)? ?(?:\||/)? ?[>\]]", re.IGNORECASE)  # <SEG>, [SEG], <SEG_1>, <|SEG|>
_SEGS = re.compile(rf"{_SEG.pattern}(?:(?:\s|,|&|\band\b)*{_SEG.pattern})*", re.IGNORECASE)  # "<SEG>, <SEG> and <SEG>"
# Markers that stand for a mask elsewhere. Beside geometry they would be taught as letters.
_OTHER_MARKERS = re.compile(
    r"[<\[] ?[|/]? ?(?:(?:SEG|MASK)(?:[ _-]?(?:TOKENS?|MASKS?|START|END|BEGIN|\d+))*|SEGMENTATION) ?[|/]? ?[>\]]",
    re.IGNORECASE,
)
# Numbers and nothing else, or tokens for places. Each is read once: a run of such letters has no other way to match.
_NUMBERS = re.compile(r"[-\d.,;\s()\[\]{}<>]{11,}")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_FEWEST = 6  # numbers of a polygon
_LOCATIONS = re.compile(
    r"(?:<[a-z]{0,9}[_-]?\d{1,4}>\s{0,3}){4}|<(?:poly|polygon|points?|coords?)>\s{0,9}[(\[]?\d", re.IGNORECASE
)
_WKT = re.compile(r"\b(?:MULTI)?POLYGON\s*(?:Z|M|ZM)?\s*\(\s*\(", re.IGNORECASE)

# Sentences that ask for masks, unless they ask about them ("How many did you segment?"), and those that may.
_ASKS = re.compile(
    r"\b(?:segment(?!ed)|mask|outline(?!d)|delineat|highlight(?!ed)|contour|polygon|extents?\b|footprint|boundar|pixels?\b"
    r"|silhouette|mark\b|trace\b)",
    re.IGNORECASE,
)
_MAY_ASK = re.compile(r"\b(?:where|show|find|locate|extract|display|draw)\b", re.IGNORECASE)
_ASKS_ABOUT = re.compile(
    r"\W*(?:how|what|which(?! pixels?\b)|why|when|who|is(?! it possible)|are(?! you able)|was|were|do(?! (?:an?|the)\b)"
    r"|does|did|has|have|had)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.?!;\n]+")
_BOXES = re.compile(r"""["'](?:bbox|box)["']\s*:""")
_OUTLINES = re.compile(rf"""["'](?:{"|".join(OUTLINE_KEYS[:-2])})["']\s*:\s*[\[{{"]""")

_MOST_BRACKETS = 1000  # brackets of an answer that may fail to parse as JSON; each may be scanned far before it fails
_BRACKET = re.compile(r"""[\[{](?=\s*["\-\dtfnNI\[{\]}('])""")  # may start JSON, or an attempt at it
# Coordinates start with [[, [{, [12, {"key": or, in invalid JSON, single quotes or [(12.
_NO_OBJECTS = re.compile(rf"""\{{\s*"(?:{"|".join(POLYGON_KEYS)})"\s*:\s*(?:\[|\{{|null)""")
_JSON_START = re.compile(r"""[\[{]\s*(?:[\[{]|\(\s*-?\d|-?\d+(?:\.\d+)?\s*,|["']\w+["']\s*:)""")


def parse_turns(value: Any) -> list[Turn]:
    """The turns of a `conversations` cell: JSON text, an already parsed list, or an object of lists.

    A turn is `{"role", "content"}` or `{"from", "value"}`; its content is a string or a list of parts. `<image>`
    markers and image parts are dropped, since the chat template places the image, and so are system and user turns that
    hold nothing else.

    Raises:
        ValueError: more than one image, or no turns; the message names what was found instead.
    """
    value = as_objects(parse_cell(value))
    if not isinstance(value, list | tuple):
        raise ValueError(f"is not a list of turns: found {describe(value)}")
    items = [parse_cell(item) if isinstance(item, str) and item.lstrip()[:1] == "{" else item for item in value]
    turns = [_parse_turn(item, number) for number, item in enumerate(items)]
    if (images := sum(_count_images(item.get("content", item.get("value"))) for item in items)) > 1:
        raise ValueError(f"names {images} images; a row is about one image")
    return [turn for turn in turns if turn.role == "assistant" or turn.text.strip()]


def split_answer(turns: list[Turn]) -> tuple[tuple[Turn, ...], str]:
    """Split turns at the expected answer, the last assistant turn after a user turn: the turns before it, and its text.

    Raises:
        ValueError: no such pair, or a system turn that is not the first.
    """
    for place in range(len(turns) - 1, 0, -1):
        if turns[place].role == "assistant" and turns[place - 1].role == "user":
            context = tuple(turns[:place])
            if any(turn.role == "system" for turn in context[1:]):
                raise ValueError("has a system turn that is not the first turn")
            return context, turns[place].text
    roles = ", ".join(turn.role for turn in turns[:20]) + ", …" * (len(turns) > 20) or "none"
    raise ValueError(f"has no question with an answer (roles of the turns with text: {roles})")


def find_mask_answer(turns: Sequence[Turn], with_coordinates: Sequence[int], come_from_answer: bool = True) -> int:
    """The place of the answer that a row's masks belong to: the one with `<SEG>`, the one with the coordinates, the one
    to the question that asks for masks, the one to a question that may ("Where …?").

    Args:
        turns: a conversation that ends with an answer.
        with_coordinates: the places of the answers that hold coordinates.
        come_from_answer: the masks are those coordinates; else they decide last.

    Raises:
        ValueError: several answers or questions of that kind, or none of any.
    """
    places = answer_places(turns) or [len(turns) - 1]
    if len(places) == 1:
        return places[0]
    with_seg = [place for place in places if count_segs(turns[place].text)]
    asked = [place for place in places if _asks(_ASKS, turns[place - 1].text)]
    may_ask = [place for place in places if _asks(_MAY_ASK, turns[place - 1].text)]
    coordinates: tuple[str, Sequence[int]] = ("coordinates in", with_coordinates)
    ordered = [("<SEG> in", with_seg), ("questions for masks before", asked)]
    ordered.append(("questions that may ask for masks before", may_ask))
    for what, found in (ordered[0], coordinates, *ordered[1:]) if come_from_answer else (*ordered, coordinates):
        if len(found) > 1:
            raise ValueError(
                f"has {what} {len(found)} answers; to which the masks belong is unclear: make a row of each"
            )
        if found:
            return found[0]
    raise ValueError(
        f"has {len(places)} answers, and no question asks for masks: put <SEG> into the answer that they belong to"
    )


def asks_for_masks(question: str) -> bool:
    """Whether a question asks for masks, or may ("Where are the buildings?")."""
    return _asks(_ASKS, question) or _asks(_MAY_ASK, question)


def _asks(what: re.Pattern[str], question: str) -> bool:
    return any(what.search(part) and not _ASKS_ABOUT.match(part) for part in _SENTENCE.split(question))


def has_boxes_alone(answer: str) -> bool:
    """Whether the coordinates in an answer are boxes: an answer about places, not about masks."""
    return _BOXES.search(answer) is not None and _OUTLINES.search(answer) is None


def take_coordinates(answer: str, how: Reading | None = None) -> tuple[str, list[Region]]:
    """Remove the JSON with coordinates from an answer.

    Bare boxes `[x0, y0, x1, y1]` and JSON of no objects are removed too, but give no regions. The text of a JSON object
    under `text`, `answer`, `description` or `caption` is kept. Typed `<SEG>` markers are removed: `chat.encode_answer`
    places them.

    Returns:
        the cleaned text, possibly empty, and the regions in the order of the text.

    Raises:
        ValueError: JSON with coordinates that is truncated or unreadable.
    """
    answer = _SEGS.sub(" ", answer)
    kept: list[str] = []
    regions: list[Region] = []
    position = failed = 0
    for match in _BRACKET.finditer(answer):
        start = match.start()
        if start < position:
            continue
        try:
            value, end = decode_at(answer, start)
        except (ValueError, RecursionError) as error:
            failed += 1
            if (
                failed > _MOST_BRACKETS
                or not isinstance(error, json.JSONDecodeError)
                or _JSON_START.match(answer, start)
            ):
                raise ValueError(f"holds JSON that cannot be read: {describe(answer[start:])}") from error
            continue
        if _is_geometry(value):
            regions += _regions(value, how)
            kept += [answer[position:start], _words(value)]
            position = end
        elif _is_none(value):
            kept.append(answer[position:start])
            position = end
        elif isinstance(value, Mapping) and _count_numbers(value) >= 6:
            raise ValueError(f"holds JSON whose polygons are not under a known key: found {describe(value)}")
    # Again, because the removed JSON may have split a marker, and the kept text of an object may hold one.
    return _tidy(_SEGS.sub(" ", "".join([*kept, answer[position:]]))), regions


def without_none(answer: str) -> str | None:
    """An answer without JSON of no objects, `[]` or `{"polygons": []}`; None: it holds no such JSON."""
    text = re.sub(r"\A\s*```\w*|```\s*\Z", "", answer).strip()
    try:
        if text == "null" or (text[:1] in ("[", "{") and is_empty(parse_cell(text))):
            return ""
    except ValueError:
        pass  # words beside it, or no JSON
    return take_coordinates(answer)[0] if _NO_OBJECTS.search(answer) else None


def count_segs(answer: str) -> int:
    """Number of typed `<SEG>` in an answer."""
    return len(_SEG.findall(answer))


def find_other_marker(answer: str) -> str | None:
    """The first marker in an answer that stands for a mask elsewhere, such as `<mask>`; None without."""
    found = _OTHER_MARKERS.search(_SEG.sub(" ", answer))
    return found[0] if found else None


def is_wkt(text: str) -> bool:
    """Whether text holds a polygon as well-known text."""
    return _WKT.search(text) is not None


def has_typed_coordinates(answer: str, how: Reading | None = None) -> bool:
    """Whether an answer holds coordinates that are no JSON: points in brackets, `<loc_100>`, well-known text."""
    if is_wkt(answer) or _LOCATIONS.search(answer):
        return True
    return _has_points(answer) and _has_points(take_coordinates(answer, how)[0])


def _has_points(text: str) -> bool:
    return any(len(_NUMBER.findall(run)) >= _FEWEST for run in _NUMBERS.findall(text))


def _parse_turn(item: Any, number: int) -> Turn:
    if not isinstance(item, Mapping):
        raise ValueError(f"turn {number}: expected an object, found {describe(item)}")
    for role_key, text_key in (("role", "content"), ("from", "value")):
        if item.get(role_key) is not None:
            role = _ROLES.get(str(item[role_key]).strip().lower())
            if role is None:
                found = describe(item[role_key])
                raise ValueError(f"turn {number}: expected a user, assistant or system turn, found {found}")
            if text_key not in item:
                break
            return Turn(role, _without_markers(without_surrogates(_content(item[text_key], number))))
    raise ValueError(f"turn {number}: expected role and content, or from and value; found {describe(item)}")


def _content(content: Any, number: int) -> str:
    """The text of a turn; parts are joined by line breaks."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if type(content) is int or (isinstance(content, float) and math.isfinite(content)):
        return str(content)  # a number as the answer, such as a count
    if isinstance(content, list | tuple):
        parts = [_part(part, number) for part in content]
        return "\n".join(part for part in parts if part is not None)
    raise ValueError(f"turn {number}: expected text or a list of parts, found {describe(content)}")


def _part(part: Any, number: int) -> str | None:
    """The text of a part; None for an image."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        if isinstance(part.get("text"), str):
            return str(part["text"])
        if part.get("type") in _IMAGE_PARTS or any(part.get(key) is not None for key in _IMAGE_PARTS):
            return None
    raise ValueError(f"turn {number}: expected a text or image part, found {describe(part)}")


def _count_images(content: Any) -> int:
    """`<image>` markers and image parts of a turn's content."""
    if isinstance(content, str):
        return len(_IMAGES.findall(content))
    parts = content if isinstance(content, list | tuple) else ()
    return sum(_count_images(_part(part, 0) or "") + (_part(part, 0) is None) for part in parts)


def _without_markers(text: str) -> str:
    """Text without `<image>`; a marker between words becomes one space."""
    if "<image>" not in text:
        return text
    text = _IMAGE_MARKER.sub(" ", text)
    lines = [line.strip() if not line.strip() else line.removesuffix(" ") for line in text.split("\n")]
    return "\n".join(lines).strip()


def _is_geometry(value: Any) -> bool:
    """Whether a value holds coordinates to remove: at least a box's four numbers, so `[3]` in a sentence is kept."""
    if _count_numbers(value) < 4:
        return False
    known = isinstance(value, Mapping) and any(holds_coordinates(value.get(key)) for key in POLYGON_KEYS)
    return known or holds_coordinates(value)


def _is_none(value: Any) -> bool:
    """Whether a JSON object says under a known key that there are no objects."""
    return isinstance(value, Mapping) and any(key in value for key in POLYGON_KEYS) and is_empty(value)


def _count_numbers(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_count_numbers, value.values()))
    if isinstance(value, list):
        return sum(map(_count_numbers, value))
    return int(isinstance(value, int | float))


def _regions(value: Any, how: Reading | None) -> list[Region]:
    """Regions of a JSON value inside an answer; bare boxes and points give none."""
    found = find_regions(value, how)
    if not found and isinstance(value, Mapping):
        found = parse_regions(value, how)
    return [region for region in found if any(len(ring) > 2 for ring in region)]


def _words(value: Any) -> str:
    """The text field of a JSON object; empty for any other value."""
    if isinstance(value, Mapping):
        for key in ("text", "answer", "description", "caption"):
            if isinstance(value.get(key), str):
                return str(value[key])
    return ""


def _tidy(text: str) -> str:
    """Clean up after removals: empty code fences and brackets, doubled or dangling punctuation and blanks."""
    text = re.sub(r"```\w*\s*```", " ", text)
    text = re.sub(r"\(\s*\)|\[\s*\]|\{\s*\}", " ", text)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r"(?<!\s)\s+([.,;:!?])", r"\1", text)
    text = re.sub(r"(?<![:,;])[:,;]+(?=[.,;!?])", "", text)
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"\n{2,}", "\n", text)
    text = re.sub(r"\A[\s.,;:]+|(?<![\s,;:])[\s,;:]+\Z", "", text)
    return text if re.search(r"\w", text) else ""
