"""Rasterize polygons: a scanline algorithm in the convention of pycocotools' `frPyObjects`.

The field scores masks with COCO's tools, so their rounding is kept: corners are rounded to fifths of a pixel, and a
pixel is inside a polygon if the outline crosses its column's centre above its own centre an odd number of times.
Exact pixel centres without that rounding agree with COCO to IoU 0.94 on thin self-intersecting polygons of 64² pixels,
this implementation to 0.99 at worst and 0.99997 on average (tests/geometry/test_raster.py).

All polygons are drawn at once, as runs of covered pixels per column, because a row may hold 10,000 of them. Columns are
processed in bands of about `_BAND` crossings, which bounds the memory.
"""

import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from satlisa.geometry.regions import Region

_SUB = 5  # pycocotools' grid: fifths of a pixel; the centre of pixel n is at 5n + 2.5 and never on a grid line
_FAR = 1e6  # fractions are clipped to ±this: far outside any frame, but the arithmetic stays finite
_BAND = 2**19  # crossings processed at a time, about 50 MB


def rasterize(
    polygons: Sequence[np.ndarray], height: int, width: int, *, scale: tuple[float, float] | None = None
) -> np.ndarray:
    """Draw the union of polygons: (height, width) bool.

    The even-odd rule holds inside one polygon, so its overlapping parts cancel; several polygons are united. Polygons
    are clipped at the frame. Fewer than three points, or an outline around no pixel centre, draw nothing.

    Args:
        polygons: (P, 2) arrays of (x, y) in fractions.
        height, width: of the frame, in pixels.
        scale: (width, height) in pixels of fraction 1.0; the frame's own size by default.
    """
    mask = np.zeros((height, width), dtype=bool)
    for _, column, top, bottom in _runs(polygons, height, width, scale or (width, height)):
        left, right, above, below = column.min(), column.max() + 1, top.min(), bottom.max()
        lines = below - above + 1  # one extra row, where runs end that reach the last row
        places, steps = (column - left) * lines - above, np.zeros((right - left) * lines, dtype=np.int32)
        np.add.at(steps, places + top, 1)
        np.subtract.at(steps, places + bottom, 1)
        covered = (np.cumsum(steps, out=steps) > 0).reshape(right - left, lines)
        mask[above:below, left:right] = covered[:, :-1].T
    return mask


def coverage(
    polygons: Sequence[np.ndarray], height: int, width: int, *, scale: tuple[float, float], samples: int = 4
) -> np.ndarray:
    """The covered fraction of each pixel, from samples × samples points: (height, width) float32, 0 to 1.

    Fractions keep the sub-pixel position of an outline, which a binary mask would round away.
    """
    fine = rasterize(polygons, height * samples, width * samples, scale=(scale[0] * samples, scale[1] * samples))
    shares: np.ndarray = fine.reshape(height, samples, width, samples).mean(axis=(1, 3), dtype=np.float32)
    return shares


def covered_pixels(regions: Sequence[Region], height: int, width: int) -> np.ndarray:
    """Number of pixels of a (height, width) frame that each region covers, (R,) int64; 0: it draws nothing."""
    owner = np.repeat(np.arange(len(regions)), [len(region) for region in regions])
    counts = np.zeros(len(regions), dtype=np.int64)
    polygons = [polygon for region in regions for polygon in region]
    for polygon, column, top, bottom in _runs(polygons, height, width, (width, height)):
        # Each column of each region is an interval of one long line; overlapping runs on it count once.
        line = (owner[polygon] * width + column) * (height + 1)
        order = np.argsort(line + top, kind="stable")
        start, stop = (line + top)[order], (line + bottom)[order]
        reached = np.concatenate([start[:1], np.maximum.accumulate(stop)[:-1]])
        fresh = np.maximum(stop - np.maximum(start, reached), 0)
        np.add.at(counts, owner[polygon[order]], fresh)
    return counts


def pack_mask(mask: np.ndarray) -> bytes:
    """A mask (H, W) bool in little memory; `unpack_mask` gives it again."""
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def unpack_mask(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The mask that `pack_mask` packed, of its shape (H, W)."""
    packed = np.frombuffer(zlib.decompress(data), dtype=np.uint8)
    return np.unpackbits(packed, count=math.prod(shape)).reshape(shape).astype(bool)


def run_lengths(region: Region, height: int, width: int) -> list[int]:
    """A region's mask (height, width) as COCO's run lengths: pixels outside, inside, outside, …, column by column.

    No pixel is drawn: a hundred instances of a large image take milliseconds.
    """
    covered = [np.empty((2, 0), dtype=np.int64)]
    for _, column, top, bottom in _runs(region, height, width, (width, height)):
        covered.append(np.stack([column * height + top, column * height + bottom]))
    start, stop = np.concatenate(covered, axis=1)
    order = np.argsort(start, kind="stable")
    start, stop = start[order], np.maximum.accumulate(stop[order])
    is_first = np.concatenate([[True], start[1:] > stop[:-1]])[: len(start)]  # of runs that touch or overlap
    is_last = np.roll(is_first, -1)
    turns = np.stack([start[is_first], stop[is_last]], axis=1).ravel()
    lengths = np.diff(turns, prepend=0, append=height * width)
    counts: list[int] = lengths.tolist()
    return counts[:-1] if len(counts) > 1 and not counts[-1] else counts


def _runs(
    polygons: Sequence[np.ndarray], height: int, width: int, scale: tuple[float, float]
) -> Iterator[tuple[np.ndarray, ...]]:
    """The runs of pixels inside each polygon, in bands of columns.

    Yields:
        polygon, column, top, bottom: (K,) int64, K at least 1; the rows top .. bottom - 1 of the column are inside.
    """
    polygon, start, end = _edges(polygons, scale)
    # Edges that start left of a column's centre and end right of it cross it: an even number in each polygon.
    first, last = (np.clip(np.floor((x + 2) / _SUB), 0, width).astype(np.int64) for x in (start[:, 0], end[:, 0]))
    crossings = np.cumsum(np.bincount(first, minlength=width + 1) - np.bincount(last, minlength=width + 1))
    cuts = np.flatnonzero(np.diff(np.cumsum(crossings[:width]) // _BAND)) + 1
    for left, right in zip([0, *cuts], [*cuts, width], strict=True):
        edge, column, row = _crossings(start, end, np.clip(first, left, right), np.clip(last, left, right))
        keys = (polygon[edge] * width + column) * (height + 1) + np.clip(row, 0, height)
        keys.sort()
        lines, top = np.divmod(keys[0::2], height + 1)
        bottom = keys[1::2] - lines * (height + 1)
        inside = bottom > top
        if inside.any():
            yield (*np.divmod(lines[inside], width), top[inside], bottom[inside])


def _edges(polygons: Sequence[np.ndarray], scale: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges of all polygons, left to right: (E,) polygon index, (E, 2) starts and ends in whole fifths."""
    rings = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons]
    lengths = np.array([len(ring) if len(ring) > 2 else 0 for ring in rings], dtype=np.int64)
    points = np.concatenate([np.empty((0, 2)), *(ring for ring in rings if len(ring) > 2)])
    points = np.trunc(np.clip(points, -_FAR, _FAR) * (np.array(scale, dtype=np.float64) * _SUB) + 0.5)
    following = np.arange(1, len(points) + 1)
    stops = np.cumsum(lengths)[lengths > 0]
    following[stops - 1] = stops - lengths[lengths > 0]  # the last point of a ring connects to its first
    ends = points[following]
    swap = (points[:, 0] > ends[:, 0])[:, None]
    return np.repeat(np.arange(len(rings)), lengths), np.where(swap, ends, points), np.where(swap, points, ends)


def _crossings(
    start: np.ndarray, end: np.ndarray, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intersections of edges with the centres of columns.

    Args:
        start, end: (E, 2) in whole fifths of a pixel, left to right.
        first, last: (E,) columns first .. last - 1 are processed.

    Returns:
        (K,) edges, columns, and the first row whose pixel is below each crossing, int64, unclipped.
    """
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)  # one entry per crossing
    column = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    left = _SUB * column + 2.0  # the centre is between this grid line and the next
    slope = (y1 - y0) / (x1 - x0)
    # Flat edges step along x and round y at both lines; steep ones step along y, and the crossing falls between steps.
    flat = np.minimum(np.floor(y0 + slope * (left - x0) + 0.5), np.floor(y0 + slope * (left + 1 - x0) + 0.5))
    crossing = y0 + slope * (left + 0.5 - x0)
    steep = np.where(y1 > y0, np.ceil(crossing) - 1, np.floor(crossing))
    grid_row = np.where(x1 - x0 >= np.abs(y1 - y0), flat, steep)
    return edge, column, np.ceil((grid_row - 2) / _SUB).astype(np.int64)
