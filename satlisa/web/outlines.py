"""A mask → polygons along its pixels' borders, with holes.

Every corner of the border is the end of one horizontal and of one vertical edge, so that the rings are found by walking
from edge to edge. Where two pixels touch at a corner alone, they stay apart (4-connectivity), as GDAL has it.
"""

import numpy as np

Rings = list[np.ndarray]
"""Of one polygon: its exterior and then its holes, each (P, 2) int64 of (x, y) in pixels, the first point repeated.
The signed area of exteriors is positive, that of holes negative."""


def trace(mask: np.ndarray) -> list[Rings]:
    """The polygons of a mask (H, W) bool, in reading order."""
    corners, across, along = _corners(mask)
    rings = _walk(across, along)
    owner = np.empty(len(corners), dtype=np.int64)
    for number, ring in enumerate(rings):
        owner[ring] = number
    padded = np.pad(mask, ((0, 1), (0, 1)))
    starts = corners[[ring[0] for ring in rings]] if rings else np.empty((0, 2), dtype=np.int64)
    is_exterior = [bool(padded[y, x]) for x, y in starts]
    parents = _parents(mask, corners, along, owner, starts, is_exterior)
    polygons: dict[int, Rings] = {}
    for number, ring in enumerate(rings):
        loops = _split(corners[[*ring, ring[0]]])
        own = loops if is_exterior[number] else [loop[::-1] for loop in loops]
        polygons.setdefault(parents[number], []).extend(own)
    return list(polygons.values())


def _split(ring: np.ndarray) -> list[np.ndarray]:
    """A closed ring (P, 2) that may touch itself at corners, as loops that do not: the one of its start, then others.

    Those of an exterior are holes that touch it from inside.
    """
    path: list[tuple[int, int]] = []
    seen: dict[tuple[int, int], int] = {}
    loops = []
    for point in map(tuple, ring.tolist()):
        if (place := seen.get(point)) is None:
            seen[point] = len(path)
            path.append(point)
            continue
        loops.append(np.array([*path[place:], point], dtype=np.int64))
        for left in path[place + 1 :]:
            del seen[left]
        del path[place + 1 :]
    return loops[::-1]


def _corners(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners (K, 2) of the border in reading order, and for each the other end of its horizontal and vertical edge."""
    padded = np.pad(mask, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    is_double = (nw == se) & (ne == sw) & (nw != ne)
    y, x = np.nonzero((nw ^ ne ^ sw ^ se) | is_double)
    copies = np.where(is_double[y, x], 2, 1)
    y, x = np.repeat(y, copies), np.repeat(x, copies)
    second = np.zeros(len(y), dtype=bool)  # of two at one place, the one with the edge to the right
    second[1:] = (y[1:] == y[:-1]) & (x[1:] == x[:-1])
    below = np.where(nw[y, x], second, ~second)  # and whether its vertical edge goes down
    across, along = np.empty(len(y), dtype=np.int64), np.empty(len(y), dtype=np.int64)
    for partner, order in ((across, np.lexsort((second, x, y))), (along, np.lexsort((below, y, x)))):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return np.stack([x, y], axis=1), across, along


def _walk(across: np.ndarray, along: np.ndarray) -> list[list[int]]:
    """The rings as lists of corners; each starts at its first corner in reading order and goes right."""
    rings, right, down = [], across.tolist(), along.tolist()
    is_left = [True] * len(right)
    for start in range(len(right)):
        if not is_left[start]:
            continue
        ring, corner = [], start
        while is_left[corner]:
            for partner in (right, down):
                ring.append(corner)
                is_left[corner] = False
                corner = partner[corner]
        rings.append(ring)
    return rings


def _parents(
    mask: np.ndarray,
    corners: np.ndarray,
    along: np.ndarray,
    owner: np.ndarray,
    starts: np.ndarray,
    is_exterior: list[bool],
) -> list[int]:
    """For each ring the number of its exterior: that of a hole begins where the pixels above it begin."""
    tops = np.flatnonzero(corners[along, 1] > corners[:, 1])  # the upper ends of vertical edges
    keys = corners[tops, 0] * (len(mask) + 1) + corners[tops, 1]
    order = np.argsort(keys)
    tops, keys = tops[order], keys[order]
    parents: list[int] = []
    for number, (x, y) in enumerate(starts.tolist()):
        if is_exterior[number]:
            parents.append(number)
            continue
        outside = np.flatnonzero(~mask[y - 1, : x + 1])
        left = int(outside[-1]) + 1 if len(outside) else 0
        edge = tops[np.searchsorted(keys, left * (len(mask) + 1) + y - 1, side="right") - 1]
        parents.append(parents[owner[edge]])  # of a ring that starts higher up, and so has its parent
    return parents
