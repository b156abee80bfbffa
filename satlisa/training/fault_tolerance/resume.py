"""Where a run starts: at the beginning, or at a checkpoint of the run that was there before.

The decision (`choose_start`) changes nothing. The folder is made ready (`prepare`) when everything else is loaded, so
that a start that fails costs nobody a checkpoint.
"""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError, first_line
from satlisa.runtime.atomic_files import BESIDE, write_whole
from satlisa.runtime.fingerprint import Identity, differences
from satlisa.runtime.locations import existing_folder
from satlisa.training.fault_tolerance.checkpoint_files import (
    CHECKPOINT_FOLDER,
    STATE_FILE,
    clean,
    discard,
    list_snapshots,
    read_snapshot,
    read_state,
)
from satlisa.training.log import SUMMARY_FILE
from satlisa.training.settings import TrainConfig

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        place: folder of the checkpoint to go on from; None: from the beginning.
        is_new: a run begins in this folder, which first loses what an earlier one left there.
        finished: the run is there already, nothing is left to do.
    """

    place: Path | None = None
    is_new: bool = False
    finished: bool = False


@dataclass(frozen=True)
class Record:
    """What `run.json` says of the run in a folder.

    Attributes:
        identity: `identity.identify` of it.
        source: the checkpoint that it began from.
        resume: what RESUME was then, where that was a path.
    """

    identity: Identity
    source: Path | None = None
    resume: str | None = None


def choose_start(settings: TrainConfig, identity: Identity) -> Start:
    """Look into the run folder and decide by RESUME and OVERWRITE.

    Raises:
        SatlisaError: a folder that would be written over without having been asked to, a run with other settings, or
            no checkpoint that can be read.
    """
    folder = Path(settings.output_dir)
    try:
        _check_folder(folder)
        if settings.resume == "never":
            return _anew(settings)
        record = _record_of(folder)
        place = None
        if settings.resume != "auto" and not _is_same_command(settings, identity, record):
            place = _named(settings.resume, identity)
            if record is None or record.source != place.resolve():
                return _from_elsewhere(settings, place)
        return _go_on(settings, identity, record, place)
    except OSError as error:
        raise SatlisaError(f"OUTPUT_DIR: {folder} cannot be used ({first_line(error)})") from error


def _go_on(settings: TrainConfig, identity: Identity, record: Record | None, place: Path | None) -> Start:
    """Where the run that is in the folder goes on; a new one from `place` where there is none, or where it may be
    written over."""
    folder = Path(settings.output_dir)
    if record is None:
        return _anew(settings, place)
    if differing := differences(record.identity, identity):
        if settings.overwrite or not _is_used(folder):
            return _anew(settings, place)
        raise SatlisaError(
            f"OUTPUT_DIR: {folder} holds a run with other settings: {differing}; set them back to go on with it, "
            "name another folder, or write over it with OVERWRITE=1"
        )
    if (folder / SUMMARY_FILE).exists():
        return _anew(settings, place) if settings.overwrite else Start(finished=True)
    if (newest := _newest(folder)) is not None:
        return Start(newest)
    if record.source is not None:
        read_snapshot(record.source)
    if _is_used(folder):
        logger.info("%s: no checkpoint was written yet, the run starts where it began", folder)
    return Start(record.source, is_new=True)


def _from_elsewhere(settings: TrainConfig, place: Path) -> Start:
    """From a checkpoint that RESUME names: of another run, or an earlier one of this."""
    folder = Path(settings.output_dir)
    if not _is_own(place, folder):
        return _anew(settings, place)
    behind = [later.name for later in list_snapshots(folder) if later.name > place.name]
    finished = (folder / SUMMARY_FILE).exists()
    if not behind and not (finished and settings.overwrite):
        return Start(finished=True) if finished else Start(place)
    if not settings.overwrite:
        raise SatlisaError(
            f"RESUME: going back to {place.name} would discard what this run did behind it "
            f"({len(behind)} checkpoints); allow it with OVERWRITE=1, or go on from it in another OUTPUT_DIR"
        )
    return Start(place, is_new=True)


def _is_own(place: Path, folder: Path) -> bool:
    """Whether a checkpoint is one of those of the run in a folder."""
    return place.parent.resolve() == (folder / CHECKPOINT_FOLDER).resolve()


def _is_same_command(settings: TrainConfig, identity: Identity, record: Record | None) -> bool:
    """Whether the unfinished run in the folder began with this RESUME, whatever is there by now."""
    if record is None or (Path(settings.output_dir) / SUMMARY_FILE).exists():
        return False
    return record.identity == identity and record.resume == _resolved(settings.resume)


def _resolved(resume: str) -> str | None:
    return None if resume in ("auto", "never") else str(Path(resume).expanduser().resolve())


def _anew(settings: TrainConfig, place: Path | None = None) -> Start:
    """A new run in the folder, if it may be."""
    folder = Path(settings.output_dir)
    if _is_used(folder) and not settings.overwrite:
        raise SatlisaError(f"OUTPUT_DIR: {folder} is not empty; name another folder, or allow it with OVERWRITE=1")
    return Start(place, is_new=True)


def prepare(settings: TrainConfig, identity: Identity, start: Start) -> None:
    """Make the folder ready: for a new run without checkpoints and summary of an earlier one, which this one could be
    taken for. Checkpoints up to the one that it starts from, and everything that is not ours, stay.

    Raises:
        SatlisaError: it cannot be written.
    """
    folder = Path(settings.output_dir)
    try:
        if start.is_new:
            (folder / CHECKPOINT_FOLDER).mkdir(parents=True, exist_ok=True)
            (folder / SUMMARY_FILE).unlink(missing_ok=True)
            last_kept = start.place.name if start.place and _is_own(start.place, folder) else ""
            for old in list_snapshots(folder):
                if old.name > last_kept:
                    discard(old)
            source = str(start.place.resolve()) if start.place else None
            record = {"resume": _resolved(settings.resume), "from": source, "identity": identity}
            text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
            write_whole(folder / CHECKPOINT_FOLDER / RUN_FILE, text.encode())
        clean(folder)
    except OSError as error:
        raise SatlisaError(f"OUTPUT_DIR: {folder} cannot be written ({first_line(error)})") from error


def _check_folder(folder: Path) -> None:
    """Refuse what can be no run folder, before models are loaded for it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise SatlisaError(f"OUTPUT_DIR: {there} is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SatlisaError(f"OUTPUT_DIR: {there} cannot be written; name another folder")


def _is_used(folder: Path) -> bool:
    """Whether anything is in a folder, apart from the record of a run that did not get to its first step."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    checkpoints = folder / CHECKPOINT_FOLDER
    if names == {CHECKPOINT_FOLDER} and checkpoints.is_dir():
        return not {path.name for path in checkpoints.iterdir()} <= {RUN_FILE, RUN_FILE + BESIDE}
    return bool(names)


def _record_of(folder: Path) -> Record | None:
    """The record of the run in a folder; None where there is none.

    Where the record is lost, the newest checkpoint knows what it is of.
    """
    try:
        read: dict[str, Any] = json.loads((folder / CHECKPOINT_FOLDER / RUN_FILE).read_text(encoding="utf-8"))
        return Record(dict(read["identity"]), Path(read["from"]) if read["from"] else None, read["resume"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    for place in reversed(list_snapshots(folder)):
        try:
            return Record(read_state(place)["identity"])
        except SatlisaError:
            continue
    return None


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
    return None


def _named(resume: str, identity: Identity) -> Path:
    """The checkpoint that RESUME names: its folder, or a run folder, of which it is the newest. It is read whole."""
    named = existing_folder(resume)
    if named is None:
        raise SatlisaError(f"RESUME: expected auto, never or the folder of a checkpoint or run, found '{resume}'")
    place = named if (named / STATE_FILE).exists() else _newest(named)
    if place is None:
        raise SatlisaError(f"RESUME: {named} holds no checkpoint")
    if differing := differences(read_snapshot(place).state["identity"], identity):
        raise SatlisaError(f"RESUME: {place} is of a run with other settings: {differing}; set them back")
    return place
