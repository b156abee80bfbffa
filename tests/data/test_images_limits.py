"""Images that claim more than memory holds, and formats that would run a program."""

import io
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from satlisa.data.images import MAX_PIXELS, open_image
from satlisa.errors import SatlisaError
from tests.helpers.row_cases import encoded


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def tiff_of(width: int, height: int) -> bytes:
    short = {258: 8, 259: 1, 262: 1, 277: 1}
    tags = {256: width, 257: height, 273: 8, 278: height, 279: width * height % 2**32} | short
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def gif_of(width: int, height: int) -> bytes:
    """A small screen whose first frame is not."""
    screen = struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"


def webp_of(width: int, height: int) -> bytes:
    """A canvas that claims a size, with one small frame on it."""
    small = io.BytesIO()
    Image.new("RGB", (2, 2)).save(small, "WEBP", lossless=True)
    frame = small.getvalue()[12:]  # its VP8L chunk

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    def three(number: int) -> bytes:
        return struct.pack("<I", number)[:3]

    canvas = chunk(b"VP8X", b"\x02\x00\x00\x00" + three(width - 1) + three(height - 1))
    placed = three(0) + three(0) + three(1) + three(1) + three(100) + b"\x00" + frame
    body = b"WEBP" + canvas + chunk(b"ANIM", bytes(6)) + chunk(b"ANMF", placed)
    return b"RIFF" + struct.pack("<I", len(body)) + body


HUGE = {
    "PNG": png_of(50_000, 50_000),
    "TIFF": tiff_of(60_000, 50_000),
    "GIF": gif_of(65_535, 65_535),
    "WebP": webp_of(16_000, 16_000),
    "just above": png_of(MAX_PIXELS // 10 + 1, 10),
}


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: Image.Image) -> None:
        raise AssertionError(f"{image.size} was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("form", ["bytes", "path", "record", "Pillow image"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # the test's own Image.open
def test_huge_images_are_refused_by_their_header(
    kind: str, form: str, tmp_path: Path, no_decoding: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = HUGE[kind]
    assert len(data) < 1000
    (tmp_path / "bomb").write_bytes(data)
    sources: dict[str, Any] = {"bytes": data, "path": tmp_path / "bomb", "record": {"bytes": data, "path": "x.png"}}
    if form == "Pillow image":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # somebody who has taken Pillow's own limit away
        sources[form] = Image.open(tmp_path / "bomb")
    tracemalloc.start()
    try:
        with pytest.raises(SatlisaError, match=r"too large: [\d,]+( × [\d,]+)? pixels, at most 178,956,970") as caught:
            open_image(sources[form])
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_refusal_gives_the_size(no_decoding: None) -> None:
    with pytest.raises(SatlisaError, match=r"17,895,698 × 10 pixels"):
        open_image(HUGE["just above"])
    with pytest.raises(SatlisaError, match=r"2,500,000,000 pixels"):
        open_image(HUGE["PNG"])


def test_up_to_the_limit_nothing_warns_and_pillow_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would warn from half of our limit on."""
    monkeypatch.setattr("satlisa.data.images.to_rgb", lambda image, name: Image.new("RGB", (1, 1)))
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(png_of(MAX_PIXELS // 10, 10)).size == (1, 1)
    assert before == Image.MAX_IMAGE_PIXELS


def test_postscript_is_not_run(tmp_path: Path) -> None:
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    assert Image.open(io.BytesIO(data)).format == "EPS"
    with pytest.raises(SatlisaError, match="is not an image in a format that is read"):
        open_image(data)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_read(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    red, green, blue = open_image(data).getpixel((4, 4))  # type: ignore[misc]
    assert red > 240 and green < 10 and blue < 10
