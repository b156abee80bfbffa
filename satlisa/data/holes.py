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
    """Whether the bounding box of one polygon holds that of another."""
    if not (isinstance(ring, np.ndarray) and isinstance(hole, np.ndarray) and len(ring) and len(hole)):
        return False
    return bool((ring.min(axis=0) <= hole.min(axis=0)).all() and (ring.max(axis=0) >= hole.max(axis=0)).all())
