"""Rasters for tests of `geo`, and a stand-in model that sees the shapes drawn in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from satlisa.geo.answers import Encode, Reply

UTM = "EPSG:32645"


def write(path: Path, values: np.ndarray, **options: Any) -> Path:
    """Write (bands, H, W) or (H, W) as a raster, by default half-metre pixels in UTM."""
    import rasterio
    from rasterio.transform import from_origin

    bands = values[None] if values.ndim == 2 else values
    if "crs" not in options:
        options = {"crs": UTM, "transform": from_origin(300_000, 3_000_000, 0.5, 0.5), **options}
    options = {"driver": "GTiff", **{key: value for key, value in options.items() if value is not None}}
    size = dict(count=len(bands), height=bands.shape[1], width=bands.shape[2], dtype=bands.dtype)
    with rasterio.open(path, "w", **size, **options) as dataset:
        dataset.write(bands)
    return path


def shapes(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Labels (H, W) uint8: rectangles apart and touching, one with a hole, a long one, an L; 0 is ground."""
    rng, labels, label = np.random.default_rng(seed), np.zeros((height, width), dtype=np.uint8), 2
    labels[height // 2 - 6 : height // 2 + 6, 3 : width - 3] = 1  # through all windows of a row
    labels[3 : height // 2 - 6, width // 2 - 4 : width // 2 + 5] = 2  # touches it
    for top in range(5, height - 75, 90):
        for left in range(5, width - 60, 75):
            rows, columns = rng.integers(25, 60, 2)
            if labels[top : top + rows + 12, left : left + columns].any():
                continue
            label += 1
            labels[top : top + rows, left : left + columns] = label
            if label % 3 == 0:  # a hole
                labels[top + 8 : top + 15, left + 6 : left + 14] = 0
            elif label % 5 == 0:  # an L
                labels[top : top + 10, left + 15 : left + columns] = 0
            if label % 4 == 0:  # another object that touches it
                label += 1
                labels[top + rows : top + rows + 12, left : left + columns] = label
    return labels


def see_objects(pictures: Sequence[Image.Image], encode: Encode) -> list[Reply]:
    """One mask for each grey level but 0."""
    replies = []
    for picture in pictures:
        grey = np.asarray(picture)[..., 0]
        levels = [level for level in np.unique(grey) if level]
        masks = [encode(np.where(grey == level, 8.0, -8.0)) for level in levels]
        replies.append(Reply(f"{len(levels)} objects", masks, [0.9] * len(levels)))
    return replies


def see_mask(pictures: Sequence[Image.Image], encode: Encode) -> list[Reply]:
    """One mask of everything but grey level 0; no mask where there is nothing."""
    replies = []
    for picture in pictures:
        grey = np.asarray(picture)[..., 0]
        masks = [encode(np.where(grey > 0, 8.0, -8.0))] if grey.any() else []
        replies.append(Reply("Buildings: <SEG>" if masks else "No buildings", masks, [0.8] * len(masks)))
    return replies


def see_text(pictures: Sequence[Image.Image], encode: Encode) -> list[Reply]:
    """Bright or dark, in words."""
    return [Reply("bright" if np.asarray(picture).mean() > 60 else "dark", [], []) for picture in pictures]
