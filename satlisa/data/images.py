"""Load images: any source becomes an upright 8-bit RGB image.

Pillow's `convert("RGB")` saturates 16-bit images and turns floats in [0, 1] black, so values are scaled first.
Transparency is composited over black, the "no data" convention of satellite tiles.

Images are untrusted: one whose header claims more than `MAX_PIXELS` is refused before memory is allocated for it.
"""

import hashlib
import io
import logging
import re
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from satlisa.errors import SatlisaError, first_line

MAX_PIXELS = 178_956_970
"""Largest image in pixels, half a gigabyte as RGB: twice Pillow's `MAX_IMAGE_PIXELS`, above which Pillow raises."""

ImageSource = str | Path | bytes | Mapping[str, Any] | Image.Image | np.ndarray

_log = logging.getLogger(__name__)
_pillow_limit = threading.Lock()
_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: ImageSource) -> Image.Image:
    """Load an image completely, as upright RGB; the source and its file may be closed or changed afterwards.

    Args:
        source: a path, an encoded file's bytes, a dataset's `{"bytes": …, "path": …}` (bytes take precedence), a Pillow
            image, or a uint8 array (H, W, 3) in RGB order. Only the first frame of a multi-frame file is read.

    Raises:
        SatlisaError: file not found, not an image, broken or too large, or an unsupported type of source.
    """
    if isinstance(source, Mapping):
        data, path = source.get("bytes"), source.get("path")
        if data is None and path is None:
            raise SatlisaError("the image has neither `bytes` nor `path`; give one of them")
        return _read(path if data is None else data, name=f"image {path}" if path else None)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    return _read(source)


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB copy of a Pillow image, without metadata; idempotent.

    - EXIF orientation is applied; unreadable EXIF is logged and ignored.
    - Alpha, palette transparency and a transparent colour are composited over black.
    - Integers (`I;16`, `I`): 0..255 is kept; 16-bit values that use the top bit (up to 65,535) are divided by 257;
      anything else, such as 11- or 12-bit sensor data, is stretched from its own minimum..maximum to 0..255.
    - Floats (`F`): 0..1 becomes 0..255, any other range is stretched; NaN and infinities ("no data") become black.

    Pillow itself reduces 16-bit *colour* files to 8 bits, the upper byte of each channel.

    Raises:
        OSError and other errors of Pillow: a lazily read file is broken; `open_image` turns them into `SatlisaError`.
    """
    image.load()  # before EXIF: Pillow rotates TIFFs while loading and then removes the tag
    image = _upright(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    elif image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def fingerprint(image: Image.Image) -> str:
    """SHA-256 of mode, size and pixels."""
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def _read(source: Any, name: str | None = None) -> Image.Image:
    opened: Image.Image | Path | io.BytesIO
    if isinstance(source, Image.Image):
        name, opened = name or f"image {getattr(source, 'filename', '') or 'object'}", source
    elif isinstance(source, str | Path):
        name, opened = f"image {source}", Path(source)
    elif isinstance(source, bytes):
        name, opened = name or f"image of {len(source):,} bytes", io.BytesIO(source)
    else:
        raise SatlisaError(f"expected an image (path, bytes, Pillow image or array), found {type(source).__name__}")
    try:
        if isinstance(opened, Path) and opened.is_dir():
            raise SatlisaError(f"{name}: expected a file, found a folder; name an image in it")
        if isinstance(opened, Image.Image):
            return _to_rgb_within_limit(opened, name)
        with _open(opened) as image:
            return _to_rgb_within_limit(image, name)
    except SatlisaError:
        raise
    except FileNotFoundError as error:
        raise SatlisaError(f"{name}: no such file; check the path") from error
    except UnidentifiedImageError as error:
        raise SatlisaError(f"{name} is not an image in a format that is read; give a PNG, JPEG or TIFF") from error
    except Image.DecompressionBombError as error:  # above twice MAX_IMAGE_PIXELS; the message has only the pixel count
        pixels = re.search(r"\d+", str(error))
        raise _too_large(name, f"{int(pixels.group()):,} pixels" if pixels else first_line(error)) from error
    except Exception as error:  # broken files: Pillow's decoders raise many types
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise SatlisaError(f"{name} cannot be read ({reason}); save or download it again") from error


def _open(source: Path | io.BytesIO) -> Image.Image:
    """Open an image; Pillow's limit for decompression-bomb warnings is `MAX_PIXELS` during this call only."""
    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
        try:
            return Image.open(source, formats=_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = before


@cache
def _formats() -> tuple[str, ...]:
    """All formats that Pillow reads except PostScript, a program that Pillow would pass to Ghostscript to run."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _to_rgb_within_limit(image: Image.Image, name: str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, f"{image.width:,} × {image.height:,} pixels")
    return to_rgb(image)


def _too_large(name: str, size: str) -> SatlisaError:
    return SatlisaError(
        f"{name} is too large: {size}, at most {MAX_PIXELS:,} are read; cut it into tiles or scale it down"
    )


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise SatlisaError(
            f"expected an image array (height, width, 3) of uint8, found {array.shape} of {array.dtype}; "
            "convert it, or give a Pillow image"
        )
    return Image.fromarray(array.copy())  # fromarray may share memory


def _upright(image: Image.Image) -> Image.Image:
    try:
        transpose = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # broken EXIF raises SyntaxError, struct.error, …; the pixels are valid
        _log.warning("EXIF of %s is unreadable (%s); the image is taken as upright", image, error)
        return image
    return image if transpose is None else image.transpose(transpose)


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale (H, W) integers or floats to uint8 by the rules in `to_rgb`."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = float(values[finite].min()), float(values[finite].max())
    offset, top = low, high
    if low >= 0 and values.dtype.kind == "f" and high <= 1:
        offset, top = 0.0, 1.0
    elif low >= 0 and values.dtype.kind != "f" and (high <= 255 or 32768 <= high <= 65535):
        offset, top = 0.0, (255.0 if high <= 255 else 65535.0)
    elif low == high:  # constant image: one grey, on the scale of its type
        offset, top = 0.0, (65535.0 if values.dtype.kind != "f" else 255.0)
    # Halved first, because differences of extreme floats overflow.
    scaled = (np.where(finite, values, offset) / 2 - offset / 2) / (top / 2 - offset / 2) * 255.0
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)
