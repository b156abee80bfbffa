"""Answer and score the rows of a split; the scores per task are what `results.json` holds.

Masks are scored at the image's own resolution against every instance of the row, also those beyond the `max_instances`
that the model was trained to give. An exception becomes the `error` of its sample: it stops nothing and is no score.

Rows are taken in windows, and the batches of a window hold only its rows: an evaluation that was resumed, or that
several processes share, has the same numbers as an uninterrupted one in one process.
"""

import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence, Sized
from dataclasses import asdict
from functools import partial
from typing import Any

from tqdm import tqdm

from satlisa import __version__
from satlisa.data.dataset import Rows
from satlisa.data.fingerprint import rows_key
from satlisa.data.sampler import IndexedSampler
from satlisa.data.survey import survey
from satlisa.errors import SatlisaError
from satlisa.evaluation.entry import Pick
from satlisa.evaluation.partial_report import PartialReport
from satlisa.evaluation.scoring.instances import encode_mask
from satlisa.evaluation.scoring.summary import scores_of
from satlisa.evaluation.windows import AnswerFn, EvalSettings, read_row, score_windows
from satlisa.inference.generation import answer
from satlisa.runtime.processes import ProcessGroup
from satlisa.runtime.versions import installed_versions

logger = logging.getLogger(__name__)

_BATCHES_AHEAD = 4  # read while the batches before are answered; 32 images of 512² are 25 MB
_PACKAGES = ("torch", "transformers", "peft", "datasets", "numpy", "pillow")


def choose(tasks: Sequence[str], samples_per_task: int, seed: int) -> list[tuple[int, str]]:
    """The rows to evaluate, as (row number, task), sorted by task, then by row.

    Each task takes its first rows of a seeded shuffle: the same seed takes the same rows, and a larger
    `samples_per_task` adds rows to them. 0 takes every row.
    """
    order = list(range(len(tasks)))
    random.Random(seed).shuffle(order)
    taken: Counter[str] = Counter()
    picked = []
    for index in order:
        if samples_per_task == 0 or taken[tasks[index]] < samples_per_task:
            taken[tasks[index]] += 1
            picked.append((index, tasks[index]))
    return sorted(picked, key=lambda pick: (pick[1], pick[0]))


def evaluate(
    model: Any,
    rows: Rows,
    settings: EvalSettings,
    report: PartialReport | None = None,
    answer_fn: AnswerFn = partial(answer, only_union=True, encode=encode_mask),  # noqa: B008 - a constant
) -> dict[str, Any]:
    """Answer and score the chosen rows.

    Args:
        model: a `SatLisa` with `config` and `device`.
        rows: a split (`load_rows`).
        settings: which rows, and how.
        report: stores each finished window with its pictures. Windows that it holds are not evaluated again; its
            processes share the rest. Without it no pictures are written.
        answer_fn: `generation.answer`, or a stand-in with its signature.

    Returns:
        {"settings": …, "tasks": {task: scores of `summary.scores_of`}, "samples": [one entry per row]}: strict JSON
        values, the same in every process. An entry's `number` counts the samples of this evaluation and names its
        pictures; its `index` is the row's number in the split.

    Raises:
        SatlisaError: no rows.
    """
    picked = choose(_tasks(rows), settings.samples_per_task, settings.seed)
    if not picked:
        raise SatlisaError(f"{settings.dataset}: its {settings.split} split holds no rows; choose another --split")
    started = time.time()
    windows = _plan(picked, settings)
    done = report.start(_identify(settings, model, rows, picked), len(picked)) if report else {}
    processes = report.processes if report else ProcessGroup()
    own = [number for number in range(len(windows)) if number not in done][processes.rank :: processes.size]
    total = sum(len(windows[number]) for number in own)
    looked_at = survey(IndexedSampler(rows), settings.seg_tasks)
    for warning in looked_at.warnings() if processes.is_main else ():
        logger.warning("%s split: %s", settings.split, warning)
    read = partial(read_row, rows, settings.seg_tasks, looked_at.fractions)
    scored = score_windows(model, read, [windows[number] for number in own], settings, answer_fn)
    with tqdm(total=total, desc="evaluating", unit="sample", disable=not processes.is_main) as progress:
        for number, window in zip(own, scored, strict=True):
            if report:
                report.add(number, window)
            else:
                done[number] = sorted((entry for entry, _ in window), key=lambda entry: int(entry["number"]))
            progress.update(len(windows[number]))
    if report:
        done = report.finish(len(windows))
    samples = [entry for window in done.values() for entry in window]
    names = sorted({task for _, task in picked})
    tasks = {task: scores_of([entry for entry in samples if entry["task"] == task]) for task in names}
    described = _describe(settings, model, started) | {"rows": rows_key(IndexedSampler(rows))}
    return {"settings": described, "tasks": tasks, "samples": samples}


def _plan(picked: Sequence[tuple[int, str]], settings: EvalSettings) -> list[list[Pick]]:
    """The windows: picks that are read ahead together, and then put into batches by length."""
    seen: Counter[str] = Counter()
    picks = []
    for number, (index, task) in enumerate(picked):
        picks.append(Pick(number, index, task, seen[task] < settings.report_samples))
        seen[task] += 1
    size = _BATCHES_AHEAD * settings.batch_size
    return [picks[start : start + size] for start in range(0, len(picks), size)]


def _identify(settings: EvalSettings, model: Any, rows: Sized, picked: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """What determines the scores, by the names that the user knows; a resumed evaluation must match it."""
    choice = f"{len(rows)} {picked}".encode(errors="surrogatepass")
    return (
        {f"--{name}": value for name, value in asdict(settings).items() if name != "model_files"}
        | {
            "--device": str(model.device).partition(":")[0],  # its kind determines precision and kernels
            "the model's files": settings.model_files,
            "the choice of rows": hashlib.sha256(choice).hexdigest()[:12],
            "the rows": rows_key(IndexedSampler(rows)),
        }
    )


def _tasks(rows: Any) -> list[str]:
    """The task of each row. Of a `datasets` table only that column is read, no image."""
    tasks = rows["task"] if hasattr(rows, "column_names") else (row["task"] for row in rows)
    return [str(task) for task in tasks]


def _describe(settings: EvalSettings, model: Any, started: float) -> dict[str, Any]:
    """Settings, machine, time and versions, to reproduce the scores."""
    return asdict(settings) | {
        "seg_tasks": list(settings.seg_tasks),
        "device": str(model.device),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
        "versions": {"satlisa": __version__, **installed_versions(*_PACKAGES)},
    }
