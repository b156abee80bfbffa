"""Coordinates that were meant otherwise than they are read: units, order, orientation.

The evidence is the pictures' own edges (`alignment`), pooled over the rows of one task and source; for units it is also
that no coordinate exceeds what they allow.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from satlisa.check.alignment import pool
from satlisa.check.facts import SCALES, SIZED, Facts
from satlisa.check.listing import grouped, rows_that
from satlisa.data.rows import MASKS

_SURE = 5.0  # standard errors
_LIKELY = 3.0
_TURNED = 2.0  # of boxes on a turned picture, whose other reading is known
_LEAST_GAIN = 0.05  # in ranks of edges, from 0 to 1
_BY_CHANCE = 0.01  # a probability below which thousandths would not be this small by chance
_FEWEST = 3  # rows whose size alone tells their unit
_ALL = 0.95  # share of a group's rows that a unit or a form must allow
_ODD = 0.001  # share of a group's rows from which on some that differ from the others are no chance
_NOT_BOXES = 0.05  # share of the rows with boxes that have some whose corners are swapped

# How the picture as it is stored becomes upright, by EXIF's orientation.
_UNTURNED = {
    2: "flipped left to right",
    3: "turned by 180°",
    4: "flipped top to bottom",
    5: "swapped",
    6: "turned by 90° clockwise",
    7: "swapped and turned",
    8: "turned by 90° counterclockwise",
}
_MEANT = {
    "swapped": "look as if x and y were swapped",
    "flipped top to bottom": "look as if y were counted from the lower edge of the image",
    "flipped left to right": "look as if the image were flipped left to right",
    "turned by 180°": "look as if the image were turned by 180°",
    "turned by 90° clockwise": "look as if they were drawn before the image was turned by 90° clockwise",
    "turned by 90° counterclockwise": "look as if they were drawn before the image was turned by 90° counterclockwise",
    "swapped and turned": "look as if x and y were swapped and the image turned by 180°",
    "pixels": "look like pixels; thousandths of width and height are read",
    "percents": "look like percents; thousandths of width and height are read",
    SIZED: "look like `[x, y, width, height]`; `[x0, y0, x1, y1]` is read",
}


def wrong_places(rows: Sequence[Facts]) -> Iterator[str]:
    """A line for each kind of coordinates that look as if they were meant otherwise, of the rows of one part."""
    turned = [one for one in rows if one.looks is not None and one.orientation != 1]
    if found := _drawn_before_turning(turned):
        yield rows_that(
            found,
            "have an image that EXIF turns, and masks or boxes that lie on its edges as it is stored, or not clearly "
            "as it is shown: were they drawn on the unturned image?",
        )
    upright = [one for one in rows if one.looks is not None and one.orientation == 1]
    for what, kinds in (("outlines", True), ("boxes in answers", False)):
        for name, odd in _meant_otherwise([one for one in upright if (one.kind == MASKS) is kinds]).items():
            yield rows_that(odd, f"have {what} that {_MEANT[name]}")
    boxed = [one for one in rows if one.boxes]
    swapped = [one for one in boxed if any(x1 < x0 or y1 < y0 for x0, y0, x1, y1 in one.boxes)]
    if swapped and len(swapped) >= _NOT_BOXES * len(boxed):
        yield rows_that(
            swapped,
            "have boxes in answers whose second corner lies before the first, as in `[x, y, width, height]`; "
            "`[x0, y0, x1, y1]` is the form of all other answers with boxes",
        )


def _drawn_before_turning(turned: Sequence[Facts]) -> list[Facts]:
    """Rows whose outlines fit the picture as it is stored.

    A single row may say little: unless the rows together say that outlines are turned with their pictures, each has to.
    """
    looks = [(one, (one.looks or {})[_UNTURNED[one.orientation]]) for one in turned]
    are_turned = pool([look for _, look in looks]).score < -_SURE
    if are_turned:
        return [one for one, look in looks if look.score > _LIKELY]
    return [one for one, look in looks if look.score > (-1 if one.kind == MASKS else _TURNED)]


def _meant_otherwise(rows: Sequence[Facts]) -> dict[str, list[Facts]]:
    """Rows by what their outlines were meant as, without those that are read as they were meant.

    Groups of one task and source first, then all others together, then single rows.
    """
    found: dict[str, list[Facts]] = defaultdict(list)
    rest: list[Facts] = []
    for group in grouped(rows, lambda one: f"{one.task}\n{one.source}").values():
        if name := _meaning(group):
            found[name] += group
        else:
            rest += group
    if rest and (name := _meaning(rest)):
        found[name] += rest
        return found
    odd: dict[str, list[Facts]] = defaultdict(list)
    for one in rest:
        looks = one.looks or {}
        best = max(looks, key=lambda name: looks[name].score)
        least = _LIKELY if best in SCALES else _SURE  # few rows of thousandths lie within a unit's limits at all
        if looks[best].score > least and looks[best].gain > 2 * _LEAST_GAIN:
            odd[best].append(one)
    for name, some in odd.items():
        if len(some) > _ODD * len(rows):
            found[name] += some
    return found


def _meaning(rows: Sequence[Facts]) -> str:
    """What the outlines of a group were meant as; "" for what they are read as."""
    scores: dict[str, float] = {}
    small: dict[str, float] = {}
    for name in _MEANT:
        looks = [one.looks[name] for one in rows if one.looks and name in one.looks]
        together = pool(looks)
        if name in (*SCALES, SIZED) and len(looks) < _ALL * len(rows):
            continue
        if name in SCALES and _is_small(rows, name) and together.score > -_LIKELY:
            small[name] = together.score
        elif together.score > (_LIKELY if name == SIZED else _SURE) and together.gain > _LEAST_GAIN:
            scores[name] = together.score
    likely = small or scores
    return max(likely, key=lambda name: likely[name]) if likely else ""


def _is_small(rows: Sequence[Facts], unit: str) -> bool:
    """Whether thousandths anywhere in the images would hardly all lie below what a unit allows."""
    chance = 1.0
    for one in rows:
        width, height = one.size if unit == "pixels" else (100, 100)
        chance *= min(width / 1000, 1) * min(height / 1000, 1)
    return len(rows) >= _FEWEST and chance < _BY_CHANCE
