"""Run a conversion, and read what it wrote as training does."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from satlisa.convert.command import parser, run
from satlisa.data.rows import read_sample
from satlisa.data.sample import Sample
from satlisa.geometry.raster import rasterize
from satlisa.geometry.regions import Region


def convert(*arguments: Any) -> None:
    """`python -m satlisa.convert`, its errors raised."""
    assert run(parser().parse_args([*map(str, arguments)])) == 0


def rows_of(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob(f"data/{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def samples_of(folder: Path, split: str = "train", task: str = "") -> list[Sample]:
    """The samples of a split, those of one task if it is named."""
    rows = [row for row in rows_of(folder, split) if task in ("", row["task"])]
    return [read_sample(row, number) for number, row in enumerate(rows)]


def drawn(region: Region, side: int = 1024) -> np.ndarray:
    return rasterize(region, side, side)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two masks."""
    return float((one & other).sum() / (one | other).sum())


def picture(path: Path, size: tuple[int, int] = (64, 48), orientation: int = 1) -> Path:
    """An image file of random pixels, each other ones, that EXIF turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(str(path).encode())).integers(
        0, 255, (size[1], size[0], 3), dtype=np.uint8
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise).save(path, exif=exif)
    return path


def coco_file(path: Path, images: Sequence[Any], annotations: Sequence[Any], names: Any = None) -> Path:
    """COCO's JSON of images (name, width, height) and annotations (image number, category, changes)."""
    names = names or {1: "building"}
    content = {
        "images": [dict(id=n, file_name=name, width=w, height=h) for n, (name, w, h) in enumerate(images)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, **changes}
            for number, (image, category, changes) in enumerate(annotations)
        ],
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
