"""Features as GeoPackage, GeoJSON (RFC 7946), FlatGeobuf or Shapefile, by the file's suffix.

The same features give the same bytes: dates inside the files are the scene's own.
"""

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from pyproj import CRS

from satlisa.errors import SatlisaError
from satlisa.geo.features import Feature
from satlisa.runtime.atomic_files import atomic_replace, replace_together

logger = logging.getLogger(__name__)

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".json": "GeoJSON", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}
_LONGEST = 254  # bytes of a text in a Shapefile


def driver_of(path: Path, option: str = "--output_vectors") -> str:
    """The format of a vector file.

    Raises:
        SatlisaError: the suffix names none that is written.
    """
    if path.suffix.lower() not in DRIVERS:
        raise SatlisaError(f"{option}: {path}: expected {', '.join(DRIVERS)}, found '{path.suffix}'")
    return DRIVERS[path.suffix.lower()]


def write_vectors(
    path: Path,
    features: Sequence[Feature],
    prompt: str,
    *,
    crs: CRS | None,
    changed: float,
    corner: tuple[int, int],
    folder: Path,
) -> None:
    """Write features with the attributes id, prompt, answer, score, area_m2 (area_px without a CRS) and window.

    Args:
        crs: of the geometries.
        changed: seconds since 1970, the date inside the file.
        corner: (column, row) that `window` (column, row, width, height) counts from.
        folder: for temporary files.
    """
    driver = driver_of(path)
    columns = _columns(features, prompt, crs is not None, corner)
    path.parent.mkdir(parents=True, exist_ok=True)
    if driver == "GeoJSON":
        if crs is None:
            logger.warning("%s: GeoJSON means longitude and latitude, which the scene does not have", path)
        atomic_replace(path, lambda temporary: _write_geojson(temporary, features, columns, path.stem))
        return
    with tempfile.TemporaryDirectory(prefix=".satlisa-", suffix=".partial", dir=folder) as name:
        written = Path(name) / path.name
        _write(written, features, columns, crs, driver, datetime.fromtimestamp(changed, timezone.utc))
        if driver == "ESRI Shapefile":
            parts = {part.name: part for part in sorted(written.parent.iterdir())}
            replace_together(path.parent, path.stem, {key: _mover(part) for key, part in parts.items()})
        else:
            atomic_replace(path, _mover(written))


def _mover(source: Path) -> Any:
    return partial(shutil.move, source)


def _columns(
    features: Sequence[Feature], prompt: str, has_metres: bool, corner: tuple[int, int]
) -> dict[str, np.ndarray]:
    windows = [(f.window.left + corner[0], f.window.top + corner[1], f.window.width, f.window.height) for f in features]
    return {
        "id": np.arange(1, len(features) + 1, dtype=np.int32),
        "prompt": np.array([prompt] * len(features), dtype=object),
        "answer": np.array([feature.answer for feature in features], dtype=object),
        "score": np.array([np.nan if f.score is None else f.score for f in features], dtype=np.float64),
        "area_m2" if has_metres else "area_px": np.array([feature.area for feature in features], dtype=np.float64),
        "window": np.array([",".join(map(str, window)) for window in windows], dtype=object),
    }


def _write(
    path: Path, features: Sequence[Feature], columns: dict[str, np.ndarray], crs: CRS | None, driver: str, day: datetime
) -> None:
    is_multi = any(feature.geometry.geom_type == "MultiPolygon" for feature in features)
    geometry = np.array([shapely.to_wkb(feature.geometry) for feature in features], dtype=object)
    options: dict[str, str] = {}
    if driver == "ESRI Shapefile":
        options = {"ENCODING": "UTF-8", "DBF_DATE_LAST_UPDATE": day.strftime("%Y-%m-%d")}
        columns = {name: _shortened(values, path) for name, values in columns.items()}
    authority = crs.to_authority(min_confidence=100) if crs is not None else None
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": day.strftime("%Y-%m-%dT%H:%M:%S.000Z")})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.raw.write(
                path,
                geometry,
                list(columns.values()),
                list(columns),
                field_mask=[np.isnan(v) if v.dtype.kind == "f" else None for v in columns.values()],
                geometry_type="MultiPolygon" if is_multi else "Polygon",
                promote_to_multi=is_multi,
                crs=":".join(authority) if authority else crs.to_wkt() if crs is not None else None,
                driver=driver,
                layer=path.stem,
                layer_options=options,
            )
    except Exception as error:  # pyogrio's own errors have no common base
        raise SatlisaError(f"{path.name}: cannot be written ({error}); make room, or name another file") from error
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def _shortened(values: np.ndarray, path: Path) -> np.ndarray:
    if values.dtype != object:
        return values
    short = [text.encode()[:_LONGEST].decode(errors="ignore") for text in values]
    if count := sum(a != b for a, b in zip(short, values, strict=True)):
        logger.warning("%s: %d texts are cut to %d bytes, the most that a Shapefile holds", path.name, count, _LONGEST)
    return np.array(short, dtype=object)


def _write_geojson(path: Path, features: Sequence[Feature], columns: dict[str, np.ndarray], name: str) -> None:
    """RFC 7946: longitude and latitude, no `crs`, exteriors counterclockwise, all digits of the coordinates."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"type": "FeatureCollection", "name": {json.dumps(name)}, "features": [')
        for number, feature in enumerate(features):
            properties = {key: _plain(values[number]) for key, values in columns.items()}
            geometry = shapely.geometry.mapping(feature.geometry)
            entry = {"type": "Feature", "id": number + 1, "properties": properties, "geometry": geometry}
            file.write((",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False, allow_nan=False))
        file.write("\n]}\n")


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value
