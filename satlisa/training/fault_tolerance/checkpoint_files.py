"""Training checkpoints: everything that a run needs to go on as if it had never stopped.

A checkpoint is a folder such as `checkpoints/step-00000120` that is written beside its place, forced to the disk, and
renamed: it is whole, or it is not there. Tensors are safetensors and everything else is JSON: reading one runs no code.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.atomic_files import BESIDE, force, write

logger = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoints"

STATE_FILE = "state.json"

TENSORS = ("trained", "optimizer", "random")

_NAME = re.compile(r"step-\d{8}(-epoch-\d+)?")


@dataclass(frozen=True)
class Snapshot:
    """A training checkpoint in memory.

    Attributes:
        state: what is no tensor (`training_run.take_snapshot`), strict JSON.
        trained: parameters by name.
        optimizer: the optimizer's tensors, as "name/key".
        random: states of the random generators, as "process/generator".
    """

    state: dict[str, Any]
    trained: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]


def write_snapshot(snapshot: Snapshot, folder: Path, keep: int) -> Path:
    """Write a checkpoint into a run folder and remove all but the newest `keep`; returns its own folder.

    Raises:
        OSError: no room or no right to write; the checkpoints that are there are as they were.
    """
    place = folder / CHECKPOINT_FOLDER / name_of(snapshot.state)
    if place.is_dir():
        try:
            read_snapshot(place)
            return place  # the same step of the same run: written twice it could be lost between the two
        except SatlisaError:
            discard(place)
    partial = place.with_name(place.name + BESIDE)
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir(parents=True)
        contents = {f"{name}.safetensors": save(getattr(snapshot, name)) for name in TENSORS}
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        sums["state"] = _sum_of_state(snapshot.state)
        state = json.dumps({**snapshot.state, "sha256": sums}, indent=1, allow_nan=False).encode()
        for name, content in {**contents, STATE_FILE: state}.items():
            write(partial / name, content)
        force(partial)
        os.rename(partial, place)
        force(place.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    try:
        for old in list_snapshots(folder)[:-keep]:
            discard(old)
    except OSError as error:
        logger.warning("an old checkpoint cannot be removed (%s)", first_line(error))
    return place


def name_of(state: dict[str, Any]) -> str:
    """A checkpoint's name, which sorts by age: behind the last step of an epoch comes the end of the epoch."""
    end = "" if state["rows_done"] else f"-epoch-{state['epoch']}"
    return f"step-{state['step']:08d}{end}"


def list_snapshots(folder: Path) -> list[Path]:
    """The whole checkpoints of a run folder, the oldest first."""
    checkpoints = folder / CHECKPOINT_FOLDER
    found = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return sorted(path for path in found if _NAME.fullmatch(path.name) and path.is_dir())


def read_state(place: Path) -> dict[str, Any]:
    """What is no tensor in a checkpoint.

    Raises:
        SatlisaError: no checkpoint, or a damaged one.
    """
    try:
        state = json.loads((place / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SatlisaError(
            f"{place}: not a training checkpoint, no readable {STATE_FILE} ({first_line(error)})"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("sha256"), dict):
        raise SatlisaError(f"{place / STATE_FILE}: not the state of a training checkpoint")
    if _sum_of_state({key: value for key, value in state.items() if key != "sha256"}) != state["sha256"].get("state"):
        raise SatlisaError(f"{place / STATE_FILE}: damaged, its contents are not those that were written")
    return state


def _sum_of_state(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def read_snapshot(place: Path) -> Snapshot:
    """A checkpoint, each of its files checked against the sum that was written down with it.

    Raises:
        SatlisaError: something is missing or damaged.
    """
    state = read_state(place)
    tensors = {}
    for name in TENSORS:
        path = place / f"{name}.safetensors"
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != state["sha256"].get(path.name):
                raise SatlisaError(f"{path}: damaged, its contents are not those that were written")
            tensors[name] = load(content)
        except (OSError, SafetensorError) as error:
            raise SatlisaError(f"{path}: not a readable file of tensors ({first_line(error)})") from error
    return Snapshot(state, **tensors)


def discard(place: Path) -> None:
    """Remove a checkpoint: renamed first, so that it is never there by half."""
    if place.is_dir():
        beside = place.with_name(place.name + ".old" + BESIDE)
        shutil.rmtree(beside, ignore_errors=True)
        os.rename(place, beside)
        shutil.rmtree(beside, ignore_errors=True)


def clean(folder: Path) -> None:
    """Remove what killed runs left half written or half removed."""
    checkpoints = folder / CHECKPOINT_FOLDER
    for path in checkpoints.glob(f"step-*{BESIDE}") if checkpoints.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)
