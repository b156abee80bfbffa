"""Numbers of any type → the 256 levels that a person sees.

One rule for every file and array: what is 8-bit already is kept; 16-bit integers and floats from 0 to 1 that use their
scale are divided by it; anything else (11-bit sensors, reflectance × 10,000, radar, elevation) is stretched from the
2 % to the 98 % quantile of its valid values. All bands share the two quantiles, which keeps colours: on an 11-bit scene
the demo model reaches IoU 0.67 this way, 0.17 with two quantiles for each band.

Minimum and maximum would do only without outliers: one saturated pixel leaves 11-bit data 8 grey levels.
"""

import math
from collections.abc import Iterator

import numpy as np

_QUANTILES = (2, 98)  # percent
_LARGEST = 3.39e38  # absolute values from here on mean "no data": ±3.4e38 in float32, its largest value, infinity
_SAMPLE = 2**22  # values that quantiles are taken from: every s-th row and column of larger images
_BLOCK = 2**20  # values converted to float64 at a time
_LEAST_USE = 1 / 8  # share of its scale that an image has to use between the quantiles: 32 of 256 levels
# Of an alpha band: its values, and its pixels that are neither clear nor opaque, among all and among those not clear
_FEW_VALUES, _MANY_BETWEEN, _MOST_BETWEEN = 16, 0.25, 0.5


def to_8_bit(values: np.ndarray, nodata: float | None = None, shown: np.ndarray | None = None) -> np.ndarray:
    """Scale pixels to uint8; pixels without data are black and do not count for the stretch.

    Args:
        values: (H, W, C) booleans, integers or floats.
        nodata: the value that means "no data". A pixel is black if all its bands have it; one band may reach it.
        shown: (H, W) bool, False where there are no data.

    Returns:
        (H, W, C) uint8. A pixel with NaN, infinity or ±3.4e38 in any band is black too.
    """
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    scaled = values.copy() if values.dtype == np.uint8 else _scale(values, nodata, shown)
    if nodata is not None:
        scaled[_equal(values, nodata).all(axis=-1)] = 0
    if shown is not None:
        scaled[~shown] = 0
    return scaled


def _scale(values: np.ndarray, nodata: float | None, shown: np.ndarray | None) -> np.ndarray:
    scaled = np.zeros(values.shape, dtype=np.uint8)
    ends = _ends(values, nodata, shown)
    if ends is None:
        return scaled
    offset, top = ends
    for place in _blocks(values):
        block = values[place].astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity - infinity
            levels = np.clip(np.rint((block - offset) / (top - offset) * 255), 0, 255)
        levels[~_is_number(block).all(axis=-1)] = 0
        scaled[place] = levels
    return scaled


def _ends(values: np.ndarray, nodata: float | None, shown: np.ndarray | None) -> tuple[float, float] | None:
    """The values that become 0 and 255; None without valid values."""
    extremes = []
    for place in _blocks(values):
        if len(valid := _valid(values[place], nodata, None if shown is None else shown[place])):
            extremes += [float(valid.min()), float(valid.max())]
    if not extremes:
        return None
    least, most = min(extremes), max(extremes)
    every = _every(values)
    valid = _valid(values[every], nodata, None if shown is None else shown[every])
    low, high = np.percentile(valid.astype(np.float64), _QUANTILES) if len(valid) else (least, most)
    is_float = values.dtype.kind == "f"
    if not is_float and least >= 0 and most <= 255:
        return 0.0, 255.0
    full = 1.0 if is_float else 65535.0
    fills = least >= 0 and most <= full and (is_float or high >= 32768)
    if fills and (high - low >= _LEAST_USE * full or least == most):
        return 0.0, full
    if low == high:  # nearly all pixels are equal
        low, high = least, most
    if low == high:  # one grey, on the scale of its type
        return 0.0, 255.0 if is_float else 65535.0
    return float(low), float(high)


def _valid(values: np.ndarray, nodata: float | None, shown: np.ndarray | None) -> np.ndarray:
    """The values that are data, (K,)."""
    keep = _is_number(values)
    if nodata is not None:
        keep &= ~_equal(values, nodata)
    if shown is not None:
        keep &= shown[..., None]
    valid: np.ndarray = values[keep]
    return valid


def _equal(values: np.ndarray, nodata: float) -> np.ndarray:
    with np.errstate(over="ignore"):  # a number that the type cannot hold
        equal: np.ndarray = values == nodata
    return equal


def _is_number(values: np.ndarray) -> np.ndarray:
    """False for NaN, infinity and ±3.4e38."""
    if values.dtype.kind != "f":
        return np.ones(values.shape, dtype=bool)
    with np.errstate(invalid="ignore", over="ignore"):
        number: np.ndarray = np.abs(values.astype(np.float64, copy=False)) < _LARGEST
    return number


def _blocks(values: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of blocks of at most about `_BLOCK` values."""
    height, width, bands = values.shape
    columns = min(width, _BLOCK // bands)
    rows = max(1, _BLOCK // (columns * bands))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, top + rows), slice(left, left + columns)


def _every(values: np.ndarray) -> tuple[slice, slice]:
    """Every s-th row and column, so that about `_SAMPLE` values remain."""
    step = max(1, math.ceil(math.sqrt(values.size / _SAMPLE)))
    return slice(None, None, step), slice(None, None, step)


def is_transparency(alpha: np.ndarray, defined: bool = False) -> bool:
    """Whether a band (H, W) marked as alpha is one, and not near infrared that a program marked by default.

    Transparency is on or off nearly everywhere; a band of a sensor has values in between, and where it does not, it is
    dark (water) and not full.

    Args:
        defined: the format has no other bands than alpha (PNG): a gradient is one if it is clear or opaque anywhere.
    """
    if defined and (not alpha.all() or alpha.max() == np.iinfo(alpha.dtype).max):
        return True
    some, full = alpha[_every(alpha)], full_scale(alpha)
    between = np.count_nonzero((some > 0) & (some < full))
    most = min(_MANY_BETWEEN * some.size, _MOST_BETWEEN * np.count_nonzero(some))
    return bool(between <= most) or len(np.unique(some)) <= _FEW_VALUES


def full_scale(alpha: np.ndarray) -> float:
    """The value of an opaque pixel: 1 for floats, else the largest of as many bits as are used (255, 2047, 65535)."""
    if alpha.dtype.kind == "f":
        return 1.0
    return float(max(2 ** int(alpha.max()).bit_length() - 1, 255 if alpha.dtype == np.uint8 else 1))
