"""Every kind of image Pillow opens, as upright RGB, with the pixel values a person would expect."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from satlisa.data.images import fingerprint, open_image, open_oriented, to_rgb
from satlisa.errors import SatlisaError
from tests.helpers.row_cases import encoded


def pixels(image: Image.Image) -> list[Any]:
    """Rows of (r, g, b)."""
    assert image.mode == "RGB"
    return [[tuple(pixel) for pixel in row] for row in np.asarray(image).tolist()]


def greys(image: Image.Image) -> list[list[int]]:
    array = np.asarray(image)
    assert image.mode == "RGB" and (array == array[..., :1]).all()
    return array[..., 0].tolist()


# The letter F, 2 wide and 3 high, as an upright viewer sees it; a camera held otherwise stores it turned.
UPRIGHT = np.array([[10, 20], [30, 40], [50, 60]], dtype=np.uint8)
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT, 1),  # shown by turning it clockwise, so stored turned the other way
    7: np.rot90(UPRIGHT, 2).T,
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_once(orientation: int, form: str) -> None:
    """TIFF too, which Pillow itself turns while loading."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encoded(Image.fromarray(STORED[orientation].copy()), form, exif=exif))
    assert greys(image) == UPRIGHT.tolist()
    assert greys(open_image(image)) == UPRIGHT.tolist()


def test_broken_exif_leaves_the_pixels(caplog: pytest.LogCaptureFixture) -> None:
    data = encoded(Image.fromarray(UPRIGHT), "PNG", exif=b"Exif\x00\x00no TIFF header here")
    assert greys(open_image(data)) == UPRIGHT.tolist()
    assert "taken as upright" in caplog.text


def test_alpha_is_composited_over_black() -> None:
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], dtype=np.uint8)
    assert pixels(to_rgb(Image.fromarray(rgba))) == [[(200, 100, 50), (0, 0, 0), (100, 50, 25)]]
    la = np.array([[[80, 255], [80, 0]]], dtype=np.uint8)
    assert greys(to_rgb(Image.fromarray(la))) == [[80, 0]]


def test_palettes() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert pixels(open_image(encoded(image, "PNG"))) == [[(255, 0, 0), (0, 255, 0), (0, 0, 255)]]
    assert pixels(open_image(encoded(image, "PNG", transparency=1))) == [[(255, 0, 0), (0, 0, 0), (0, 0, 255)]]
    faded = open_image(encoded(image, "PNG", transparency=bytes([255, 128, 0])))
    assert pixels(faded) == [[(255, 0, 0), (0, 128, 0), (0, 0, 0)]]


def test_a_transparent_colour_is_black() -> None:
    image = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], dtype=np.uint8))
    assert pixels(open_image(encoded(image, "PNG", transparency=(9, 8, 7)))) == [[(0, 0, 0), (1, 2, 3)]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 257, 32896, 65535], [0, 1, 128, 255]),  # all 16 bits: divided by 257
        ([0, 1, 128, 255], [0, 1, 128, 255]),  # 8 bits in a wide file: as they are
        ([0, 819, 4095], [0, 51, 255]),  # a 12-bit sensor: stretched
        ([1000, 1100, 1200], [0, 128, 255]),
        ([2570, 2570], [10, 10]),  # nothing to stretch
    ],
)
def test_16_bit(values: list[int], expected: list[int]) -> None:
    array = np.array([values], dtype=np.uint16)
    assert greys(open_image(encoded(Image.fromarray(array), "PNG"))) == [expected]
    assert greys(open_image(encoded(Image.fromarray(array), "TIFF"))) == [expected]
    big_endian = Image.frombytes("I;16B", (len(values), 1), array.astype(">u2").tobytes())
    assert greys(to_rgb(big_endian)) == [expected]
    assert greys(to_rgb(Image.fromarray(array.astype(np.int32)))) == [expected]


def test_16_bit_gradient_keeps_all_256_levels() -> None:
    gradient = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    assert np.unique(np.asarray(to_rgb(Image.fromarray(gradient)))).tolist() == list(range(256))


def test_negative_and_32_bit_integers_are_stretched() -> None:
    assert greys(to_rgb(Image.fromarray(np.array([[-100, 0, 100]], dtype=np.int32)))) == [[0, 128, 255]]
    wide = np.array([[-(2**31), 2**31 - 1]], dtype=np.int32)
    assert greys(to_rgb(Image.fromarray(wide))) == [[0, 255]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.2, 1.0], [0, 51, 255]),
        ([0.0, 0.2, 0.4], [0, 51, 102]),  # reflectance keeps its scale
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([100.0, 150.0, 200.0], [0, 128, 255]),
        ([np.nan, 0.0, 1.0, np.inf, -np.inf], [0, 0, 255, 0, 0]),
        ([np.nan, 100.0, 200.0], [0, 0, 255]),
        ([np.nan, np.inf], [0, 0]),
        ([-3e38, 3e38], [0, 255]),
        ([7.0, 7.0], [7, 7]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    assert greys(to_rgb(Image.fromarray(np.array([values], dtype=np.float32)))) == [expected]


def test_other_colour_modes() -> None:
    assert greys(to_rgb(Image.fromarray(np.array([[False, True]])))) == [[0, 255]]
    assert greys(to_rgb(Image.new("L", (1, 1), 77))) == [[77]]
    assert pixels(to_rgb(Image.new("CMYK", (1, 1), (0, 255, 255, 0)))) == [[(255, 0, 0)]]
    assert pixels(to_rgb(Image.new("HSV", (1, 1), (0, 255, 255)))) == [[(255, 0, 0)]]
    blue = Image.new("RGB", (8, 8), (0, 0, 255))
    assert np.abs(np.asarray(to_rgb(blue.convert("YCbCr"))).astype(int) - (0, 0, 255)).max() <= 2
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    orange = Image.new("RGB", (2, 2), (200, 120, 40))
    lab = ImageCms.applyTransform(orange, to_lab)
    assert lab is not None and lab.mode == "LAB"
    assert np.abs(np.asarray(to_rgb(lab)).astype(int) - (200, 120, 40)).max() <= 3


@pytest.mark.parametrize(
    "mode",
    [
        *["1", "CMYK", "F", "HSV", "I", "I;16", "I;16B", "I;16L", "L", "LA", "La"],
        *["LAB", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr"],
    ],
)
def test_every_mode_gives_rgb_of_the_same_size(mode: str) -> None:
    image = to_rgb(Image.new(mode, (5, 3)))
    assert (image.mode, image.size) == ("RGB", (5, 3))


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    image = Image.fromarray(array)
    path = tmp_path / "scene.png"
    image.save(path)
    data = path.read_bytes()
    missing = str(tmp_path / "gone.png")
    records = [{"bytes": data, "path": None}, {"bytes": data, "path": missing}, {"bytes": None, "path": str(path)}]
    for source in [path, str(path), data, image, Image.open(path), array, *records]:
        assert np.array_equal(np.asarray(open_image(source)), array)


def test_arrays_of_every_kind() -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    near_infrared = np.random.default_rng(1).integers(0, 256, (20, 30, 1), dtype=np.uint8)
    opaque = np.full((20, 30, 1), 255, dtype=np.uint8)
    for same in (
        *(array.astype(np.float32) / 255, array / 255, array.astype(np.uint16), array.astype(np.uint16) * 257),
        *(array.astype(np.int64), array.transpose(2, 0, 1), np.asfortranarray(array), array[::-1][::-1]),
        *(np.concatenate([array, alpha], axis=2) for alpha in (opaque, near_infrared)),
        np.concatenate([array, near_infrared], axis=2).transpose(2, 0, 1) / np.float32(255),
        np.concatenate([array, *[near_infrared] * 5], axis=2).transpose(2, 0, 1),
    ):
        assert np.array_equal(np.asarray(open_image(same)), array), (same.shape, same.dtype)
    for grey in (array[..., 0], array[..., :1], array[None, ..., 0], array[..., 0] / 255):
        assert greys(open_image(grey)) == array[..., 0].tolist()
    assert greys(open_image(np.array([[True, False]]))) == [[255, 0]]
    assert np.asarray(open_image(np.zeros((3, 20, 3), dtype=np.uint8))).shape == (3, 20, 3)  # bands last, in doubt


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("shape", ["colour", "grey"])
def test_what_an_array_masks_is_black_and_does_not_count(kind: str, first: bool, shape: str) -> None:
    """As rasterio reads nodata."""
    scene = np.random.default_rng(0).integers(20, 240, (40, 40, 3)).astype(kind) * (1 if kind == "u1" else 8)
    scene = scene[..., 0] if shape == "grey" else scene
    stored = np.concatenate([np.full_like(scene[:30], 250 if kind[0] == "u" else -9999), scene])
    masked = np.ma.masked_array(stored, mask=np.zeros(stored.shape, dtype=bool))
    masked[:30] = np.ma.masked
    if first and shape == "colour":
        masked = masked.transpose(2, 0, 1)
    with np.errstate(all="raise"):
        found = np.asarray(open_image(masked))
    assert not found[:30].any() and np.array_equal(found[30:], np.asarray(open_image(scene)))


def test_a_masked_array_with_alpha() -> None:
    array = np.full((20, 30, 4), 255, dtype=np.uint8)
    masked = np.ma.masked_array(array, mask=np.zeros(array.shape, dtype=bool))
    masked[:5, :, :3] = np.ma.masked
    masked[9, 9, 0] = np.ma.masked  # a roof that saturates in one band is no hole
    found = np.asarray(open_image(masked))
    assert not found[:5].any() and (found[5:] == 255).all()
    assert (np.asarray(open_image(np.ma.masked_array(array))) == 255).all()
    masked[..., 3] = np.random.default_rng(0).integers(1, 255, (20, 30))  # near infrared
    assert (np.asarray(open_image(masked))[5:] == 255).all()


def test_open_files_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    data = encoded(Image.fromarray(array), "PNG")
    (tmp_path / "scene.png").write_bytes(data)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = io.BytesIO(data)
    file.read()  # the position does not matter
    for source in (file, file, "~/scene.png", Path("~/scene.png")):
        assert np.array_equal(np.asarray(open_image(source)), array)
    with (tmp_path / "scene.png").open("rb") as opened:
        assert np.array_equal(np.asarray(open_image(opened)), array)
    with pytest.raises(SatlisaError, match=r"scene\.png cannot be read|open file .* cannot be read"):
        open_image(opened)
    with (tmp_path / "scene.png").open("r", encoding="latin-1") as text, pytest.raises(SatlisaError, match='"rb"'):
        open_image(text)  # type: ignore[arg-type]
    with pytest.raises(SatlisaError, match=r"~/gone\.png: no such file"):
        open_image("~/gone.png")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_mask_goes_back_to_the_pixel_grid_of_the_file(orientation: int, form: str) -> None:
    """What is drawn on the upright image lies where Pillow finds it in the file."""
    stored = np.kron(STORED[orientation], np.ones((8, 8), dtype=np.uint8)) * 3
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(stored).convert("RGB"), form, exif=exif)
    opened = open_oriented(data)
    bright = np.asarray(opened.rgb.convert("L")) > 100
    masks = opened.to_stored(np.stack([bright, ~bright]))
    with Image.open(io.BytesIO(data)) as image:
        assert masks.shape[1:] == image.size[::-1]
        assert np.array_equal(masks[0], np.asarray(image.convert("L")) > 100)
    assert np.array_equal(masks[0], ~masks[1])


def test_fingerprints_are_of_encoded_bytes(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3)), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    image = open_image(data)
    for source in (data, tmp_path / "a.png", {"bytes": data, "path": "x"}, {"bytes": None, "path": tmp_path / "a.png"}):
        assert fingerprint(image, source) == fingerprint(image, data) != fingerprint(image)
    assert fingerprint(image, data + b" ") != fingerprint(image, data)
    for other in (None, np.asarray(image), {"bytes": "aGVsbG8=" * 999}, {"bytes": None, "path": "gone"}, [data], "a\0"):
        assert fingerprint(image, other) == fingerprint(image.copy())
    assert (
        len({fingerprint(same) for same in (image, image.convert("L"), image.rotate(180), image.crop((0, 0, 2, 2)))})
        == 4
    )
    assert fingerprint(Image.new("L", (2, 3))) != fingerprint(Image.new("L", (3, 2)))


def test_the_result_is_a_copy() -> None:
    array = np.zeros((2, 2, 3), dtype=np.uint8)
    image = Image.fromarray(array.copy())
    from_array, from_image = open_image(array), open_image(image)
    array[:] = 255
    image.putpixel((0, 0), (255, 255, 255))
    assert np.asarray(from_array).max() == np.asarray(from_image).max() == 0


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match=r"scene\.png: no such file; check the path"):
        open_image(tmp_path / "scene.png")


@pytest.mark.parametrize("data", [b"", b"no image at all", b"<html>404</html>"])
def test_what_is_no_image(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match=f"of {len(data)} bytes is not an image"):
        open_image(data)
    path = tmp_path / "page.png"
    path.write_bytes(data)
    with pytest.raises(SatlisaError, match=r"page\.png is not an image"):
        open_image(str(path))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_truncated_file_is_an_error(form: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "half"
    whole = encoded(Image.fromarray(noise), form)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SatlisaError, match="half"):
        open_image(path)
    with pytest.raises(SatlisaError, match=r"image b\.jpg"):
        open_image({"bytes": path.read_bytes(), "path": "b.jpg"})
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match="expected a file, found a folder"):
        open_image(tmp_path)


def test_a_closed_image_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    Image.new("RGB", (4, 4)).save(path)
    image = Image.open(path)
    image.close()
    with pytest.raises(SatlisaError, match=r"scene\.png cannot be read"):
        open_image(image)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "found NoneType"),
        (5, "found int"),
        ({"bytes": None, "path": None}, "neither `bytes` nor `path`"),
        ({}, "neither `bytes` nor `path`"),
        (np.zeros((4, 4, 3), dtype=complex), r"found \(4, 4, 3\) of complex128"),
        (np.zeros((40, 50, 60), dtype=np.uint8), r"found \(40, 50, 60\) of uint8"),
        (np.zeros((5, 6, 7)), r"found \(5, 6, 7\) of float64"),
        (np.zeros((2, 3, 4, 3)), r"found \(2, 3, 4, 3\)"),
        (np.array([["a"]]), r"found \(1, 1\) of <U1"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"found \(0, 4, 3\)"),
    ],
)
def test_other_sources_are_refused(source: Any, message: str) -> None:
    with pytest.raises(SatlisaError, match=message):
        open_image(source)
