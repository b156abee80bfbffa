"""Rasters and vectors → windows, against rasterio's own rasterisation, in three CRSs."""

from pathlib import Path

import numpy as np
import pytest

from satlisa.errors import SatlisaError
from satlisa.geometry.raster import rasterize
from tests.helpers.converting import convert, overlap, samples_of

rasterio = pytest.importorskip("rasterio")
shapely = pytest.importorskip("shapely")
pyproj = pytest.importorskip("pyproj")
pyogrio = pytest.importorskip("pyogrio")

from rasterio.features import rasterize as burn  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

SIDE = 600
PLACES = {  # the raster's CRS, its upper left corner, and the side of a pixel
    "EPSG:32633": (500_000.0, 5_300_000.0, 0.5),
    "EPSG:3857": (1_670_000.0, 6_080_000.0, 0.7),
    "EPSG:4326": (15.0, 47.9, 5e-6),
}
OUTLINES = [  # in pixels: a courtyard, a triangle over window edges, two parts, one across the raster's edge
    shapely.Polygon([(20, 30), (200, 40), (190, 220), (30, 200)], [[(80, 90), (80, 150), (140, 150), (140, 90)]]),
    shapely.Polygon([(250, 250), (420, 300), (330, 450)]),
    shapely.MultiPolygon([shapely.box(450, 50, 500, 120), shapely.box(520, 60, 580, 110)]),
    shapely.Polygon([(550, 500), (700, 520), (690, 590), (560, 580)]),
]


def write(folder: Path, crs: str, vectors_crs: str = "EPSG:4326", name: str = "roofs.geojson") -> tuple[Path, Path]:
    """A raster of noise, and the outlines as vectors in their own CRS."""
    x, y, side = PLACES[crs]
    transform = Affine(side, 0, x, 0, -side, y)
    noise = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE), dtype=np.uint8)
    meta = dict(driver="GTiff", width=SIDE, height=SIDE, count=3, dtype="uint8", crs=crs, transform=transform)
    with rasterio.open(folder / "scene.tif", "w", **meta) as raster:
        raster.write(noise)
    turn = pyproj.Transformer.from_crs(crs, vectors_crs, always_xy=True)

    def place(points: np.ndarray) -> np.ndarray:
        return np.stack(turn.transform(x + side * points[:, 0], y - side * points[:, 1]), axis=1)

    shapes = [shapely.transform(outline, place) for outline in OUTLINES]
    kinds = np.array(["roof", "roof", "pool", "pool"], dtype=object)
    pyogrio.raw.write(
        folder / name,
        shapely.to_wkb(np.array([shapely.multipolygons([s]) if s.geom_type == "Polygon" else s for s in shapes])),
        [kinds],
        ["kind"],
        geometry_type="MultiPolygon",
        crs=vectors_crs,
    )
    return folder / "scene.tif", folder / name


def truth(raster_file: Path, vectors: Path, numbers: list[int]) -> np.ndarray:
    """What rasterio draws of some features, by the vectors in the raster's CRS."""
    meta, _, wkb, _ = pyogrio.raw.read(vectors)
    with rasterio.open(raster_file) as raster:
        shapes = [shapely.from_wkb(wkb[number]).__geo_interface__ for number in numbers]
        moved = [rasterio.warp.transform_geom(meta["crs"], raster.crs, shape) for shape in shapes]
        mask: np.ndarray = burn(moved, (SIDE, SIDE), transform=raster.transform).astype(bool)
    return mask


def stitched(out: Path, task: str) -> np.ndarray:
    """The masks of all windows in their places."""
    full = np.zeros((SIDE, SIDE), dtype=bool)
    for sample in samples_of(out, task=task):
        left, top = (int(part[1:]) for part in Path(sample.image_source["path"]).stem.split("_")[-2:])
        width, height = sample.image.size
        for region in sample.regions:
            full[top : top + height, left : left + width] |= rasterize(region, height, width)
    return full


@pytest.mark.parametrize("crs", PLACES)
@pytest.mark.parametrize("name", ["roofs.geojson", "roofs.gpkg", "roofs.shp"])
def test_masks_are_those_of_rasterio(tmp_path: Path, crs: str, name: str) -> None:
    import rasterio.warp  # noqa: F401

    raster, vectors = write(tmp_path, crs, "EPSG:4326" if name != "roofs.gpkg" else "EPSG:3035", name)
    convert("geo", raster, vectors, tmp_path / "out", "--label_field", "kind", "--window", 256, "--split", "1")
    for task, numbers in (("roof_segmentation", [0, 1]), ("pool_segmentation", [2, 3])):
        mask, expected = stitched(tmp_path / "out", task), truth(raster, vectors, numbers)
        assert overlap(mask, expected) >= 0.99
        padded = np.pad(expected, 1)
        near = np.stack([padded[1 + r : 1 + r + SIDE, 1 + c : 1 + c + SIDE] for r in (-1, 0, 1) for c in (-1, 0, 1)])
        assert (near.any(axis=0) | ~mask).all() and (~near.all(axis=0) | mask).all()
    assert not stitched(tmp_path / "out", "roof_segmentation")[120, 110]  # the courtyard


def test_windows_without_objects_are_kept_by_a_share(tmp_path: Path) -> None:
    raster, vectors = write(tmp_path, "EPSG:32633")
    for share, least, most in ((0, 0, 0), (1, 4, 60)):
        out = tmp_path / f"out{share}"
        convert("geo", raster, vectors, out, "--window", 100, "--split", "1", "--negatives", share)
        empty = [sample for sample in samples_of(out) if "segm" in sample.task and not sample.regions]
        assert least <= len(empty) <= most
    assert all(max(sample.image.size) <= 100 for sample in samples_of(out))


def test_splits_of_one_raster_are_blocks(tmp_path: Path) -> None:
    raster, vectors = write(tmp_path, "EPSG:32633")
    convert("geo", raster, vectors, tmp_path / "out", "--window", 64, "--split", "0.5,0.5", "--label", "roof")
    names = [{s.image_source["path"] for s in samples_of(tmp_path / "out", p)} for p in ("train", "validation")]
    assert names[0] and names[1] and not names[0] & names[1]


def test_sixteen_bits_get_one_stretch(tmp_path: Path) -> None:
    raster, vectors = write(tmp_path, "EPSG:32633")
    with rasterio.open(raster) as source:
        meta = {**source.meta, "dtype": "uint16"}
    ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint16) * 5 + 1, (3, SIDE, SIDE))
    with rasterio.open(raster, "w", **meta) as target:
        target.write(ramp)
    convert("geo", raster, vectors, tmp_path / "out", "--window", 300, "--split", "1")
    means = {}
    for sample in samples_of(tmp_path / "out"):
        means[sample.image_source["path"]] = np.asarray(sample.image).mean()
    assert means["scene_x0_y0.png"] < 80 and means["scene_x300_y0.png"] > 170


def test_errors_say_what_is_missing(tmp_path: Path) -> None:
    raster, vectors = write(tmp_path, "EPSG:32633")
    with pytest.raises(SatlisaError, match="no field 'sort'; found kind"):
        convert("geo", raster, vectors, tmp_path / "out", "--label_field", "sort")
    with rasterio.open(raster, "r+") as opened:
        opened.transform = Affine(0.5, 0, 900_000, 0, -0.5, 100_000)
    with pytest.raises(SatlisaError, match="none of the 4 polygons"):
        convert("geo", raster, vectors, tmp_path / "out")
