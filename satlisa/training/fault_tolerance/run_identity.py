"""What must match for a run to be resumed: the settings, the model and the rows that determine its result."""

import json
from pathlib import Path

from satlisa.config import ModelConfig
from satlisa.data.fingerprint import rows_key
from satlisa.data.sampler import Sampler
from satlisa.runtime.fingerprint import Identity, fingerprint_files
from satlisa.runtime.locations import existing_folder
from satlisa.training.settings import TrainConfig

# Settings that determine a run's result. The others (workers, cache, trackers, …) may change between starts.
_DETERMINING = (
    "preset", "max_samples", "epochs", "max_steps", "learning_rate", "warmup_ratio", "weight_decay", "max_grad_norm",
    "precision", "seed", "seg_tasks", "streaming", "shuffle_buffer",
)  # fmt: skip


def identify(settings: TrainConfig, config: ModelConfig, sampler: Sampler) -> Identity:
    """JSON values by the names that a user knows.

    BATCH_SIZE and GRAD_ACCUM count as their product, the rows of a step. Local folders count by content, not by path,
    so that a run can resume with a copy on a faster disk.
    """
    found: Identity = {name.upper(): getattr(settings, name) for name in _DETERMINING}
    found["BATCH_SIZE × GRAD_ACCUM"] = settings.batch_size * settings.grad_accum
    found["DATASET"] = "a folder" if Path(config.dataset).is_absolute() else config.dataset
    found |= {"DATASET rows": len(sampler), "DATASET contents": rows_key(sampler)}
    for key, value in config.to_dict().items():
        if key in ("vlm_model_id", "sam_model_id"):
            value = f"folder {fingerprint_files(folder)}" if (folder := existing_folder(value)) else value
        if key != "dataset":
            found[f"model_config.json {key}"] = value
    as_read: Identity = json.loads(json.dumps(found, default=str))  # as read back from a file
    return as_read
