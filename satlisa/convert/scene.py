"""What a reader of a format finds about one image: the form between the formats and the questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from satlisa.convert.picture import Picture

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in thousandths of the upright image's width and height."""


@dataclass(frozen=True)
class Thing:
    """An object, or everything of one class.

    Attributes:
        label: its class, as the format spells it.
        box: its extent.
        shape: the outline as a row's metadata hold it, without the label (`shapes.py`); None: only the box is known.
        is_visible: whether the outline covers a pixel where SAM sees it.
        is_group: several objects in one outline: they are in the class's mask, but cannot be counted.
    """

    label: str
    box: Box
    shape: Mapping[str, Any] | None = None
    is_visible: bool = False
    is_group: bool = False


@dataclass(frozen=True)
class Spoken:
    """A question with its answer that the format itself holds; an empty question is taken from the templates."""

    task: str
    question: str
    answer: str


@dataclass(frozen=True)
class Scene:
    """One image and what is known about it.

    Attributes:
        name: unique in the dataset; its path below the input folder.
        things: its objects; None: the format says nothing about objects.
        labels: every class that would have been annotated if it were there.
        spoken: questions and answers, classes and captions.
        split: the split that the format puts it in; "" if it names none.
        group: images of one group stay in one split; "" for a rule by name (`splits.py`).
    """

    name: str
    picture: Picture
    things: Sequence[Thing] | None = None
    labels: Sequence[str] = ()
    spoken: Sequence[Spoken] = field(default=())
    split: str = ""
    group: str = ""
