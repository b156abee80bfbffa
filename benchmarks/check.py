"""What a check costs: all rows of a folder with all cores, against opening the same pictures and JSON, no more."""

import io
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.measure import Row, race
from benchmarks.works import Bench, expect
from satlisa.check.check import check
from satlisa.check.workers import count_cores, run_all
from satlisa.data.dataset import load_rows
from satlisa.data.synthetic.rows import demo_rows
from satlisa.training.settings import TrainConfig

_ROWS, _SCENES, _SIDE = 2048, 100, 512
_TEXTS = ("task", "source", "conversations", "metadata")


def checking(bench: Bench) -> list[Row]:
    """`satlisa.check` of 2,048 rows with JPEG pictures of 512² pixels, each another one; start and report included.

    The other side decodes the same pictures and parses the same JSON, in as many processes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        datasets.config.HF_DATASETS_CACHE = folder / "cache"
        _write_rows(folder / "rows" / "data")
        environ = {"PRESET": "demo", "DATASET": str(folder / "rows")}
        ours = partial(check, TrainConfig.from_env(environ), folder / "check")
        rows, cores = load_rows(str(folder / "rows"), "train"), count_cores()

        def peer() -> int:
            return len([*run_all(partial(_plain, rows), range(_ROWS), _plain_lost, cores)])

        expect(ours() == [], "problems in clean rows")
        expect(peer() == _ROWS, "rows are missing")
        seconds = race(ours, peer, bench.repeats, bench.device)
    row = Row(f"check of {_ROWS:,} rows of {_SIDE}², plain reading, {cores} cores", *seconds, "s", "no problem found")
    return [row, row.rate("rows/s", _ROWS)]


def _plain(rows: Any, index: int) -> tuple[int, int]:
    row = rows[index]
    json.loads(row["conversations"])
    json.loads(row["metadata"])
    with Image.open(io.BytesIO(row["image"]["bytes"])) as opened:
        return opened.convert("RGB").size


def _plain_lost(index: int) -> tuple[int, int]:
    raise RuntimeError(f"the process that read row {index} was killed")


def _write_rows(folder: Path) -> None:
    """Demo scenes at twice their size, each time with other noise."""
    folder.mkdir(parents=True)
    demo, random = demo_rows("train", _SCENES), np.random.default_rng(0)
    schema = datasets.Features({**dict.fromkeys(_TEXTS, datasets.Value("string")), "image": datasets.Image()})
    rows = []
    for number in range(_ROWS):
        row = demo[number % len(demo)]
        scene = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").resize((_SIDE, _SIDE))
        noisy = np.asarray(scene, dtype=np.int16) + random.integers(-6, 7, (_SIDE, _SIDE, 1), dtype=np.int16)
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        rows.append({**row, "image": {"bytes": buffer.getvalue(), "path": None}})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.arrow_schema), folder / "train-00000-of-00001.parquet")
