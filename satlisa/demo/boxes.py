"""Boxes (left, top, right, bottom), and how many of a scene's are found."""

from collections.abc import Sequence

from satlisa.demo.gallery import Exhibit

Found = Sequence[tuple[str, Sequence[float]]]
"""Label and box of each object found in an image, 0..1000."""


def box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """IoU of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / max(1, sum(areas) - shared)


def box_recall(found: Sequence[Found], exhibits: Sequence[Exhibit]) -> float:
    """Share of the true boxes that match a box of the same label with IoU ≥ 0.5, in any order; 0 without objects."""
    matched = [
        any(label == thing.label and box_iou(box, thing.box) >= 0.5 for label, box in boxes)
        for boxes, exhibit in zip(found, exhibits, strict=True)
        for thing in exhibit.plan.objects
    ]
    return sum(matched) / max(1, len(matched))
