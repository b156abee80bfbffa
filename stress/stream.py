"""Train from a stream of many rows; memory must not grow along them."""

import io
import json
import resource
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # comes with accelerate
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from satlisa.demo.tiny_models import IMAGE_SIZE
from satlisa.training.log import LOG_FILE
from satlisa.training.settings import TrainConfig
from satlisa.training.train import train

_SHARDS = 8
_STEP = 16
_BUFFER = 500
_ALLOWED = 0.05  # growth of resident memory from the first tenth of the rows to the last


def make_rows(count: int, shard: int) -> list[dict[str, Any]]:
    """Rows with incompressible noise images, 20 kB each."""
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


class Watch(threading.Thread):
    """Records rows done and resident memory during a run, in `points`."""

    def __init__(self, log: Path) -> None:
        super().__init__(daemon=True)
        self.log, self.ended = log, threading.Event()
        self.points: list[tuple[int, int]] = []

    def run(self) -> None:
        """Sample twice a second."""
        process = psutil.Process()
        while not self.ended.wait(0.5):
            if self.log.exists() and (steps := self.log.read_text().count("\n")):
                self.points.append((steps * _STEP, process.memory_info().rss))


def main(folder: Path, rows: int) -> tuple[int, int, list[str]]:
    """Rows tried, rows trained on, and what was lost: rows, or flat memory."""
    rows = rows // _SHARDS * _SHARDS
    early_rows = max(rows // 10, 2 * _BUFFER)
    if rows < 4 * early_rows:
        raise SystemExit(f"--rows: expected at least {8 * _BUFFER}, found {rows}; memory is compared between its parts")
    write_dataset(folder / "data", rows)
    environ = {
        "PRESET": "demo", "DATASET": str(folder / "data"), "OUTPUT_DIR": str(folder / "run"), "STREAMING": "1",
        "SHUFFLE_BUFFER": str(_BUFFER), "BATCH_SIZE": str(_STEP), "EPOCHS": "1", "MAX_STEPS": "0", "DEVICE": "cpu",
        "CHECKPOINT_EVERY": "1m",
    }  # fmt: skip
    watch = Watch(folder / "run" / LOG_FILE)
    watch.start()
    train(TrainConfig.from_env(environ))
    watch.ended.set()
    watch.join()
    done = min(rows, len((folder / "run" / LOG_FILE).read_text().splitlines()) * _STEP)
    early = max(size for place, size in watch.points if place <= early_rows)
    late = max(size for place, size in watch.points if place > rows * 9 // 10)
    print(f"  {IMAGE_SIZE}² demo model, {rows} rows in {_SHARDS} files, shuffle buffer {_BUFFER}, {_STEP} per step")
    print(
        f"  resident memory: {early / 1e6:.0f} MB in the first {early_rows} rows, {late / 1e6:.0f} MB in the last tenth"
    )
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"  peak of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6:.0f} MB")
    lost = [] if done == rows else [f"{rows - done} rows were not trained on"]
    if late > early * (1 + _ALLOWED):
        lost.append(f"memory grew by {late / early - 1:.0%}")
    return rows, done, lost
