"""Run folders with checkpoints of a few numbers, without training."""

from pathlib import Path
from typing import Any

import torch

from satlisa.training.fault_tolerance.checkpoint_files import Checkpoint, write_checkpoint
from satlisa.training.fault_tolerance.resume import Start, prepare_folder
from satlisa.training.settings import TrainConfig

IDENTITY: dict[str, Any] = {"SEED": 0, "DATASET rows": 24}


def settings(folder: Path, **more: str) -> TrainConfig:
    return TrainConfig.from_env({"OUTPUT_DIR": str(folder), **more})


def checkpoint(step: int, rows_done: int = 1) -> Checkpoint:
    tensors = {"a": torch.tensor([step])}
    state = {"step": step, "epoch": 1, "rows_done": rows_done, "identity": IDENTITY}
    return Checkpoint(state, tensors, tensors, tensors)


def make_run(folder: Path, *steps: int, finished: bool = False) -> Path:
    """A run folder with checkpoints of these steps and a model, as a run leaves it."""
    prepare_folder(settings(folder), IDENTITY, Start(is_new=True))
    for step in steps:
        write_checkpoint(checkpoint(step), folder, keep=99)
    (folder / "seg_projector.pt").write_bytes(b"model")
    if finished:
        (folder / "train_summary.json").write_text("{}")
    return folder


def place_of(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}"
