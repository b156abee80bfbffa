"""Whether outlines lie on edges of the picture, as they were read and as they may have been meant.

An annotator follows edges, so the picture's gradient along an outline is larger than elsewhere. Outlines that were read
with x and y swapped, or drawn on another orientation of the picture, lie on edges once that is undone. One row says
little, a hundred say it beyond doubt; what neither reading explains says nothing.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from satlisa.geometry.regions import Region

SIDE = 256  # of the square in which outlines and edges are compared
_BORDER = 2  # pixels at the picture's border, where no edge can be seen
OUTLINE, BOX = 8.0, 16.0  # pixels of an outline that see the same edge, and of a box, whose sides are straight
_NEAR = 2  # pixels within which an edge counts: outlines are drawn on pixels, edges lie between them
_VARIANCE = 1 / 12  # of a rank, uniform from 0 to 1

# What may have been done to an outline: of its (SIDE, SIDE) drawing, the one that undoes it.
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "swapped": lambda drawn: drawn.T,
    "flipped left to right": lambda drawn: drawn[:, ::-1],
    "flipped top to bottom": lambda drawn: drawn[::-1],
    "turned by 180°": lambda drawn: drawn[::-1, ::-1],
    "turned by 90° clockwise": lambda drawn: drawn.T[:, ::-1],
    "turned by 90° counterclockwise": lambda drawn: drawn.T[::-1],
    "swapped and turned": lambda drawn: drawn[::-1, ::-1].T,
}


class Comparison(NamedTuple):
    """Two readings of outlines on one picture.

    Attributes:
        gain: by how much the mean rank of the edges along the one that may have been meant exceeds that along the read.
        weight: 1 / variance of the gain; 0 where nothing can be said.
    """

    gain: float
    weight: float

    @property
    def score(self) -> float:
        """The gain in standard errors."""
        return float(self.gain * self.weight**0.5)


def edge_ranks(image: Image.Image) -> np.ndarray:
    """How strong the edge at each pixel is among those of the picture, (SIDE, SIDE) float32 from 0 to 1."""
    image = image if max(image.size) <= 4 * SIDE else image.reduce(max(image.size) // (2 * SIDE))
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1).astype(np.int16)
    steps = np.zeros((3, SIDE, SIDE), dtype=np.int16)
    np.abs(pixels[..., 2:] - pixels[..., :-2], out=steps[..., 1:-1])
    down = np.abs(pixels[:, 2:] - pixels[:, :-2])
    np.maximum(steps[:, 1:-1], down, out=steps[:, 1:-1])
    near = _strongest_near(_strongest_near(steps.max(axis=0).astype(np.uint8)).T).T
    counts = np.bincount(near.ravel(), minlength=256)
    below = np.cumsum(counts) - counts / 2
    ranks: np.ndarray = (below / near.size).astype(np.float32)[near]
    return ranks


def _strongest_near(steps: np.ndarray) -> np.ndarray:
    """The largest of the values within `_NEAR` rows of each."""
    found: np.ndarray = steps.copy()
    for by in range(1, _NEAR + 1):
        np.maximum(found[by:], steps[:-by], out=found[by:])
        np.maximum(found[:-by], steps[by:], out=found[:-by])
    return found


def draw_outlines(regions: Sequence[Region], scale: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """The outlines of regions, (SIDE, SIDE) bool without the border; `scale` multiplies x and y."""
    image = Image.new("1", (SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    for ring in (ring for region in regions for ring in region if len(ring) > 2):
        points = np.clip(ring * scale, -1, 2) * SIDE - 0.5
        draw.line([*points.ravel().tolist(), *points[0].tolist()], fill=1)
    drawn = np.zeros((SIDE, SIDE), dtype=bool)
    inner = slice(_BORDER, -_BORDER)
    drawn[inner, inner] = np.asarray(image)[inner, inner]
    return drawn


def compare(ranks: np.ndarray, read: np.ndarray, meant: np.ndarray, correlated: float = OUTLINE) -> Comparison:
    """How much better outlines would lie on edges as they may have been meant than as they were read."""
    counts = int(read.sum()), int(meant.sum())
    if not min(counts):
        return Comparison(0.0, 0.0)
    error = (_VARIANCE * correlated * (1 / counts[0] + 1 / counts[1])) ** 0.5
    return Comparison(float(ranks[meant].mean() - ranks[read].mean()), 1 / error**2)


def pool(found: Sequence[Comparison]) -> Comparison:
    """Several rows as one, each weighted by how much it says."""
    weight = sum(one.weight for one in found)
    gain = sum(one.gain * one.weight for one in found) / weight if weight else 0.0
    return Comparison(gain, weight)
