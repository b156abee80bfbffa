"""An uploaded file → the picture that the model sees, and where it lies on the ground.

Uploads are untrusted: size and pixels are compared with the limits before anything is decoded. GDAL gets TIFFs alone,
because other formats (VRT) name further files, or addresses, for it to open.
"""

import io
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from satlisa.data.images import Opened, open_oriented
from satlisa.errors import SatlisaError
from satlisa.web.bits import Bits
from satlisa.web.limits import Limits

if TYPE_CHECKING:
    from satlisa.geo.places import Ground

logger = logging.getLogger(__name__)

SUFFIXES = [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".jp2"]
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LARGEST_BLOCK = 2**28  # bytes of a strip or tile, which GDAL decodes in one piece
_GEO = ("rasterio", "shapely", "pyogrio", "pyproj")


@dataclass(frozen=True)
class Place:
    """Where a GeoTIFF lies: its CRS and transform, the CRS as rasterio has it, and where it has data (H, W)."""

    ground: "Ground"
    raster_crs: Any
    valid: Bits


@dataclass(frozen=True)
class Picture:
    """A picture to ask about.

    Attributes:
        name: of its file, without folders.
        opened: upright RGB, and how the file stores it: a raster from south to north is a picture stored upside down.
        place: None for a plain picture.
    """

    name: str
    opened: Opened
    place: Place | None = None

    def to_grid(self, masks: np.ndarray) -> np.ndarray:
        """Masks (N, H, W) of the upright picture on the file's own pixel grid, without pixels that have no data."""
        stored = self.opened.to_stored(masks)
        return stored if self.place is None else stored & self.place.valid.mask()


def has_geo() -> bool:
    """Whether what GeoTIFFs need is installed."""
    return all(find_spec(name) is not None for name in _GEO)


def read_picture(path: Path, limits: Limits) -> Picture:
    """Read an uploaded file.

    Raises:
        SatlisaError: too large, or not an image that is read; the message names the file without its folder.
    """
    if not path.is_file():
        raise SatlisaError("the picture is no longer kept; upload it again")
    if path.stat().st_size > limits.bytes:
        raise SatlisaError(f"{path.name} has more than {limits.megabytes} MB, the most that this page takes")
    data = path.read_bytes()
    limits.check_pixels(*_declared_size(data, path.name), path.name)
    try:
        placed = _read_placed(path, limits) if data.startswith(_TIFF_STARTS) and has_geo() else None
        return placed or Picture(path.name, open_oriented({"bytes": data, "path": path.name}))
    except SatlisaError as error:
        raise SatlisaError(str(error).replace(str(path), path.name)) from error


def _declared_size(data: bytes, name: str) -> tuple[int, int]:
    """(width, height) as a file's header claims it; nothing is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF", "WEBP", "BMP", "JPEG2000")) as image:
            return image.size
    except Image.DecompressionBombError as error:
        raise SatlisaError(f"{name} has far more pixels than this page takes; cut it into tiles") from error
    except UnidentifiedImageError as error:
        if data.startswith(_TIFF_STARTS) and (size := _tiff_size(data)):
            return size
        raise SatlisaError(
            f"{name} is not an image in a format that is read; give a PNG, JPEG, WebP or TIFF"
        ) from error


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """The size of a TIFF that Pillow does not read, as most with more than three bands."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages.first
            return int(page.imagewidth), int(page.imagelength)
    except Exception:  # broken files raise many types
        return None


def _read_placed(path: Path, limits: Limits) -> Picture | None:
    """A TIFF with a CRS, read as scenes are; None for one without."""
    from satlisa.geo.places import Ground
    from satlisa.geo.raster_files import quiet_open
    from satlisa.geo.scene import is_georeferenced, open_scene

    if not is_georeferenced(path):
        return None
    with quiet_open(path, driver="GTiff") as dataset:
        limits.check_pixels(dataset.width, dataset.height, path.name)
        samples = max(height * width for height, width in dataset.block_shapes) * dataset.count
        if samples * max(np.dtype(kind).itemsize for kind in dataset.dtypes) > _LARGEST_BLOCK:
            raise SatlisaError(f"{path.name} is stored in too large pieces; save it again, tiled")
    scene = open_scene(path)
    if scene.crs is None:
        return None
    view = scene.read(0, 0, scene.size[1], scene.size[0])
    ground = Ground(scene.crs, scene.transform)
    opened = Opened(view.picture, 4 if scene.is_mirrored else 1)
    return Picture(path.name, opened, Place(ground, scene.raster_crs, Bits.of(view.valid)))
