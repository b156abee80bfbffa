"""An evaluation in the making: what is done lies in `.partial/` of the output folder until the report is whole.

```
.partial/settings.json        what is evaluated and how: only the same goes on with it
.partial/windows/00012.json   the entries of the 13th window
.partial/images/              the pictures so far
```
A window is what is read ahead and put into batches together. It is written down as a whole, beside its place and
renamed, or done anew: so batches are the same after an interruption, and a kill at any moment leaves no half file.
Which process did it does not matter, then or later.
"""

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from satlisa.errors import SatlisaError
from satlisa.evaluation.report import IMAGE_FOLDER, REPORT_FILE, RESULTS_FILE, Pictures, read_results, save_pictures
from satlisa.runtime.atomic_files import write_whole
from satlisa.runtime.lock import alone_in
from satlisa.runtime.processes import ProcessGroup
from satlisa.runtime.signals import Interrupted

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"

_SETTINGS_FILE = "settings.json"

_WINDOW_FOLDER = "windows"

_OUR_PICTURES = re.compile(r"sample_\d+_(input|gt_mask|pred_mask|overlay)\.png")

Entry = dict[str, Any]

Identity = Mapping[str, Any]


class Journal:
    """What is done of an evaluation; while it is entered, a report grows in `folder`.

    When all goes well the report takes the place of an earlier one in `output_dir`: its files and pictures are
    replaced, other files that lie there stay. When the block raises, the earlier report is still whole, and `folder`
    stays too if there is something to go on with.

    Attributes:
        folder: where `write_report` writes; in the end, nothing is left of it.
        processes: those that share the work; the main one looks after the folder.
    """

    def __init__(self, output_dir: str | Path, *, resume: bool = False, processes: ProcessGroup | None = None) -> None:
        self.output_dir = Path(output_dir).expanduser()
        self.folder = self.output_dir / _PARTIAL
        self.resume = resume
        self.processes = processes or ProcessGroup()
        self._is_new = not self.output_dir.exists()
        self._started = False
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "Journal":
        """Make the folder; what lies in it stays for `start` to judge.

        Raises:
            SatlisaError: `output_dir` is a file, cannot be written, holds files but no report of ours, or another
                evaluation is at work in it.
        """
        if self.processes.is_main:
            with contextlib.ExitStack() as held:
                held.enter_context(alone_in(self.output_dir, "--output_dir"))
                try:
                    _check_replaceable(self.output_dir)
                    (self.folder / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise self._unwritable(error) from error
                self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.processes.is_main:
            with self._held:
                self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        if error is None:
            try:
                _move(self.folder, self.output_dir)
            except OSError as reason:
                raise self._unwritable(reason) from reason
        elif self.read():
            self._tell(error)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._is_new:
            with contextlib.suppress(OSError):
                self.output_dir.rmdir()  # only succeeds where the folder is empty: nothing came of it

    def _tell(self, error: BaseException) -> None:
        """Say how to go on; not where this run found an earlier one and did not get to work."""
        if not self._started:
            return
        progress = f"after {self._progress()}; run the same command with --resume to go on"
        if isinstance(error, Interrupted):
            error.progress = progress
        else:
            logger.warning("interrupted %s", progress)

    def start(self, identity: Identity, total: int) -> dict[int, list[Entry]]:
        """Begin, or go on; all processes take part.

        Args:
            identity: what is evaluated and how, JSON values by the names that the user knows.
            total: number of samples.

        Returns:
            The windows that are done, the same in every process.

        Raises:
            SatlisaError: `resume`, and the evaluation that was interrupted is another one.
        """
        if self.processes.is_main:
            self._prepare(json.loads(json.dumps(identity)), total)
        self.processes.barrier()
        done = self.read()
        self.processes.barrier()  # none is added before all have looked
        self._started = True
        return done

    def _prepare(self, identity: Identity, total: int) -> None:
        """Leave what can be gone on with, or an empty folder."""
        before = _read_json(self.folder / _SETTINGS_FILE)
        is_there = bool(before and self.read())
        if self.resume and is_there:
            self._refuse_other(before["identity"], identity)
            logger.info("going on after %s", self._progress())
            return
        if is_there:
            logger.warning(
                "%s: the evaluation interrupted there after %s is discarded; --resume would have gone on with it",
                self.output_dir,
                self._progress(),
            )
        elif self.resume:
            finished = " (the report in it is finished)" if (self.output_dir / RESULTS_FILE).exists() else ""
            logger.info("%s: nothing to resume%s, starting from the beginning", self.output_dir, finished)
        try:
            shutil.rmtree(self.folder)
            for name in (IMAGE_FOLDER, _WINDOW_FOLDER):
                (self.folder / name).mkdir(parents=True)
            _write_json(self.folder / _SETTINGS_FILE, {"identity": identity, "samples": total})
        except OSError as error:
            raise self._unwritable(error) from error

    def _refuse_other(self, before: Identity, now: Identity) -> None:
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if names:
            changes = ", ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in names)
            raise SatlisaError(
                f"--resume: expected the settings of the evaluation that was interrupted in {self.output_dir}, found "
                f"others: {changes}; give the earlier ones, or leave out --resume to discard it and start anew"
            )

    def add(self, number: int, scored: Sequence[tuple[Entry, Pictures | None]]) -> None:
        """Write down a window that is done, its pictures first; an entry gets the paths of its own."""
        try:
            for entry, pictures in scored:
                if pictures:
                    entry["images"] = save_pictures(self.folder / IMAGE_FOLDER, entry["number"], *pictures)
            _write_json(self.folder / _WINDOW_FOLDER / f"{number:05d}.json", [entry for entry, _ in scored])
        except OSError as error:
            raise self._unwritable(error) from error

    def read(self) -> dict[int, list[Entry]]:
        """The windows that are done, in order; what cannot be read is not done."""
        found = {int(path.stem): _read_json(path) for path in (self.folder / _WINDOW_FOLDER).glob("*.json")}
        return {number: found[number] for number in sorted(found) if found[number]}

    def finish(self, num_windows: int) -> dict[int, list[Entry]]:
        """All windows; every process waits for the others.

        Raises:
            SatlisaError: some are missing.
        """
        self.processes.barrier()
        done = self.read()
        if len(done) < num_windows:
            raise SatlisaError(
                f"{self.folder}: {num_windows - len(done)} of {num_windows} windows are missing; do not change the "
                "folder meanwhile, and give processes on several machines an --output_dir that they share"
            )
        self.processes.barrier()  # none has the folder moved away before all have read it
        return done

    def _progress(self) -> str:
        done = sum(map(len, self.read().values()))
        return f"{done} of {_read_json(self.folder / _SETTINGS_FILE)['samples']} samples"

    def _unwritable(self, error: OSError) -> SatlisaError:
        return SatlisaError(f"--output_dir {self.output_dir}: cannot be written ({error})")


def _check_replaceable(folder: Path) -> None:
    """Raise unless the folder is new, empty, or holds a report of ours, be it half moved there."""
    if folder.exists() and not folder.is_dir():
        raise SatlisaError(f"--output_dir {folder}: expected a folder, found a file")
    half_moved = {IMAGE_FOLDER, REPORT_FILE} if (folder / _PARTIAL / _SETTINGS_FILE).exists() else set()
    if not folder.exists() or {path.name for path in folder.iterdir()} <= {_PARTIAL, *half_moved}:
        return
    try:
        read_results(folder / RESULTS_FILE)
    except SatlisaError as error:
        raise SatlisaError(
            f"--output_dir {folder}: holds files but no earlier report of ours ({error}); "
            "name a new or empty folder, nothing was changed"
        ) from None


def _move(partial: Path, folder: Path) -> None:
    """Put the new report in the place of the old; results.json, which marks the folder as ours, goes last.

    The new pictures are known by name: a move that was killed can be done again after `--resume`.
    """
    samples = read_results(partial / RESULTS_FILE)["samples"]
    pictures = {Path(path).name for entry in samples for path in entry["images"].values()}
    images = folder / IMAGE_FOLDER
    images.mkdir(exist_ok=True)
    for name in pictures:
        if (partial / IMAGE_FOLDER / name).exists():
            (partial / IMAGE_FOLDER / name).replace(images / name)
    for stale in images.glob("sample_*_*.png"):
        if _OUR_PICTURES.fullmatch(stale.name) and stale.name not in pictures:
            stale.unlink()
    for name in (REPORT_FILE, RESULTS_FILE):
        (partial / name).replace(folder / name)


def _write_json(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, allow_nan=False).encode())


def _read_json(path: Path) -> Any:
    """What a file holds; None where there is none, or where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
