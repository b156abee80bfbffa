"""Regions: polygons in fractions of an image's width and height."""

from collections.abc import Sequence

import numpy as np

Region = tuple[np.ndarray, ...]
"""Polygons (P, 2) float64, (x, y) as fractions of width and height. Their union is one mask; inside one polygon
the even-odd rule holds. Values outside 0..1 are allowed and are clipped when the region is drawn."""


class LabelledRegion(tuple[np.ndarray, ...]):
    """A region that its dataset names.

    Attributes:
        label: what it is, "building"; not empty.
    """

    label: str

    @classmethod
    def of(cls, region: Region, label: str) -> Region:
        """The region with this label; without a label, the region itself."""
        if not label:
            return region
        labelled = cls(region)
        labelled.label = label
        return labelled


def label_of(region: Region) -> str:
    """A region's label; "" where it has none."""
    return region.label if isinstance(region, LabelledRegion) else ""


def bounding_box(region: Region) -> tuple[float, float, float, float] | None:
    """(left, top, right, bottom) of what of a region is inside the image, as fractions; None for no points."""
    points = [polygon for polygon in region if len(polygon)]
    if not points:
        return None
    joined = np.concatenate(points).clip(0, 1)
    left, top, right, bottom = (float(side) for side in (*joined.min(axis=0), *joined.max(axis=0)))
    return left, top, right, bottom


def reading_order(regions: Sequence[Region]) -> list[int]:
    """Indices of the regions from top to bottom, then from left to right.

    The key is the top of the bounding box, then its left side, then the input order: one total order without
    thresholds. Regions without points come last.
    """

    def corner(index: int) -> tuple[float, float]:
        points = [polygon for polygon in regions[index] if len(polygon)]
        if not points:
            return float("inf"), float("inf")
        left, top = np.concatenate(points).min(axis=0)
        return float(top), float(left)

    return sorted(range(len(regions)), key=corner)
