"""Images that are broken, odd, or none at all."""

import struct
import zlib

import numpy as np
from PIL import Image

from tests.helpers.row_cases import Case, Skipped, Usable, case, encoded, mask_case, png

RED, BLUE = (255, 0, 0), (0, 0, 255)


def _noise(size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def _frames(format_: str) -> bytes:
    """A red frame, then a blue one."""
    frames = [Image.new("RGB", (40, 30), color) for color in (RED, BLUE)]
    return encoded(frames[0], format_, save_all=True, append_images=frames[1:], lossless=True)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _giant(width: int, height: int) -> bytes:
    """A PNG whose header promises far more than the hundred bytes that it has."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + _chunk(b"IEND", b"")
    )


def _wrong_checksum() -> bytes:
    content = bytearray(png())
    content[content.index(b"IDAT") + 8] ^= 0xFF
    return bytes(content)


def _ycck() -> bytes:
    """A CMYK JPEG that declares itself YCCK, which Pillow does not write: the last byte of its Adobe segment."""
    content = bytearray(encoded(Image.new("CMYK", (40, 30), (0, 0, 0, 0)), "JPEG", quality=100))
    content[content.index(b"Adobe") + 11] = 2
    return bytes(content)


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (40, 30), RED), "PNG", exif=exif)


def _bad_exif() -> bytes:
    return encoded(Image.new("RGB", (40, 30), RED), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")


def _array(values: np.ndarray, format_: str = "TIFF") -> bytes:
    return encoded(Image.fromarray(values), format_)


def _palette(transparent: bool) -> bytes:
    image = Image.new("P", (40, 30), 1)
    image.putpalette([0, 0, 0, *RED])
    return encoded(image, "PNG", **({"transparency": 1} if transparent else {}))


def _two_pages() -> bytes:
    return encoded(Image.new("RGB", (40, 30), RED), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])


_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="40" height="30"/></svg>'
_POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n%%EOF\n"
_RAMP = np.linspace(0.5, 1, 1200, dtype=np.float32).reshape(30, 40)

_SEEN = {
    "animated GIF": (_frames("GIF"), RED),
    "animated WebP": (_frames("WEBP"), RED),
    "animated PNG": (_frames("PNG"), RED),
    "TIFF of two pages": (_two_pages(), RED),
    "CMYK JPEG": (encoded(Image.new("CMYK", (40, 30), (0, 0, 0, 0)), "JPEG"), (255, 255, 255)),
    "YCCK JPEG": (_ycck(), None),
    "palette": (_palette(False), RED),
    "palette with transparency": (_palette(True), (0, 0, 0)),
    "half transparent": (encoded(Image.new("RGBA", (40, 30), (200, 100, 50, 128)), "PNG"), (100, 50, 25)),
    "grey with alpha": (encoded(Image.new("LA", (40, 30), (200, 128)), "PNG"), (100, 100, 100)),
    "16-bit PNG": (_array(np.full((30, 40), 51400, np.uint16), "PNG"), (200, 200, 200)),
    "16-bit TIFF": (_array(np.full((30, 40), 51400, np.uint16)), (200, 200, 200)),
    "32-bit TIFF": (_array(np.full((30, 40), 200, np.int32)), (200, 200, 200)),
    "float TIFF": (_array(_RAMP), (128, 128, 128)),
    "float TIFF of NaN": (_array(np.full((30, 40), np.nan, np.float32)), (0, 0, 0)),
    "one bit": (encoded(Image.new("1", (40, 30), 1), "PNG"), (255, 255, 255)),
    "BMP": (encoded(Image.new("RGB", (40, 30), RED), "BMP"), RED),
    "EXIF that cannot be read": (_bad_exif(), RED),
}

_REFUSED = {
    "truncated PNG": (encoded(_noise(), "PNG")[:3000], "cannot be read"),
    "truncated JPEG": (encoded(_noise(), "JPEG")[:900], "cannot be read"),
    "PNG with a wrong checksum": (_wrong_checksum(), "cannot be read"),
    "no bytes": (b"", "not an image in a format that"),
    "50,000 × 50,000 pixels": (_giant(50_000, 50_000), "pixels"),
    "12,000 × 20,000 pixels": (_giant(12_000, 20_000), "pixels"),
    "no pixels": (_giant(0, 10), "cannot be read"),
    "text": (b"Dear all,\nthe image is attached.\n", "not an image in a format that"),
    "SVG": (_SVG, "not an image in a format that"),
    "PostScript": (_POSTSCRIPT, "cannot be read"),
    "page of a web server": (b"<!DOCTYPE html><title>404</title>", "not an image in a format that"),
    "bytes of zero": (bytes(5000), "not an image in a format that"),
}

_NO_FILE = {
    "path to nowhere": {"bytes": None, "path": "/nowhere/tile.png"},
    "neither bytes nor path": {"bytes": None, "path": None},
    "path that is a folder": {"bytes": None, "path": "/"},
    "path with a NUL": {"bytes": None, "path": "a\0b.png"},
    "path of 10,000 letters": {"bytes": None, "path": "a" * 10_000},
    "path of line breaks": {"bytes": None, "path": "a\nb\x1b[31m.png"},
    "empty path": {"bytes": None, "path": ""},
}

CASES: list[Case] = [
    *(
        mask_case(f"image: {name}", Usable(1, size=(40, 30), pixel=pixel), image={"bytes": content, "path": None})
        for name, (content, pixel) in _SEEN.items()
    ),
    *(
        mask_case(f"image: {name}", Skipped("image", reason), image={"bytes": content, "path": None})
        for name, (content, reason) in _REFUSED.items()
    ),
    *(case(f"image: {name}", Skipped("image", "cannot be read"), image=image) for name, image in _NO_FILE.items()),
    mask_case("image: turned by EXIF", Usable(1, size=(30, 40)), image={"bytes": _rotated(), "path": None}),
    mask_case(
        "image: 1 × 1",
        Usable(1, size=(1, 1)),
        {"bbox": [0, 0, 1000, 1000], "polygons": [[[0, 0], [1000, 0], [1000, 1000], [0, 1000]]]},
        image={"bytes": png(size=(1, 1)), "path": None},
    ),
    mask_case("image: 1 × 5000", Skipped("image", "1×5000 pixels"), image={"bytes": png(size=(1, 5000)), "path": None}),
    case("image: 5000 × 1", Skipped("image", "5000×1 pixels"), image={"bytes": png(size=(5000, 1)), "path": None}),
    case("image: null", Skipped("image", "cannot be read"), image=None),
    case("image: bytes and a path to nowhere", Usable(), image={"bytes": png(), "path": "/nowhere/tile.png"}),
]
