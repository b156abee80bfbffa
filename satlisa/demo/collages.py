"""Collages: random textured surfaces with scattered or aligned shapes, for pretraining the SAM encoder.

A SAM trained on the demo's scenes alone separates roofs from grass by colours that real images do not have. Collages
cover all colours, textures and sizes; only a similar look says what belongs together.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from satlisa.data.synthetic.structures import placed
from satlisa.data.synthetic.terrain import SIDE
from satlisa.demo.gallery import turn_array

_LEAST = 9  # minimum pixels of a shape
_MOST_SHAPES = 250


@dataclass(frozen=True)
class Collage:
    """An image with its label maps.

    Attributes:
        pixels: (SIDE, SIDE, 3) uint8.
        shapes: (SIDE, SIDE) uint8, index of the visible shape at each pixel; the lowest indices are backgrounds.
        surfaces: (SIDE, SIDE) uint8, index of the surface at each pixel.
    """

    pixels: np.ndarray
    shapes: np.ndarray
    surfaces: np.ndarray

    def turned(self, number: int) -> "Collage":
        """One of the eight rotations and reflections, numbered as in `Exhibit.turned`."""
        return Collage(*(turn_array(array, number) for array in (self.pixels, self.shapes, self.surfaces)))


def draw_collage(seed: int) -> Collage:
    """Draw a collage, deterministic per seed; takes 0.04 s."""
    rng = np.random.default_rng((seed, 77))
    surfaces = np.stack([_surface(rng) for _ in range(rng.integers(3, 7))])
    kinds = _grounds(rng, len(surfaces))
    sheet = _Sheet(kinds.copy(), kinds, np.zeros_like(kinds, dtype=bool), len(surfaces))
    for _ in range(rng.integers(2, 7)):
        _scatter(rng, sheet, int(rng.integers(len(surfaces))))
    rows, columns = np.indices(kinds.shape)
    pixels = surfaces[sheet.kinds, rows, columns]
    pixels *= rng.normal(1, rng.uniform(0, 0.08), 256)[sheet.shapes][..., None]  # vary brightness among shapes
    pixels = np.where(sheet.shadow[..., None], pixels * rng.uniform(0.3, 0.7), pixels)
    pixels = pixels + rng.normal(0, rng.uniform(0, 0.03), pixels.shape)
    return Collage((pixels.clip(0, 1) * 255).astype(np.uint8), sheet.shapes, sheet.kinds)


def recoloured(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture (H, W, 3) in another light: brightness, contrast, gamma and the balance of the channels."""
    levels = (np.arange(256) / 255)[:, None] ** rng.uniform(0.7, 1.4)
    levels = (levels - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.12, 0.12)
    table = (levels * rng.normal(1, 0.08, 3)).clip(0, 1) * 255
    return np.stack([table[pixels[..., channel], channel] for channel in range(3)], axis=-1).astype(np.uint8)


@dataclass
class _Sheet:
    """Canvas of a collage: shape and surface indices, shadows, and the next free shape index."""

    shapes: np.ndarray
    kinds: np.ndarray
    shadow: np.ndarray
    free: int

    def put(self, outline: np.ndarray, kind: int, shadow: float) -> None:
        """Draw a shape with outline (P, 2) on top, with a shadow offset by `shadow` pixels."""
        mask = _fill(outline)
        if mask.sum() < _LEAST or self.free >= _MOST_SHAPES:
            return
        if shadow:
            self.shadow |= _fill(outline + shadow)
        self.shadow &= ~mask
        self.shapes[mask], self.kinds[mask] = self.free, kind
        self.free += 1


def _surface(rng: np.random.Generator) -> np.ndarray:
    """A textured surface of random colour: (SIDE, SIDE, 3) float, roughly 0..1."""
    colour = (rng.uniform(0.05, 0.95) + rng.normal(0, rng.choice([0.03, 0.08, 0.2]), 3)).clip(0.02, 0.98)
    surface: np.ndarray = np.broadcast_to(colour, (SIDE, SIDE, 3)).copy()
    for _ in range(rng.integers(0, 3)):
        cells = int(np.exp(rng.uniform(np.log(4), np.log(SIDE / 2))))
        surface += (rng.uniform(0.02, 0.15) * _clouds(rng, cells))[..., None] * rng.uniform(0.6, 1.4, 3)
    if rng.random() < 0.3:
        surface += (rng.uniform(0.03, 0.15) * _stripes(rng))[..., None]
    surface += rng.normal(0, rng.uniform(0, 0.05), (SIDE, SIDE, 1))
    return surface


def _clouds(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise, about ±1, (SIDE, SIDE), interpolated from `cells`² random values."""
    small = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _stripes(rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE))
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 14)
    waves: np.ndarray = np.sin((columns * np.cos(angle) + rows * np.sin(angle)) * 2 * np.pi / period)
    return waves


def _grounds(rng: np.random.Generator, num_surfaces: int) -> np.ndarray:
    """Backgrounds: indices of one to three surfaces that cover the canvas, (SIDE, SIDE) uint8."""
    kinds = np.zeros((SIDE, SIDE), np.uint8)
    for kind in range(1, min(num_surfaces, int(rng.integers(2, 4)))):
        kinds[_clouds(rng, int(rng.integers(3, 9))) > rng.uniform(0.2, 1.2)] = kind
    return kinds


def _scatter(rng: np.random.Generator, sheet: _Sheet, kind: int) -> None:
    """Draw shapes of one surface and one form, on a grid or at random positions."""
    form = rng.choice(["box", "box", "ell", "round", "blob"])
    length = np.exp(rng.uniform(np.log(6), np.log(60)))
    size = np.array([length, max(3.0, length * rng.uniform(0.3, 1.0))])
    if rng.random() < 0.2:  # strips
        size = np.array([rng.uniform(80, 300), rng.uniform(3, 12)])
    count = min(40, int(rng.integers(1, max(2, int(12000 / size.prod())) + 1)))
    angle, gap = rng.uniform(0, np.pi), rng.uniform(1.15, 2.2)
    columns = int(np.ceil(np.sqrt(count) * rng.uniform(0.5, 2)))
    middle, anywhere = rng.uniform(0, SIDE, 2), rng.random() < 0.3
    shadow = rng.uniform(0.7, 3.5) if rng.random() < 0.5 else 0.0
    for number in range(count):
        if anywhere:
            place, angle = rng.uniform(0, SIDE, 2), rng.uniform(0, np.pi)
        else:
            cell = np.array([number % columns - columns / 2, number // columns - 1])
            place = placed(cell * size * gap, middle, angle)
        sheet.put(placed(_outline(rng, form, size), place, angle), kind, shadow)


def _outline(rng: np.random.Generator, form: str, size: np.ndarray) -> np.ndarray:
    """Corners (P, 2) of a form centred at the origin."""
    corners: np.ndarray
    if form == "box":
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    elif form == "ell":
        x, y = rng.uniform(-0.3, 0.3, 2)
        corners = np.array([[-1, -1], [1, -1], [1, y], [x, y], [x, 1], [-1, 1]])
    else:
        turns = np.arange(12) / 12 if form == "round" else np.sort(rng.uniform(0, 1, rng.integers(5, 10)))
        corners = np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)
        if form == "blob":
            corners *= rng.uniform(0.6, 1.1, (len(turns), 1))
    corners = corners * size / 2
    return corners


def _fill(outline: np.ndarray) -> np.ndarray:
    image = Image.new("1", (SIDE, SIDE))
    ImageDraw.Draw(image).polygon([tuple(point) for point in outline], fill=1)
    return np.asarray(image)
