from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satlisa.data.images import open_oriented
from satlisa.errors import SatlisaError
from satlisa.web.limits import Limits
from satlisa.web.picture import read_picture


def test_a_photo_is_upright_and_remembers_how_it_is_stored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3) * 3).save(tmp_path / "photo.png", exif=exif)
    picture = read_picture(tmp_path / "photo.png", Limits())
    expected = open_oriented(tmp_path / "photo.png")
    assert picture.opened.orientation == 6 and picture.place is None and picture.opened.rgb.size == (4, 6)
    assert np.array_equal(picture.opened.rgb, expected.rgb)


def test_pixels_are_counted_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (2000, 1000)).save(tmp_path / "large.png")
    monkeypatch.setattr("satlisa.web.picture.open_oriented", lambda _: pytest.fail("decoded"))
    with pytest.raises(
        SatlisaError, match=r"^large.png has 2,000 × 1,000 pixels, and this page takes at most 1 million"
    ):
        read_picture(tmp_path / "large.png", Limits(megapixels=1))


def test_bytes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(b"x" * 1_000_001)
    with pytest.raises(SatlisaError, match=r"^large.png has more than 1 MB"):
        read_picture(tmp_path / "large.png", Limits(megabytes=1))


@pytest.mark.parametrize("name", ["no.png", "no.tif"])
def test_what_is_no_picture_is_said_without_the_path(tmp_path: Path, name: str) -> None:
    for content in (b"hello", b"II*\0garbage", b"\x89PNG\r\n\x1a\ngarbage"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SatlisaError) as refused:
            read_picture(tmp_path / name, Limits())
        assert name in str(refused.value) and str(tmp_path) not in str(refused.value)


def test_a_deleted_upload(tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match="no longer kept; upload it again"):
        read_picture(tmp_path / "gone.png", Limits())


def test_a_virtual_raster_opens_nothing(tmp_path: Path) -> None:
    """GDAL's VRT names other files of the machine."""
    pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
    Image.new("L", (8, 8), 200).save(tmp_path / "private.png")
    text = f"""<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:4326</SRS>
<GeoTransform>1, 1, 0, 1, 0, -1</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{tmp_path}/private.png</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""
    (tmp_path / "scene.tif").write_text(text)
    with pytest.raises(SatlisaError, match="not an image"):
        read_picture(tmp_path / "scene.tif", Limits())


def test_a_tiff_of_many_bands_counts_too(tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
    from tests.helpers.scene_files import write

    values = np.random.default_rng(0).integers(1, 4000, (5, 40, 60)).astype(np.uint16)
    path = write(tmp_path / "scene.tif", values)
    assert read_picture(path, Limits()).place is not None
    with pytest.raises(SatlisaError, match="60 × 40 pixels"):
        read_picture(path, Limits(megapixels=0.002))
