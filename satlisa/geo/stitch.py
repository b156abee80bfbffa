"""Blends the answers of overlapping windows into rows of one raster, in memory for one row of windows."""

from collections.abc import Callable

import numpy as np

from satlisa.geo.answers import LOWEST, STEP, WindowAnswer
from satlisa.geo.grid import Grid, Window

Write = Callable[[int, np.ndarray, np.ndarray], None]
"""Takes the first row, logits above the threshold's (R, W) float32 and where there are data (R, W) bool."""
_ROWS = 64  # written at a time


class Stitcher:
    """Takes windows in the grid's order, and writes rows as soon as no further window can change them."""

    def __init__(self, grid: Grid, write: Write) -> None:
        self.grid, self._write, self._top = grid, write, 0
        size = (grid.rows.window, grid.columns.length)
        self._steps, self._valid = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=bool)

    def add(self, window: Window, valid: np.ndarray, answer: WindowAnswer | None) -> None:
        """Blend a window in. Without data, `answer` is None; without masks, it says that nothing is there."""
        if window.top > self._top:
            self._flush(window.top)
        if answer is None:
            return
        columns = window.place[1]
        weight = self.grid.weight(window)
        self._steps[:, columns] += (LOWEST if answer.levels is None else answer.levels) * weight
        self._valid[:, columns] |= valid

    def finish(self) -> None:
        """Write the last rows."""
        self._flush(self.grid.rows.length)

    def _flush(self, until: int) -> None:
        """Write the rows from the top of the buffer to `until`, and move the buffer there."""
        count = until - self._top
        for start in range(0, count, _ROWS):
            rows = slice(start, min(start + _ROWS, count))
            self._write(self._top + start, self._steps[rows] * np.float32(STEP), self._valid[rows])
        for buffer in (self._steps, self._valid):
            kept = len(buffer) - count
            buffer[:kept] = buffer[count:].copy()
            buffer[kept:] = 0
        self._top = until
