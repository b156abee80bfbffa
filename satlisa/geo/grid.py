"""The windows of a scene, and the weight of each at every pixel.

Windows have one size; the last of a row or column is moved inwards, so that none is padded. Across an overlap the
weight falls linearly towards a window's border, and the weights at a pixel sum to 1: so there are no seams, and the
rows above the next row of windows are final.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from satlisa.errors import SatlisaError


@dataclass(frozen=True)
class Window:
    """A window of `height` × `width` pixels at (`top`, `left`); `row` and `column` count windows."""

    number: int
    row: int
    column: int
    top: int
    left: int
    height: int
    width: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Axis:
    """Windows along one side of `length` pixels, of `window` pixels each."""

    length: int
    window: int
    overlap: int

    @cached_property
    def starts(self) -> list[int]:
        """Where each window begins."""
        step = self.window - self.overlap
        return [*range(0, self.length - self.window, step), self.length - self.window]

    @cached_property
    def weights(self) -> list[np.ndarray]:
        """Of each window, its share (window,) float32 at its pixels."""
        distance = np.minimum(np.arange(self.window), np.arange(self.window)[::-1]) + 0.5
        raw = np.minimum(distance, max(self.overlap, 0.5))
        total = np.zeros(self.length)
        for start in self.starts:
            total[start : start + self.window] += raw
        return [(raw / total[start : start + self.window]).astype(np.float32) for start in self.starts]

    def owner(self, position: float) -> int:
        """The window with the largest weight at a position."""
        pixel = min(max(int(position), 0), self.length - 1)
        inside = [n for n, start in enumerate(self.starts) if start <= pixel < start + self.window]
        return max(inside, key=lambda n: float(self.weights[n][pixel - self.starts[n]]))


@dataclass(frozen=True)
class Grid:
    """All windows over an area, row by row."""

    rows: Axis
    columns: Axis

    @cached_property
    def windows(self) -> list[Window]:
        """In the order in which they are answered."""
        places = [(r, c) for r in range(len(self.rows.starts)) for c in range(len(self.columns.starts))]
        return [
            Window(n, r, c, self.rows.starts[r], self.columns.starts[c], self.rows.window, self.columns.window)
            for n, (r, c) in enumerate(places)
        ]

    def weight(self, window: Window) -> np.ndarray:
        """(height, width) float32, its share at each of its pixels."""
        return np.outer(self.rows.weights[window.row], self.columns.weights[window.column])

    def owner(self, x: float, y: float) -> Window:
        """The window with the largest weight at (x, y)."""
        return self.windows[self.rows.owner(y) * len(self.columns.starts) + self.columns.owner(x)]


def make_grid(
    height: int, width: int, window: int, overlap: int, pixel_scale: tuple[float, float] = (1.0, 1.0)
) -> Grid:
    """Windows of `window` picture pixels that overlap by `overlap`, on a grid of (height, width).

    Args:
        pixel_scale: (x, y) grid pixels per picture pixel.

    Raises:
        SatlisaError: the overlap is more than half of the window, or a window is too large.
    """
    if window < _LEAST or not 0 <= overlap <= window // 2:
        raise SatlisaError(
            f"--window and --overlap: expected a window of at least {_LEAST} pixels and an overlap from 0 to half of "
            f"it, found {window} and {overlap}"
        )
    axes = []
    for length, scale in ((height, pixel_scale[1]), (width, pixel_scale[0])):
        side = min(length, round(window * scale))
        if side < min(length, _LEAST):
            raise SatlisaError(
                f"a window would cover {window * scale:.2g} pixels of the file, and at least {_LEAST} are needed; use "
                "a coarser --resolution or a larger --window"
            )
        axes.append(Axis(length, side, min(round(overlap * scale), side // 2)))
    if axes[0].window * width > _MOST:
        raise SatlisaError(
            f"a window would cover {axes[0].window:,} rows of {width:,} pixels; use a finer --resolution, a smaller "
            "--window or a --bbox"
        )
    return Grid(*axes)


_LEAST = 8  # pixels of a side of a window
_MOST = 2**28  # pixels of a row of windows: 1 GB while they are blended
