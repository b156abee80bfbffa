"""Cut holes out of polygons without another kind of polygon: the even-odd rule leaves out what is inside of a part."""

from collections.abc import MutableSequence, Sequence
from typing import Any

import numpy as np


def cut_out(objects: Sequence[MutableSequence[Any]], holes: Sequence[Any]) -> None:
    """Cut each hole (P, 2) out of the smallest polygon around it, in place.

    The polygon runs from its first point to the hole, around it, and back; the way there and back cancels.

    Args:
        objects: the polygons of each object, arrays (P, 2); anything else has no holes.

    Raises:
        ValueError: a hole that no polygon surrounds.
    """
    for hole in holes:
        around = [
            (float(np.prod(np.ptp(ring, axis=0))), number, place)
            for number, rings in enumerate(objects)
            for place, ring in enumerate(rings)
            if _surrounds(ring, hole)
        ]
        if not around:
            raise ValueError("expected holes inside of a polygon, found one that no polygon surrounds")
        _, number, place = min(around)
        ring = objects[number][place]
        objects[number][place] = np.concatenate([ring, ring[:1], hole, hole[:1]])


def _surrounds(ring: Any, hole: Any) -> bool:
    """Whether a polygon lies in another one: most of its vertices and of the middles of its edges do."""
    if not (isinstance(ring, np.ndarray) and isinstance(hole, np.ndarray) and len(ring) and len(hole)):
        return False
    if not ((ring.min(axis=0) <= hole.min(axis=0)).all() and (ring.max(axis=0) >= hole.max(axis=0)).all()):
        return False
    marks = np.concatenate([hole, (hole + np.roll(hole, -1, axis=0)) / 2])
    return bool(np.mean(_inside(ring, marks)) >= 0.5)


def _inside(ring: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which of the points (N, 2) lie in a polygon or on its edges, (N,) bool; even-odd, one edge at a time."""
    x, y = points.T
    is_in, on_edge = np.zeros(len(points), dtype=bool), np.zeros(len(points), dtype=bool)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        side = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)  # twice the area with the edge; 0 on its line
        is_in ^= ((y0 > y) != (y1 > y)) & ((side > 0) == (y1 > y0))
        is_between = (np.minimum(x0, x1) <= x) & (x <= np.maximum(x0, x1))
        on_edge |= (side == 0) & is_between & (np.minimum(y0, y1) <= y) & (y <= np.maximum(y0, y1))
    return np.asarray(is_in | on_edge)
