"""Folders of demo rows with a planted fault, and what a check says of them."""

import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from satlisa.check.check import check
from satlisa.data.synthetic.rows import demo_rows
from satlisa.training.settings import TrainConfig
from tests.helpers.broken_rows import write_parquet

Row = dict[str, Any]
SCENES = {"train": 24, "validation": 6}


@cache
def _demo(split: str) -> tuple[Row, ...]:
    rows = demo_rows(split, SCENES[split])
    return tuple(rows[number] for number in range(len(rows)))


def clean_rows(split: str = "train") -> list[Row]:
    """Rows of a few demo scenes, in dictionaries of their own."""
    return [dict(row) for row in _demo(split)]


def rows_of(task: str, split: str = "train") -> list[Row]:
    """The clean rows whose task contains a word."""
    return [row for row in clean_rows(split) if task in row["task"]]


def planted(change: Callable[[Row], Row], task: str = "segmentation") -> dict[str, list[Row]]:
    """The clean rows of a task, each of both splits changed."""
    return {split: [change(row) for row in rows_of(task, split)] for split in SCENES}


def with_polygons(row: Row, change: Callable[[float, float], tuple[float, float]]) -> Row:
    """A row whose polygons have other points."""
    metadata = json.loads(row["metadata"])
    if "segmentation" not in row["task"]:
        return row
    outlines = [metadata] if "polygons" in metadata else metadata["objects"]
    for held in outlines:
        if "polygons" in held:
            held["polygons"] = [[list(change(*point)) for point in ring] for ring in held["polygons"]]
        else:
            held["polygon"] = [list(change(*point)) for point in held["polygon"]]
    return {**row, "metadata": json.dumps(metadata)}


def stored_turned(row: Row, orientation: int, back: Any) -> Row:
    """A row whose image is a JPEG that EXIF turns upright; its polygons stay."""
    turned = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").transpose(back)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    turned.save(buffer, format="JPEG", quality=92, exif=exif)
    return {**row, "image": {"bytes": buffer.getvalue(), "path": None}}


def problems_of(folder: Path, splits: Mapping[str, list[Row]] | None = None, **variables: str) -> list[str]:
    """The problems of these rows; the report is in `folder/check`."""
    write_parquet(folder / "rows", splits or {split: clean_rows(split) for split in SCENES})
    settings = TrainConfig.from_env(
        {"PRESET": "demo", "DATASET": str(folder / "rows"), "VAL_SAMPLES": "0", **variables}
    )
    return check(settings, folder / "check", processes=1)
