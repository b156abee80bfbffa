"""Files that Pillow reduces to 8 bits or refuses, against the scene that they hold."""

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from satlisa.data import notes, rasters
from satlisa.data.images import open_image
from satlisa.errors import SatlisaError
from tests.helpers.raster_files import DEEP, DEEP_FILES, HIDDEN, MASK, NIR, PLANES, RGB, SIZE, grey, tiff
from tests.helpers.row_cases import encoded


@pytest.fixture(autouse=True)
def fresh_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_noted", set())


def seen(source: Any) -> np.ndarray:
    return np.asarray(open_image(source))


def stretched(values: np.ndarray) -> np.ndarray:
    """The oracle: 2 to 98 % of all values, in float64."""
    first, last = np.percentile(values.astype(float), (2, 98))
    return np.clip(np.rint((values.astype(float) - first) / (last - first) * 255), 0, 255)


@pytest.mark.parametrize("kind", DEEP_FILES)
def test_deep_colour_is_read_at_full_depth(kind: str) -> None:
    """11 bits read as 8 would leave 8 levels."""
    assert np.abs(seen(DEEP_FILES[kind]) - stretched(DEEP)).max() <= 1


@pytest.mark.parametrize("kind", ["16-bit colour", "planar", "PNG", "JPEG 2000"])
def test_every_form_of_source_has_the_depth(kind: str, tmp_path: Any) -> None:
    (tmp_path / "deep").write_bytes(DEEP_FILES[kind])
    with (tmp_path / "deep").open("rb") as file, Image.open(tmp_path / "deep") as lazy:
        for source in (tmp_path / "deep", file, lazy, {"bytes": DEEP_FILES[kind], "path": None}):
            assert np.abs(seen(source) - stretched(DEEP)).max() <= 1


@pytest.mark.parametrize("names", ["BGR", "BGRN", "described", "numbered"])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_named_bands_have_their_colours(names: str, photometric: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also in ordinary 8-bit files, and where GDAL marked the band after them as alpha."""
    values = RGB[..., ::-1] if names == "BGR" else np.concatenate([RGB[..., ::-1], NIR], axis=2)
    extra = {} if names == "BGR" or photometric == "minisblack" else {"extrasamples": ["unassalpha"]}
    data = tiff(values, photometric=photometric, planarconfig="contig", bands=names, **extra)
    assert np.array_equal(seen(data), RGB) and "without names" not in caplog.text


def test_names_of_other_bands_change_nothing() -> None:
    assert np.array_equal(seen(tiff(RGB, bands="red edge")), RGB)


def test_a_band_named_near_infrared_is_no_alpha() -> None:
    values = np.concatenate([RGB, MASK], axis=2)  # even with the values of one
    assert np.array_equal(seen(tiff(values, bands="RGBN", extrasamples=["unassalpha"])), RGB)


PALETTE = Image.fromarray(RGB).quantize(200)
ORDINARY_FILES = {
    "LERC": tiff(RGB, compression="lerc"),
    "WebP": tiff(RGB, compression="webp", tile=(32, 32), compressionargs={"lossless": True}),
    "ZSTD": tiff(RGB, compression="zstd"),
    "planar": tiff(RGB.transpose(2, 0, 1), compression="lzw", **PLANES),
    "five bands": grey(np.concatenate([RGB, NIR, NIR], axis=2), planarconfig="contig"),
    "named bands": grey(np.concatenate([RGB[..., ::-1], NIR], axis=2), planarconfig="contig", bands="BGRN"),
    "in 16 bits": tiff(RGB.astype(np.uint16)),
    "16 bits that are filled": tiff(RGB.astype(np.uint16) * 257),
    "float of 0 to 1": tiff((RGB / 255).astype(np.float32)),
    "alpha of one value": tiff(np.concatenate([RGB, np.full_like(NIR, 255)], axis=2), extrasamples=["unassalpha"]),
    "near infrared as alpha": tiff(np.concatenate([RGB, NIR], axis=2), extrasamples=["unassalpha"]),
    "near infrared as alpha, PNG": encoded(Image.fromarray(np.concatenate([RGB, NIR], axis=2)), "PNG"),
    "near infrared as alpha, WebP": tiff(
        np.concatenate([RGB, NIR], axis=2), extrasamples=["unassalpha"], compression="webp",
        compressionargs={"lossless": True, "level": -101},
    ),
    "JPEG 2000": imagecodecs.jpeg2k_encode(RGB, level=0),
    "JPEG 2000, five bands": imagecodecs.jpeg2k_encode(np.concatenate([RGB, NIR, NIR], axis=2), level=0),
}  # fmt: skip


@pytest.mark.parametrize("kind", ORDINARY_FILES)
def test_8_bit_colour_is_kept(kind: str) -> None:
    assert np.array_equal(seen(ORDINARY_FILES[kind]), RGB)


def test_palettes_and_negatives() -> None:
    indices, colours = np.asarray(PALETTE), np.asarray(PALETTE.getpalette()).reshape(-1, 3)
    table = np.zeros((3, 256), dtype=np.uint16)
    table[:, : len(colours)] = colours.T * 257
    for codec in ("zlib", "zstd", "lerc"):
        data = tiff(indices, photometric="palette", colormap=table, compression=codec)
        assert np.array_equal(seen(data), np.asarray(PALETTE.convert("RGB")))
    clear = tiff(bordered(indices, 7), nodata="7", photometric="palette", colormap=table, compression="zstd")
    assert not seen(clear)[:HIDDEN].any() and not seen(clear)[indices == 7].any()


@pytest.mark.parametrize("codec", [None, "lerc"])
@pytest.mark.parametrize("deep", [False, True])
def test_negatives(codec: str | None, deep: bool) -> None:
    """White is zero, also where zero means "no data"."""
    values = DEEP[..., 0] if deep else RGB[..., 0]
    stored = values.dtype.type(65_535 if deep else 255) - values
    assert (
        np.abs(
            seen(tiff(stored, photometric="miniswhite", compression=codec))[..., 0]
            - (stretched(values) if deep else values)
        ).max()
        <= 1
    )
    found = seen(tiff(bordered(stored, 0), nodata="0", photometric="miniswhite", compression=codec))[..., 0]
    expected = stretched(values[HIDDEN:]) if deep else values[HIDDEN:]
    assert not found[:HIDDEN].any() and np.abs(found[HIDDEN:] - expected.astype(float)).max() <= 1


def bordered(values: np.ndarray, nothing: float) -> np.ndarray:
    """The scene with `HIDDEN` rows of one value above it."""
    values = values.copy()
    values[:HIDDEN] = nothing
    return values


GREY = RGB[..., 0]
FLOATS, SIGNED = DEEP.astype(np.float32), DEEP.astype(np.int16)
NO_DATA = {
    "8-bit, 255": tiff(bordered(RGB, 255), nodata="255"),
    "8-bit, 0": tiff(bordered(RGB, 0), nodata="0"),
    "8-bit grey": grey(bordered(GREY, 255), nodata="255", compression="lzw"),
    "8-bit planes": tiff(bordered(RGB, 255).transpose(2, 0, 1), nodata="255", **PLANES),
    "8-bit of five bands": grey(bordered(np.concatenate([RGB, NIR, NIR], 2), 255), nodata="255", planarconfig="contig"),
    "16-bit, 65535": tiff(bordered(DEEP, 65_535), nodata="65535"),
    "16-bit grey": grey(bordered(DEEP[..., 0], 0), nodata="0"),
    "signed": tiff(bordered(SIGNED, -9999), nodata="-9999"),
    "signed grey": grey(bordered(SIGNED[..., 0], -32_768), nodata="-32768", compression="zlib"),
    "float": tiff(bordered(FLOATS, -9999), nodata="-9999"),
    "float grey": grey(bordered(FLOATS[..., 0], -9999), nodata="-9999.0"),
    "NaN": tiff(bordered(FLOATS, np.nan), nodata="nan"),
    "NaN without a tag": grey(bordered(FLOATS[..., 0], np.nan)),
    "smallest float": tiff(bordered(FLOATS, -3.4028235e38), nodata="-3.4028234999999999e+38"),
    "±3.4e38 without a tag": tiff(bordered(FLOATS, 3.4e38)),
    "LERC": grey(bordered(FLOATS[..., 0], -9999), nodata="-9999", compression="lerc"),
    "alpha": tiff(np.concatenate([RGB, MASK], axis=2), extrasamples=["unassalpha"]),
    "alpha, planar": tiff(np.concatenate([RGB, MASK], 2).transpose(2, 0, 1), extrasamples=["unassalpha"], **PLANES),
    "16-bit alpha": tiff(np.concatenate([DEEP, MASK.astype("u2") * 257], axis=2), extrasamples=["unassalpha"]),
    "8-bit alpha in 16 bits": tiff(np.concatenate([DEEP, MASK.astype("u2")], axis=2), extrasamples=["unassalpha"]),
    "grey and alpha, 16-bit": grey(
        np.concatenate([DEEP[..., :1], MASK.astype("u2") * 257], axis=2), planarconfig="contig",
        extrasamples=["unassalpha"],
    ),
    "alpha of a PNG": imagecodecs.png_encode(np.concatenate([DEEP, MASK.astype("u2") * 257], axis=2)),
    "grey and alpha of a PNG": imagecodecs.png_encode(np.concatenate([DEEP[..., :1], MASK.astype("u2") * 257], axis=2)),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_DATA)
def test_pixels_without_data_are_black_and_do_not_count(kind: str) -> None:
    data, whole = seen(NO_DATA[kind]), kind.startswith("8-bit") and "alpha" not in kind
    expected = RGB[HIDDEN:] if whole or (kind.startswith("alpha") and "PNG" not in kind) else None
    assert not data[:HIDDEN].any()
    if "grey" in kind or kind in ("NaN without a tag", "LERC"):
        assert (data == data[..., :1]).all()
        grey_levels = GREY[HIDDEN:] if kind == "8-bit grey" else stretched(DEEP[HIDDEN:, :, 0])
        assert np.abs(data[HIDDEN:, :, 0] - grey_levels).max() <= 1
    else:
        assert np.abs(data[HIDDEN:] - (stretched(DEEP[HIDDEN:]) if expected is None else expected)).max() <= 1


@pytest.mark.parametrize("kind", ["8-bit", "16-bit", "grey", "JPEG"])
def test_the_mask_of_a_tiff_hides_pixels(kind: str) -> None:
    """GDAL writes it as a page of its own, which Pillow refuses; pages that are no masks change nothing."""
    values = {"16-bit": bordered(DEEP, 60_000), "grey": bordered(DEEP[..., 0], 60_000)}.get(kind, bordered(RGB, 255))
    jpeg = {"compression": "jpeg", "photometric": "ycbcr"} if kind == "JPEG" else {}
    colour = {"photometric": "minisblack" if kind == "grey" else "rgb"} | jpeg
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as out:
        out.write(values, metadata=None, **colour)
        out.write(values[::2, ::2], metadata=None, subfiletype=1, **colour)
        out.write(MASK[::2, ::2, 0] > 0, metadata=None, subfiletype=5, photometric="mask", compression="zlib")
        out.write(MASK[..., 0] > 0, metadata=None, subfiletype=4, photometric="mask", compression="zlib")
    data = seen(file.getvalue())
    assert data.shape == (SIZE, SIZE, 3) and not data[:HIDDEN].any()
    expected = RGB[HIDDEN:] if kind in ("8-bit", "JPEG") else stretched(DEEP[HIDDEN:, :, : 1 if kind == "grey" else 3])
    assert np.abs(data[HIDDEN:] - expected.astype(float)).mean() < (60 if kind == "JPEG" else 0.6)


@pytest.mark.parametrize("form", ["PNG", "WebP", "TIFF"])
def test_a_gradient_of_alpha_is_composited_where_the_format_defines_it(form: str) -> None:
    alpha = np.linspace(0, 255, SIZE).astype(np.uint8)[None, :, None].repeat(SIZE, axis=0)
    data = encoded(Image.fromarray(np.concatenate([RGB, alpha], axis=2)), form, lossless=True, exact=True)
    expected = RGB if form == "TIFF" else RGB * (alpha / 255)
    assert np.abs(seen(data) - expected).max() <= 1


def test_a_gradient_of_alpha_of_16_bits() -> None:
    alpha = np.linspace(0, 65_535, SIZE).astype(np.uint16)[None, :, None].repeat(SIZE, axis=0)
    data = imagecodecs.png_encode(np.concatenate([RGB.astype(np.uint16) * 257, alpha], axis=2))
    assert np.abs(seen(data) - RGB * (alpha / 65_535)).max() <= 1


def test_near_infrared_of_water_is_a_band() -> None:
    water = np.where(np.arange(SIZE)[:, None, None] < 52, 0, NIR).astype(np.uint8)
    assert np.array_equal(seen(tiff(np.concatenate([RGB, water], axis=2), extrasamples=["unassalpha"])), RGB)


def test_a_clear_colour_of_16_bits_is_black() -> None:
    """tRNS of a PNG, put in front of the pixels."""
    data = imagecodecs.png_encode(bordered(DEEP, 3000))
    body = b"tRNS" + struct.pack(">3H", 3000, 3000, 3000)
    place = data.index(b"IDAT") - 4
    chunk = struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body))
    found = seen(data[:place] + chunk + data[place:])
    assert not found[:HIDDEN].any() and np.abs(found[HIDDEN:] - stretched(DEEP[HIDDEN:])).max() <= 1


def test_what_a_person_may_mean_otherwise_is_said(caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    for name, data in [
        ("nir", ORDINARY_FILES["near infrared as alpha"]),
        ("eight", DEEP_FILES["eight bands"]),
        ("empty", tiff(bordered(SIGNED, -9999)[:HIDDEN], nodata="-9999")),
        ("empty8", tiff(bordered(RGB, 255)[:HIDDEN], nodata="255")),
        ("plain", DEEP_FILES["16-bit colour"]),
        ("alpha", NO_DATA["alpha"]),
    ]:
        (tmp_path / f"{name}.tif").write_bytes(data)
        open_image(tmp_path / f"{name}.tif")
        open_image(tmp_path / f"{name}.tif")
    lines = [record.getMessage().split("/")[-1] for record in caplog.records]
    assert [line.split()[0] for line in lines] == ["nir.tif", "eight.tif", "empty.tif", "empty8.tif"]  # once each
    assert "marked as transparency" in lines[0] and "8 bands without names" in lines[1]
    assert "no pixel holds data" in lines[2] and "no pixel holds data" in lines[3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiffs_are_turned_as_pillow_turns_others(orientation: int) -> None:
    plain = seen(tiff(RGB[:40], extratags=[(274, "H", 1, orientation, True)]))
    deep = seen(tiff(RGB[:40].astype(np.uint16) * 257, extratags=[(274, "H", 1, orientation, True)]))
    assert np.array_equal(plain, deep)


def test_without_the_packages_the_message_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(rasters, "import_module", fail)
    for kind in ("16-bit colour", "eight bands", "PNG", "JPEG 2000"):
        with pytest.raises(SatlisaError, match="pip install tifffile imagecodecs"):
            open_image(DEEP_FILES[kind])
    for form in ("TIFF", "PNG"):
        for side in (16, 32, SIZE):
            assert np.array_equal(seen(encoded(Image.fromarray(RGB[:side, :16]), form)), RGB[:side, :16])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((8, 8, 3), np.complex64), {}, "complex64, compression 1 are not read"),
        (np.zeros((8, 8, 4), np.uint16), {"photometric": "separated"}, r"colours \(SEPARATED\) are not read"),
    ],
)
def test_what_is_not_read_is_said_and_not_called_damaged(values: Any, options: Any, message: str) -> None:
    with pytest.raises(SatlisaError, match=message):
        open_image(tiff(values, **options))
