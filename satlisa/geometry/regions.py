"""Regions: polygons in fractions of an image's width and height."""

from collections.abc import Sequence

import numpy as np

Region = tuple[np.ndarray, ...]
"""Polygons (P, 2) float64, (x, y) as fractions of width and height. Their union is one mask; inside one polygon
the even-odd rule holds. Values outside 0..1 are allowed and are clipped when the region is drawn."""


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
