"""Numbers of a scene → the 256 levels that a person sees, by one stretch for the whole scene.

As QGIS shows a raster: 8-bit values as they are, anything else from the 2 % to the 98 % quantile of each band. The
quantiles are those of the scene, never of a window, so that an object has the same colours in two windows.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from satlisa.errors import SatlisaError

_EXACT = 2**24  # pixels up to which every one counts
_SIDE, _PLACES = 256, 16  # a sample: places × places squares, evenly spread
_LARGEST = 3.39e38  # absolute values from here on mean "no data"
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


@dataclass(frozen=True)
class Stretch:
    """How values become levels: `kind` is "auto" (2–98 %, 8-bit as it is), "none", "percent" or "fixed".

    Attributes:
        low, high: percent, or values.
        shared: one pair of quantiles for all bands, as plain pictures are read.
    """

    kind: str = "auto"
    low: float = 2.0
    high: float = 98.0
    shared: bool = False


def parse_stretch(text: str | None) -> Stretch:
    """Read `--stretch`: none; 2,98 (percent); 2,98,shared; min,max (of the scene); fixed:0,3000 (values).

    Raises:
        SatlisaError: anything else, and numbers that could be percent or values.
    """
    if text is None:
        return Stretch()
    if text in ("none", "min,max"):
        return Stretch("none") if text == "none" else Stretch("percent", 0, 100)
    found = re.fullmatch(rf"(fixed:)?({_NUMBER}),({_NUMBER})(,shared)?", text.replace(" ", "").lower())
    if found is None or not -math.inf < float(found[2]) < float(found[3]) < math.inf or (found[1] and found[4]):
        raise SatlisaError(
            f"--stretch: expected percent (2,98 or 2,98,shared), none, min,max or values (fixed:0,3000), found '{text}'"
        )
    low, high = float(found[2]), float(found[3])
    if found[1] or low < 0 or high > 100:
        return Stretch("fixed", low, high)
    if low >= 50 or high <= 50:
        raise SatlisaError(f"--stretch: {text} is no share of low and high values; for values write fixed:{text}")
    return Stretch("percent", low, high, bool(found[4]))


def find_ends(dataset: Any, bands: Sequence[int], stretch: Stretch, alpha: int | None = None) -> np.ndarray:
    """The values of each band that become 0 and 255: (bands, 2) float64. What band `alpha` hides does not count."""
    types = [np.dtype(dataset.dtypes[band - 1]) for band in bands]
    if stretch.kind == "none" or (stretch.kind == "auto" and all(kind == np.uint8 for kind in types)):
        return np.array([_full_range(kind) for kind in types])
    if stretch.kind == "fixed":
        return np.array([[stretch.low, stretch.high]] * len(bands))
    samples = [_sample(dataset, band, alpha) for band in bands]
    if stretch.shared:
        samples = [np.concatenate(samples)] * len(bands)
    return np.array([_quantiles(sample, stretch) for sample in samples])


def to_levels(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Values (bands, H, W) → uint8 of the same shape; NaN and infinity are 0 here."""
    levels = np.empty(values.shape, dtype=np.uint8)
    for band, (low, high) in enumerate(ends):
        if values.dtype == np.uint8 and (low, high) == (0, 255):
            levels[band] = values[band]
            continue
        scaled = values[band].astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (scaled - low) * (255 / (high - low))
        levels[band] = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255))
    return levels


def are_numbers(values: np.ndarray) -> np.ndarray:
    """False for NaN, infinity and ±3.4e38."""
    if values.dtype.kind != "f":
        return np.ones(values.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(values) < _LARGEST)


def _full_range(kind: np.dtype[Any]) -> tuple[float, float]:
    if kind.kind == "f":
        return 0.0, 1.0
    limits = np.iinfo(kind)
    return float(limits.min), float(limits.max)


def _quantiles(sample: np.ndarray, stretch: Stretch) -> tuple[float, float]:
    if sample.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(sample, [stretch.low, stretch.high])
    if low == high:  # nearly all pixels are equal
        low, high = sample.min(), sample.max()
    return (float(low), float(high)) if low < high else (float(low), float(low) + 1.0)


def _sample(dataset: Any, band: int, alpha: int | None) -> np.ndarray:
    """Valid values of a band: all of them, those of an overview, or those of squares spread over the scene."""
    height, width = dataset.height, dataset.width
    if height * width <= _EXACT:
        return _valid(dataset, band, alpha, None, None)
    factors = [f for f in dataset.overviews(band) if height * width / f**2 >= _EXACT / 16]
    if factors:
        shape = (math.ceil(height / factors[-1]), math.ceil(width / factors[-1]))
        return _valid(dataset, band, alpha, None, shape)
    rows, columns = (np.linspace(0, max(0, side - _SIDE), _PLACES).astype(int) for side in (height, width))
    places = [Window(int(x), int(y), min(_SIDE, width), min(_SIDE, height)) for y in rows for x in columns]
    return np.concatenate([_valid(dataset, band, alpha, place, None) for place in places])


def _valid(
    dataset: Any, band: int, alpha: int | None, window: Window | None, shape: tuple[int, int] | None
) -> np.ndarray:
    values = dataset.read(band, window=window, out_shape=shape)
    keep = are_numbers(values) & band_mask(dataset, band, window, shape)
    if alpha is not None:
        keep &= dataset.read(alpha, window=window, out_shape=shape) > 0
    return np.asarray(values[keep])


def band_mask(dataset: Any, band: int, window: Window | None, shape: tuple[int, int] | None) -> np.ndarray:
    """Where a band has data (H, W), by its nodata value and the file's masks.

    GDAL's mask from an alpha band is left out: that band may be a sensor's, and GDAL finds 1 of 65535 to be clear.
    """
    if MaskFlags.alpha in dataset.mask_flag_enums[band - 1]:
        height, width = shape or ((window.height, window.width) if window else dataset.shape)
        return np.ones((height, width), dtype=bool)
    return np.asarray(dataset.read_masks(band, window=window, out_shape=shape) > 0)
