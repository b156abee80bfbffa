"""Rasters with vectors in any CRS: windows of the rasters, and what lies in each of them. Needs the extra `geo`."""

import argparse
import io
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from satlisa.convert.picture import UPRIGHT, Picture
from satlisa.convert.problems import Problems
from satlisa.convert.scene import Scene, Thing
from satlisa.convert.shapes import NO_AREA, NoAreaError, Part, polygon_thing
from satlisa.errors import SatlisaError, first_line

try:
    import pyogrio.raw
    import pyproj
    import rasterio
    import shapely
    from rasterio.windows import Window
except ImportError as missing:
    raise SatlisaError(
        f"geo: {missing.name} is not installed; run `pip install -r requirements-geo.txt` or `pip install satlisa[geo]`"
    ) from missing

_VECTORS = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
_RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img")
_BLOCK = 4  # windows in a row and a column that stay in one split, where there are few rasters
_FEW = 3  # rasters, too few to be split whole
_OVERVIEW = 1024  # pixels of the side at which a raster's range of values is measured
_NO_POLYGON = "features that are no polygons, left out"
_MENDED = "polygons that cross themselves, mended by shapely's make_valid"
_NOWHERE = "features that have no place in the raster's CRS, left out"
_NO_DATA = "windows without data, left out"


@dataclass(frozen=True)
class Features:
    """The polygons of a vector file, their classes, and their CRS."""

    path: Path
    geometries: Any
    labels: Sequence[str]
    crs: str


def read(inputs: list[str], options: argparse.Namespace, problems: Problems) -> list[Scene]:
    """Windows of at most `options.window` pixels of the rasters, with the polygons of the vectors in them.

    Windows do not overlap. Of those without polygons, a share is kept: `options.negatives` for each window with some.

    Raises:
        SatlisaError: no such files, no CRS, no class, or no polygon in any raster.
    """
    rasters, vectors = _files(inputs)
    features = [_read_features(path, options, problems) for path in vectors]
    labels = sorted({label for found in features for label in found.labels})
    scenes: list[Scene] = []
    for path in rasters:
        try:
            with rasterio.open(path) as raster:
                scenes += _cut(path, raster, features, labels, options, len(rasters) < _FEW, problems)
        except rasterio.errors.RasterioError as error:
            raise SatlisaError(f"{path}: cannot be read as a raster ({first_line(error)})") from error
    full = [scene for scene in scenes if scene.things]
    empty = [scene for scene in scenes if not scene.things]
    if not full:
        count = sum(len(found.labels) for found in features)
        raise SatlisaError(f"none of the {count:,} polygons lies in a raster; are their CRSs right?")
    kept = min(len(empty), math.ceil(options.negatives * len(full)))
    chosen = {scene.name for scene in random.Random(f"{options.seed} windows").sample(empty, kept)}
    return [scene for scene in scenes if scene.things or scene.name in chosen]


def _files(inputs: list[str]) -> tuple[list[Path], list[Path]]:
    """Rasters and vectors, by their endings; those of folders by name."""
    files = []
    for path in map(Path, inputs):
        if not path.exists():
            raise SatlisaError(f"{path}: no such file or folder; check the path")
        files += sorted(path.rglob("*")) if path.is_dir() else [path]
    rasters = [path for path in files if path.suffix.lower() in _RASTERS]
    vectors = [path for path in files if path.suffix.lower() in _VECTORS]
    if not rasters or not vectors:
        found = f"{len(rasters)} rasters and {len(vectors)} vector files"
        raise SatlisaError(
            f"geo: expected rasters ({', '.join(_RASTERS)}) and vectors ({', '.join(_VECTORS)}), {found}"
        )
    return rasters, vectors


def _read_features(path: Path, options: argparse.Namespace, problems: Problems) -> Features:
    field = options.label_field
    try:
        layers = pyogrio.list_layers(path)[:, 0].tolist()
        if len(layers) > 1 and not options.layer:
            raise SatlisaError(f"{path}: expected one layer, found {', '.join(layers)}; choose one with --layer")
        layer = options.layer if options.layer in layers else layers[0]
        meta, _, wkb, data = pyogrio.raw.read(path, layer=layer, columns=[field] if field else [])
        geometries = shapely.force_2d(shapely.from_wkb(wkb))
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, shapely.errors.ShapelyError) as error:
        raise SatlisaError(f"{path}: cannot be read as vectors ({first_line(error)})") from error
    if not meta["crs"]:
        raise SatlisaError(f"{path}: has no CRS; add it (a Shapefile's .prj)")
    if field and field not in meta["fields"]:
        known = ", ".join(pyogrio.read_info(path, layer=layer)["fields"]) or "none"
        raise SatlisaError(f"{path}: no field {field!r}; found {known}")
    values = data[0].tolist() if field else [options.label or path.stem] * len(geometries)
    kept, labels = [], []
    for number, (geometry, value) in enumerate(zip(geometries, values, strict=True)):
        where = f"{path}: feature {number}"
        if geometry is None or not isinstance(geometry, shapely.Polygon | shapely.MultiPolygon):
            problems.add(_NO_POLYGON, where)
            continue
        if value is None or value != value or not str(value).strip():
            raise SatlisaError(f"{where}: has no class in {field!r}; give it one or remove it")
        if not geometry.is_valid:
            problems.add(_MENDED, where)
            geometry = shapely.make_valid(geometry)
        kept.append(geometry)
        labels.append(str(value))
    return Features(path, np.array(kept, dtype=object), labels, meta["crs"])


def _cut(
    path: Path,
    raster: Any,
    features: Sequence[Features],
    labels: Sequence[str],
    options: argparse.Namespace,
    by_block: bool,
    problems: Problems,
) -> Iterator[Scene]:
    """The windows of a raster."""
    if raster.crs is None or raster.transform.is_identity:
        raise SatlisaError(f"{path}: has no CRS or no place in it; georeference it first")
    placed = [(label, polygon) for found in features for label, polygon in _placed(found, raster, problems)]
    tree = shapely.STRtree([polygon for _, polygon in placed])
    read_window = partial(_png, path, _bands(raster, options.bands), _range(raster, options.bands))
    columns, rows = (_cuts(side, options.window) for side in (raster.width, raster.height))
    for (row, (top, bottom)), (column, (left, right)) in product(enumerate(rows), enumerate(columns)):
        name = f"{path.stem}_x{left}_y{top}.png"
        window = Window(left, top, right - left, bottom - top)
        if not raster.dataset_mask(window=window).any():
            problems.add(_NO_DATA, f"{path}: {name}")
            continue
        picture = Picture(path.with_name(name), (right - left, bottom - top), 1, partial(read_window, window))
        box = shapely.box(left, top, right, bottom)
        found = (placed[number] for number in sorted(tree.query(box, predicate="intersects").tolist()))
        things = [t for label, polygon in found if (t := _thing(label, polygon, box, picture, problems))]
        group = f"{path} {row // _BLOCK} {column // _BLOCK}" if by_block else str(path)
        yield Scene(f"{path.as_posix()}/{name}", picture, things, labels, (), "", group)


def _placed(found: Features, raster: Any, problems: Problems) -> Iterator[tuple[str, Any]]:
    """Polygons in pixels of the raster."""
    to_raster = pyproj.Transformer.from_crs(found.crs, raster.crs.to_wkt(), always_xy=True)
    a, b, c, d, e, f, *_ = ~raster.transform

    def place(points: np.ndarray) -> np.ndarray:
        x, y = map(np.asarray, to_raster.transform(points[:, 0], points[:, 1]))
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    for number, (label, geometry) in enumerate(zip(found.labels, found.geometries, strict=True)):
        moved = shapely.transform(geometry, place)
        if not np.isfinite(shapely.get_coordinates(moved)).all():
            problems.add(_NOWHERE, f"{found.path}: feature {number}")
            continue
        yield label, moved if moved.is_valid else shapely.make_valid(moved)


def _thing(label: str, polygon: Any, box: Any, picture: Picture, problems: Problems) -> Thing | None:
    """The part of a polygon in a window; None: it only touches it."""
    left, top, *_ = box.bounds
    inside = shapely.intersection(polygon, box)
    parts: list[Part] = []
    for piece in shapely.get_parts(shapely.get_parts(inside)):
        if isinstance(piece, shapely.Polygon) and piece.area > 0:
            rings = (piece.exterior, *piece.interiors)
            parts.append([shapely.get_coordinates(ring)[:-1] - (left, top) for ring in rings])
    if not parts:
        return None
    try:
        return polygon_thing(label, parts, picture, picture.stored, UPRIGHT)
    except NoAreaError:
        problems.add(NO_AREA, f"{picture.path}: {label}")
        return None
    except ValueError as error:
        raise SatlisaError(f"{picture.path}: {label}: {error}; mend or remove it") from error


def _cuts(side: int, longest: int) -> list[tuple[int, int]]:
    """A side in equal pieces of at most `longest` pixels."""
    edges = np.rint(np.linspace(0, side, math.ceil(side / longest) + 1)).astype(int).tolist()
    return list(pairwise(edges))


def _bands(raster: Any, chosen: Sequence[str]) -> list[int]:
    """The bands for red, green and blue: as chosen, as they are marked, else the first three, or the only one."""
    if chosen:
        bands = [int(band) if band.isdigit() else 0 for band in chosen]
        if len(bands) not in (1, 3) or not all(1 <= band <= raster.count for band in bands):
            raise SatlisaError(f"--bands: expected one or three of 1 to {raster.count}, found {','.join(chosen)}")
        return bands
    colours = [meaning.name for meaning in raster.colorinterp]
    if all(name in colours for name in ("red", "green", "blue")):
        return [colours.index(name) + 1 for name in ("red", "green", "blue")]
    return [1, 2, 3] if raster.count >= 3 else [1]


def _range(raster: Any, chosen: Sequence[str]) -> tuple[float, float] | None:
    """The 2 % and 98 % quantiles of a raster that is not 8-bit, from an overview, for all bands and windows alike."""
    bands = _bands(raster, chosen)
    if all(raster.dtypes[band - 1] == "uint8" for band in bands):
        return None
    scale = max(1.0, max(raster.width, raster.height) / _OVERVIEW)
    height, width = (max(1, round(side / scale)) for side in (raster.height, raster.width))
    values = raster.read(bands, out_shape=(len(bands), height, width), masked=True).astype(np.float64)
    valid = values.compressed()
    valid = valid[np.isfinite(valid)]
    if not len(valid):
        return 0.0, 1.0
    low, high = np.quantile(valid, (0.02, 0.98))
    return float(low), float(max(high, low + 1e-9))


def _png(path: Path, bands: Sequence[int], limits: tuple[float, float] | None, window: Any) -> bytes:
    """A window as 8-bit PNG; pixels without data are black."""
    with rasterio.open(path) as raster:
        values, shown = raster.read(bands, window=window), raster.dataset_mask(window=window) > 0
    if limits is not None:
        low, high = limits
        scaled = np.nan_to_num((values.astype(np.float64) - low) / (high - low), posinf=0, neginf=0)
        values = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    values[:, ~shown] = 0
    pixels = np.moveaxis(values, 0, 2)
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if len(bands) == 1 else pixels).convert("RGB").save(stream, "PNG")
    return stream.getvalue()
