"""A scene: a raster file of any size that GDAL reads, shown window by window as a person sees it.

Grid positions are pixels of the file, (column, row) from its upper left corner; `transform` maps them to the CRS. Only
the part of `--bbox` is worked on. A raster whose rows run from south to north is shown north up.
"""

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from pyproj import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from satlisa.errors import SatlisaError, first_line
from satlisa.geo.bands import Bands, choose_bands
from satlisa.geo.levels import Stretch, are_numbers, band_mask, find_ends, parse_stretch, to_levels
from satlisa.geo.places import Ground, locate
from satlisa.geo.raster_files import quiet_open

logger = logging.getLogger(__name__)

CACHE = {"GDAL_CACHEMAX": 2**28}  # bytes; the default of GDAL is 5 % of the memory


@dataclass(frozen=True)
class View:
    """A window as it is shown: `picture` is upright RGB at the working resolution; `valid` (H, W) bool, on the grid."""

    picture: Image.Image
    valid: np.ndarray


@dataclass(frozen=True)
class Scene:
    """An opened scene.

    Attributes:
        path: its file.
        size: (height, width) of the file in pixels.
        crs: None where the file names none; `raster_crs`: the same as rasterio has it.
        transform: grid positions (column, row) → coordinates of the CRS; the identity without georeference.
        area: (column, row, width, height), the part that is worked on.
        pixel_scale: (x, y) grid pixels per pixel of a picture; 1 at the file's own resolution.
        bands, ends: what is shown as which colour, and the values that become 0 and 255.
    """

    path: Path
    size: tuple[int, int]
    crs: CRS | None
    raster_crs: Any
    transform: Affine
    area: tuple[int, int, int, int]
    pixel_scale: tuple[float, float]
    bands: Bands
    ends: np.ndarray
    _open: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @property
    def is_mirrored(self) -> bool:
        """Whether the grid is a mirror image of the ground, as in a raster from south to north."""
        return self.transform.determinant > 0 and not self.transform.is_identity

    def read(self, column: int, row: int, width: int, height: int) -> View:
        """Show a window; columns and rows count from the corner of `area`.

        Raises:
            SatlisaError: the file is damaged there.
        """
        window = Window(self.area[0] + column, self.area[1] + row, width, height)
        shape = (max(1, round(height / self.pixel_scale[1])), max(1, round(width / self.pixel_scale[0])))
        try:
            with rasterio.Env(**CACHE):
                return self._view(window, (height, width), shape)
        except (RasterioError, OSError) as error:
            raise SatlisaError(
                f"{self.path} cannot be read ({first_line(error.__cause__ or error)}); save or download it again"
            ) from error

    def to_grid(self, picture: np.ndarray) -> np.ndarray:
        """Rows of an upright picture (..., H, W) in the order of the grid."""
        return picture[..., ::-1, :] if self.is_mirrored else picture

    def thumbnail(self, longest: int) -> View:
        """The whole area with at most `longest` pixels on a side, `valid` at the same size."""
        _, _, width, height = self.area
        scale = min(1.0, longest / max(width, height))
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        with rasterio.Env(**CACHE):
            return self._view(Window(*self.area), shape, shape)

    def _view(self, window: Window, grid: tuple[int, int], shape: tuple[int, int]) -> View:
        pixels, valid = self._pixels(window, shape)
        on_grid = valid if grid == shape else self._pixels(window, grid, only_mask=True)[1]
        return View(Image.fromarray(np.ascontiguousarray(self.to_grid(pixels).transpose(1, 2, 0))), on_grid)

    def _pixels(self, window: Window, shape: tuple[int, int], only_mask: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Levels (3, h, w) uint8, black without data, and where there are data (h, w)."""
        dataset, shown = self._dataset(), self.bands.shown
        how = Resampling.nearest
        if not only_mask and self.bands.palette is None and shape != (window.height, window.width):
            how = Resampling.average if shape[0] <= window.height else Resampling.bilinear
        values = dataset.read(list(shown), window=window, out_shape=(len(shown), *shape), resampling=how)
        masks = np.stack([band_mask(dataset, band, window, shape) for band in shown])
        valid = np.asarray(masks.any(axis=0) & are_numbers(values).all(axis=0))
        opacity = None if self.bands.alpha is None else dataset.read(self.bands.alpha, window=window, out_shape=shape)
        if opacity is not None:
            valid &= opacity > 0
        if only_mask:
            return values, valid
        if self.bands.palette is not None:
            colours = self.bands.palette[np.clip(values[0].astype(int), 0, len(self.bands.palette) - 1)]
            levels, valid = colours[..., :3].transpose(2, 0, 1).copy(), valid & (colours[..., 3] > 0)
        else:
            levels = to_levels(values, self.ends)
            if values.dtype != np.uint8 or len({dataset.nodatavals[band - 1] for band in shown}) > 1:
                levels[~masks] = 0  # 8-bit values stay: a saturated one may equal the nodata value of all bands
        if opacity is not None:
            levels = np.rint(levels * np.clip(opacity / self.bands.opaque, 0, 1)).astype(np.uint8)
        levels[:, ~valid] = 0
        return np.broadcast_to(levels, (3, *shape)), valid

    def _dataset(self) -> Any:
        """The file, opened once in each thread: GDAL's datasets are not shared between threads."""
        if not hasattr(self._open, "dataset"):
            self._open.dataset = quiet_open(self.path)
        return self._open.dataset


def open_scene(
    path: str | Path,
    *,
    bands: Sequence[int] | None = None,
    stretch: str | None = None,
    bbox: Sequence[float] | None = None,
    resolution: float | None = None,
) -> Scene:
    """Open a raster file of any size.

    Args:
        bands: one or three band numbers from 1; by default those that are red, green and blue.
        stretch: see `levels.parse_stretch`; by default as QGIS shows it, 2–98 % and 8-bit values as they are.
        bbox: (left, bottom, right, top) in the scene's CRS, or in degrees of longitude and latitude.
        resolution: metres per pixel at which the model sees the scene; by default the file's own.

    Raises:
        SatlisaError: not a raster, without a transform but with control points or RPCs, or an option that does not fit.
    """
    path, rule = Path(path).expanduser(), parse_stretch(stretch)
    if not path.is_file():
        raise SatlisaError(f"{path}: no such file; check the path")
    try:
        with rasterio.Env(**CACHE), quiet_open(path) as dataset:
            return _describe(path, dataset, bands, rule, bbox, resolution)
    except RasterioError as error:
        reason = first_line(error.__cause__ or error)
        raise SatlisaError(f"{path} cannot be read ({reason}); give a GeoTIFF, or save it again") from error


def is_georeferenced(path: Path) -> bool:
    """Whether GDAL reads a file and finds a place on the ground for it."""
    try:
        with quiet_open(path) as dataset:
            return bool(dataset.crs or not dataset.transform.is_identity or dataset.gcps[0] or dataset.rpcs)
    except RasterioError:
        return False


def _describe(
    path: Path,
    dataset: Any,
    asked: Sequence[int] | None,
    rule: Stretch,
    bbox: Sequence[float] | None,
    resolution: float | None,
) -> Scene:
    if dataset.count == 0:
        raise SatlisaError(f"{path} holds {len(dataset.subdatasets)} rasters and no bands of its own; name one of them")
    _check_place(path, dataset)
    crs = CRS.from_wkt(dataset.crs.to_wkt()) if dataset.crs else None
    ground = Ground(crs, dataset.transform)
    size = (dataset.height, dataset.width)
    area = locate(bbox, ground, size, str(path)) if bbox else (0, 0, dataset.width, dataset.height)
    scale = (1.0, 1.0)
    if resolution is not None:
        if not 0 < resolution < math.inf:
            raise SatlisaError(f"--resolution: expected metres per pixel above 0, found {resolution}")
        metres = ground.pixel_size(area[0] + area[2] / 2, area[1] + area[3] / 2)
        if metres is None:
            raise SatlisaError(f"--resolution: {path} has no CRS, so its pixels have no size in metres; leave it out")
        scale = (resolution / metres[0], resolution / metres[1])
    chosen = choose_bands(dataset, str(path), asked)
    ends = np.empty((0, 2))
    if chosen.palette is None:
        ends = find_ends(dataset, chosen.shown, rule, chosen.alpha)
    return Scene(path, size, crs, dataset.crs, dataset.transform, area, scale, chosen, ends)


def _check_place(path: Path, dataset: Any) -> None:
    if not dataset.transform.is_identity:
        if not dataset.crs:
            logger.warning("%s has no CRS; vectors are in the units of its transform, without areas in m²", path)
        return
    if dataset.gcps[0] or dataset.rpcs:
        kind, command = "RPCs", f"gdalwarp -rpc -t_srs EPSG:3857 {path.name} warped.tif (GDAL's command; QGIS: Warp)"
        if dataset.gcps[0]:
            kind = f"{len(dataset.gcps[0])} ground control points"
            command = f"rio warp {path.name} warped.tif --dst-crs EPSG:3857"
        raise SatlisaError(
            f"{path} has {kind} and no transform, so its pixels have no exact place; warp it first, "
            f"for example: {command}"
        )
    logger.warning("%s has no georeference; vectors are in pixels (column, row), without areas in m²", path)
