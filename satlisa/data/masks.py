"""Masks of pixels as polygons: COCO's run lengths, and images whose pixels say where the objects are.

A mask becomes one polygon around its pixels, exact at the mask's own size, so that whatever is done with polygons can
be done with masks.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from satlisa.data.image_cells import decode_base64
from satlisa.data.json_cells import describe
from satlisa.data.rasters import MAX_PIXELS, nodata_of
from satlisa.errors import first_line

_MOST_EDGES = 500_000  # horizontal pieces of a mask's outline; more is noise, and takes seconds to draw
_MOST_OBJECTS = 1000  # values of an image of instances
_FEWEST_ROWS = 8  # and columns of a mask that is a list of rows
_MOST_DIGITS = 13  # of a compressed run length, five bits each
_DARK, _LIGHT = 32, 223  # values of a black and white image that was saved as JPEG or smoothed
_FEWEST_GREYS = 4  # that smoothing makes besides black and white
_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG", "JPEG2000")


# Where EXIF's orientation puts a point (x, y) of the stored image, in fractions.
_TURNS: dict[int, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}


class Outline(NamedTuple):
    """The outline of a mask of pixels (P, 2) in fractions, and the mask's own (width, height)."""

    ring: np.ndarray
    size: tuple[int, int]

    def fit(self, size: tuple[int, int] | None, orientation: int = 1) -> np.ndarray:
        """The outline on the upright image of (width, height); a mask of the stored image's shape is turned with it.

        Raises:
            ValueError: a mask that has neither shape, at any scale.
        """
        width, height = expected = size or self.size
        stored = (height, width) if orientation in (5, 6, 7, 8) else expected
        if orientation in _TURNS and _is_shape(self.size, stored):
            return np.stack(_TURNS[orientation](*self.ring.T), axis=1)
        if not _is_shape(self.size, expected):
            found = f"{self.size[0]} × {self.size[1]}"
            raise ValueError(f"expected a mask of the image's shape ({width} × {height} pixels), found {found}")
        return self.ring


def _is_shape(found: tuple[int, int], expected: tuple[int, int]) -> bool:
    return abs(found[0] * expected[1] - found[1] * expected[0]) <= max(expected)


def read_masks(value: Any, instances: bool = False) -> list[Outline]:
    """The outlines of the masks in run lengths or in an image.

    Raises:
        ValueError: no such mask.
    """
    is_image = not is_run_lengths(value)
    masks = split_mask(read_mask_image(mask_source(value)), instances) if is_image else [read_run_lengths(value)]
    return [Outline(outline(mask), (mask.shape[1], mask.shape[0])) for mask in masks]


def is_run_lengths(value: Any) -> bool:
    """Whether a value is COCO's `{"counts", "size"}`, valid or not."""
    return isinstance(value, Mapping) and "counts" in value


def read_run_lengths(value: Mapping[str, Any]) -> np.ndarray:
    """A mask (H, W) bool from COCO's run lengths `{"counts", "size": [H, W]}`, counts as a list or compressed.

    Raises:
        ValueError: sizes or counts that are no such mask.
    """
    size, counts = value.get("size"), value["counts"]
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ValueError(f"expected run lengths with `size` [height, width], found {describe(value)}")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"expected run lengths of at most {MAX_PIXELS:,} pixels, found {size[0]:,} × {size[1]:,}")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list | tuple) or not all(type(run) is int and 0 <= run <= MAX_PIXELS for run in runs):
        raise ValueError(f"expected run lengths, found {describe(value)} whose counts are {describe(counts)}")
    if sum(runs) != size[0] * size[1]:
        reason = f"whose counts add up to {sum(runs):,} pixels, not {size[0]} × {size[1]}"
        raise ValueError(f"expected run lengths, found {describe(value)} {reason}")
    mask: np.ndarray = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[1], size[0]).T  # column by column
    return mask


def _decompress(text: str) -> list[int] | None:
    """The counts of COCO's compressed form: base 32 digits, from the third on differences; None: no such text."""
    runs: list[int] = []
    value = digits = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or digits == _MOST_DIGITS:
            return None
        value |= (code & 31) << (5 * digits)
        digits += 1
        if code & 32:
            continue
        if code & 16:
            value -= 1 << (5 * digits)
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = digits = 0
    return runs if digits == 0 else None


def mask_source(value: Any) -> Any:
    """A mask image in a cell or in JSON: its bytes, its path, a Pillow image, its values (H, W); None: no image."""
    if isinstance(value, Mapping):
        inner = value.get("bytes")
        return mask_source(inner if inner is not None else value.get("path"))
    if isinstance(value, bytes | bytearray | Image.Image | Path):
        return value
    if isinstance(value, list | tuple | np.ndarray):
        return _as_values(value)
    return decode_base64(value) if isinstance(value, str) else None


def _as_values(value: Any) -> np.ndarray | None:
    """The values of a mask (H, W) that is a list of rows; None for polygons, whose neighbours are x and y."""
    if not (len(value) >= _FEWEST_ROWS and all(isinstance(row, list | tuple | np.ndarray) for row in value)):
        return None
    width = len(value[0])
    if width < _FEWEST_ROWS or any(len(row) != width for row in value):
        return None
    if not isinstance(value[0][0], bool | int | float | np.number | np.bool_):
        return None
    try:
        values = np.asarray(value)
    except ValueError:
        return None
    if values.ndim != 2 or values.dtype.kind not in "biuf" or not np.isfinite(values).all() or (values % 1).any():
        return None
    is_smooth = np.mean(values[:, 1:] == values[:, :-1]) >= 0.5
    return values.astype(np.int64) if is_smooth else None


def is_encoded_mask(value: Any) -> bool:
    """Whether a value in JSON is the file of a mask image: bytes, base64, or an object that holds them."""
    return not (isinstance(value, Mapping) and "bytes" not in value) and mask_source(value) is not None


def read_mask_image(source: Any) -> np.ndarray:
    """The values of a mask image, (H, W) integers: grey levels, palette numbers, or a number per colour.

    Black and "no data" are 0.

    Raises:
        ValueError: not an image, broken or too large.
    """
    if isinstance(source, np.ndarray):
        if source.size > MAX_PIXELS:
            raise ValueError(f"is a mask of {source.size:,} values, at most {MAX_PIXELS:,} are read")
        return source
    try:
        opened = source if isinstance(source, Image.Image) else Image.open(_stream(source), formats=_FORMATS)
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width:,} × {opened.height:,} pixels, at most {MAX_PIXELS:,} are read")
        opened.load()
        values: np.ndarray = _values(opened)
        if (nodata := nodata_of(opened)) is not None:
            values[values == nodata] = 0
        return values
    except UnidentifiedImageError as error:
        raise ValueError("is not an image in a format that masks are read from") from error
    except Exception as error:  # broken files: Pillow's decoders raise many types
        raise ValueError(f"is a mask image that cannot be read ({first_line(error)})") from error


def _stream(source: Any) -> Any:
    return source if isinstance(source, str | Path) else io.BytesIO(source)


def _values(image: Image.Image) -> np.ndarray:
    if image.mode in ("1", "L", "P", "I;16", "I"):
        return np.asarray(image).astype(np.int64)
    if image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all() or (values % 1).any():
            raise ValueError("its values are fractions")
        return values.astype(np.int64)
    pixels = np.asarray(image.convert("RGBA")).astype(np.int64)
    red, green, blue, alpha = np.moveaxis(pixels, 2, 0)
    is_grey = bool((red == green).all() and (green == blue).all())
    return np.where(alpha > 0, red if is_grey else red << 16 | green << 8 | blue, 0)


def split_mask(values: np.ndarray, instances: bool) -> list[np.ndarray]:
    """The objects of a mask image, (H, W) bool each: its non-zero pixels, or, of instances, a mask per value.

    Raises:
        ValueError: more values than that: which of them are the object would be a guess.
    """
    levels = np.unique(values)
    levels = levels[levels != 0]
    if len(levels) < 2:
        return [values != 0] if len(levels) else []
    if _is_smoothed(values):
        return [values > 127]
    is_ignore = levels[-1] == 255 and levels[-2] == len(levels) - 1 < 254  # 1, 2, …, 255: not an object's number
    if instances and len(levels) <= _MOST_OBJECTS and not is_ignore:
        return [values == level for level in levels]
    some = ", ".join(map(str, levels[:5].tolist())) + ", …" * (len(levels) > 5)
    raise ValueError(f"is a mask image of {len(levels)} values besides 0 ({some}); expected one value for the object")


def _is_smoothed(values: np.ndarray) -> bool:
    """Whether an image is black and white, but for the many greys that JPEG or smoothing puts beside its edges.

    A few further values are classes, or "ignore", also where they are nearly black or nearly white.
    """
    if int(values.max()) > 255 or int(values.min()) < 0:
        return False
    counts = np.bincount(values.ravel(), minlength=256)
    black, white = int(counts[: _DARK + 1].argmax()), _LIGHT + int(counts[_LIGHT:].argmax())
    greys = np.flatnonzero(counts)
    greys = greys[(greys != black) & (greys != white)]
    if len(greys) < _FEWEST_GREYS or not np.count_nonzero(greys > _DARK) >= 2:
        return False
    light, dark = int(counts[_LIGHT:].sum()), int(counts[: _DARK + 1].sum())
    if not (light and dark and light + dark >= 0.9 * values.size and 2 * light >= values.size - dark):
        return False
    at_edge = _near(values >= _LIGHT) & _near(values <= _DARK)
    unlike = _blocks((values != black) & (values != white))
    return not bool((unlike & ~at_edge).any())


def _blocks(found: np.ndarray) -> np.ndarray:
    """Which of JPEG's blocks of 8 × 8 pixels hold a found pixel."""
    found = np.pad(found, [(0, -side % 8) for side in found.shape])
    return np.asarray(found.reshape(found.shape[0] // 8, 8, -1, 8).any(axis=(1, 3)))


def _near(found: np.ndarray) -> np.ndarray:
    """Which blocks hold a found pixel, or are beside one that does."""
    padded: np.ndarray = np.pad(_blocks(found), 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return np.asarray(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])


def outline(mask: np.ndarray) -> np.ndarray:
    """A polygon (P, 2) in fractions that covers exactly the pixels of a mask (H, W) bool, by the even-odd rule.

    It runs down to each horizontal piece of the pixels' outline, along it, and up again; vertical lines enclose
    nothing, and what is passed twice cancels. (0, 2) for an empty mask.

    Raises:
        ValueError: a mask of noise.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), dtype=bool)
    padded[1:-1, 1:-1] = mask
    edges = padded[1:] != padded[:-1]  # (H + 1, W + 2): between this row and the one above
    y, left = np.nonzero(edges[:, 1:] & ~edges[:, :-1])
    right = np.nonzero(edges[:, :-1] & ~edges[:, 1:])[1]
    if len(y) > _MOST_EDGES:
        raise ValueError(f"is a mask with an outline of {len(y):,} pieces; at most {_MOST_EDGES:,} are read")
    if not len(y):
        return np.empty((0, 2))
    order = np.argsort(left, kind="stable")
    y, left, right = y[order], left[order], right[order]
    top = np.full_like(y, y.min())
    corners = np.stack([np.stack([left, left, right, right], 1), np.stack([top, y, y, top], 1)], axis=2)
    return corners.reshape(-1, 2) / (width, height)
