"""One parsed row of a dataset: image, conversation, expected answer and regions.

Coordinates are fractions of the image's width and height, so a region can be drawn at any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.geometry.regions import Region, label_of

_LONGEST_REASON = 300


@dataclass(frozen=True)
class Turn:
    """One turn of a chat: plain text without `<image>` markers.

    Attributes:
        role: "system", "user" or "assistant".
        text: its content.
    """

    role: str
    text: str


def answer_places(turns: Sequence[Turn]) -> list[int]:
    """Which turns are answers, and so supervised: those of the assistant right after the user's, unless blank."""
    return [
        place
        for place, turn in enumerate(turns)
        if place and turn.role == "assistant" and turns[place - 1].role == "user" and turn.text.strip()
    ]


@dataclass(frozen=True)
class Sample:
    """One row of a dataset.

    Every answer is supervised (`answer_places`). `answer` is the one that evaluation asks for: the one with the masks,
    or the last one. Earlier answers are in `turns`, later ones in `later`.

    Attributes:
        index: row number in its split.
        task, source: the row's own columns.
        image: RGB, EXIF-oriented.
        turns: the conversation before the answer; the last turn is the user's, earlier ones may have any role.
        answer: expected text; that of a mask row has neither coordinates nor `<SEG>`.
        regions: one per `<SEG>` of the answer, in reading order; () for a text sample.
        left_out: instances without a `<SEG>`: those beyond `max_instances`, and those that cover no pixel.
        later: the conversation after the answer; the last turn is an answer. () where the answer is the last one.
        image_source: the row's image as it is stored, whose bytes identify it; None: the pixels do.
        metadata: of a text row, the column of that name, parsed.
    """

    index: int
    task: str
    source: str
    image: Image.Image
    turns: tuple[Turn, ...]
    answer: str
    regions: tuple[Region, ...]
    left_out: int = 0
    later: tuple[Turn, ...] = ()
    image_source: Any = None
    metadata: Any = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What the dataset calls the object of each region; "" where it does not say."""
        return tuple(map(label_of, self.regions))


class RowError(SatlisaError, ValueError):
    """An unusable row: "row 812: `metadata` is not JSON (starts with 'nan')".

    Attributes:
        index: row number in its split.
        column: the column at fault.
        reason: what was found, on one line of at most `_LONGEST_REASON` printable characters.
    """

    def __init__(self, index: int, column: str, reason: str) -> None:
        reason = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in reason)
        reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 1]}…"
        super().__init__(f"row {index}: `{column}` {reason}")
        self.index, self.column, self.reason = index, column, reason

    def __reduce__(self) -> tuple[type["RowError"], tuple[int, str, str]]:
        """Rebuild from the three parts; loader workers pickle exceptions."""
        return type(self), (self.index, self.column, self.reason)
