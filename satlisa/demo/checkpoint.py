"""State of one model's pretraining in a file, written every few minutes and after each stage, to resume from."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.atomic_files import atomic_replace

SAVE_EVERY = 600.0  # seconds
_CONTENT = ("settings", "finished", "stage", "step", "states")  # of the file


class Stateful(Protocol):
    """A model, an optimizer, a schedule: all that has a state."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take over a state."""


class Checkpoint:
    """Where a pretraining of several stages stands.

    A stage that is behind the saved one is skipped, the saved one goes on after the saved step, and a later one starts
    from the model as it is then.

    Args:
        path: the file, which need not exist.
        settings: what determines the run, by name. Values are numbers or strings.
        every: seconds between two saves within a stage.

    Raises:
        SatlisaError: the file is damaged, or is of a run with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], every: float = SAVE_EVERY) -> None:
        self.path, self._settings, self._every = path, dict(settings), every
        self._finished: list[str] = []
        self._stage, self._step = "", 0
        self._states: list[dict[str, Any]] = []
        self._written = time.monotonic()
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            settings, self._finished, self._stage, self._step, self._states = (saved[name] for name in _CONTENT)
            names = sorted({*settings, *self._settings})
        except Exception as error:  # torch.load raises nearly anything for a damaged file
            raise SatlisaError(
                f"{self.path}: expected the state of a pretraining, found a file that cannot be read "
                f"({first_line(error)}); delete it to start from nothing"
            ) from error
        if other := [name for name in names if settings.get(name) != self._settings.get(name)]:
            listed = ", ".join(f"{name} {settings.get(name)} instead of {self._settings.get(name)}" for name in other)
            raise SatlisaError(
                f"{self.path}: expected the state of a pretraining with the same settings, found {listed}; repeat the "
                "command that wrote it, choose another --output, or delete the file to start from nothing"
            )

    def resume(self, stage: str, parts: Sequence[Stateful], steps: int) -> int:
        """Load the state of the parts if it was saved in this stage; returns how many of its steps need not be made."""
        if stage in self._finished:
            return steps
        if stage != self._stage:
            return 0
        for part, state in zip(parts, self._states, strict=True):
            part.load_state_dict(state)
        self._states = []
        return self._step

    def save(self, stage: str, parts: Sequence[Stateful], step: int, steps: int) -> None:
        """Write the state after a step, if it was the last of its stage or the last save is long enough ago."""
        if step < steps and time.monotonic() - self._written < self._every:
            return
        if self._stage not in ("", stage):
            self._finished.append(self._stage)
        self._stage, self._step = stage, step
        states = [part.state_dict() for part in parts]
        content = dict(zip(_CONTENT, (self._settings, self._finished, stage, step, states), strict=True))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_replace(self.path, lambda temporary: torch.save(content, temporary))
        self._written = time.monotonic()
