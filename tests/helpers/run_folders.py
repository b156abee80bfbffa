"""Run folders with checkpoints of a few numbers, without training."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from satlisa.training.fault_tolerance.checkpoint_files import Checkpoint, write_checkpoint
from satlisa.training.fault_tolerance.random_states import take_random
from satlisa.training.fault_tolerance.resume import Start, prepare_folder
from satlisa.training.settings import TrainConfig
from satlisa.training.state import Progress

IDENTITY: dict[str, Any] = {"SEED": 0, "DATASET rows": 24}


def settings(folder: Path, **more: str) -> TrainConfig:
    return TrainConfig.from_env({"OUTPUT_DIR": str(folder), **more})


def checkpoint(step: int, rows_done: int = 1, identity: dict[str, Any] = IDENTITY) -> Checkpoint:
    """A checkpoint of one parameter, of a run with one row a step."""
    trained = {"a": torch.tensor([float(step)])}
    optimizer = {"a/step": torch.tensor(float(step)), "a/exp_avg": trained["a"], "a/exp_avg_sq": trained["a"] + 1}
    progress = Progress(step=step, epoch=1, rows_done=rows_done)
    state = {
        **vars(progress), "skips": [], "val_skips": [], "identity": identity, "num_processes": 1, "step_size": 1,
        "dtype": "float32", "scaler": None, "validations": [],
        "scheduler": {"base_lrs": [0.1], "_last_lr": [0.1], "last_epoch": step, "_step_count": step + 1},
    }  # fmt: skip
    return Checkpoint(state, trained, optimizer, {f"0/{name}": tensor for name, tensor in take_random().items()})


def make_run(folder: Path, *steps: int, finished: bool = False, identity: dict[str, Any] = IDENTITY) -> Path:
    """A run folder with checkpoints of these steps and a model, as a run leaves it."""
    prepare_folder(settings(folder), identity, Start(is_new=True))
    for step in steps:
        write_checkpoint(checkpoint(step, identity=identity), folder, keep=99)
    (folder / "seg_projector.pt").write_bytes(b"model")
    if finished:
        (folder / "train_summary.json").write_text("{}")
    return folder


def place_of(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}"


def rewrite(place: Path, state: dict[str, Any] | None = None, **tensors: dict[str, torch.Tensor]) -> None:
    """Change parts of a checkpoint on disk, with hashes that match them."""
    stored = json.loads((place / "state.json").read_text())
    sums = stored.pop("sha256")
    state = stored if state is None else state
    for name, changed in tensors.items():
        content = save(changed)
        (place / f"{name}.safetensors").write_bytes(content)
        sums[f"{name}.safetensors"] = hashlib.sha256(content).hexdigest()
    sums["state"] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    (place / "state.json").write_text(json.dumps({**state, "sha256": sums}))
