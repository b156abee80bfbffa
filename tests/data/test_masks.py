"""Masks of pixels as polygons; COCO's own tools as the oracle."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from satlisa.data.masks import outline, read_mask_image, read_run_lengths, split_mask
from satlisa.geometry.raster import rasterize

MASK = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
COUNTS = [2, 3, 1]  # down the columns


def noise(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(rng.integers(1, 60, 2)) < rng.random()


@pytest.mark.parametrize("seed", range(40))
def test_a_mask_is_its_outline(seed: int) -> None:
    """Holes, parts and single pixels: exact, at the mask's own size and at twice of it."""
    mask = noise(seed)
    height, width = mask.shape
    assert np.array_equal(rasterize([outline(mask)], height, width), mask)
    assert np.array_equal(rasterize([outline(mask)], 2 * height, 2 * width), mask.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_cocos(seed: int) -> None:
    mask = noise(seed)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    for counts in (theirs["counts"], theirs["counts"].decode()):
        assert np.array_equal(read_run_lengths({"counts": counts, "size": theirs["size"]}), mask)


def test_run_lengths_as_a_list() -> None:
    assert np.array_equal(read_run_lengths({"counts": COUNTS, "size": [2, 3]}), MASK)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"counts": COUNTS}, r"with `size` \[height, width\]"),
        ({"counts": COUNTS, "size": [3]}, r"with `size` \[height, width\]"),
        ({"counts": COUNTS, "size": [2, 4]}, "add up to 6 pixels, not 2 × 4"),
        ({"counts": [2, -3, 7], "size": [2, 3]}, "whose counts are"),
        ({"counts": [2.0, 4], "size": [2, 3]}, "whose counts are"),
        ({"counts": "a~ b", "size": [2, 3]}, "whose counts are 'a~ b'"),
        ({"counts": "o" * 50, "size": [2, 3]}, "whose counts are"),
        ({"counts": [10**12], "size": [10**6, 10**6]}, "at most 178,956,970 pixels"),
    ],
)
def test_run_lengths_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_run_lengths(value)


def saved(values: np.ndarray, form: str = "PNG", mode: str | None = None) -> bytes:
    stream, image = io.BytesIO(), Image.fromarray(values)
    (image.convert(mode) if mode else image).save(stream, form)
    return stream.getvalue()


BOX = np.zeros((32, 40), dtype=np.uint8)
BOX[8:24, 8:32] = 1


@pytest.mark.parametrize(
    "content",
    [
        saved(BOX),
        saved(BOX * 255),
        saved(BOX * 255, "JPEG"),
        saved(BOX * 255, mode="RGB"),
        saved(BOX * 255, mode="1"),
        saved(np.dstack([BOX * 255, BOX * 0, BOX * 0])),
        saved(BOX.astype(np.uint16) * 700),
    ],
    ids=["0 and 1", "0 and 255", "JPEG", "RGB", "one bit", "red", "16 bits"],
)
def test_mask_images(content: bytes) -> None:
    (mask,) = split_mask(read_mask_image(content), instances=False)
    assert np.array_equal(mask, BOX.astype(bool))


def test_values_of_instances() -> None:
    values = BOX.astype(np.int64)
    values[:4, :4] = 2
    assert [int(mask.sum()) for mask in split_mask(values, instances=True)] == [16 * 24, 16]
    with pytest.raises(ValueError, match=r"2 values besides 0 \(1, 2\)"):
        split_mask(values, instances=False)
    assert split_mask(values * 0, instances=False) == []


@pytest.mark.parametrize("levels", [(1, 255), (1, 230), (240, 250), (1, 2, 3, 4, 255), (128, 255), (85, 170, 255)])
def test_a_few_values_are_no_smoothing(levels: tuple[int, ...]) -> None:
    """An ignored area of 255, or classes: which of them is the object would be a guess."""
    values = np.zeros((64, 64), dtype=np.int64)
    for number, level in enumerate(levels):
        values[4:30, 10 * number : 10 * number + 10] = level
    values[:, 50:] = levels[-1]
    with pytest.raises(ValueError, match=f"{len(levels)} values besides 0"):
        split_mask(values, instances=False)
    with pytest.raises(ValueError, match="2 values besides 0"):
        split_mask(np.where(BOX, 1, 255), instances=False)
    with pytest.raises(ValueError, match="2 values besides 0"):
        split_mask(np.where(BOX, 1, 255), instances=True)


def test_smoothed_masks() -> None:
    box = np.zeros((100, 120), dtype=np.uint8)
    box[13:47, 21:73] = 255
    soft = np.asarray(Image.fromarray(box).resize((50, 43), Image.Resampling.BICUBIC))
    for content, sides in ((saved(box, "JPEG"), (100, 120)), (saved(soft), (43, 50))):
        (mask,) = split_mask(read_mask_image(content), instances=True)
        assert mask.shape == sides and mask.mean() == pytest.approx(34 * 52 / 12000, rel=0.1)
    ignored = np.asarray(Image.open(io.BytesIO(saved(box, "JPEG")))).astype(np.int64)
    ignored[80:, 90:] = 1  # far from every edge: not a grey of JPEG's
    with pytest.raises(ValueError, match="values besides 0"):
        split_mask(ignored, instances=False)


def test_nodata_is_no_object() -> None:
    stream, values = io.BytesIO(), BOX.copy()
    values[:4] = 255
    Image.fromarray(values).save(stream, "TIFF", tiffinfo={42113: "255"})
    (mask,) = split_mask(read_mask_image(stream.getvalue()), instances=False)
    assert np.array_equal(mask, BOX.astype(bool))


def test_what_is_no_mask() -> None:
    with pytest.raises(ValueError, match="not an image in a format"):
        read_mask_image(b"hello")
    with pytest.raises(ValueError, match="is a mask image that cannot be read"):
        read_mask_image(saved(BOX)[:60])
    with pytest.raises(ValueError, match=r"outline of [\d,]+ pieces"):
        outline(np.random.default_rng(0).random((2000, 2000)) < 0.5)
