"""The whole way, with a stand-in model that sees the truth: masks, objects, areas, places, answers."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

import pyogrio
import pyproj
import rasterio
import shapely
from affine import Affine
from rasterio.transform import from_origin

from satlisa.errors import SatlisaError
from satlisa.geo import ask_scene, open_scene, segment_scene
from satlisa.geo.answers import Reply
from tests.helpers.scene_files import see_mask, see_objects, see_text, shapes, write

CUSTOM = "+proj=tmerc +lat_0=27 +lon_0=85 +k=0.9999 +x_0=10000 +y_0=20000 +ellps=bessel +units=m"


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


def pixels_of(geometry, transform: Affine) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Corners of a geometry as grid positions (P, 2)."""
    points = shapely.get_coordinates(geometry)
    a, b, c, d, e, f = tuple(~transform)[:6]
    return points @ np.array([[a, d], [b, e]]) + (c, f)


@pytest.mark.parametrize("overlap", [0, 32, 64])
@pytest.mark.parametrize(
    ("window", "size"), [(256, (523, 701)), (512, (541, 1037)), (512, (200, 300)), (256, (512, 512))]
)
def test_mask_and_objects_equal_the_truth(window: int, overlap: int, size: tuple[int, int], tmp_path: Path) -> None:
    labels = shapes(*size)
    scene = write(tmp_path / "s.tif", labels)
    options = {"window": window, "overlap": overlap}
    found = segment_scene(None, scene, "all", ask=see_objects, output_mask=tmp_path / "m.tif", **options)
    assert np.array_equal(read(tmp_path / "m.tif"), labels > 0)
    assert len(found.features) == len(np.unique(labels)) - 1
    transform = from_origin(300_000, 3_000_000, 0.5, 0.5)
    drawn = np.zeros(size, dtype=np.int32)
    for feature in found.features:
        assert feature.geometry.is_valid
        inside = rasterio.features.rasterize([feature.geometry], size, transform=transform)
        (label,) = np.unique(labels[inside == 1])
        assert np.array_equal(inside == 1, labels == label)  # holes kept, touching objects apart, parts joined
        drawn += inside
    assert drawn.max() == 1
    merged = segment_scene(None, scene, "all", ask=see_mask, **options)
    total = sum(feature.geometry.area for feature in merged.features)
    assert total == pytest.approx(np.count_nonzero(labels) * 0.25)
    assert all(feature.geometry.is_valid for feature in merged.features)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32645", from_origin(300_000, 3_000_000, 0.5, 0.5)),
        ("EPSG:4326", from_origin(85.3, 27.7, 5e-6, 4e-6)),
        ("EPSG:3857", from_origin(9_500_000, 3_200_000, 2, 2)),
        (CUSTOM, from_origin(1_000, 50_000, 3, 3)),
        ("EPSG:32645", Affine(0.5, 0, 300_000, 0, 0.5, 3_000_000)),
        ("EPSG:32645", Affine(0.433, 0.25, 300_000, 0.25, -0.433, 3_000_000)),  # rotated by 30°
        ("EPSG:32645", Affine(0.5, 0.1, 300_000, -0.06, -0.7, 3_000_000)),  # sheared
        ("EPSG:32756", from_origin(300_000, 9_999_000, 10, 10)),
    ],
)
@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".shp"])
def test_corners_are_pixel_corners(crs: str, transform: Affine, suffix: str, tmp_path: Path) -> None:
    labels = shapes(150, 170)
    scene = write(tmp_path / "s.tif", labels, crs=crs, transform=transform)
    vectors = tmp_path / f"v{suffix}"
    segment_scene(
        None,
        scene,
        "all",
        ask=see_objects,
        window=64,
        overlap=16,
        output_vectors=vectors,
        output_mask=tmp_path / "m.tif",
    )
    with rasterio.open(tmp_path / "m.tif") as mask, rasterio.open(scene) as source:
        assert mask.transform == source.transform and mask.crs == source.crs and mask.shape == source.shape
        assert np.array_equal(mask.read(1), labels > 0)
    meta, _, geometry, columns = pyogrio.raw.read(vectors)
    back = pyproj.Transformer.from_crs(meta["crs"], crs, always_xy=True)
    assert len(geometry) == len(np.unique(labels)) - 1
    values = dict(zip(meta["fields"], columns, strict=True))
    assert set(values) == {"id", "prompt", "answer", "score", "area_m2", "window"}
    geod = pyproj.CRS(crs).get_geod()
    degrees = pyproj.Transformer.from_crs(crs, pyproj.CRS(crs).geodetic_crs, always_xy=True)
    for shape, area in zip(shapely.from_wkb(geometry), values["area_m2"], strict=True):
        assert shape.is_valid
        on_grid = shapely.transform(shape, lambda xy: np.stack(back.transform(*xy.T), axis=-1))
        corners = pixels_of(on_grid, transform)
        assert np.abs(corners - np.rint(corners)).max() < 1e-6
        lon_lat = shapely.transform(on_grid, lambda xy: np.stack(degrees.transform(*xy.T), axis=-1))
        parts = getattr(lon_lat, "geoms", [lon_lat])
        truth = sum(abs(geod.geometry_area_perimeter(shapely.orient_polygons(part))[0]) for part in parts)
        assert area == pytest.approx(truth, rel=5e-3)


def test_geojson_follows_the_standard(tmp_path: Path) -> None:
    scene = write(tmp_path / "s.tif", shapes(150, 170))
    segment_scene(None, scene, "all", ask=see_mask, window=64, overlap=16, output_vectors=tmp_path / "v.geojson")
    found = json.loads((tmp_path / "v.geojson").read_text())
    assert found["type"] == "FeatureCollection" and "crs" not in found
    for feature in found["features"]:
        shape = shapely.geometry.shape(feature["geometry"])
        assert all(-180 <= value <= 180 for value in shape.bounds)
        for part in getattr(shape, "geoms", [shape]):
            assert part.exterior.is_ccw and not any(hole.is_ccw for hole in part.interiors)


def test_geojson_is_cut_at_the_180th_meridian(tmp_path: Path) -> None:
    labels = np.full((40, 40), 7, dtype=np.uint8)
    scene = write(tmp_path / "s.tif", labels, crs="EPSG:32660", transform=from_origin(824_000, 1_000_000, 300, 300))
    found = segment_scene(None, scene, "all", ask=see_mask, output_vectors=tmp_path / "v.geojson")
    (feature,) = found.features
    assert feature.geometry.is_valid and feature.geometry.geom_type == "MultiPolygon"
    assert [round(part.bounds[0]) for part in feature.geometry.geoms] in (
        [180, -180],
        [-180, 180],
        [-180, 179],
        [180, -180],
    )
    assert feature.area == pytest.approx(1600 * 300**2, rel=5e-3)


def test_answers_of_windows(tmp_path: Path) -> None:
    values = np.zeros((128, 192), dtype=np.uint8)
    values[:64, 64:] = 200
    scene = write(tmp_path / "s.tif", values)
    said: list[tuple[int, int]] = []
    found = ask_scene(
        None,
        scene,
        "What?",
        ask=see_text,
        window=64,
        output_vectors=tmp_path / "a.geojson",
        progress=lambda *n: said.append(n),
    )
    assert found.counts == {"dark": 4, "bright": 2} and found.num_masks == 0
    assert said[-1] == (6, 6)
    entries = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [entry["properties"]["answer"] for entry in entries] == ["dark", "bright", "bright", "dark", "dark", "dark"]
    assert entries[1]["properties"]["window"] == "64,0,64,64" and entries[0]["properties"]["score"] is None


def test_windows_without_data_cost_nothing(tmp_path: Path) -> None:
    values = np.full((128, 256), -32768, dtype=np.int16)
    values[:64, :64] = np.arange(64)
    scene, seen = write(tmp_path / "s.tif", values, nodata=-32768), 0

    def ask(pictures, encode):  # type: ignore[no-untyped-def]
        nonlocal seen
        seen += len(pictures)
        return see_mask(pictures, encode)

    segment_scene(
        None,
        scene,
        "x",
        ask=ask,
        window=64,
        overlap=0,
        output_mask=tmp_path / "m.tif",
        output_probability=tmp_path / "p.tif",
    )
    assert seen == 1
    mask, probability = read(tmp_path / "m.tif"), read(tmp_path / "p.tif")
    assert (mask[64:] == 255).all() and (mask[:64, 64:] == 255).all() and set(np.unique(mask[:64, :64])) == {0, 1}
    assert np.array_equal(probability == 255, mask == 255) and probability[10, 40] == 254 and probability[10, 0] == 0


@pytest.mark.parametrize("factor", [2, 0.5])
def test_work_at_another_resolution(factor: float, tmp_path: Path) -> None:
    labels = np.zeros((300, 260), dtype=np.uint8)
    labels[40:120, 60:200] = 50
    scene = open_scene(write(tmp_path / "s.tif", labels), resolution=0.5 * factor)
    found = segment_scene(None, scene, "x", ask=see_mask, window=64, overlap=16, output_mask=tmp_path / "m.tif")
    different = read(tmp_path / "m.tif") != (labels > 0)
    assert different.sum() <= 2 * 440 * factor  # about a working pixel along the outline
    assert found.windows[0][0].width == round(64 * factor)


def test_part_of_a_scene(tmp_path: Path) -> None:
    labels = shapes(300, 300)
    path = write(tmp_path / "s.tif", labels)
    scene = open_scene(path, bbox=(300_000 + 50, 3_000_000 - 125, 300_000 + 125, 3_000_000 - 50))
    assert scene.area == (100, 100, 150, 150)
    segment_scene(None, scene, "x", ask=see_mask, window=64, overlap=16, output_mask=tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert dataset.bounds == (300_050, 2_999_875, 300_125, 2_999_950)
        assert np.array_equal(dataset.read(1), labels[100:250, 100:250] > 0)
    to_degrees = pyproj.Transformer.from_crs("EPSG:32645", "EPSG:4326", always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(300_050, 2_999_875, 300_125, 2_999_950)
    column, row, width, height = open_scene(path, bbox=(west, south, east, north)).area
    assert column <= 100 <= column + 4 and row <= 100 <= row + 4 and 150 <= width <= 158 and 150 <= height <= 158
    with pytest.raises(SatlisaError, match=r"--bbox: .*lies beside .*extent is 300000"):
        open_scene(path, bbox=(0, 0, 1, 1))


def test_without_crs_vectors_are_in_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = np.zeros((60, 90), dtype=np.uint8)
    labels[10:20, 30:50] = 9
    scene = write(tmp_path / "s.tif", labels, crs=None)
    (feature,) = segment_scene(None, scene, "x", ask=see_mask, output_vectors=tmp_path / "v.gpkg").features
    assert feature.geometry.bounds == (30, 10, 50, 20) and feature.area == 200
    assert "vectors are in pixels" in caplog.text
    assert "area_px" in pyogrio.read_info(tmp_path / "v.gpkg")["fields"]


def test_outlines_are_simplified_and_small_features_left_out(tmp_path: Path) -> None:
    labels = np.zeros((100, 100), dtype=np.uint8)
    labels[np.add.outer(np.arange(100), np.arange(100)) < 90] = 5  # stairs
    labels[90:92, 90:92] = 5
    scene = write(tmp_path / "s.tif", labels)
    plain = segment_scene(None, scene, "x", ask=see_mask).features
    (smooth,) = segment_scene(None, scene, "x", ask=see_mask, simplify=1.0, min_area=2.0).features
    assert len(plain) == 2 and plain[1].area == pytest.approx(1, rel=1e-2)
    assert len(smooth.geometry.exterior.coords) < 10 < len(plain[0].geometry.exterior.coords)
    assert smooth.geometry.hausdorff_distance(plain[0].geometry) <= 1.0


def test_vectors_in_another_projection(tmp_path: Path) -> None:
    scene = write(tmp_path / "s.tif", shapes(150, 170))
    segment_scene(None, scene, "x", ask=see_mask, output_vectors=tmp_path / "v.gpkg", output_crs="EPSG:3857")
    assert pyogrio.read_info(tmp_path / "v.gpkg")["crs"] == "EPSG:3857"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 1.0}, "--threshold: expected a probability between 0 and 1, found 1.0"),
        ({"overlap": 300}, "--window and --overlap: .*found 512 and 300"),
        ({"min_area": -1}, "--min_area: expected 0 or more"),
        ({"min_area": float("nan")}, "--min_area: expected 0 or more, found nan"),
        ({"window": 64.5}, "--window: expected a whole number"),
        ({"overlay": "q.xyz"}, "pictures are not written as '.xyz'"),
        ({"output_mask": "{scene}"}, "is the file of --image"),
        ({"output_mask": "a.tif", "output_probability": "a.tif"}, "is the file of --image or of another output"),
        ({"output_crs": "EPSG:4978"}, "--output_crs: WGS 84 is Geocentric CRS"),
        ({"output_mask": "m.png"}, "GeoTIFFs; name a .tif"),
        ({"output_vectors": "v.kml"}, "expected .gpkg, .geojson"),
        ({"output_crs": "EPSG:0"}, "--output_crs: 'EPSG:0' is no CRS"),
        ({"output_vectors": "v.geojson", "output_crs": "EPSG:3857"}, "GeoJSON is in longitude and latitude"),
        ({"style": True, "output_mask": "a.tif", "output_vectors": "a.gpkg"}, "a.qml would be the style of two"),
        ({"windows": 3}, "segment_scene: .*windows.*its options are"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], said: str, tmp_path: Path) -> None:
    scene = write(tmp_path / "s.tif", np.ones((20, 20), dtype=np.uint8))
    options = {name: str(scene) if value == "{scene}" else value for name, value in options.items()}
    with pytest.raises(SatlisaError, match=said):
        segment_scene(None, scene, "x", ask=see_mask, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["s.tif"]


def test_a_stray_mask_makes_no_mask_of_a_question_about_land_cover(tmp_path: Path) -> None:
    """A map of answers stays one where a window has a mask; a question for masks stays one where few have."""
    values = np.zeros((192, 192), dtype=np.uint8)
    values[:20, :20] = 200  # in one window of nine
    scene = write(tmp_path / "s.tif", values)
    options = {"window": 64, "overlap": 0, "ask": see_mask}
    words = segment_scene(None, scene, "What land cover is shown?", **options)
    assert words.num_masks == 0 and len(words.features) == 9
    asked = segment_scene(None, scene, "Segment the buildings", **options)
    assert asked.num_masks == 1 and len(asked.features) == 1
    named = segment_scene(None, scene, "What land cover is shown?", output_mask=tmp_path / "m.tif", **options)
    assert named.num_masks == 1


def test_a_scene_without_data_has_a_mask_without_data(tmp_path: Path) -> None:
    scene = write(tmp_path / "s.tif", np.zeros((70, 90), dtype=np.uint8), nodata=0)
    places = {"output_mask": tmp_path / "m.tif", "output_vectors": tmp_path / "v.gpkg"}
    found = segment_scene(None, scene, "Segment", ask=see_mask, **places)
    assert not found.windows and (read(tmp_path / "m.tif") == 255).all()
    assert pyogrio.read_info(tmp_path / "v.gpkg")["features"] == 0


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.71])
def test_a_mask_is_exact_at_any_threshold(threshold: float, tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(40, 60)).astype(np.float32)

    def ask(pictures, encode):  # type: ignore[no-untyped-def]
        return [Reply("<SEG>", [encode(logits)], [0.5])]

    scene = write(tmp_path / "s.tif", np.ones((40, 60), dtype=np.uint8))
    segment_scene(None, scene, "x", ask=ask, threshold=threshold, output_mask=tmp_path / "m.tif")
    assert np.array_equal(read(tmp_path / "m.tif"), 1 / (1 + np.exp(-logits.astype(float))) > threshold)


def test_degrees_run_from_minus_180_to_180_in_geojson_alone(tmp_path: Path) -> None:
    labels = np.full((20, 20), 5, dtype=np.uint8)
    scene = write(tmp_path / "s.tif", labels, crs="EPSG:4326", transform=from_origin(175, 10, 0.5, 0.5))
    (cut,) = segment_scene(None, scene, "x", ask=see_mask, output_vectors=tmp_path / "v.geojson").features
    (whole,) = segment_scene(None, scene, "x", ask=see_mask, output_vectors=tmp_path / "v.gpkg").features
    assert cut.geometry.bounds == (-180, 0, 180, 10) and cut.geometry.area == pytest.approx(100)
    assert whole.geometry.bounds == (175, 0, 185, 10) and cut.area == pytest.approx(whole.area, rel=1e-3)
