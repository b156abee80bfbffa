"""Deep files that are damaged, or that claim more than memory holds."""

import io
import logging
import struct
import tracemalloc

import imagecodecs
import numpy as np
import pytest
import tifffile

from satlisa.data.images import open_image
from satlisa.errors import SatlisaError
from tests.helpers.raster_files import DEEP, DEEP_FILES, EIGHT, RGB, SIZE, grey, tiff


@pytest.mark.parametrize(
    "kind", ["16-bit colour", "LZW", "LERC", "planar", "PNG", "JPEG 2000", "deflate with predictor"]
)
def test_truncated_files_are_errors(kind: str) -> None:
    data = DEEP_FILES[kind]
    with pytest.raises(SatlisaError, match="save or download it again"):
        open_image(data[: len(data) * 2 // 3])


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF whose tag, of type short or long, has another value."""
    changed = bytearray(data)
    (start,) = struct.unpack_from("<I", data, 4)
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        place = start + 2 + 12 * entry
        if struct.unpack_from("<H", data, place)[0] == tag:
            changed[place + 2 : place + 12] = struct.pack("<HII", 4, 1, value)
            return bytes(changed)
    raise AssertionError(f"no tag {tag}")


def with_siz(data: bytes, width: int, height: int) -> bytes:
    """A JPEG 2000 codestream, or a file that holds one, of another size."""
    place = data.index(b"\xff\x4f\xff\x51") + 8
    return data[:place] + struct.pack(">2I", width, height) + data[place + 8 :]


def with_tile(compression: str, content: bytes) -> bytes:
    """A TIFF of one tile of 16 × 16 pixels, encoded elsewhere."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as out:
        shape = dict(shape=(16, 16, 3), dtype=np.uint8, tile=(16, 16))
        out.write(
            iter([content]),
            photometric="minisblack",
            planarconfig="contig",
            compression=compression,
            metadata=None,
            **shape,
        )  # type: ignore[arg-type]
    return file.getvalue()


WIDTH, HEIGHT, TILE_WIDTH, ROWS = 256, 257, 322, 278
LERC_SIZE = struct.pack("<2i", SIZE, SIZE)
BOMBS = {
    "16-bit, huge": with_tag(with_tag(tiff(DEEP), WIDTH, 50_000), HEIGHT, 50_000),
    "eight bands, huge": with_tag(with_tag(grey(EIGHT, planarconfig="contig"), WIDTH, 50_000), HEIGHT, 50_000),
    "doubles below the limit of pixels": with_tag(
        with_tag(tiff(DEEP.astype(np.float64)), WIDTH, 13_000), HEIGHT, 13_000
    ),
    "tiles larger than the image": with_tag(tiff(DEEP, tile=(16, 16), compression="zlib"), TILE_WIDTH, 2**30),
    "narrow image in wide tiles": with_tag(
        with_tag(with_tag(tiff(DEEP, tile=(4096, 4096), compression="zlib"), WIDTH, 1), HEIGHT, 10**8), TILE_WIDTH, 4096
    ),
    "JPEG 2000": with_siz(DEEP_FILES["JPEG 2000 codestream"], 50_000, 50_000),
    "JPEG 2000, only inside": with_siz(DEEP_FILES["JPEG 2000"], 50_000, 50_000),
}
CLAIMS = {
    "LERC tile": tiff(DEEP, compression="lerc").replace(LERC_SIZE, struct.pack("<2i", 50_000, 50_000)),
    "JPEG 2000 tile": with_siz(tiff(DEEP, compression="jpeg2000"), 50_000, 50_000),
    "WebP tile": with_tile("webp", imagecodecs.webp_encode(RGB)),
    "JPEG tile": with_tile("jpeg", imagecodecs.jpeg_encode(RGB)),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_large_claims_are_refused_before_memory_is_taken(kind: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SatlisaError, match=r"too large: [\d,]+.* at most 178,956,970 are read"):
            open_image(BOMBS[kind])
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_tile_that_claims_more_than_its_tag_is_damaged(kind: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SatlisaError, match="a strip or tile is damaged"):
            open_image(CLAIMS[kind])
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged tags
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_random_damage_is_an_error_or_an_image(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    random = np.random.default_rng(5)
    files = list(DEEP_FILES.values())
    for _ in range(150):
        data = bytearray(files[random.integers(len(files))])
        for place in random.integers(0, min(len(data), 500), 3):
            data[place] = random.integers(256)
        try:
            assert open_image(bytes(data)).mode == "RGB"
        except SatlisaError as error:
            assert "\n" not in str(error)
