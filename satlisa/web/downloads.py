"""The visible objects of an answer as files: PNG mask, GeoJSON, GeoTIFF."""

import json
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError
from satlisa.geometry.overlay import mask_image
from satlisa.web.found import Found, Object
from satlisa.web.outlines import trace

PIXELS = "pixels (column, row) from the upper left corner of the picture; no longitude and latitude"


def write_png(found: Found, folder: Path) -> Path:
    """The union as `inference.py --output_mask` writes it: "L", 0 and 255, at the file's size and orientation."""
    path = folder / f"{Path(found.name).stem}_mask.png"
    mask_image(found.union()).save(path)
    return path


def write_geojson(found: Found, folder: Path) -> Path:
    """A feature per object (RFC 7946).

    With a CRS in longitude and latitude, with areas in m²; else in pixels, which `coordinate_system` says in the file.
    """
    path = folder / f"{Path(found.name).stem}_objects.geojson"
    features = [entry for one in found.visible if (entry := _feature(found, one)) is not None]
    content: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if found.place is None:
        content["coordinate_system"] = PIXELS
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return path


def write_geotiff(found: Found, folder: Path) -> Path:
    """The union as a GeoTIFF in the source's CRS and transform: 1 in the mask, 0 beside it, 255 without data.

    Raises:
        SatlisaError: the picture has no place on the ground.
    """
    if found.place is None:
        raise SatlisaError(f"{found.name} has no place on the ground, so there is no GeoTIFF of it; take the PNG")
    from satlisa.geo.raster_files import NODATA, quiet_open

    path = folder / f"{Path(found.name).stem}_mask.tif"
    levels = found.union().astype("uint8")
    levels[~found.place.valid.mask()] = NODATA
    height, width = found.size
    size = dict(height=height, width=width, count=1, dtype="uint8", nodata=NODATA, compress="deflate")
    lies = dict(crs=found.place.raster_crs, transform=found.place.ground.transform)
    with quiet_open(path, "w", driver="GTiff", **size, **lies) as dataset:
        dataset.write(levels, 1)
        dataset.update_tags(prompt=found.prompt, answer=found.text)
    return path


def _feature(found: Found, one: Object) -> dict[str, Any] | None:
    """An object as GeoJSON; None where it is empty."""
    if found.place is None:
        polygons = [[ring.tolist() for ring in rings] for rings in trace(one.mask.mask())]
        if not polygons:
            return None
        single = len(polygons) == 1
        geometry: Any = {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": polygons[0] if single else polygons,
        }
        area: dict[str, float] = {"area_px": one.pixels}
    elif one.feature is None:
        return None
    else:
        import shapely

        geometry, area = shapely.geometry.mapping(one.feature.geometry), {"area_m2": one.feature.area}
    properties = {"object": one.number + 1, "prompt": found.prompt, "answer": found.text, "score": one.score, **area}
    return {"type": "Feature", "id": one.number + 1, "properties": properties, "geometry": geometry}
