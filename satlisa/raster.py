"""Polygons to pixels: our own scanline in the convention of pycocotools' `frPyObjects`.

COCO's tools are what the field scores masks with, so their convention is kept, rounding included: corners are rounded
to fifths of a pixel, and a pixel belongs to a polygon when the outline crosses its column's centre above its own
centre an odd number of times. Exact centres without that rounding agree to IoU 0.94 on thin self-intersecting polygons
of 64² pixels, this to 0.99 at worst and 0.99997 on average (tests/test_raster.py).
"""

from collections.abc import Sequence

import numpy as np

_SUB = 5  # pycocotools' grid: fifths of a pixel; the centre of pixel n is at 5n + 2.5 and never on a grid line
_FAR = 1e6  # fractions are clipped to this: far outside any frame, and the arithmetic stays finite


def rasterize(
    polygons: Sequence[np.ndarray], height: int, width: int, *, scale: tuple[float, float] | None = None
) -> np.ndarray:
    """Draw the union of polygons.

    Even-odd inside one polygon, so its overlapping parts cancel; several polygons add up. What lies outside the frame
    is clipped. Fewer than three points, or an outline around no pixel centre, draw nothing.

    Args:
        polygons: (P, 2) arrays of (x, y) in fractions.
        height, width: of the frame, in pixels.
        scale: (width, height) in pixels that fraction 1.0 stands for; the frame's own size by default.

    Returns:
        (height, width) bool.
    """
    mask = np.zeros((height, width), dtype=bool)
    factors = np.array(scale if scale is not None else (width, height), dtype=np.float64) * _SUB
    for polygon in polygons:
        points = np.clip(np.asarray(polygon, dtype=np.float64).reshape(-1, 2), -_FAR, _FAR)
        if len(points) < 3:
            continue
        columns, rows = _crossings(np.trunc(points * factors + 0.5), width)
        if len(columns) == 0:
            continue
        rows = np.clip(rows, 0, height)
        left, top = columns.min(), rows.min()
        toggles = np.zeros((rows.max() - top + 1, columns.max() - left + 1), dtype=np.uint8)
        np.bitwise_xor.at(toggles, (rows - top, columns - left), 1)
        inside = np.bitwise_xor.accumulate(toggles, axis=0)[:-1].astype(bool)
        mask[top : top + inside.shape[0], left : left + inside.shape[1]] |= inside
    return mask


def coverage(
    polygons: Sequence[np.ndarray], height: int, width: int, *, scale: tuple[float, float], samples: int = 4
) -> np.ndarray:
    """The share of each pixel that polygons cover, from samples × samples points: (height, width) float32, 0 to 1.

    An outline keeps its place to a fraction of a pixel this way, which a yes or no per pixel would round away.
    """
    fine = rasterize(polygons, height * samples, width * samples, scale=(scale[0] * samples, scale[1] * samples))
    shares: np.ndarray = fine.reshape(height, samples, width, samples).mean(axis=(1, 3), dtype=np.float32)
    return shares


def _crossings(points: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the outline crosses the centres of the frame's columns.

    Args:
        points: (P, 2) corners in whole fifths of a pixel.

    Returns:
        (K,) columns and (K,) first row whose pixel is below each crossing, int64, unclipped rows.
    """
    ends = np.roll(points, -1, axis=0)
    swap = points[:, 0] > ends[:, 0]
    start, end = np.where(swap[:, None], ends, points), np.where(swap[:, None], points, ends)  # left to right
    first = np.clip(np.ceil((start[:, 0] - 2) / _SUB), 0, width).astype(np.int64)
    last = np.clip(np.floor((end[:, 0] - 3) / _SUB) + 1, 0, width).astype(np.int64)
    counts = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(points)), counts)  # one entry per crossing
    column = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    left = _SUB * column + 2.0  # the centre lies between this grid line and the next
    slope = (y1 - y0) / np.where(x1 > x0, x1 - x0, 1)
    # Flat edges step along x and round y at both lines; steep ones step along y, and the crossing falls between steps.
    flat = np.minimum(np.floor(y0 + slope * (left - x0) + 0.5), np.floor(y0 + slope * (left + 1 - x0) + 0.5))
    crossing = y0 + slope * (left + 0.5 - x0)
    steep = np.where(y1 > y0, np.ceil(crossing) - 1, np.floor(crossing))
    grid_row = np.where(x1 - x0 >= np.abs(y1 - y0), flat, steep)
    return column, np.ceil((grid_row - 2) / _SUB).astype(np.int64)
