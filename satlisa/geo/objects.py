"""Joins the masks of windows into objects: parts of one that was cut, and copies of one in an overlap.

Two masks of neighbouring windows are one object where they agree inside the overlap (IoU of at least a half), or where
one that its window's border cuts lies inside the other. Without an overlap, they are one where they meet along the
common border; two objects whose own borders lie there are then taken for one. Objects that only touch share no pixels,
and stay apart.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from satlisa.geo.answers import Piece
from satlisa.geo.grid import Grid, Window

_SAME, _INSIDE = 0.5, 0.8  # shares of the union, and of the smaller part
_STRIP = 1024  # rows that are blended at a time


@dataclass(frozen=True)
class Found:
    """A mask of one window."""

    window: Window
    piece: Piece

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) on the grid."""
        top, left, height, width = self.piece.box
        top, left = top + self.window.top, left + self.window.left
        return top, left, top + height, left + width

    def part(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """Its mask inside a rectangle of the grid, (bottom - top, right - left) bool."""
        own = self.box
        part = np.zeros((bottom - top, right - left), dtype=bool)
        rows, columns = (max(top, own[0]), min(bottom, own[2])), (max(left, own[1]), min(right, own[3]))
        if rows[0] < rows[1] and columns[0] < columns[1]:
            part[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = _mask(self.piece)[
                rows[0] - own[0] : rows[1] - own[0], columns[0] - own[1] : columns[1] - own[1]
            ]
        return part

    def is_cut(self) -> bool:
        """Whether it reaches its window's border."""
        top, left, height, width = self.piece.box
        return 0 in (top, left) or top + height == self.window.height or left + width == self.window.width


@lru_cache(maxsize=512)
def _mask(piece: Piece) -> np.ndarray:
    return piece.mask()


def join(grid: Grid, pieces: Sequence[tuple[Window, Sequence[Piece]]]) -> list[list[Found]]:
    """Groups of masks that are one object, from top to bottom."""
    found = [Found(window, piece) for window, own in pieces for piece in own]
    by_window: dict[int, list[int]] = defaultdict(list)
    for number, one in enumerate(found):
        by_window[one.window.number].append(number)
    parent = list(range(len(found)))
    for first, second in _neighbours(grid):
        for a in by_window.get(first.number, ()):
            for b in by_window.get(second.number, ()):
                if _root(parent, a) != _root(parent, b) and _are_one(found[a], found[b]):
                    parent[_root(parent, b)] = _root(parent, a)
    groups: dict[int, list[Found]] = defaultdict(list)
    for number, one in enumerate(found):
        groups[_root(parent, number)].append(one)
    return sorted(groups.values(), key=lambda group: extent(group)[:2])


def extent(group: Sequence[Found]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of all masks of a group."""
    tops, lefts, bottoms, rights = zip(*(one.box for one in group), strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def blend(grid: Grid, group: Sequence[Found]) -> np.ndarray:
    """The mask of an object inside its `extent`: at each pixel its windows vote with their weights."""
    top, left, bottom, right = extent(group)
    mask = np.zeros((bottom - top, right - left), dtype=bool)
    for start in range(top, bottom, _STRIP):
        end = min(bottom, start + _STRIP)
        votes = np.zeros((end - start, right - left), dtype=np.float32)
        total = np.zeros_like(votes)
        for number in sorted({one.window.number for one in group}):
            window = grid.windows[number]
            first, last = max(start, window.top), min(end, window.top + window.height)
            west, east = max(left, window.left), min(right, window.left + window.width)
            if first >= last or west >= east:
                continue
            own = [one.part(first, west, last, east) for one in group if one.window.number == number]
            weight = np.outer(
                grid.rows.weights[window.row][first - window.top : last - window.top],
                grid.columns.weights[window.column][west - window.left : east - window.left],
            )
            place = slice(first - start, last - start), slice(west - left, east - left)
            votes[place] += np.logical_or.reduce(own) * weight
            total[place] += weight
        mask[start - top : end - top] = (total > 0) & (votes >= total / 2)
    return mask


def _root(parent: list[int], number: int) -> int:
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number


def _neighbours(grid: Grid) -> Iterator[tuple[Window, Window]]:
    """Pairs of windows that overlap or have a border in common, each once."""
    columns = len(grid.columns.starts)
    for first in grid.windows:
        for row in range(first.row, len(grid.rows.starts)):
            if grid.rows.starts[row] > first.top + first.height:
                break
            for column in range(columns):
                second = grid.windows[row * columns + column]
                if second.number > first.number and abs(second.left - first.left) <= first.width:
                    yield first, second


def _are_one(a: Found, b: Found) -> bool:
    top, bottom = max(a.window.top, b.window.top), min(a.window.top + a.window.height, b.window.top + b.window.height)
    left, right = max(a.window.left, b.window.left), min(a.window.left + a.window.width, b.window.left + b.window.width)
    rows, columns = abs(a.window.row - b.window.row), abs(a.window.column - b.window.column)
    if (top == bottom and (left == right or rows > 1)) or (left == right and columns > 1):
        return False  # a corner, or a border inside a window between the two
    if top == bottom:  # side by side: the rows above and below the border
        one, other = (a, b) if a.window.top < b.window.top else (b, a)
        return _agree(one.part(top - 1, left, top, right), other.part(top, left, top + 1, right))
    if left == right:
        one, other = (a, b) if a.window.left < b.window.left else (b, a)
        return _agree(one.part(top, left - 1, bottom, left), other.part(top, left, bottom, left + 1))
    box = np.array([a.box, b.box])
    (top, left), (bottom, right) = (
        np.maximum(box[:, :2].min(axis=0), (top, left)),
        np.minimum(box[:, 2:].max(axis=0), (bottom, right)),
    )
    if top >= bottom or left >= right:
        return False
    first, second = a.part(top, left, bottom, right), b.part(top, left, bottom, right)
    if _agree(first, second):
        return True
    common, sizes = np.count_nonzero(first & second), (np.count_nonzero(first), np.count_nonzero(second))
    smaller = a if sizes[0] <= sizes[1] else b
    return bool(min(sizes) > 0 and common >= _INSIDE * min(sizes) and smaller.is_cut())


def _agree(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.count_nonzero(first & second) >= _SAME * max(1, int(np.count_nonzero(first | second))))
