"""Training checkpoints on disk: all that a run needs to resume as if it had never stopped.

A checkpoint is a folder such as `checkpoints/step-00000120`, written atomically. Tensors are safetensors and everything
else is JSON: reading a checkpoint executes no code. `state.json` holds the run's identity and the SHA-256 of every
part: each file is checked against it, the folder's name against the step, and the content by `checkpoint_schema`.
"""

import hashlib
import json
import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.atomic_files import atomic_remove, atomic_replace
from satlisa.training.fault_tolerance.checkpoint_schema import check_state, check_tensors

logger = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoints"
STATE_FILE = "state.json"
TENSORS = ("trained", "optimizer", "random")
_FILES = {STATE_FILE, *(f"{name}.safetensors" for name in TENSORS)}
_LARGEST_STATE = 2**28  # bytes of state.json; a million skipped rows take 100 MB
_NAME = re.compile(r"step-\d{8}(-epoch-\d+)?")


@dataclass(frozen=True)
class Checkpoint:
    """A training checkpoint in memory.

    Attributes:
        state: everything but tensors (`checkpointing.capture_state`), strict JSON.
        trained: parameters by name.
        optimizer: the optimizer's tensors, as "name/key".
        random: states of the random generators, as "process/generator".
    """

    state: dict[str, Any]
    trained: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]


def write_checkpoint(checkpoint: Checkpoint, folder: Path, keep: int) -> Path:
    """Write a checkpoint into a run folder and delete all but the newest `keep`; returns the checkpoint's folder.

    Raises:
        OSError: no space or no permission; existing checkpoints are unchanged.
    """
    place = folder / CHECKPOINT_FOLDER / name_of(checkpoint.state)
    with suppress(SatlisaError):
        if read_checkpoint(place).state["identity"] == checkpoint.state["identity"]:
            return place  # the same step of the same run: writing it again would change nothing
    contents = {f"{name}.safetensors": save(getattr(checkpoint, name)) for name in TENSORS}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    sums["state"] = _state_sum(checkpoint.state)
    contents[STATE_FILE] = json.dumps({**checkpoint.state, "sha256": sums}, indent=1, allow_nan=False).encode()

    def write(temporary: Path) -> None:
        temporary.mkdir(parents=True)
        for name, content in contents.items():
            (temporary / name).write_bytes(content)

    atomic_replace(place, write, ours=_FILES.__contains__)
    try:
        # Later ones are damaged or of another run: counted, they would drive out the one just written.
        for old in [found for found in list_checkpoints(folder) if found.name <= place.name][:-keep]:
            remove_checkpoint(old)
    except OSError as error:
        logger.warning("an old checkpoint cannot be removed (%s)", first_line(error))
    return place


def name_of(state: dict[str, Any]) -> str:
    """A checkpoint's name. Names sort by age: the end of an epoch comes after the last step of that epoch."""
    end = "" if state["rows_done"] else f"-epoch-{state['epoch']}"
    return f"step-{state['step']:08d}{end}"


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first; damaged ones too. A folder without any of their files is none."""
    checkpoints = folder / CHECKPOINT_FOLDER
    found = checkpoints.iterdir() if checkpoints.is_dir() else ()
    named = (path for path in found if _NAME.fullmatch(path.name) and path.is_dir())
    return sorted(path for path in named if any(os.path.lexists(path / name) for name in _FILES))


def remove_checkpoint(place: Path) -> None:
    """Delete a checkpoint; files of others in its folder stay."""
    atomic_remove(place, ours=_FILES.__contains__)


def read_state(place: Path) -> dict[str, Any]:
    """Everything but the tensors of a checkpoint.

    Raises:
        SatlisaError: not a checkpoint, or a damaged one.
    """
    path = place / STATE_FILE
    try:
        if path.is_file() and path.stat().st_size > _LARGEST_STATE:
            raise SatlisaError(f"{path}: too large for the state of a training checkpoint")
        state = json.loads(_read(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise SatlisaError(
            f"{place}: not a training checkpoint, no readable {STATE_FILE} ({first_line(error)})"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("sha256"), dict):
        raise SatlisaError(f"{path}: not the state of a training checkpoint")
    if _state_sum({key: value for key, value in state.items() if key != "sha256"}) != state["sha256"].get("state"):
        raise SatlisaError(f"{path}: damaged, it does not match its SHA-256")
    try:
        check_state(state)
    except SatlisaError as error:
        raise SatlisaError(f"{path}: {error}") from error
    if _NAME.fullmatch(place.name) and place.name != name_of(state):
        raise SatlisaError(f"{place}: holds {name_of(state)}, another checkpoint than its name says")
    return state


def _read(path: Path) -> bytes:
    """The content of a regular file; a pipe would wait forever, a device never end."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    return path.read_bytes()


def _state_sum(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def read_checkpoint(place: Path) -> Checkpoint:
    """A checkpoint, each of its files checked against its SHA-256.

    Raises:
        SatlisaError: a file is missing, damaged or of another checkpoint, or its content cannot be that of a run.
    """
    state = read_state(place)
    tensors = {}
    for name in TENSORS:
        path = place / f"{name}.safetensors"
        try:
            content = _read(path)
            if hashlib.sha256(content).hexdigest() != state["sha256"].get(path.name):
                raise SatlisaError(f"{path}: damaged, it does not match its SHA-256")
            tensors[name] = load(content)
        except (OSError, SafetensorError) as error:
            raise SatlisaError(f"{path}: not a readable safetensors file ({first_line(error)})") from error
    try:
        check_tensors(state, **tensors)
    except SatlisaError as error:
        raise SatlisaError(f"{place}: {error}") from error
    return Checkpoint(state, **tensors)
