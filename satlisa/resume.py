"""Where a run starts: at the beginning, or at a checkpoint of the run that was there before."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.order import Order
from satlisa.settings import TrainConfig
from satlisa.snapshot import CHECKPOINT_FOLDER, STATE_FILE, clean, list_snapshots, read_snapshot, read_state
from satlisa.train_log import SUMMARY_FILE

logger = logging.getLogger(__name__)

IDENTITY_FILE = "run.json"
# What decides a run's result. The others (workers, cache, trackers, …) may change from one start to the next.
_DECISIVE = (
    "preset", "dataset", "max_samples", "epochs", "max_steps", "learning_rate", "warmup_ratio", "weight_decay",
    "max_grad_norm", "precision", "seed", "seg_tasks", "vlm_model", "sam_model", "streaming", "shuffle_buffer",
)  # fmt: skip
_PROBED_ROWS = 8
_MOST_SHOWN = 6

Identity = dict[str, Any]


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        place: folder of the checkpoint to go on from; None: from the beginning.
        finished: the run is there already, nothing is left to do.
    """

    place: Path | None = None
    finished: bool = False


def identify(settings: TrainConfig, config: ModelConfig, order: Order) -> Identity:
    """What must be the same for a run to go on: settings, model and training rows, JSON values by the names that a
    user knows. BATCH_SIZE and GRAD_ACCUM count as their product, which is what a step depends on."""
    decisive: Identity = {name.upper(): getattr(settings, name) for name in _DECISIVE}
    decisive["BATCH_SIZE × GRAD_ACCUM"] = settings.batch_size * settings.grad_accum
    model = {key: value for key, value in config.to_dict().items() if key != "dataset"}
    decisive |= {f"model_config.json {key}": value for key, value in model.items()}
    decisive |= {"DATASET rows": len(order), "DATASET contents": _fingerprint(order)}
    as_read: Identity = json.loads(json.dumps(decisive, default=str))  # as it comes back from a file
    return as_read


def _fingerprint(order: Order) -> str:
    """A hash of the texts of some training rows: another dataset of the same size is told apart."""
    digest = hashlib.sha256()
    for number, row in zip(range(_PROBED_ROWS), order.rows(0, 0), strict=False):
        try:
            cells = row.fetch()
        except Exception:  # a damaged row is met again in training, and counted there
            cells = {}
        texts = [str(cells.get(column)) for column in ("task", "source", "conversations", "metadata")]
        digest.update(json.dumps([number, row.index, *texts]).encode())
    return digest.hexdigest()[:16]


def choose_start(settings: TrainConfig, identity: Identity) -> Start:
    """Look into the run folder, decide by RESUME and OVERWRITE, and make the folder ready to be written.

    Raises:
        SatlisaError: a folder that would be written over without having been asked to, a run with other settings, or
            no checkpoint that can be read.
    """
    folder = Path(settings.output_dir)
    if folder.is_file():
        raise SatlisaError(f"OUTPUT_DIR: {folder} is a file; name a folder")
    if settings.resume not in ("auto", "never"):
        return Start(_named(settings, identity))
    used = folder.is_dir() and any(folder.iterdir())
    if used and settings.resume == "auto" and (known := _identity_of(folder)) is not None:
        differing = differences(known, identity)
        finished = (folder / SUMMARY_FILE).exists()
        if not differing and not finished:
            clean(folder)
            return Start(_newest(folder))
        if not differing and not settings.overwrite:
            return Start(finished=True)
        if differing and not settings.overwrite:
            raise SatlisaError(
                f"OUTPUT_DIR: {folder} holds a run with other settings: {differing}; set them back to go on with it, "
                "name another folder, or write over it with OVERWRITE=1"
            )
    if used and not settings.overwrite:
        raise SatlisaError(f"OUTPUT_DIR: {folder} is not empty; name another folder, or allow it with OVERWRITE=1")
    _prepare(folder, identity)
    return Start()


def _prepare(folder: Path, identity: Identity) -> None:
    """Make the folder, without what an earlier run left that this one could be taken for."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / CHECKPOINT_FOLDER, ignore_errors=True)
        (folder / SUMMARY_FILE).unlink(missing_ok=True)
        (folder / CHECKPOINT_FOLDER).mkdir()
        text = json.dumps(identity, indent=1, ensure_ascii=False)
        (folder / CHECKPOINT_FOLDER / IDENTITY_FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise SatlisaError(f"OUTPUT_DIR: {folder} cannot be written ({error})") from error


def _identity_of(folder: Path) -> Identity | None:
    """What the run in a folder was; None where there is none that could be gone on with."""
    try:
        known = json.loads((folder / CHECKPOINT_FOLDER / IDENTITY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings in which two runs differ, in words; "" where there are none."""
    missing = "nothing"
    found = [
        f"{name} was {known.get(name, missing)!r}, is {wanted.get(name, missing)!r}"
        for name in sorted({*known, *wanted})
        if known.get(name, missing) != wanted.get(name, missing)
    ]
    more = [f"and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
    return "; ".join([*found[:_MOST_SHOWN], *more])


def _newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; None where none was written yet.

    Raises:
        SatlisaError: there are some, and none can be read.
    """
    places = list_snapshots(folder)
    for place in reversed(places):
        try:
            read_snapshot(place)
            return place
        except SatlisaError as error:
            logger.warning("%s; the checkpoint before it is taken", error)
    if places:
        raise SatlisaError(
            f"{folder / CHECKPOINT_FOLDER}: none of its {len(places)} checkpoints can be read; start over with "
            "RESUME=never OVERWRITE=1"
        )
    logger.info("%s: no checkpoint was written yet, the run starts from the beginning", folder)
    return None


def _named(settings: TrainConfig, identity: Identity) -> Path:
    """The checkpoint that RESUME names: its folder, or a run folder, of which it is the newest."""
    folder, named = Path(settings.output_dir), Path(settings.resume).expanduser()
    if not named.is_dir():
        raise SatlisaError(f"RESUME: expected auto, never or the folder of a checkpoint or run, found '{named}'")
    place = named if (named / STATE_FILE).exists() else _newest(named)
    if place is None:
        raise SatlisaError(f"RESUME: {named} holds no checkpoint")
    if differing := differences(read_state(place).get("identity", {}), identity):
        raise SatlisaError(f"RESUME: {place} is of a run with other settings: {differing}; set them back")
    read_snapshot(place)
    if place.parent.parent.resolve() != folder.resolve():
        if folder.is_dir() and any(folder.iterdir()) and not settings.overwrite:
            raise SatlisaError(f"OUTPUT_DIR: {folder} is not empty; name another folder, or allow it with OVERWRITE=1")
        _prepare(folder, identity)
    return place
