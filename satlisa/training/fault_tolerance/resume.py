"""Where a run starts: from scratch, or from a checkpoint, of the run in its folder or of another one.

The decision (`choose_start`) changes nothing. The folder is prepared (`prepare_folder`) once everything else is loaded,
so that a failed start deletes no checkpoint.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satlisa.config import MERGED_FOLDER
from satlisa.errors import SatlisaError, first_line
from satlisa.pretrained.model_directory import check_parts
from satlisa.runtime.atomic_files import PARTIAL, atomic_write, remove_leftovers
from satlisa.runtime.fingerprint import Identity
from satlisa.runtime.locations import check_disk, check_writable, existing_folder, writing_to
from satlisa.training.fault_tolerance.checkpoint_files import (
    CHECKPOINT_FOLDER,
    STATE_FILE,
    list_checkpoints,
    read_checkpoint,
    read_state,
    remove_checkpoint,
)
from satlisa.training.fault_tolerance.run_identity import extends, how_to_proceed, run_differences
from satlisa.training.log import SUMMARY_FILE
from satlisa.training.settings import TrainConfig

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
STAGED_VLM = f"{MERGED_FOLDER}-new{PARTIAL}"  # what a run makes of INIT_FROM before it starts (merged_vlm.py)
_MODEL = "; a model directory is named by INIT_FROM, which starts a new run from its model"


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        checkpoint: folder of the checkpoint to resume from; None: from scratch.
        is_new: a new run begins in the folder; what an earlier run left there is deleted first.
        is_finished: the run in the folder is finished, nothing is left to do.
        extends: the run in the folder was finished and has a larger EPOCHS or MAX_STEPS now.
    """

    checkpoint: Path | None = None
    is_new: bool = False
    is_finished: bool = False
    extends: bool = False


@dataclass(frozen=True)
class Record:
    """What `run.json` says about the run in a folder.

    Attributes:
        identity: its settings, model and rows (`run_identity.identify`).
        source: the checkpoint that it started from.
        resume: RESUME of its first start, where that was a path.
    """

    identity: Identity
    source: Path | None = None
    resume: str | None = None


def choose_start(settings: TrainConfig, identity: Identity) -> Start:
    """Look into the run folder, decide by RESUME and OVERWRITE, and try whether the disk can do what the run needs.

    Raises:
        SatlisaError: a folder that would be overwritten without OVERWRITE, a run with other settings, no readable
            checkpoint, or a disk that cannot keep checkpoints.
    """
    folder = Path(settings.output_dir)
    source = existing_folder(settings.init_from) if settings.init_from else None
    if source is not None and source.resolve() == folder.resolve():
        raise SatlisaError(
            f"OUTPUT_DIR: {folder} is the model of INIT_FROM, which would be overwritten; name another one"
        )
    try:
        check_writable(folder, "OUTPUT_DIR")
        start = _choose(settings, identity)
        if not start.is_finished:
            check_disk(folder, "OUTPUT_DIR")
            check_parts(folder)
        return start
    except OSError as error:
        raise SatlisaError(f"OUTPUT_DIR: {folder} cannot be used ({first_line(error)})") from error


def _choose(settings: TrainConfig, identity: Identity) -> Start:
    folder = Path(settings.output_dir)
    if settings.resume == "never":
        return _new_run(settings)
    record = _read_record(folder)
    checkpoint = None
    if settings.resume != "auto" and not _continues_same_command(settings, identity, record):
        checkpoint = _named_checkpoint(settings.resume, identity)
        if record is None or record.source != checkpoint.resolve():
            return _start_from_named(settings, checkpoint)
    return _resume_in_folder(settings, identity, record, checkpoint)


def _resume_in_folder(
    settings: TrainConfig, identity: Identity, record: Record | None, checkpoint: Path | None
) -> Start:
    """Resume the run in the folder. Where there is none, or it may be overwritten: a new run from `checkpoint`."""
    folder = Path(settings.output_dir)
    if record is None:
        return _new_run(settings, checkpoint)
    is_finished = (folder / SUMMARY_FILE).exists()
    if differing := run_differences(record.identity, identity):
        if is_finished and extends(record.identity, identity) and not settings.overwrite:
            return Start(_newest_of_run(folder, identity), extends=True)
        if settings.overwrite or not _is_used(folder):
            return _new_run(settings, checkpoint)
        raise SatlisaError(
            f"OUTPUT_DIR: {folder} holds a run with other settings: {differing}; "
            f"{how_to_proceed(record.identity, identity)}; to replace it by a new one, add OVERWRITE=1"
        )
    if is_finished:
        if settings.overwrite:
            return _new_run(settings, checkpoint)
        # A kill may have left the summary of the run before it was extended.
        newest = _newest_of_run(folder, identity)
        is_extended = newest is not None and extends(read_state(newest)["identity"], identity)
        return Start(newest, extends=True) if is_extended else Start(is_finished=True)
    if (newest := _newest_of_run(folder, identity)) is not None:
        return Start(newest)
    if record.source is not None:
        _check_is_of_run(record.source, identity)
    if _is_used(folder):
        logger.info("%s: no checkpoint was written yet, the run starts over", folder)
    return Start(record.source, is_new=True)


def _start_from_named(settings: TrainConfig, checkpoint: Path) -> Start:
    """Start from the checkpoint that RESUME names: of another run, or an earlier one of the run in the folder."""
    folder = Path(settings.output_dir)
    if not _belongs_to(checkpoint, folder):
        return _new_run(settings, checkpoint)
    later = [place for place in list_checkpoints(folder) if place.name > checkpoint.name]
    is_finished = (folder / SUMMARY_FILE).exists()
    if not later and not (is_finished and settings.overwrite):
        return Start(is_finished=True) if is_finished else Start(checkpoint)
    if not settings.overwrite:
        raise SatlisaError(
            f"RESUME: going back to {checkpoint.name} would discard what this run did after it "
            f"({len(later)} checkpoints); allow it with OVERWRITE=1, or resume from it in another OUTPUT_DIR"
        )
    return Start(checkpoint, is_new=True)


def _new_run(settings: TrainConfig, checkpoint: Path | None = None) -> Start:
    """A new run in the folder, from scratch or from a checkpoint.

    Raises:
        SatlisaError: the folder is in use, and OVERWRITE is not set.
    """
    folder = Path(settings.output_dir)
    if _is_used(folder) and not settings.overwrite:
        raise SatlisaError(
            f"OUTPUT_DIR: {folder} is not empty; name another folder (with INIT_FROM={folder} to train on from "
            "a model in it), or allow it with OVERWRITE=1"
        )
    return Start(checkpoint, is_new=True)


def prepare_folder(settings: TrainConfig, identity: Identity, start: Start) -> None:
    """Make the folder ready. For a new run, delete the checkpoints and the summary of an earlier one, which could be
    mistaken for its own. Checkpoints up to the one that it starts from, and files of others, stay.

    Raises:
        SatlisaError: the folder cannot be written.
    """
    folder = Path(settings.output_dir)
    with writing_to(folder, "OUTPUT_DIR"):
        if start.extends:
            _write_record(settings, identity, None)
            (folder / SUMMARY_FILE).unlink(missing_ok=True)
        if start.is_new:
            (folder / CHECKPOINT_FOLDER).mkdir(parents=True, exist_ok=True)
            (folder / SUMMARY_FILE).unlink(missing_ok=True)
            last_kept = start.checkpoint.name if start.checkpoint and _belongs_to(start.checkpoint, folder) else ""
            for old in list_checkpoints(folder):
                if old.name > last_kept:
                    remove_checkpoint(old)
            _write_record(settings, identity, start.checkpoint)
        remove_leftovers(folder / CHECKPOINT_FOLDER, "step-*")


def _write_record(settings: TrainConfig, identity: Identity, source: Path | None) -> None:
    record = {
        "resume": _resume_path(settings),
        "from": str(source.resolve()) if source else None,
        "identity": identity,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    atomic_write(Path(settings.output_dir) / CHECKPOINT_FOLDER / RUN_FILE, text.encode())


def _belongs_to(checkpoint: Path, folder: Path) -> bool:
    """Whether a checkpoint is one of the run in a folder."""
    return checkpoint.parent.resolve() == (folder / CHECKPOINT_FOLDER).resolve()


def _continues_same_command(settings: TrainConfig, identity: Identity, record: Record | None) -> bool:
    """Whether the unfinished run in the folder was started with this RESUME, which may name something else by now."""
    if record is None or (Path(settings.output_dir) / SUMMARY_FILE).exists():
        return False
    return not run_differences(record.identity, identity) and record.resume == _resume_path(settings)


def _resume_path(settings: TrainConfig) -> str | None:
    """RESUME as an absolute path; None where it is auto or never."""
    return None if settings.resume in ("auto", "never") else str(Path(settings.resume).expanduser().resolve())


def _is_used(folder: Path) -> bool:
    """Whether a folder holds anything but the record of a run that never took a step."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir() if path.name != STAGED_VLM}
    checkpoints = folder / CHECKPOINT_FOLDER
    if CHECKPOINT_FOLDER in names and names <= {CHECKPOINT_FOLDER, MERGED_FOLDER} and checkpoints.is_dir():
        return not {path.name for path in checkpoints.iterdir()} <= {RUN_FILE, RUN_FILE + PARTIAL}
    return bool(names)


def _read_record(folder: Path) -> Record | None:
    """The record of the run in a folder; None where there is none. A lost record is read from the newest checkpoint."""
    path = folder / CHECKPOINT_FOLDER / RUN_FILE
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return Record(dict(read["identity"]), Path(read["from"]) if read["from"] else None, read["resume"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            return Record(read_state(checkpoint)["identity"])
        except SatlisaError:
            continue
    return None


def _newest_of_run(folder: Path, identity: Identity) -> Path | None:
    """The newest checkpoint in a run folder that is readable and of this run; None where none was written yet.

    Raises:
        SatlisaError: none of its checkpoints is.
    """
    checkpoints = list_checkpoints(folder)
    for checkpoint in reversed(checkpoints):
        try:
            _check_is_of_run(checkpoint, identity)
            return checkpoint
        except SatlisaError as error:
            logger.warning("%s; trying the checkpoint before it", error)
    if checkpoints:
        raise SatlisaError(
            f"{folder / CHECKPOINT_FOLDER}: none of its {len(checkpoints)} checkpoints can be read as one of this run; "
            "start over with RESUME=never OVERWRITE=1"
        )
    return None


def _check_is_of_run(checkpoint: Path, identity: Identity) -> None:
    """Refuse a checkpoint that is damaged, or of a run with other settings than `identity`."""
    of = read_checkpoint(checkpoint).state["identity"]
    if (differing := run_differences(of, identity)) and not extends(of, identity):
        raise SatlisaError(f"{checkpoint}: of a run with other settings: {differing}")


def _named_checkpoint(resume: str, identity: Identity) -> Path:
    """The checkpoint that RESUME names, by its own folder or as the newest one of a run folder.

    Raises:
        SatlisaError: it does not exist, cannot be read, or is of a run with other settings.
    """
    named = existing_folder(resume)
    if named is None:
        raise SatlisaError(
            f"RESUME: expected auto, never or the folder of a checkpoint or run, found '{resume}'{_MODEL}"
        )
    record = _read_record(named)
    is_checkpoint = (named / STATE_FILE).exists()
    checkpoint = named if is_checkpoint else _newest_of_run(named, record.identity if record else identity)
    if checkpoint is None:
        raise SatlisaError(f"RESUME: {named} holds no checkpoint{_MODEL}")
    of = read_checkpoint(checkpoint).state["identity"]
    if differing := run_differences(of, identity):
        raise SatlisaError(
            f"RESUME: {checkpoint} is of a run with other settings: {differing}; {how_to_proceed(of, identity)}"
        )
    return checkpoint
