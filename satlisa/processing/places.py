"""What an answer with several `<SEG>` says of each object before its own (`instance_places` of `model_config.json`)."""

from collections.abc import Sequence

from satlisa.config import INSTANCE_PLACES
from satlisa.data.sample import Sample
from satlisa.geometry.regions import Region, bounding_box, label_of

_UNITS = 1000  # coordinates are thousandths of the image's width and height, as in Qwen's own boxes
_UNNAMED = "object"


def shorter_places(sample: Sample, wanted: str) -> Sequence[str]:
    """What may be said of a sample's objects, the wanted first, then what takes fewer tokens; the last is `none`.

    Only several objects need telling apart, so that a sample with one mask or none has no places.
    """
    return INSTANCE_PLACES[INSTANCE_PLACES.index(wanted) :] if len(sample.regions) > 1 else ("none",)


def describe_places(regions: Sequence[Region], kind: str) -> list[str]:
    """The words before each region's `<SEG>`: "building [412, 88, 530, 190]" for `box`, "building (471, 139)" for
    `centre`, "" for `none`; [left, top, right, bottom] and the box's centre (x, y), integers 0..1000 of the image."""
    return [_describe(region, kind) for region in regions]


def _describe(region: Region, kind: str) -> str:
    box = bounding_box(region)
    if kind == "none" or box is None:
        return ""
    label = label_of(region) or _UNNAMED
    left, top, right, bottom = box
    if kind == "centre":
        return f"{label} ({_thousandths((left + right) / 2)}, {_thousandths((top + bottom) / 2)})"
    return f"{label} [{', '.join(_thousandths(side) for side in box)}]"


def _thousandths(side: float) -> str:
    return str(round(side * _UNITS))
