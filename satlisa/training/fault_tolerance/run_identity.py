"""What must match for a run to be resumed: the settings, the model and the rows that determine its result."""

import json
from pathlib import Path

from satlisa.config import ModelConfig
from satlisa.data.fingerprint import rows_key, texts_key
from satlisa.data.mixing import parse_datasets
from satlisa.data.sampler import Sampler
from satlisa.pretrained.model_directory import find_model_dir, fingerprint_model, read_config
from satlisa.runtime.fingerprint import Identity, differences, fingerprint_files
from satlisa.runtime.locations import existing_folder
from satlisa.training.settings import TrainConfig

# Settings that determine a run's result. The others (workers, cache, trackers, …) may change between starts.
_DETERMINING = (
    "preset", "max_samples", "epochs", "max_steps", "learning_rate", "projector_lr_factor", "warmup_ratio",
    "weight_decay", "max_grad_norm", "mask_loss_per", "precision", "seed", "seg_tasks", "streaming", "shuffle_buffer",
)  # fmt: skip


# Entries that earlier versions did not record, or that cannot always be found out; compared where both sides have them.
_OPTIONAL = ("DATASET texts",)
# What runs of earlier versions did without an entry.
_IMPLIED = {
    "model_config.json instance_places": "none", "MERGE_INIT": False, "MASK_LOSS_PER": "mask",
    "PROJECTOR_LR_FACTOR": 1.0,
}  # fmt: skip


def identify(settings: TrainConfig, config: ModelConfig, sampler: Sampler) -> Identity:
    """JSON values by the names that a user knows.

    BATCH_SIZE and GRAD_ACCUM count as their product, the rows of a step. Local folders count by content, not by path,
    so that a run can resume with a copy on a faster disk.
    """
    found: Identity = {name.upper(): getattr(settings, name) for name in _DETERMINING}
    found["BATCH_SIZE × GRAD_ACCUM"] = settings.batch_size * settings.grad_accum
    found["DATASET"] = ",".join(
        ("a folder" if Path(name).is_absolute() else name) + ("" if weight is None else f":{weight:g}")
        for name, weight in parse_datasets(config.dataset).items()
    )
    found |= {"DATASET rows": len(sampler), "DATASET contents": rows_key(sampler)}
    if settings.init_from:
        found["MERGE_INIT"] = settings.merge_init
        found["INIT_FROM"] = fingerprint_model(find_model_dir(settings.init_from))
    if (texts := texts_key(sampler)) is not None:
        found["DATASET texts"] = texts
    for key, value in config.to_dict().items():
        if key == "vlm_model_id" and config.brings_vlm:
            value = _origin(settings)
        elif key in ("vlm_model_id", "sam_model_id"):
            value = f"folder {fingerprint_files(folder)}" if (folder := existing_folder(value)) else value
        if key not in ("dataset", "seg_tasks"):  # SEG_TASKS is there
            found[f"model_config.json {key}"] = value
    as_read: Identity = json.loads(json.dumps(found, default=str))  # as read back from a file
    return as_read


def _origin(settings: TrainConfig) -> str:
    """What a run's own VLM is made of. One in the directory of INIT_FROM counts there."""
    name = settings.vlm_model or read_config(find_model_dir(settings.init_from)).vlm_model_id
    if name.startswith("."):
        name = "that of INIT_FROM"
    elif (folder := existing_folder(name)) is not None:
        name = f"folder {fingerprint_files(folder)}"
    return f"{name}, {'merged' if settings.merge_init else 'as it is'}"


def run_differences(before: Identity, now: Identity) -> str:
    """What differs between a stored run and this one, for a message; "" where this one may resume it."""
    before, now = _IMPLIED | before, _IMPLIED | now
    left_out = {name for name in _OPTIONAL if name not in before or name not in now}
    return differences(*({name: side[name] for name in side if name not in left_out} for side in (before, now)))


def extends(before: Identity, now: Identity) -> bool:
    """Whether a run differs from a stored one in nothing but a larger EPOCHS or MAX_STEPS (0: no limit)."""
    changed = {name for name in {*before, *now} if before.get(name) != now.get(name)} - set(_OPTIONAL)
    most = float("inf")
    return bool(changed) and all(
        name in ("EPOCHS", "MAX_STEPS") and (before.get(name) or most) <= (now.get(name) or most) for name in changed
    )


def how_to_proceed(before: Identity, now: Identity) -> str:
    """What to do instead of resuming a run with other settings, by what the change wants: more epochs, other rows, …"""
    before, now = _IMPLIED | before, _IMPLIED | now
    changed = [name for name in {*before, *now} if before.get(name) != now.get(name)]
    wishes = {_wish(name) for name in changed}
    return (
        f"to {' and '.join(sorted(wishes))}, start a new run in another OUTPUT_DIR: from the base models, or with "
        "INIT_FROM=<model directory> from a trained model (MERGE_INIT=1: with fresh LoRA layers); to resume that run, "
        "repeat the command that started it"
    )


def _wish(name: str) -> str:
    if name in ("EPOCHS", "MAX_STEPS"):
        return "train for another number of epochs or steps (more: once that run is finished)"
    if name.startswith("DATASET") or name in ("MAX_SAMPLES", "SEG_TASKS", "STREAMING", "SHUFFLE_BUFFER"):
        return "train on other rows"
    return "train another model" if name.startswith("model_config.json") else "train with other settings"
