"""Pixels that Pillow cannot decode or reduces to 8 bits: TIFF, JPEG 2000 and PNG at full depth.

Pillow reads 8-bit colour, and grey of up to 32 bits. 16-bit colour loses its lower byte there, and most of what GDAL
writes (more than three bands, planar or float colour, signed integers, LERC, WebP) is refused. `tifffile` and
`imagecodecs` read these; both are imported when such a file comes.

The files are untrusted. The sizes of the image, of its strips and tiles, and the size that a tile's own header claims
are compared with the limits before memory is allocated.
"""

import io
import logging
import math
import re
import struct
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from satlisa.data.notes import MORE_PAGES, TWO_BANDS, note
from satlisa.errors import SatlisaError

MAX_PIXELS = 178_956_970
"""Largest image in pixels, half a gigabyte as RGB: twice Pillow's `MAX_IMAGE_PIXELS`, above which Pillow raises."""

_MAX_BYTES = 6 * MAX_PIXELS  # decoded at a time: 16-bit RGB of the largest size
_PADDING = 2**26  # samples that tiles may hold outside the image
_MAX_PAGES = 32  # pages of a TIFF among which its mask is looked for
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_CODESTREAM = b"\xff\x4f\xff\x51"  # JPEG 2000: the markers SOC and SIZ
_JPEG2000_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", _CODESTREAM)

# Tags and values of TIFF
_BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 259, 262, 274, 339
_GDAL_METADATA, _GDAL_NODATA = 42112, 42113
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG, _LERC, _WEBP = 7, 34887, 50001
_JPEG2000 = {33003, 33004, 33005, 34712}
_DECODED = {1, 5, 8, 32773, 32946, 34925, 50000, _JPEG, _LERC, _WEBP} | _JPEG2000
_ITEM = re.compile(r'<Item[^>]* sample="(\d+)"[^>]* role="(colorinterp|description)"[^>]*>([^<]+)<', re.I)
_BAND = re.compile(r"(?:b(?:and)?\s*\d+\W*)?(red|green|blue|alpha|nir|near.?infra.?red)\W*", re.I)  # "Band 4 (Red)"
_COLOURS = ("red", "green", "blue")
_LEFT_TO_PILLOW = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946}  # codecs that all its wheels contain


@dataclass(frozen=True)
class Raster:
    """Pixels as they are stored.

    Attributes:
        values: (H, W, 1) or (H, W, 3), of any type.
        alpha: (H, W), a band that the file marks as transparency, or None; `defined`: the format knows no other kind.
        nodata: the value that means "no data", or None.
        shown: (H, W) bool, False where the file's mask hides the pixel, or None.
        orientation: the TIFF's, 1 to 8.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    nodata: float | None = None
    shown: np.ndarray | None = None
    orientation: int = 1
    defined: bool = False


def too_large(name: str, size: str) -> SatlisaError:
    """The refusal of an image above the limits."""
    return SatlisaError(
        f"{name} is too large: {size}, at most {MAX_PIXELS:,} are read; cut it into tiles or scale it down"
    )


def check_pixels(width: int, height: int, name: str) -> None:
    """Refuse an image of more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise too_large(name, f"{width:,} × {height:,} pixels")


def read_unidentified(file: BinaryIO, name: str) -> Raster | None:
    """Read a file that Pillow does not identify; None where it is neither TIFF nor JPEG 2000."""
    file.seek(0)
    start = file.read(12)
    if start.startswith(_TIFF_STARTS):
        return _read_tiff(file, name)
    return _read_jpeg2000(file, name) if start.startswith(_JPEG2000_STARTS) else None


def read_deep(image: Image.Image, name: str) -> Raster | None:
    """Read the file of a Pillow image; None where Pillow's own pixels are complete.

    An image that is loaded already has lost its file, and keeps its pixels.
    """
    file = getattr(image, "fp", None)
    if file is None or image.tell() != 0:
        return None
    if image.format == "TIFF" and (_is_deep_tiff(image) or _has_mask(image)):
        return _read_tiff(file, name)
    if image.format == "PNG" and len(image.getbands()) > 1 and ";16" in str(getattr(image, "tile", "")):
        return _read_png(file, image.info.get("transparency"), name)
    if image.format == "JPEG2000" and _is_deep_jpeg2000(file):
        return _read_jpeg2000(file, name)
    return None


def nodata_of(image: Image.Image) -> float | None:
    """The value that the file of a Pillow image names as "no data": GDAL's tag of a TIFF, the clear grey of a PNG."""
    if text := getattr(image, "tag_v2", {}).get(_GDAL_NODATA):
        return _number(text)
    grey = image.info.get("transparency") if image.mode.startswith("I") else None
    return float(grey) if isinstance(grey, int) else None


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip(" \0"))
    except ValueError:
        return None


def _package(module: str, name: str) -> Any:
    try:
        package = import_module(module)
    except ImportError as error:
        raise SatlisaError(
            f"{name}: Pillow does not read this kind of file at full depth; tifffile and imagecodecs do: "
            "pip install tifffile imagecodecs"
        ) from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it cannot read is raised as well
    return package


# TIFF


def _is_deep_tiff(image: Image.Image) -> bool:
    """Whether Pillow would reduce a TIFF to 8 bits, misread its numbers, or lack the codec."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, formats = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    deep_colour = max(bits) > 8 and len(bits) > 1
    misread = (max(bits) == 8 and 2 in formats) or (max(bits) == 32 and 1 in formats)  # signed bytes, large unsigned
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        misread |= max(bits) > 8 or _GDAL_NODATA in tags  # not inverted, or nodata inverted with the rest
    named = _named_bands(tags.get(_GDAL_METADATA), len(bits))
    if set(_COLOURS) <= set(named) and (tags.get(_PHOTOMETRIC) == _RGB or tags.get(_COMPRESSION) == _JPEG):
        misread |= "infrared" in named or [named[colour] for colour in _COLOURS] != [0, 1, 2]
    return deep_colour or misread or tags.get(_COMPRESSION, 1) not in _LEFT_TO_PILLOW


def _named_bands(metadata: Any, count: int) -> dict[str, int]:
    """Bands by the colours that GDAL's metadata give them: as roles, else in their descriptions."""
    roles: dict[str, dict[str, int]] = {"colorinterp": {}, "description": {}}
    for band, role, text in _ITEM.findall(str(metadata or "")):
        if int(band) < count and (colour := colour_named(text)):
            roles[role.lower()].setdefault(colour, int(band))
    return roles["description"] | roles["colorinterp"]


def colour_named(text: str) -> str | None:
    """The colour that a band's role or description means, "Band 4 (Red)": red, green, blue, alpha or infrared."""
    name = _BAND.fullmatch(text.strip())
    return name and (name[1].lower() if name[1].lower() in (*_COLOURS, "alpha") else "infrared")


def _has_mask(image: Image.Image) -> bool:
    """Whether a TIFF has a page that Pillow does not read; masks are such pages."""
    try:
        return getattr(image, "n_frames", 1) < 1
    except Exception:  # SyntaxError: "unknown pixel mode"
        return True


def _read_tiff(file: BinaryIO, name: str) -> Raster:
    """The first page of a TIFF: its colours, or its first three bands, or its only one."""
    file.seek(0)
    _package("imagecodecs", name)
    with _package("tifffile", name).TiffFile(file) as tiff:
        page = tiff.pages[0]
        bands, alpha = _choose_bands(page, name)
        values = _read_bands(page, [*bands, *([] if alpha is None else [alpha])], name)
        tags = {tag: page.tags[tag].value for tag in (_GDAL_NODATA, _ORIENTATION) if tag in page.tags}
        nodata, shown = _number(tags.get(_GDAL_NODATA)), _read_mask(tiff, name)
        if nodata is not None and page.photometric in (_WHITE_IS_ZERO, _PALETTE):  # of the values before they change
            data = values[..., 0] != nodata
            nodata, shown = None, data if shown is None else data & shown
        colours = _colours(page, values[..., : len(bands)])
        return Raster(
            colours, None if alpha is None else values[..., -1], nodata, shown, int(tags.get(_ORIENTATION, 1))
        )


def _choose_bands(page: Any, name: str) -> tuple[list[int], int | None]:
    """The bands shown as red, green and blue, or as grey, and the band marked as alpha."""
    count, kind = page.samplesperpixel, int(page.photometric)
    if kind not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE) and (kind, page.compression) != (_YCBCR, _JPEG):
        raise SatlisaError(f"{name}: its colours ({page.photometric.name}) are not read in this form; save it as RGB")
    metadata = page.tags.get(_GDAL_METADATA)
    roles = _named_bands(metadata.value if metadata else None, count)
    extra = enumerate(page.extrasamples, count - len(page.extrasamples))
    marked = [band for band, meaning in extra if int(meaning) in (1, 2) and band not in roles.values()]
    alpha = roles.get("alpha", marked[0] if marked else None)
    if set(_COLOURS) <= set(roles):
        return [roles[colour] for colour in _COLOURS], alpha
    bands = [band for band in range(count) if band != alpha]
    if len(bands) == 2:
        note(name, TWO_BANDS)
    if len(bands) > 3 and kind != _RGB:
        note(name, f"has {len(bands)} bands without names; the first three are taken as red, green and blue")
    return bands[:3] if len(bands) > 2 else bands[:1], alpha


def _read_bands(page: Any, bands: list[int], name: str) -> np.ndarray:
    """Chosen bands of a page, (H, W, bands). Strips and tiles are decoded one at a time."""
    tile = _check_tiff(page, len(bands), name)
    height, width = page.imagelength, page.imagewidth
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    per_plane = math.ceil(height / tile[0]) * math.ceil(width / tile[1])
    if min(len(page.dataoffsets), len(page.databytecounts)) < planes * per_plane:
        raise SatlisaError(f"{name} cannot be read (it lacks strips or tiles); save or download it again")
    values = np.full((height, width, len(bands)), page.nodata, dtype=page.dtype)  # GDAL leaves out empty tiles
    file = page.parent.filehandle
    for number in range(planes * per_plane):
        plane, size = number // per_plane, page.databytecounts[number]
        if size == 0 or (planes > 1 and plane not in bands):
            continue
        file.seek(page.dataoffsets[number])
        data = file.read(size)
        _check_segment(data, size, page.compression, tile, name)
        segment, (_, _, top, left, _), _ = page.decode(data, number, jpegtables=page.jpegtables)
        segment = segment[0, : height - top, : width - left]  # (rows, columns, samples)
        place = values[top : top + segment.shape[0], left : left + segment.shape[1]]
        if planes > 1:
            place[..., bands.index(plane)] = segment[..., 0]
        else:
            place[...] = segment[..., bands]
    return values


def _check_tiff(page: Any, bands: int, name: str) -> tuple[int, int]:
    """Refuse sizes and types that are not read; (rows, columns) of a strip or tile."""
    check_pixels(page.imagewidth, page.imagelength, name)
    if page.dtype is None or page.dtype.kind not in "buif" or page.compression not in _DECODED:
        kind = f"{page.dtype or f'{page.bitspersample} bits'}, compression {int(page.compression)}"
        raise SatlisaError(f"{name}: pixels of {kind} are not read; save it as integers or floats with deflate")
    tile = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    tile = (min(tile[0], page.imagelength), tile[1]) if not page.is_tiled else tile
    if min(*tile, page.imagelength) < 1 or max(page.imagedepth, page.tiledepth) > 1:
        raise SatlisaError(f"{name} cannot be read (it has no rows, or several layers); save it as one layer")
    samples = 1 if page.planarconfig == 2 else page.samplesperpixel
    area, tiled = page.imagelength * page.imagewidth, math.prod(tile) * samples
    padded = math.ceil(page.imagelength / tile[0]) * math.ceil(page.imagewidth / tile[1]) * tiled
    size = max(area * bands, tiled) * page.dtype.itemsize
    if size > _MAX_BYTES or padded > 4 * area * samples + _PADDING:
        raise too_large(name, f"{size:,} bytes of pixels in tiles of {tile[1]:,} × {tile[0]:,} pixels")
    return tile


def _check_segment(data: bytes, size: int, compression: int, tile: tuple[int, int], name: str) -> None:
    """Refuse a truncated strip or tile, and one whose own header claims to be larger than it."""
    claimed = tile
    if compression == _LERC:
        if data[:6] == b"Lerc2 ":
            claimed = struct.unpack_from("<2i", data, 14 if data[6] >= 3 else 10)
    elif compression in _JPEG2000:
        claimed = _read_siz(data)[:2]
    elif compression in (_JPEG, _WEBP):
        with Image.open(io.BytesIO(data), formats=("JPEG", "WEBP")) as header:
            claimed = (header.height, header.width)
    if len(data) < size or claimed[0] > tile[0] or claimed[1] > tile[1]:
        raise SatlisaError(f"{name} cannot be read (a strip or tile is damaged); save or download it again")


def _read_mask(tiff: Any, name: str) -> np.ndarray | None:
    """The page that says which pixels of the first one are data: (H, W) bool."""
    first = tiff.pages[0]
    if len(tiff.pages) > 1 and not int(tiff.pages[1].subfiletype) & 5 and tiff.pages[1].shape == first.shape:
        note(name, MORE_PAGES)
    for page in tiff.pages[1:_MAX_PAGES]:
        kind = int(page.subfiletype)
        if kind & 4 and not kind & 1 and (page.imagelength, page.imagewidth) == (first.imagelength, first.imagewidth):
            shown: np.ndarray = _read_bands(page, [0], name)[..., 0] > 0
            return shown
    return None


def _colours(page: Any, values: np.ndarray) -> np.ndarray:
    """Values of a palette or of a negative as those that are seen."""
    if page.photometric == _PALETTE:
        table = np.asarray(page.colormap).T  # (colours, 3), 16-bit
        values = (table[np.minimum(values[..., 0], len(table) - 1)] >> 8).astype(np.uint8)
    elif page.photometric == _WHITE_IS_ZERO and values.dtype.kind == "u":
        values = values.dtype.type(2**page.bitspersample - 1) - values
    return values


# JPEG 2000 and PNG


def _read_siz(data: bytes) -> tuple[int, int, list[int]]:
    """Height, width and the depth of each component of a JPEG 2000 codestream; negative depths are signed."""
    start = data.index(_CODESTREAM)
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (count,) = struct.unpack_from(">H", data, start + 40)
    depths = [data[start + 42 + 3 * number] for number in range(count)]
    return bottom - top, right - left, [-(depth % 128 + 1) if depth > 127 else depth + 1 for depth in depths]


def _is_deep_jpeg2000(file: BinaryIO) -> bool:
    """Whether Pillow would reduce the image to 8 bits, misread its signs, or refuse colours that are named grey."""
    data = _all_of(file)
    depths, colour = _read_siz(data)[2], data.find(b"colr")
    is_grey = colour >= 0 and data[colour + 4 : colour + 11] == b"\1\0\0\0\0\0\x11"
    return min(depths) < 0 or (max(depths) > 8 and len(depths) > 1) or (is_grey and len(depths) > 2)


def _read_jpeg2000(file: BinaryIO, name: str) -> Raster:
    data = _all_of(file)
    height, width, depths = _read_siz(data)
    check_pixels(width, height, name)
    if width * height * len(depths) > 4 * MAX_PIXELS:  # OpenJPEG takes 4 bytes for each
        raise too_large(name, f"{width:,} × {height:,} pixels of {len(depths)} bands")
    return _split_alpha(_package("imagecodecs", name).jpeg2k_decode(data), name)


def _read_png(file: BinaryIO, clear: Any, name: str) -> Raster:
    """16-bit colour; `clear` is the colour that is transparent, if any."""
    raster = _split_alpha(_package("imagecodecs", name).png_decode(_all_of(file)), name)
    shown = (raster.values != clear).any(axis=-1) if raster.alpha is None and isinstance(clear, tuple) else None
    return Raster(raster.values, raster.alpha, shown=shown, defined=True)


def _split_alpha(values: np.ndarray, name: str) -> Raster:
    """Two and four bands end with alpha; of five and more the first three are taken."""
    values = values.reshape(*values.shape[:2], -1)
    count = values.shape[2]
    if count > 4:
        note(name, f"has {count} bands without names; the first three are taken as red, green and blue")
    alpha = values[..., -1] if count in (2, 4) else None
    return Raster(values[..., :3] if count > 2 else values[..., :1], alpha)


def _all_of(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()
