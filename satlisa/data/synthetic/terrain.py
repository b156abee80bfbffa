"""Ground textures of the synthetic scenes: each land cover is a (SIDE, SIDE, 3) float32 array, 0..255.

The frame is SIDE × SIDE units. Scenes are drawn at twice that resolution and downsampled, which smooths edges.
"""

import numpy as np
from PIL import Image

SIDE = 256
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


def noise(rng: np.random.Generator, cells: int, octaves: int = 3) -> np.ndarray:
    """Smooth value noise: (SIDE, SIDE) float32, about 0..1, `cells` blobs per side in the coarsest octave."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for octave in range(octaves):
        side = min(SIDE, cells * 2**octave)
        grid = Image.fromarray(rng.random((side, side), dtype=np.float32))
        total += np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 2**octave
    return total / sum(0.5**octave for octave in range(octaves))


def rotated(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of every unit from the centre, u along `angle` and v across it; angle in radians."""
    x, y = _X - SIDE / 2, _Y - SIDE / 2
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def blend(colours: list[tuple[int, int, int]], amount: np.ndarray) -> np.ndarray:
    """Colour ramp: `amount` (SIDE, SIDE) in 0..1 interpolates linearly between the colours."""
    stops = np.linspace(0, 1, len(colours))
    channels = [np.interp(amount, stops, [colour[c] for colour in colours]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def shade(colour: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Multiply a (SIDE, SIDE, 3) colour by a (SIDE, SIDE) brightness."""
    return np.asarray(colour * light[..., None], dtype=np.float32)


def grass(rng: np.random.Generator) -> np.ndarray:
    """Lawn and meadow: soft green with dry patches."""
    ground = blend([(88, 116, 62), (112, 140, 76), (140, 152, 92)], noise(rng, 5, 4))
    return shade(ground, 0.9 + 0.2 * noise(rng, 64, 2))


def farmland(rng: np.random.Generator, angle: float) -> np.ndarray:
    """A patchwork of fields with crop rows, split along one direction and then across it."""
    u, v = rotated(angle)
    bands = np.searchsorted(np.cumsum(rng.uniform(55, 95, 5)) - 200, u)
    ground = np.zeros((SIDE, SIDE, 3), np.float32)
    palette = [(96, 128, 58), (134, 150, 72), (176, 164, 98), (146, 112, 76), (74, 104, 50), (190, 178, 124)]
    for band in range(6):
        rows = np.searchsorted(np.cumsum(rng.uniform(60, 120, 4)) - rng.uniform(150, 210), v)
        for row in range(5):
            inside = (bands == band) & (rows == row)
            along = u if rng.random() < 0.5 else v
            stripes = 1 + rng.uniform(0.06, 0.14) * np.sin(along * (2 * np.pi / rng.uniform(5, 9)))
            colour = np.array(palette[rng.integers(len(palette))], np.float32)
            ground[inside] = (stripes[..., None] * colour)[inside]
    return shade(ground, 0.85 + 0.3 * noise(rng, 8, 4))


def forest(rng: np.random.Generator) -> np.ndarray:
    """The dark floor of a forest; crowns are drawn on top."""
    return blend([(30, 48, 26), (44, 66, 34), (60, 80, 42)], noise(rng, 12, 4))


def desert(rng: np.random.Generator, angle: float) -> np.ndarray:
    """Sand with wind-blown dunes: a warped saw wave, lit from one side."""
    u, _ = rotated(angle)
    phase = (u + 60 * noise(rng, 3, 2)) / rng.uniform(16, 30)
    wave = phase - np.floor(phase)
    light = 0.9 + 0.16 * wave - 0.22 * np.clip(wave - 0.85, 0, None) / 0.15
    return shade(blend([(206, 170, 116), (222, 190, 138), (232, 206, 158)], noise(rng, 4, 3)), light)


def concrete(rng: np.random.Generator, angle: float) -> np.ndarray:
    """Yards of an industrial site: slabs of grey, stained."""
    u, v = rotated(angle)
    seams = (np.abs(u % 24) < 0.8) | (np.abs(v % 24) < 0.8)
    ground = blend([(126, 124, 120), (148, 146, 140), (166, 162, 152)], noise(rng, 6, 4))
    return shade(ground, np.where(seams, 0.88, 1.0).astype(np.float32))


def river_distance(rng: np.random.Generator, angle: float) -> np.ndarray:
    """Signed distance to the bank of a river along `angle`: (SIDE, SIDE) units, negative in the water."""
    u, v = rotated(angle)
    bend = rng.uniform(12, 26) * np.sin(u / rng.uniform(34, 56) + rng.uniform(0, 6)) + 14 * noise(rng, 4, 2)
    return np.asarray(np.abs(v - bend - rng.uniform(-30, 20)) - rng.uniform(22, 36))


def lake_distance(rng: np.random.Generator) -> np.ndarray:
    """Signed distance to the shore of a lake: (SIDE, SIDE) units, negative in the water."""
    x, y = rng.uniform(0.15, 0.85, 2) * SIDE
    return np.asarray(np.hypot(_X - x, _Y - y) - rng.uniform(34, 46) + 40 * (noise(rng, 5, 3) - 0.5))


def flood_opacity(rng: np.random.Generator) -> np.ndarray:
    """Opacity (SIDE, SIDE), 0..0.8, of muddy water that enters from one side."""
    u, _ = rotated(rng.uniform(0, 2 * np.pi))
    depth = u - rng.uniform(-50, 40) + 60 * (noise(rng, 4, 3) - 0.5)
    return np.clip(depth / 8, 0, 0.8)


def flood_colour(rng: np.random.Generator) -> np.ndarray:
    """Colour of muddy water with faint streaks: (SIDE, SIDE, 3)."""
    silt = blend([(112, 84, 54), (134, 102, 68), (150, 120, 84)], noise(rng, 6, 3))
    return shade(silt, 0.96 + 0.1 * noise(rng, 40, 2))


def fill_water(rng: np.random.Generator, ground: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Fill with clear water where `distance` is below 0, with a sandy rim: (SIDE, SIDE, 3)."""
    water = blend([(30, 66, 92), (44, 88, 112), (58, 104, 122)], np.clip(1 + distance / 30, 0, 1))
    water = shade(water, 0.94 + 0.12 * noise(rng, 24, 3))
    rim = np.clip(1 - distance / 6, 0, 1)[..., None]
    ground = ground * (1 - rim) + np.array([176, 160, 122], np.float32) * rim
    return np.where((distance < 0)[..., None], water, ground).astype(np.float32)
