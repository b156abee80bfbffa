import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.web.downloads import write_geojson, write_geotiff, write_png
from satlisa.web.limits import Limits
from satlisa.web.picture import read_picture
from tests.helpers.pages import found_of

MASKS = np.zeros((3, 20, 30), dtype=bool)
MASKS[0, 2:6, 2:12] = True
MASKS[1, 10:18, 5:9], MASKS[1, 10:18, 20:24] = True, True  # of two parts; the third is empty


def test_png(tmp_path: Path) -> None:
    path = write_png(found_of(MASKS, name="a b.jpg").toggle(0), tmp_path)
    image = Image.open(path)
    assert path.name == "a b_mask.png" and image.mode == "L"
    assert np.array_equal(np.asarray(image), MASKS[1] * np.uint8(255))


def test_geojson_of_a_plain_picture_is_in_pixels_and_says_so(tmp_path: Path) -> None:
    content = json.loads(write_geojson(found_of(MASKS), tmp_path).read_text(encoding="utf-8"))
    first, second = content["features"]
    assert content["coordinate_system"].startswith("pixels (column, row)")
    assert first["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[2, 2], [12, 2], [12, 6], [2, 6], [2, 2]]],
    }
    assert second["geometry"]["type"] == "MultiPolygon"
    assert second["properties"] == {
        "object": 2,
        "prompt": "Segment",
        "answer": "Found <SEG> <SEG> <SEG>",
        "score": pytest.approx(0.7),
        "area_px": 64,
    }


def test_a_plain_picture_makes_no_geotiff(tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match=r"sat.png has no place on the ground.*take the PNG"):
        write_geotiff(found_of(MASKS), tmp_path)


def scene(tmp_path: Path, south_up: bool = False, **options: object):  # type: ignore[no-untyped-def]
    """A picture of 20 × 30 half-metre pixels in UTM, whose first column has no data."""
    rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
    from tests.helpers.scene_files import UTM, write

    values = np.full((3, 20, 30), 90, dtype=np.uint8)
    values[:, :, 0] = 0
    if south_up:
        options = {"crs": UTM, "transform": rasterio.Affine(0.5, 0, 300_000, 0, 0.5, 3_000_000)}
    return read_picture(write(tmp_path / "scene.tif", values, nodata=0, **options), Limits())


@pytest.mark.parametrize("south_up", [False, True])
def test_a_scene_comes_back_on_its_own_grid(tmp_path: Path, south_up: bool) -> None:
    picture = scene(tmp_path, south_up)
    import rasterio

    masks = MASKS.copy()
    masks[0, 2:6, 0] = True  # where there are no data
    found = found_of(masks, name=picture.name, orientation=picture.opened.orientation, place=picture.place)
    with rasterio.open(tmp_path / "scene.tif") as source, rasterio.open(write_geotiff(found, tmp_path)) as mask:
        assert (mask.crs, mask.transform, mask.shape) == (source.crs, source.transform, source.shape)
        levels = mask.read(1)
    assert (levels[:, 0] == 255).all() and mask.nodata == 255
    expected = MASKS.any(axis=0)[::-1] if south_up else MASKS.any(axis=0)
    assert np.array_equal(levels[:, 1:], expected[:, 1:].astype(np.uint8))


def test_geojson_of_a_scene_is_in_longitude_and_latitude_with_square_metres(tmp_path: Path) -> None:
    picture = scene(tmp_path)
    pyproj = pytest.importorskip("pyproj")
    found = found_of(MASKS, name=picture.name, place=picture.place)
    content = json.loads(write_geojson(found, tmp_path).read_text(encoding="utf-8"))
    to_degrees = pyproj.Transformer.from_crs("EPSG:32645", "EPSG:4326", always_xy=True)
    corners = [(2, 2), (12, 2), (12, 6), (2, 6)]
    expected = [to_degrees.transform(300_000 + x / 2, 3_000_000 - y / 2) for x, y in corners]
    [ring] = content["features"][0]["geometry"]["coordinates"]
    assert "coordinate_system" not in content
    assert sorted(map(tuple, ring[1:])) == [pytest.approx(point, abs=1e-9) for point in sorted(expected)]
    assert content["features"][0]["properties"]["area_m2"] == pytest.approx(40 / 4, rel=2e-3)  # UTM's scale
