"""What is said of images that could be meant otherwise."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from satlisa.data import notes
from satlisa.data.images import open_image
from tests.helpers.raster_files import DEEP, NIR, RGB, grey, tiff


@pytest.fixture(autouse=True)
def fresh_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_noted", set())


def seen(source: Any) -> np.ndarray:
    return np.asarray(open_image(source))


def test_images_from_bytes_are_noted_each(caplog: pytest.LogCaptureFixture) -> None:
    """Tiles of one size have no name to tell them apart; files of a dataset have one, and are named once."""
    data = tiff(np.concatenate([RGB, NIR], axis=2), extrasamples=["unassalpha"])
    for source in (data, data, Image.open(io.BytesIO(data)), np.concatenate([RGB, NIR], axis=2)):
        open_image(source)
    for _ in range(2):
        open_image({"bytes": data, "path": "scene.tif"})
    names = [record.getMessage().split(" has ")[0] for record in caplog.records]
    assert names == [f"image of {len(data):,} bytes"] * 2 + ["image object", "array", "image scene.tif"]
    for _ in range(30):
        open_image(data)
    assert len(caplog.records) == 21


def pages(*written: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as out:
        for number, values in enumerate(written):
            kind = int(number > 0 and values.shape != written[0].shape)
            out.write(values, photometric="minisblack", metadata=None, subfiletype=kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("values", [RGB, DEEP, DEEP.astype(np.int16), DEEP.astype(np.float32), DEEP.astype(np.uint32)])
def test_further_bands_are_not_left_out_silently(values: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    bands = [np.ascontiguousarray(values[..., band]) for band in range(3)]
    for codec in (None, "zstd"):
        caplog.clear()
        first = seen(pages(*bands, compression=codec))
        assert caplog.text.count("has further pages of its size") == 1
        caplog.clear()
        assert np.array_equal(first, seen(pages(bands[0], bands[0][::2, ::2], compression=codec)))  # a pyramid
        assert np.array_equal(first, seen(pages(bands[0], compression=codec))) and not caplog.records
        two = seen(grey(values[..., :2], planarconfig="contig", extrasamples=["unspecified"], compression=codec))
        assert np.array_equal(first, two) and caplog.text.count("has 2 bands; the first is shown") == 1


def test_ten_thousand_such_images_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(100):
        notes.note(f"image {number}", "has 5 bands")
    assert len(caplog.records) == 21 and "others like it are not named" in caplog.records[-1].getMessage()
