"""A scene in the files that GDAL and others write, and that Pillow does not read at full depth."""

import io
from typing import Any

import imagecodecs
import numpy as np
import tifffile

SIZE = 64
HIDDEN = 20  # rows without data
RGB = np.random.default_rng(0).integers(20, 240, (SIZE, SIZE, 3), dtype=np.uint8)
NIR = np.random.default_rng(1).integers(1, 255, (SIZE, SIZE, 1), dtype=np.uint8)
DEEP = RGB.astype(np.uint16) * 8  # 11 bits
MASK = np.full((SIZE, SIZE, 1), 255, dtype=np.uint8)
MASK[:HIDDEN] = 0


def named(*names: str, role: str = "colorinterp") -> str:
    """GDAL's names of bands."""
    items = (f'<Item name="{role.upper()}" sample="{n}" role="{role}">{name}</Item>' for n, name in enumerate(names))
    return "".join(items)


BANDS = {
    "BGRN": named("Blue", "Green", "Red", "Undefined"),
    "BGR": named("Blue", "Green", "Red"),
    "described": named("blue", "green", "red", "nir", role="description"),
    "numbered": named("Band 2 (Blue)", "Band 3 (Green)", "Band 4 (Red)", "B8 - NIR", role="description"),
    "red edge": named("Red", "Red edge", "blue-ish", role="description"),
    "RGBN": named("red", "green", "blue", "nir", role="description"),
}


def tiff(values: np.ndarray, nodata: str | None = None, bands: str | None = None, **options: Any) -> bytes:
    """A TIFF as GDAL writes it: three bands are colours where `photometric` says so."""
    tags: list[tuple[Any, ...]] = []
    if nodata is not None:
        tags.append((42113, "s", 0, nodata, True))
    if bands is not None:
        tags.append((42112, "s", 0, f"<GDALMetadata>{BANDS[bands]}</GDALMetadata>", True))
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("order", "<")) as out:
        out.write(values, **{"photometric": "rgb", "extratags": tags, "metadata": None, **options})
    return file.getvalue()


def grey(values: np.ndarray, **options: Any) -> bytes:
    return tiff(values, photometric="minisblack", **options)


FOUR = np.concatenate([DEEP, NIR.astype(np.uint16) * 8], axis=2)
EIGHT = np.concatenate([FOUR, FOUR], axis=2)
PLANES = {"planarconfig": "separate"}
DEEP_FILES = {
    "16-bit colour": tiff(DEEP),
    "big-endian": tiff(DEEP, order=">"),
    "BigTIFF": tiff(DEEP, bigtiff=True),
    "LZW": tiff(DEEP, compression="lzw", rowsperstrip=10),
    "deflate with predictor": tiff(DEEP, compression="zlib", predictor=True),
    "ZSTD, tiled": tiff(DEEP, compression="zstd", tile=(16, 32)),
    "tiles beyond the border": tiff(DEEP, compression="lzw", tile=(48, 48)),
    "LERC": tiff(DEEP, compression="lerc", tile=(32, 32)),
    "JPEG 2000 tiles": tiff(DEEP, compression="jpeg2000", tile=(32, 32), compressionargs={"level": 0}),
    "colours named grey, as GDAL does": grey(DEEP, planarconfig="contig"),
    "planar": tiff(DEEP.transpose(2, 0, 1), **PLANES),
    "planar, tiled": tiff(DEEP.transpose(2, 0, 1), tile=(32, 48), compression="lzw", **PLANES),
    "four bands": tiff(FOUR, extrasamples=["unspecified"]),
    "four bands, the last marked as alpha": tiff(FOUR, extrasamples=["unassalpha"]),
    "four bands without colours": grey(FOUR, planarconfig="contig"),
    "eight bands": grey(EIGHT, planarconfig="contig", compression="zlib"),
    "eight planes": grey(EIGHT.transpose(2, 0, 1), compression="lzw", **PLANES),
    "bands named blue, green, red": grey(FOUR[..., [2, 1, 0, 3]], planarconfig="contig", bands="BGRN"),
    "signed": tiff(DEEP.astype(np.int16)),
    "float": tiff(DEEP.astype(np.float32), predictor=True, compression="zlib"),
    "double": tiff(DEEP.astype(np.float64)),
    "half": tiff(DEEP.astype(np.float16)),
    "unsigned 32-bit": tiff(DEEP.astype(np.uint32) * 1_000_000),
    "PNG": imagecodecs.png_encode(DEEP),
    "PNG with near infrared as alpha": imagecodecs.png_encode(FOUR),
    "JPEG 2000": imagecodecs.jpeg2k_encode(DEEP, level=0),
    "JPEG 2000, four bands": imagecodecs.jpeg2k_encode(FOUR, level=0),
    "JPEG 2000 codestream": imagecodecs.jpeg2k_encode(DEEP, level=0, codecformat="j2k"),
}
