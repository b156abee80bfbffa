"""Load images: any source becomes an upright 8-bit RGB image.

Pillow's `convert("RGB")` saturates 16-bit images and turns floats in [0, 1] black, so values are scaled first
(`stretch.to_8_bit`). Files that Pillow does not read at full depth are read by `rasters`. Transparency and pixels
without data are black, the convention of satellite tiles.

Images are untrusted: one whose header claims more than `MAX_PIXELS` is refused before memory is allocated for it.
"""

import hashlib
import io
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from satlisa.data.notes import note, note_left_out
from satlisa.data.rasters import (
    MAX_PIXELS,
    Raster,
    check_pixels,
    nodata_of,
    read_deep,
    read_unidentified,
    too_large,
)
from satlisa.data.stretch import full_scale, is_transparency, to_8_bit
from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.locations import existing_place

ImageSource = str | Path | bytes | IO[bytes] | Mapping[str, Any] | Image.Image | np.ndarray

_log = logging.getLogger(__name__)
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # what it does not read, `rasters` may read
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
_MOST_BANDS = 16  # of an array whose axis of bands is not 1, 3 or 4 long


@dataclass(frozen=True)
class Opened:
    """An image as a person sees it, and how its source stores it.

    Attributes:
        rgb: upright, 8-bit RGB.
        orientation: EXIF's, 1 to 8; 1: stored upright.
    """

    rgb: Image.Image
    orientation: int = 1

    def to_stored(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (..., H, W) of the upright image on the pixel grid of the source, as `Image.open` sees it."""
        number = self.orientation
        if number in (5, 6, 7, 8):
            pixels = pixels.swapaxes(-2, -1)
        if number in (2, 3, 7, 8):
            pixels = pixels[..., ::-1]
        return pixels[..., ::-1, :] if number in (3, 4, 6, 7) else pixels

    def stored(self) -> Image.Image:
        """The image on the pixel grid of the source, not turned."""
        if self.orientation == 1:
            return self.rgb
        return Image.fromarray(self.to_stored(np.asarray(self.rgb).transpose(2, 0, 1)).transpose(1, 2, 0))


def open_image(source: ImageSource) -> Image.Image:
    """Load an image completely, as upright RGB; the source and its file may be closed or changed afterwards.

    Args:
        source: a path, an encoded file's bytes, a file opened in binary mode, a dataset's `{"bytes": …, "path": …}`
            (bytes take precedence), a Pillow image, or an array: (H, W), (H, W, C) in RGB order, or (C, H, W) where the
            shape leaves no doubt, of booleans, integers or floats, what it masks being black. Only the first frame of
            a file is read.

    Raises:
        SatlisaError: file not found, not an image, broken or too large, or an unsupported type of source.
    """
    return open_oriented(source).rgb


def open_oriented(source: ImageSource) -> Opened:
    """`open_image`, with the orientation of the source."""
    if isinstance(source, Mapping):
        data, path = source.get("bytes"), source.get("path")
        if data is None and path is None:
            raise SatlisaError("the image has neither `bytes` nor `path`; give one of them")
        return _read(path if data is None else data, name=f"image {path}" if path else None)
    if isinstance(source, np.ndarray):
        return Opened(_show(_from_array(source), "array"))
    if isinstance(source, str | Path) and str(source).startswith("~"):
        source = existing_place(str(source)) or source
    return _read(source)


def to_rgb(image: Image.Image, name: str | None = None) -> Image.Image:
    """Upright RGB copy of a Pillow image, without metadata; idempotent.

    - EXIF orientation is applied; unreadable EXIF is logged and ignored.
    - Alpha, palette transparency and a transparent colour are composited over black. An alpha band whose values are
      spread like a sensor's is near infrared that a program marked by default: it is left out, and this is logged.
    - Numbers that are not 8-bit are scaled as `stretch.to_8_bit` says, 16-bit colour at its full depth if the image was
      opened from a file and is not loaded yet.
    - `name` stands for the image in what is logged; by default its file.
    - Pixels that the file marks as "no data" (GDAL's tag, a mask, NaN, ±3.4e38) are black.

    Raises:
        OSError and other errors of Pillow: a lazily read file is broken; `open_image` turns them into `SatlisaError`.
    """
    name = name or _name_of(image)
    raster = read_deep(image, name)
    if raster is not None:
        return _turn(_show(raster, name), raster.orientation if image.format == "TIFF" else _orientation(image))
    note_left_out(image, name)
    image.load()  # before EXIF: Pillow rotates TIFFs while loading and then removes the tag
    return _turn(_show_loaded(image, name), _orientation(image))


def fingerprint(image: Image.Image, source: Any = None) -> str:
    """Hash that identifies an image: of its encoded bytes, or of mode, size and pixels.

    Args:
        source: where the image comes from; bytes, a path or a dataset's cell of either give the encoded bytes.
    """
    digest = hashlib.blake2b(digest_size=32)  # faster than SHA-256 on processors without instructions for it
    if isinstance(source, Mapping):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    try:
        encoded = source if isinstance(source, bytes) else Path(source).read_bytes()
        digest.update(encoded)
    except (OSError, TypeError, ValueError):  # no file: an array, a Pillow image, text that holds the image
        digest.update(f"{image.mode} {image.size} ".encode())
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _name_of(image: Image.Image) -> str:
    return f"image {getattr(image, 'filename', '') or 'object'}"


def _read(source: Any, name: str | None = None) -> Opened:
    opened: Image.Image | Path | io.BytesIO
    if isinstance(source, Image.Image):
        name, opened = name or _name_of(source), source
    elif isinstance(source, str | Path):
        name, opened = f"image {source}", Path(source)
    elif isinstance(source, bytes):
        name, opened = name or f"image of {len(source):,} bytes", io.BytesIO(source)
    elif hasattr(source, "read"):
        return _read(_read_file(source), f"image {getattr(source, 'name', 'file')}")
    else:
        raise SatlisaError(
            f"expected an image (path, bytes, open file, Pillow image or array), found {type(source).__name__}"
        )
    try:
        if isinstance(opened, Path) and opened.is_dir():
            raise SatlisaError(f"{name}: expected a file, found a folder; name an image in it")
        if isinstance(opened, Image.Image):
            return _within_limit(opened, name)
        return _decode(opened, name)
    except SatlisaError:
        raise
    except FileNotFoundError as error:
        raise SatlisaError(f"{name}: no such file; check the path") from error
    except UnidentifiedImageError as error:
        raise SatlisaError(f"{name} is not an image in a format that is read; give a PNG, JPEG or TIFF") from error
    except Image.DecompressionBombError as error:  # above twice MAX_IMAGE_PIXELS; the message has only the pixel count
        pixels = re.search(r"\d+", str(error))
        raise too_large(name, f"{int(pixels.group()):,} pixels" if pixels else first_line(error)) from error
    except Exception as error:  # broken files: Pillow's decoders raise many types
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise SatlisaError(f"{name} cannot be read ({reason}); save or download it again") from error


def _read_file(file: Any) -> bytes:
    """All bytes of an open file, from its start where it can seek."""
    try:
        if file.seekable():
            file.seek(0)
        data = file.read()
    except (OSError, ValueError, AttributeError) as error:  # closed, or opened for writing
        raise SatlisaError(f"the open file of the image cannot be read ({first_line(error)}); open it again") from error
    if not isinstance(data, bytes):
        raise SatlisaError('the file of the image is open as text; open it with "rb"')
    return data


def _decode(source: Path | io.BytesIO, name: str) -> Opened:
    try:
        image = _open(source)
    except UnidentifiedImageError:
        with io.BytesIO(source.getvalue()) if isinstance(source, io.BytesIO) else source.open("rb") as file:
            raster = read_unidentified(file, name)
        if raster is None:
            raise
        return Opened(_turn(_show(raster, name), raster.orientation))
    with image:
        return _within_limit(image, name)


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


def _within_limit(image: Image.Image, name: str) -> Opened:
    check_pixels(image.width, image.height, name)
    rgb = to_rgb(image, name)
    # Pillow itself shows a TIFF upright, and says its size so.
    return Opened(rgb, 1 if image.format == "TIFF" else _orientation(image, logging.DEBUG))


def _orientation(image: Image.Image, level: int = logging.WARNING) -> int:
    try:
        found = int(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # broken EXIF raises SyntaxError, struct.error, …; the pixels are valid
        _log.log(level, "EXIF of %s is unreadable (%s); the image is taken as upright", image, error)
        return 1
    return found if found in _UPRIGHT else 1


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _show_loaded(image: Image.Image, name: str) -> Image.Image:
    """The pixels of a loaded Pillow image as RGB."""
    nodata = nodata_of(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _show(Raster(np.asarray(image)[..., None], nodata=nodata), name)
    shown = image
    if image.mode in ("RGBA", "LA") and not _is_clear(
        np.asarray(image.getchannel("A")), name, image.format not in (None, "TIFF", "JPEG2000")
    ):
        shown = image.convert("RGBA").convert("RGB")
    elif image.has_transparency_data:
        shown = _over_black((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    rgb = shown.convert("RGB")
    rgb.info = {}
    if nodata is not None and image.mode in ("L", "LA", "P", "RGB", "RGBA", "RGBX"):
        stored = np.asarray(image).reshape(image.height, image.width, -1)
        colours = stored[..., : 3 if image.mode.startswith("RGB") else 1]
        rgb.paste(0, mask=Image.fromarray((colours == nodata).all(axis=-1)))
        _say_if_black(rgb, name)
    return rgb


def _show(raster: Raster, name: str) -> Image.Image:
    """The pixels of a raster as RGB, not turned."""
    alpha, shown = raster.alpha, raster.shown
    if alpha is not None and not _is_clear(alpha, name, raster.defined):
        alpha = None
    if alpha is not None:
        shown = alpha > 0 if shown is None else shown & (alpha > 0)
    levels = to_8_bit(raster.values, raster.nodata, shown)
    rgb = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).convert("RGB")
    _say_if_black(rgb, name)
    if alpha is not None:
        opacity = np.clip(np.nan_to_num(alpha / np.float32(full_scale(alpha))), 0, 1)
        rgb.putalpha(Image.fromarray(np.rint(opacity * 255).astype(np.uint8)))
        rgb = _over_black(rgb).convert("RGB")
    return rgb


def _say_if_black(rgb: Image.Image, name: str) -> None:
    if rgb.getbbox() is None:
        note(name, "is black everywhere: no pixel holds data")


def _is_clear(alpha: np.ndarray, name: str, defined: bool) -> bool:
    """Whether a band marked as alpha is transparency; where it is not, this is said."""
    if is_transparency(alpha, defined):
        return True
    note(
        name,
        "has a last band marked as transparency with the values of a sensor's band, such as near infrared; "
        "it is left out",
    )
    return False


def _over_black(rgba: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)


def _from_array(array: np.ndarray) -> Raster:
    """An array with its bands last, the fourth or second of them as alpha."""
    values = array[..., None] if array.ndim == 2 else array
    if values.ndim != 3 or values.size == 0 or values.dtype.kind not in "buif" or (bands := _band_axis(values)) is None:
        raise SatlisaError(
            "expected an image array (height, width), (height, width, 1, 3 or 4) or the same with the bands first, "
            f"of integers or floats, found {array.shape} of {array.dtype}; convert it, or give a Pillow image"
        )
    values = np.moveaxis(values, bands, -1)
    check_pixels(values.shape[1], values.shape[0], "array")
    count = values.shape[2]
    colours, shown = values[..., :3] if count > 2 else values[..., :1], None
    if isinstance(colours, np.ma.MaskedArray):
        # A roof that saturates in one 8-bit band is no hole; of other types, what is masked must not be stretched.
        hidden = np.ma.getmaskarray(colours)
        shown = np.logical_not(hidden.all(axis=-1) if values.dtype == np.uint8 else hidden.any(axis=-1))
    return Raster(np.ma.getdata(colours), np.ma.getdata(values[..., -1]) if count in (2, 4) else None, shown=shown)


def _band_axis(array: np.ndarray) -> int | None:
    """Which axis of (A, B, C) holds the bands: one of 1, 3 or 4, the last before the first, else one of few."""
    for axis in (2, 0):
        if array.shape[axis] in (1, 3, 4):
            return axis
    few = [axis for axis in (2, 0) if array.shape[axis] <= _MOST_BANDS]
    return few[0] if len(few) == 1 else None
