"""Train from a stream of many rows and watch the memory: it must stay where it was after the first steps."""

import io
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # comes with accelerate
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from satlisa.demo.backbone import IMAGE_SIZE
from satlisa.loader import Encoder, StepLoader
from satlisa.settings import TrainConfig
from satlisa.stream import open_stream

_SHARDS = 8
_STEP = 16
_BUFFER = 500
_ALLOWED = 0.05  # growth of the resident memory from a tenth of the rows to the end


def make_rows(count: int, shard: int) -> list[dict[str, Any]]:
    """Rows of noise, which does not compress: 20 kB each."""
    rng = np.random.default_rng(shard)
    turns = [{"role": "user", "content": "Segment it"}, {"role": "assistant", "content": "Here it is."}]
    polygon = [[100, 100], [700, 100], [700, 600], [100, 600]]
    rows = []
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(file, "png")
        rows.append(
            {
                "task": "building_segmentation" if number % 2 else "image_captioning",
                "source": "noise",
                "image": {"bytes": file.getvalue(), "path": None},
                "conversations": json.dumps(turns),
                "metadata": json.dumps({"polygons": [polygon]}),
            }
        )
    return rows


def write_dataset(folder: Path, rows: int) -> None:
    """A local dataset in several parquet files."""
    (folder / "data").mkdir(parents=True)
    texts = dict.fromkeys(("task", "source", "conversations", "metadata"), Value("string"))
    for shard in range(_SHARDS):
        made = make_rows(rows // _SHARDS, shard)
        data = Dataset.from_list(made, features=Features({**texts, "image": ImageFeature(decode=False)}))
        data.to_parquet(folder / "data" / f"train-{shard:05d}-of-{_SHARDS:05d}.parquet")


def memory_along(folder: Path) -> Iterator[tuple[int, int]]:
    """Rows done and resident bytes, along an epoch of the training's own loader over a stream."""
    from satlisa.build import assemble, load_parts

    settings = TrainConfig.from_env({"PRESET": "demo"})
    config = settings.new_model_config()
    model = assemble(load_parts(config, torch.float32), config)
    encoder = Encoder(model.processor, model.segmenter, model.config)
    order = open_stream(str(folder), "train", buffer=_BUFFER, seed=0)
    process = psutil.Process()
    for loaded in StepLoader(order, encoder, _STEP, _STEP).steps():
        yield loaded.rows_done, process.memory_info().rss


def main(folder: Path, rows: int) -> tuple[int, int, list[str]]:
    """Rows tried, rows that came through, and what was lost: rows, or flat memory."""
    rows = rows // _SHARDS * _SHARDS
    write_dataset(folder / "data", rows)
    points = list(memory_along(folder / "data"))
    done = points[-1][0]
    early = max(size for place, size in points if place <= max(rows // 10, 2 * _BUFFER))
    late = max(size for place, size in points if place > rows * 9 // 10)
    print(f"  {IMAGE_SIZE}² demo model, {rows} rows in {_SHARDS} files, {_BUFFER} shuffled together")
    print(f"  resident memory: {early / 1e6:.0f} MB in the first tenth, {late / 1e6:.0f} MB in the last")
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"  peak of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6:.0f} MB")
    lost = [] if done == rows else [f"{rows - done} rows never came"]
    if late > early * (1 + _ALLOWED):
        lost.append(f"memory grew by {late / early - 1:.0%}")
    return rows, done, lost
