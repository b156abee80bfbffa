"""A kind of row, and what a person would expect of it: the form in which the broken-row suite is written."""

import io
import json
from dataclasses import dataclass
from typing import Any

from PIL import Image

SQUARE = [[100, 100], [600, 100], [600, 600], [100, 600]]  # a quarter of the image
QUESTION, ANSWER = "What is this?", "A city."


@dataclass(frozen=True)
class Usable:
    """A row that becomes a sample: with so many masks, and these things where they are given.

    Attributes:
        masks: as many `<SEG>` tokens.
        question, answer: the last user turn and the answer.
        size, pixel: (width, height) of the image and its top left pixel.
        area: share of the image that the masks cover together.
    """

    masks: int = 0
    question: str | None = None
    answer: str | None = None
    size: tuple[int, int] | None = None
    pixel: tuple[int, int, int] | None = None
    area: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A row that is skipped, with the column that is named and a piece of the reason."""

    column: str
    reason: str


@dataclass(frozen=True)
class Case:
    """A kind of row: its name, its columns as a parquet file holds them, what is expected."""

    name: str
    row: dict[str, Any]
    expected: Usable | Skipped


def case(name: str, expected: Usable | Skipped, **columns: Any) -> Case:
    """A good row of a question about an image, but for these columns."""
    row = {
        "task": "visual_question_answering",
        "source": "made up",
        "image": {"bytes": PICTURE, "path": None},
        "conversations": chat(),
        "metadata": "{}",
    }
    return Case(name, row | columns, expected)


def mask_case(name: str, expected: Usable | Skipped, metadata: Any = None, **columns: Any) -> Case:
    """A good row of a segmentation task, but for its metadata (JSON text, or what becomes it) and these columns."""
    metadata = {"polygons": [SQUARE]} if metadata is None else metadata
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    return case(name, expected, **{"task": "building_segmentation", "metadata": text, **columns})


def chat(question: Any = QUESTION, answer: Any = ANSWER) -> str:
    """A conversation of two turns as JSON text."""
    return json.dumps([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def png(color: tuple[int, int, int] = (90, 120, 60), size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture of one colour as a file."""
    return encoded(Image.new("RGB", size, color), "PNG")


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    """An image as a file's bytes."""
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


PICTURE = png()
