"""Training runs on tiny models: their rows, their settings, their log."""

import json
import sys
from pathlib import Path

from datasets import Dataset, Features, Image, Value

from satlisa.config import ModelConfig
from satlisa.training.settings import TrainConfig
from tests.helpers.model_fixtures import picture

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]  # how many, and what


def rows(count: int) -> list[dict]:  # type: ignore[type-arg]
    """Rows of three tasks; every tenth one is broken."""
    made = []
    for i in range(count):
        task = ("building_segmentation", "instance_segmentation", "scene_classification")[i % 3]
        polygon = [[100, 100], [600, 100], [600, 700], [100, 700]]
        metadata = {} if task == "scene_classification" else {"polygons": [polygon] * (1 + (i % 3))}
        turns = [{"role": "user", "content": f"Question {i}"}, {"role": "assistant", "content": "Answer"}]
        conversations = "{broken" if i % 10 == 9 else json.dumps(turns)
        pixels = picture(64, 48, seed=i)
        made.append(
            {
                "task": task,
                "source": "test",
                "image": pixels,
                "conversations": conversations,
                "metadata": json.dumps(metadata),
            }
        )
    return made


def write_dataset(folder: Path, splits: dict[str, list[dict]]) -> None:  # type: ignore[type-arg]
    (folder / "data").mkdir(parents=True)
    columns = dict.fromkeys(("task", "source", "conversations", "metadata"), Value("string"))
    for split, made in splits.items():
        data = Dataset.from_list(made, features=Features({**columns, "image": Image()}))
        data.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")


def settings(config: ModelConfig, dataset: Path, output: Path, **more: str) -> TrainConfig:
    environ = {
        "DATASET": str(dataset),
        "OUTPUT_DIR": str(output),
        "VLM_MODEL": config.vlm_model_id,
        "SAM_MODEL": config.sam_model_id,
        "DEVICE": "cpu",
        "BATCH_SIZE": "4",
        "GRAD_ACCUM": "2",
        "LEARNING_RATE": "1e-2",
        "MAX_SKIP": "1",
    }
    return TrainConfig.from_env({**environ, **more})


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
