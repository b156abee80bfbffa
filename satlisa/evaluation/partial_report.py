"""Resumable evaluation: finished windows are kept in `.partial/` of the output folder until the report is complete.

```
.partial/settings.json        what is evaluated and how: a resumed evaluation must match it
.partial/windows/00012.json   the entries of the 13th window
.partial/images/              the pictures so far
```
A window is read ahead and put into batches together. It is written atomically, or evaluated again: so batches are the
same after an interruption, and a kill at any moment leaves no incomplete file. Any process may take any window, also
when the evaluation is resumed.
"""

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from satlisa.errors import SatlisaError
from satlisa.evaluation.report import IMAGE_FOLDER, REPORT_FILE, RESULTS_FILE, Pictures, read_results, save_pictures
from satlisa.runtime.atomic_files import atomic_write
from satlisa.runtime.fingerprint import Identity, differences
from satlisa.runtime.locations import check_writable, writing_to
from satlisa.runtime.lock import exclusive_lock
from satlisa.runtime.processes import ProcessGroup
from satlisa.runtime.signals import Interrupted

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"
_SETTINGS_FILE = "settings.json"
_WINDOW_FOLDER = "windows"
_OUR_PICTURES = re.compile(r"(sample_\d+_(input|gt_mask|pred_mask|overlay|gt_objects|pred_objects)|confusion_\d+)\.png")

Entry = dict[str, Any]


class PartialReport:
    """The report of an evaluation in progress, a context manager; it grows in `folder`.

    When the block succeeds, the report replaces an earlier one in `output_dir`: its files and pictures are replaced,
    other files there stay. When the block raises, the earlier report is untouched, and `folder` stays if it holds
    finished windows.

    Attributes:
        folder: where `write_report` writes; deleted at the end.
        processes: those that share the work; the main one manages the folder.
    """

    def __init__(self, output_dir: str | Path, *, resume: bool = False, processes: ProcessGroup | None = None) -> None:
        self.output_dir = Path(output_dir).expanduser()
        self.folder = self.output_dir / _PARTIAL
        self.resume = resume
        self.processes = processes or ProcessGroup()
        self._is_new = not self.output_dir.exists()
        self._started = False
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> "PartialReport":
        """Create the folder; `start` decides about what it holds.

        Raises:
            SatlisaError: `output_dir` is a file, cannot be written, holds files but no report of ours, or another
                evaluation is at work in it.
        """
        if self.processes.is_main:
            check_writable(self.output_dir, "--output_dir")
            with contextlib.ExitStack() as lock:
                lock.enter_context(exclusive_lock(self.output_dir, "--output_dir"))
                with writing_to(self.output_dir, "--output_dir"):
                    _check_replaceable(self.output_dir)
                    (self.folder / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
                self._lock = lock.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.processes.is_main:
            with self._lock:
                self._close(error)

    def _close(self, error: BaseException | None) -> None:
        """Move the report to its place, or keep what can be resumed; otherwise delete what was created."""
        if error is None:
            with writing_to(self.output_dir, "--output_dir"):
                _move(self.folder, self.output_dir)
        elif self.done_windows():
            self._say_how_to_resume(error)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._is_new:
            with contextlib.suppress(OSError):
                self.output_dir.rmdir()  # succeeds only where the folder is empty

    def _say_how_to_resume(self, error: BaseException) -> None:
        """Say nothing where this evaluation found an interrupted one and did not get to work."""
        if not self._started:
            return
        progress = f"after {self._progress()}; run the same command with --resume to continue"
        if isinstance(error, Interrupted):
            error.progress = progress
        else:
            logger.warning("interrupted %s", progress)

    def start(self, identity: Identity, total: int) -> dict[int, list[Entry]]:
        """Start or resume the evaluation; all processes take part.

        Args:
            identity: what is evaluated and how, JSON values by the names that the user knows.
            total: number of samples.

        Returns:
            The finished windows, the same in every process.

        Raises:
            SatlisaError: `resume`, and the interrupted evaluation does not match.
        """
        if self.processes.is_main:
            self._prepare_folder(json.loads(json.dumps(identity)), total)
        self.processes.barrier()
        done = self.done_windows()
        self.processes.barrier()  # nobody adds a window before all have read
        self._started = True
        return done

    def _prepare_folder(self, identity: Identity, total: int) -> None:
        """Keep the windows of an evaluation that is resumed; otherwise empty the folder."""
        before = _read_json(self.folder / _SETTINGS_FILE)
        is_resumable = bool(before and self.done_windows())
        if self.resume and is_resumable:
            if differing := differences(before["identity"], identity):
                raise SatlisaError(
                    f"--resume: the evaluation interrupted in {self.output_dir} had other settings: {differing}; set "
                    "them back, or leave out --resume to discard it and start over"
                )
            logger.info("resuming after %s", self._progress())
            return
        if is_resumable:
            logger.warning(
                "%s: the evaluation interrupted there after %s is discarded; --resume would have kept it",
                self.output_dir,
                self._progress(),
            )
        elif self.resume:
            finished = " (the report in it is finished)" if (self.output_dir / RESULTS_FILE).exists() else ""
            logger.info("%s: nothing to resume%s, starting from the beginning", self.output_dir, finished)
        with writing_to(self.output_dir, "--output_dir"):
            shutil.rmtree(self.folder)
            for name in (IMAGE_FOLDER, _WINDOW_FOLDER):
                (self.folder / name).mkdir(parents=True)
            _write_json(self.folder / _SETTINGS_FILE, {"identity": identity, "samples": total})

    def add(self, number: int, scored: Iterable[tuple[Entry, Pictures | None]]) -> None:
        """Write a finished window, its pictures first; each entry gets the paths of its pictures.

        Args:
            scored: entries in any order; each one's pictures are dropped before the next one is asked for.
        """
        entries = []
        for entry, pictures in scored:
            if pictures:
                with writing_to(self.output_dir, "--output_dir"):
                    entry["images"] = save_pictures(self.folder / IMAGE_FOLDER, entry["number"], *pictures)
            entries.append(entry)
            del pictures
        entries.sort(key=lambda entry: entry["number"])
        with writing_to(self.output_dir, "--output_dir"):
            _write_json(self.folder / _WINDOW_FOLDER / f"{number:05d}.json", entries)

    def done_windows(self) -> dict[int, list[Entry]]:
        """The finished windows by number, in order; a file that cannot be read is an unfinished window."""
        found = {int(path.stem): _read_json(path) for path in (self.folder / _WINDOW_FOLDER).glob("*.json")}
        return {number: found[number] for number in sorted(found) if found[number]}

    def finish(self, num_windows: int) -> dict[int, list[Entry]]:
        """Wait for all processes, and return all windows.

        Raises:
            SatlisaError: some are missing.
        """
        self.processes.barrier()
        done = self.done_windows()
        if len(done) < num_windows:
            raise SatlisaError(
                f"{self.folder}: {num_windows - len(done)} of {num_windows} windows are missing; do not change the "
                "folder meanwhile, and give processes on several machines an --output_dir that they share"
            )
        self.processes.barrier()  # nobody moves the folder away before all have read
        return done

    def _progress(self) -> str:
        done = sum(map(len, self.done_windows().values()))
        return f"{done} of {_read_json(self.folder / _SETTINGS_FILE)['samples']} samples"


def _check_replaceable(folder: Path) -> None:
    """Raise unless the folder is new, empty, or holds a report of ours, completely or partly moved into place."""
    partly_moved = {IMAGE_FOLDER, REPORT_FILE} if (folder / _PARTIAL / _SETTINGS_FILE).exists() else set()
    if not folder.exists() or {path.name for path in folder.iterdir()} <= {_PARTIAL, *partly_moved}:
        return
    try:
        read_results(folder / RESULTS_FILE)
    except SatlisaError as error:
        raise SatlisaError(
            f"--output_dir {folder}: holds files but no earlier report of ours ({error}); "
            "name a new or empty folder, nothing was changed"
        ) from None


def _move(partial: Path, folder: Path) -> None:
    """Replace the old report by the new one; results.json, which marks the folder as ours, comes last.

    The pictures are listed in the new results.json: a move that was killed is completed after `--resume`.
    """
    results = read_results(partial / RESULTS_FILE)
    pictures = {Path(path).name for entry in results["samples"] for path in entry["images"].values()}
    drawn = (scores.get("confusion", {}).get("image") for scores in results["tasks"].values())
    pictures |= {Path(path).name for path in drawn if path}
    images = folder / IMAGE_FOLDER
    images.mkdir(exist_ok=True)
    for name in pictures:
        if (partial / IMAGE_FOLDER / name).exists():
            (partial / IMAGE_FOLDER / name).replace(images / name)
    for stale in images.glob("*_*.png"):
        if _OUR_PICTURES.fullmatch(stale.name) and stale.name not in pictures:
            stale.unlink()
    for name in (REPORT_FILE, RESULTS_FILE):
        (partial / name).replace(folder / name)


def _write_json(path: Path, value: Any) -> None:
    atomic_write(path, json.dumps(value, allow_nan=False).encode())


def _read_json(path: Path) -> Any:
    """The content of a file; None where it does not exist or is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
