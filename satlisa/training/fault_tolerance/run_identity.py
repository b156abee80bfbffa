"""What must be the same for a run to go on: the settings, the model and the rows that decide its result."""

import json
from pathlib import Path

from satlisa.config import ModelConfig
from satlisa.data.fingerprint import rows_key
from satlisa.data.sampler import Order
from satlisa.runtime.fingerprint import Identity, files_key
from satlisa.runtime.locations import existing_folder
from satlisa.training.settings import TrainConfig

# What decides a run's result. The others (workers, cache, trackers, …) may change from one start to the next.
_DECISIVE = (
    "preset", "max_samples", "epochs", "max_steps", "learning_rate", "warmup_ratio", "weight_decay", "max_grad_norm",
    "precision", "seed", "seg_tasks", "streaming", "shuffle_buffer",
)  # fmt: skip


def identify(settings: TrainConfig, config: ModelConfig, order: Order) -> Identity:
    """JSON values by the names that a user knows.

    BATCH_SIZE and GRAD_ACCUM count as their product, which is what a step depends on. Local folders count by what is in
    them and not by where they are, so that a run goes on from a copy on a faster disk.
    """
    found: Identity = {name.upper(): getattr(settings, name) for name in _DECISIVE}
    found["BATCH_SIZE × GRAD_ACCUM"] = settings.batch_size * settings.grad_accum
    found["DATASET"] = "a folder" if Path(config.dataset).is_absolute() else config.dataset
    found |= {"DATASET rows": len(order), "DATASET contents": rows_key(order)}
    for key, value in config.to_dict().items():
        if key in ("vlm_model_id", "sam_model_id"):
            value = files_key(folder) if (folder := existing_folder(value)) else value
        if key != "dataset":
            found[f"model_config.json {key}"] = value
    as_read: Identity = json.loads(json.dumps(found, default=str))  # as it comes back from a file
    return as_read
