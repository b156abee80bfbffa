"""Rasters of every kind against rasterio and NumPy: the picture that a person sees, at most a grey level apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

import rasterio
import rasterio.rpc
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from satlisa.errors import SatlisaError
from satlisa.geo import open_scene
from tests.helpers.scene_files import UTM, write

SIDE = 96


def numbers(bands: int, kind: str, seed: int = 0) -> np.ndarray:
    """(bands, SIDE, SIDE): uint8 and uint16 digits, int16 with negative values, or reflectance from 0 to 0.4."""
    rng = np.random.default_rng(seed)
    smooth = rng.random((bands, SIDE, SIDE)) * np.linspace(0.2, 1, SIDE)
    scale = {"uint8": 255, "uint16": 3000, "int16": 900, "float32": 0.4, "float64": 0.4}[kind]
    return (smooth * scale - (300 if kind == "int16" else 0)).astype(kind)


def stretched(band: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A band from its 2 % to its 98 % quantile, as QGIS cuts it."""
    low, high = np.percentile(band[valid], (2, 98))
    with np.errstate(invalid="ignore"):
        levels = np.clip((band.astype(float) - low) / (high - low), 0, 1) * 255
    return np.where(valid, np.nan_to_num(levels), 0)


def shown(path: Path, **options: Any) -> np.ndarray:
    return np.asarray(open_scene(path, **options).read(0, 0, SIDE, SIDE).picture).transpose(2, 0, 1).astype(float)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 8, 12])
def test_types_and_bands(kind: str, bands: int, tmp_path: Path) -> None:
    values = numbers(bands, kind)
    path = write(tmp_path / "s.tif", values, photometric="MINISBLACK")
    chosen = [0, 1, 2] if bands > 2 else [0, 0, 0]
    everywhere = np.ones((SIDE, SIDE), dtype=bool)
    expected = [values[b] if kind == "uint8" else stretched(values[b], everywhere) for b in chosen]
    assert np.abs(shown(path) - expected).max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "lzw"},
        {"compress": "zstd", "predictor": 2},
        {"compress": "lerc", "max_z_error": 0},
        {"compress": "deflate", "tiled": True, "blockxsize": 32, "blockysize": 32},
        {"blockysize": 7},
        {"bigtiff": "yes"},
        {"interleave": "band"},
        {"driver": "COG", "compress": "deflate"},
    ],
)
def test_layouts_and_codecs(options: dict[str, Any], tmp_path: Path) -> None:
    values = numbers(3, "uint16")
    if options.get("driver") == "COG":
        write(tmp_path / "plain.tif", values)
        rasterio.shutil.copy(tmp_path / "plain.tif", tmp_path / "s.tif", **options)
    else:
        write(tmp_path / "s.tif", values, **options)
    everywhere = np.ones((SIDE, SIDE), dtype=bool)
    assert np.abs(shown(tmp_path / "s.tif") - [stretched(band, everywhere) for band in values]).max() <= 1


def test_jpeg_in_tiff(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8)
    options = {"compress": "jpeg", "photometric": "ycbcr", "tiled": True, "blockxsize": 48, "blockysize": 48}
    path = write(tmp_path / "s.tif", np.stack([smooth, smooth[::-1], smooth[:, ::-1]]), **options)
    with rasterio.open(path) as dataset:
        assert np.array_equal(shown(path), dataset.read())


def test_palette(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4, (SIDE, SIDE)).astype(np.uint8)
    path = write(tmp_path / "s.tif", values, photometric="palette")
    colours = {0: (0, 0, 0, 255), 1: (200, 30, 10, 255), 2: (0, 180, 0, 255), 3: (9, 8, 250, 255)}
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, colours)
    table = np.array([colours[value][:3] for value in range(4)])
    assert np.array_equal(shown(path), table[values].transpose(2, 0, 1))


@pytest.mark.parametrize("nodata", [-9999.0, np.nan, 0.0])
def test_nodata(nodata: float, tmp_path: Path) -> None:
    values = numbers(1, "float32") + np.float32(0.01)
    values[0, :30, :40] = nodata
    path = write(tmp_path / "s.tif", values, nodata=nodata)
    valid = np.ones((SIDE, SIDE), dtype=bool)
    valid[:30, :40] = False
    assert np.abs(shown(path) - stretched(values[0], valid)).max() <= 1
    assert np.array_equal(open_scene(path).read(0, 0, SIDE, SIDE).valid, valid)


def test_nan_without_a_nodata_tag(tmp_path: Path) -> None:
    values = numbers(3, "float64")
    values[1, 5:9] = np.nan
    view = open_scene(write(tmp_path / "s.tif", values)).read(0, 0, SIDE, SIDE)
    assert not view.valid[5:9].any() and view.valid[9:].all() and np.asarray(view.picture)[5:9].max() == 0


def test_nodata_of_each_band(tmp_path: Path) -> None:
    values = numbers(2, "int16")
    values[0, :10], values[1, 5:20] = -1000, -2000
    write(tmp_path / "s.tif", values)
    bands = "".join(
        f'<VRTRasterBand dataType="Int16" band="{n}"><NoDataValue>{-1000 * n}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">s.tif</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for n in (1, 2)
    )
    (tmp_path / "s.vrt").write_text(f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}">{bands}</VRTDataset>')
    for band in (1, 2):
        valid = values[band - 1] != -1000 * band
        assert np.abs(shown(tmp_path / "s.vrt", bands=[band]) - stretched(values[band - 1], valid)).max() <= 1


def test_internal_mask(tmp_path: Path) -> None:
    values, valid = numbers(3, "uint16"), np.ones((SIDE, SIDE), dtype=bool)
    valid[40:60, 10:50] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(tmp_path / "s.tif", values)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(valid)
    assert np.abs(shown(path) - [stretched(band, valid) for band in values]).max() <= 1


def test_alpha_and_near_infrared_marked_as_alpha(tmp_path: Path) -> None:
    values = numbers(4, "uint8")
    values[3] = np.where(np.arange(SIDE) < 20, 0, 255)
    path = write(tmp_path / "s.tif", values, photometric="rgb", alpha="yes")
    view = open_scene(path).read(0, 0, SIDE, SIDE)
    assert np.array_equal(view.valid, values[3] > 0)
    assert np.array_equal(np.asarray(view.picture), np.where(view.valid, values[:3], 0).transpose(1, 2, 0))
    values[3] = numbers(1, "uint8", seed=9)[0]
    path = write(tmp_path / "n.tif", values, photometric="rgb", alpha="yes")
    assert np.array_equal(shown(path), values[:3]) and open_scene(path).read(0, 0, SIDE, SIDE).valid.all()


def test_bands_by_name_role_and_option(tmp_path: Path) -> None:
    values = numbers(5, "uint8")
    path = write(tmp_path / "s.tif", values, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("NIR", "Band 3 (Blue)", "green", "B4 Red", "x")
    assert np.array_equal(shown(path), values[[3, 2, 1]])
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp[n] for n in ("blue", "green", "red", "undefined", "undefined")]
    assert np.array_equal(shown(path), values[[2, 1, 0]])
    assert np.array_equal(shown(path, bands=[5, 1, 2]), values[[4, 0, 1]])
    with pytest.raises(SatlisaError, match=r"--bands: .*has bands 1 to 5, found 6"):
        open_scene(path, bands=[6])


@pytest.mark.parametrize(
    ("stretch", "low", "high"),
    [("min,max", 0, 100), ("5,95", 5, 95), ("fixed:100,900", None, (100, 900)), ("0,2500", None, (0, 2500))],
)
def test_stretches(stretch: str, low: float | None, high: Any, tmp_path: Path) -> None:
    values = numbers(1, "uint16")
    ends = high if low is None else np.percentile(values, (low, high))
    expected = np.clip((values[0].astype(float) - ends[0]) / (ends[1] - ends[0]), 0, 1) * 255
    assert np.abs(shown(write(tmp_path / "s.tif", values), stretch=stretch) - expected).max() <= 1


@pytest.mark.parametrize("stretch", ["2", "98,2", "0,1", "a,b", "60,90", "fixed:3,3"])
def test_stretches_that_are_none(stretch: str, tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match="--stretch: "):
        open_scene(write(tmp_path / "s.tif", numbers(1, "uint16")), stretch=stretch)


def test_two_windows_show_an_object_in_the_same_colours(tmp_path: Path) -> None:
    """Also in a large scene, whose stretch comes from a sample, with and without overviews."""
    values = np.tile(np.linspace(100, 4000, 5000).astype(np.uint16), (4000, 1))
    values[100:120, 30:50] = values[3900:3920, 4900:4920] = 2000
    path = write(tmp_path / "s.tif", values, tiled=True, compress="deflate")
    for _ in range(2):
        scene = open_scene(path)
        first, last = scene.read(0, 0, 512, 512), scene.read(4488, 3488, 512, 512)
        colour = np.asarray(first.picture)[110, 40]
        assert np.array_equal(colour, np.asarray(last.picture)[422, 422])
        assert abs(int(colour[0]) - 255 * (2000 - 178) / (3922 - 178)) <= 2
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4, 8], rasterio.enums.Resampling.nearest)


def test_a_raster_from_south_to_north_is_shown_north_up(tmp_path: Path) -> None:
    values = numbers(1, "uint8")
    path = write(tmp_path / "s.tif", values, crs=UTM, transform=Affine(1, 0, 500_000, 0, 1, 4_000_000))
    scene = open_scene(path)
    assert np.array_equal(shown(path)[0], values[0, ::-1])
    assert np.array_equal(scene.to_grid(np.asarray(scene.read(0, 0, SIDE, SIDE).picture)[..., 0]), values[0])


def test_a_view_at_another_resolution(tmp_path: Path) -> None:
    values = np.repeat(np.repeat(numbers(1, "uint8")[:, ::2, ::2], 2, axis=1), 2, axis=2)
    scene = open_scene(write(tmp_path / "s.tif", values), resolution=1.0)
    assert scene.pixel_scale == pytest.approx((2, 2), rel=1e-3)
    view = scene.read(0, 0, SIDE, SIDE)
    assert np.array_equal(np.asarray(view.picture)[..., 0], values[0, ::2, ::2]) and view.valid.shape == (SIDE, SIDE)


def test_scenes_that_have_no_place(tmp_path: Path) -> None:
    points = [GroundControlPoint(r, c, c, -r) for r, c in ((0, 0), (0, 90), (90, 0), (90, 90))]
    path = write(tmp_path / "s.tif", numbers(1, "uint8"), crs=UTM, gcps=points)
    with pytest.raises(SatlisaError, match=r"4 ground control points and no transform.*rio warp"):
        open_scene(path)
    with pytest.raises(SatlisaError, match="has no CRS, so its pixels have no size in metres"):
        open_scene(write(tmp_path / "n.tif", numbers(1, "uint8"), crs=None), resolution=1.0)


def test_rational_polynomials_without_a_transform_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", numbers(1, "uint8"), transform=rasterio.Affine.identity())
    terms = [1.0] + [0.0] * 19
    polynomials = {f"{part}_{kind}_coeff": terms for part in ("line", "samp") for kind in ("num", "den")}
    names = ("height", "lat", "line", "long", "samp")
    offsets = {f"{name}_{kind}": 1.0 for name in names for kind in ("off", "scale")}
    with rasterio.open(path, "r+") as dataset:
        dataset.rpcs = rasterio.rpc.RPC(**polynomials, **offsets)
    with pytest.raises(SatlisaError, match=r"RPCs and no transform.*gdalwarp -rpc"):
        open_scene(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SatlisaError, match="no such file"):
        open_scene(tmp_path / "missing.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(SatlisaError, match=r"text\.tif cannot be read"):
        open_scene(tmp_path / "text.tif")
    path = write(tmp_path / "s.tif", numbers(3, "uint16"), compress="deflate")
    scene = open_scene(path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(SatlisaError, match="cannot be read"):
        scene.read(0, 0, SIDE, SIDE)
        open_scene(path).read(0, 0, SIDE, SIDE)


def test_windows_are_windows(tmp_path: Path) -> None:
    values = numbers(3, "uint8")
    path = write(tmp_path / "s.tif", values)
    view = open_scene(path).read(7, 11, 20, 30)
    with rasterio.open(path) as dataset:
        expected = dataset.read(window=Window(7, 11, 20, 30))
    assert np.array_equal(np.asarray(view.picture), expected.transpose(1, 2, 0))


@pytest.mark.parametrize(("kind", "opaque"), [("uint8", 255), ("uint16", 65535), ("uint16", 255), ("float32", 1.0)])
def test_transparency_of_any_scale(kind: str, opaque: float, tmp_path: Path) -> None:
    values = np.concatenate([numbers(3, kind), np.full((1, SIDE, SIDE), opaque, dtype=kind)])
    values[3, :40] = 0
    values[:3, :40] *= 2  # what is hidden does not count for the stretch
    path = write(tmp_path / "s.tif", values, photometric="rgb", alpha="yes")
    valid = values[3] > 0
    expected = [band * valid if kind == "uint8" else stretched(band, valid) for band in values[:3]]
    assert np.abs(shown(path) - expected).max() <= 1
    assert np.array_equal(open_scene(path).read(0, 0, SIDE, SIDE).valid, valid)


def test_one_band_without_data_is_black_in_it(tmp_path: Path) -> None:
    values = numbers(3, "uint16")
    values[0, :30], values[1, 20:50], values[:, 90:] = 65535, 65535, 65535
    path = write(tmp_path / "s.tif", values, nodata=65535)
    assert np.abs(shown(path) - [stretched(band, band != 65535) for band in values]).max() <= 1
    assert np.array_equal(open_scene(path).read(0, 0, SIDE, SIDE).valid, (values != 65535).any(axis=0))
    bright = numbers(3, "uint8")
    bright[0, :30] = 255  # saturated, and the nodata value
    path = write(tmp_path / "b.tif", bright, nodata=255, photometric="rgb")
    assert np.array_equal(shown(path), bright)
