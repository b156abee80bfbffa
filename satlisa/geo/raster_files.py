"""Masks and probabilities as Cloud Optimized GeoTIFFs: written in rows, then laid out in tiles with overviews."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from satlisa.runtime.atomic_files import atomic_replace

NODATA = 255
FULL = 254  # level of probability 1
_TILE = 512


class RowFile:
    """A raster of one uint8 band that grows from the top; a context manager.

    It has no georeference: polygons are made from it in grid positions.
    """

    def __init__(self, path: Path, height: int, width: int) -> None:
        self.path = path
        self._options = dict(
            driver="GTiff", height=height, width=width, count=1, dtype="uint8", nodata=NODATA,
            compress="deflate", zlevel=1, blockysize=16, bigtiff="if_safer",
        )  # fmt: skip
        self._waiting: list[np.ndarray] = []
        self._top = 0

    def __enter__(self) -> "RowFile":
        self._file = quiet_open(self.path, "w", **self._options)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, rows: np.ndarray, *, is_last: bool = False) -> None:
        """Append rows (R, W) uint8; whole strips are written."""
        self._waiting.append(rows)
        block = np.concatenate(self._waiting)
        count = len(block) if is_last else len(block) // 16 * 16
        self._waiting = [block[count:]]
        if count:
            self._file.write(block[:count], 1, window=Window(0, self._top, block.shape[1], count))
            self._top += count


def quiet_open(path: Path, mode: str = "r", **options: Any) -> Any:
    """Open a raster; rasterio warns where it lies nowhere on the ground."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, mode, **options)


def write_cog(rows: Path, path: Path, crs: Any, transform: Affine, tags: Mapping[str, Any], *, is_mask: bool) -> None:
    """Turn a row file into a COG at `path`; an existing file is replaced at the end, or stays."""
    with quiet_open(rows, "r+") as file:
        if crs:
            file.crs = crs
        if not transform.is_identity:
            file.transform = transform
        file.update_tags(**{key: value if isinstance(value, str) else json.dumps(value) for key, value in tags.items()})
        if not is_mask:
            file.scales = (1 / FULL,)
    path.parent.mkdir(parents=True, exist_ok=True)
    how = "nearest" if is_mask else "average"
    options = dict(blocksize=_TILE, compress="deflate", level=6, overview_resampling=how, bigtiff="if_safer")

    def copy(temporary: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            copy_raster(rows, temporary, driver="COG", **options)

    atomic_replace(path, copy)
