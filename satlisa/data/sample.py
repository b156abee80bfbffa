"""One row of a dataset, read: what to look at, what was asked, what to answer, and which masks.

Coordinates are fractions of the image's width and height, so that a region can be drawn at any size.
"""

from dataclasses import dataclass

from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.geometry.regions import Region

_LONGEST_REASON = 300


@dataclass(frozen=True)
class Turn:
    """One turn of a chat: plain text without `<image>` markers.

    Attributes:
        role: "system", "user" or "assistant".
        text: what was said.
    """

    role: str
    text: str


@dataclass(frozen=True)
class Sample:
    """One row of a dataset.

    Attributes:
        index: row number in its split.
        task, source: the row's own columns.
        image: RGB, EXIF-oriented.
        turns: the conversation up to the answer; the last one is the user's, earlier ones may be anybody's.
        answer: expected text; of a segmentation row without coordinates and without any `<SEG>`.
        regions: one per `<SEG>` of the answer, in reading order; () for a text sample.
        left_out: instances that got no `<SEG>`: those beyond `max_instances`, and those that draw nothing.
    """

    index: int
    task: str
    source: str
    image: Image.Image
    turns: tuple[Turn, ...]
    answer: str
    regions: tuple[Region, ...]
    left_out: int = 0


class RowError(SatlisaError, ValueError):
    """A row that cannot be used: "row 812: `metadata` is not JSON (starts with 'nan')".

    Attributes:
        index: row number in its split.
        column: the column at fault.
        reason: what was found there, on one line of at most `_LONGEST_REASON` characters that any terminal can show.
    """

    def __init__(self, index: int, column: str, reason: str) -> None:
        reason = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in reason)
        reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 1]}…"
        super().__init__(f"row {index}: `{column}` {reason}")
        self.index, self.column, self.reason = index, column, reason

    def __reduce__(self) -> tuple[type["RowError"], tuple[int, str, str]]:
        """Rebuilt from its three parts: exceptions travel pickled between loader processes."""
        return type(self), (self.index, self.column, self.reason)
