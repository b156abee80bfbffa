"""A model's answers over a split, scored per task: what `results.json` holds.

Truth is the whole truth: masks are scored at the image's own resolution against every instance of the row,
also those beyond the `max_instances` that the model was trained to give. Whatever goes wrong with one sample
becomes that sample's `error` and goes on to the next; it never stops the run and never counts as a score.
"""

import logging
import platform
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from satlisa import __version__
from satlisa.dataset import Rows, read_sample
from satlisa.errors import SatlisaError
from satlisa.generation import Answer, answer
from satlisa.metrics import exact_match, intersection_union, iou, is_correct, summarise
from satlisa.raster import rasterize
from satlisa.report import Pictures, save_pictures
from satlisa.sample import Sample

logger = logging.getLogger(__name__)

_ALL_INSTANCES = 2**31  # read_sample's limit, for the whole truth
_BATCHES_AHEAD = 4  # read while others are answered; 32 images of 512² are 25 MB
_PACKAGES = ("torch", "transformers", "peft", "datasets", "numpy", "pillow")

Entry = dict[str, Any]
AnswerFn = Callable[..., list[Answer]]


@dataclass(frozen=True)
class EvalSettings:
    """What is evaluated and how; saved in `results.json`.

    Attributes:
        model_dir: folder or hub id, for the record.
        dataset, split: names, for the record; the rows are given.
        samples_per_task: how many rows of each task; 0 takes all.
        seed: decides which, where not all are taken.
        batch_size: questions answered at a time.
        max_new_tokens: limit of an answer.
        seg_tasks: tasks with masks whose name does not say segmentation.
        report_samples: how many samples of each task get pictures and a place in REPORT.md.
    """

    model_dir: str = ""
    dataset: str = ""
    split: str = "validation"
    samples_per_task: int = 3
    seed: int = 0
    batch_size: int = 8
    max_new_tokens: int = 256
    seg_tasks: tuple[str, ...] = ()
    report_samples: int = 50

    def __post_init__(self) -> None:
        least = {"samples_per_task": 0, "report_samples": 0, "batch_size": 1, "max_new_tokens": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise SatlisaError(f"--{name}: expected at least {minimum}, found {getattr(self, name)}")


def choose(tasks: Sequence[str], samples_per_task: int, seed: int) -> list[tuple[int, str]]:
    """The rows to evaluate, as (row number, task), grouped by task in alphabetical order, each in row order.

    A seeded shuffle of all rows decides; each task takes its first ones. So the same seed takes the same
    rows, and more samples per task add rows to those already taken. `samples_per_task=0` takes every row.
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
    image_dir: Path | None = None,
    answer_fn: AnswerFn = answer,
) -> dict[str, Any]:
    """Answer and score the chosen rows.

    Args:
        model: a `SatLisa` with `config` and `device`.
        rows: a split (`load_rows`).
        settings: which rows, and how.
        image_dir: where the pictures of the report go (an existing folder); none are written without it.
        answer_fn: `generation.answer`, or a stand-in with its signature.

    Returns:
        {"settings": …, "tasks": {task: scores of `metrics.summarise`}, "samples": [one entry per row]}, plain
        Python values that strict JSON can hold. An entry's `number` counts the samples of this evaluation and
        names its pictures; its `index` is the row's number in the split.
    """
    picked = choose(_tasks(rows), settings.samples_per_task, settings.seed)
    if not picked:
        raise SatlisaError(f"{settings.dataset}: its {settings.split} split holds no rows; choose another --split")
    started = time.time()
    samples: list[Entry] = []
    pictured: Counter[str] = Counter()
    with tqdm(total=len(picked), desc="evaluating", unit="sample") as progress:
        for entry, pictures in _entries(model, rows, picked, settings, answer_fn):
            entry["number"] = len(samples)
            if image_dir and pictures and pictured[entry["task"]] < settings.report_samples:
                pictured[entry["task"]] += 1
                entry["images"] = save_pictures(image_dir, entry["number"], *pictures)
            samples.append(entry)
            progress.update()
    names = sorted({task for _, task in picked})
    tasks = {task: summarise(entry for entry in samples if entry["task"] == task) for task in names}
    return {"settings": _describe(settings, model, started), "tasks": tasks, "samples": samples}


def _tasks(rows: Any) -> list[str]:
    """The task of each row; where rows have columns (`datasets`), from that column alone: no image is read."""
    tasks = rows["task"] if hasattr(rows, "column_names") else (row["task"] for row in rows)
    return [str(task) for task in tasks]


def _entries(
    model: Any, rows: Rows, picked: Sequence[tuple[int, str]], settings: EvalSettings, answer_fn: AnswerFn
) -> Iterator[tuple[Entry, Pictures | None]]:
    """One entry per picked row, in order, and what to draw of it.

    A few batches are read ahead, by a thread while the model answers, and put together by length.
    """
    size = _BATCHES_AHEAD * settings.batch_size
    windows = [picked[start : start + size] for start in range(0, len(picked), size)]

    def read(window: Sequence[tuple[int, str]]) -> list[Sample | str]:
        return [_read(rows, index, settings.seg_tasks) for index, _ in window]

    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(read, windows[0])
        for window, following in zip_longest(windows, windows[1:]):
            samples = coming.result()
            if following:
                coming = reader.submit(read, following)
            scored = _score_window(model, samples, [task for _, task in window], settings, answer_fn)
            for place, (index, task) in enumerate(window):
                yield scored.get(place) or (_blank(index, task, error=samples[place]), None)


def _score_window(
    model: Any, samples: Sequence[Sample | str], tasks: Sequence[str], settings: EvalSettings, answer_fn: AnswerFn
) -> dict[int, tuple[Entry, Pictures | None]]:
    """Entries and pictures of the samples that could be read, by their place; instances' masks are not kept."""
    readable = [(place, sample) for place, sample in enumerate(samples) if isinstance(sample, Sample)]
    readable.sort(key=lambda item: (item[1].image.size, len(item[1].turns[-1].text)))
    scored = {}
    for start in range(0, len(readable), settings.batch_size):
        batch = readable[start : start + settings.batch_size]
        results = _answer(model, [sample for _, sample in batch], settings, answer_fn)
        for (place, sample), result in zip(batch, results, strict=True):
            scored[place] = _score(sample, tasks[place], result, model.config, settings.seg_tasks)
    return scored


def _read(rows: Rows, index: int, seg_tasks: Collection[str]) -> Sample | str:
    """The row's sample, or why there is none."""
    try:
        return read_sample(rows[index], index, max_instances=_ALL_INSTANCES, seg_tasks=seg_tasks)
    except Exception as error:  # besides RowError: whatever a damaged file makes the readers raise
        logger.debug("row %d was not read", index, exc_info=True)
        return _reason(error)


def _answer(model: Any, samples: Sequence[Sample], settings: EvalSettings, answer_fn: AnswerFn) -> list[Answer | str]:
    """An answer per sample, or why there is none: a batch that fails is asked again one by one."""
    try:
        images, prompts = [sample.image for sample in samples], [sample.turns for sample in samples]
        return list(answer_fn(model, images, prompts, max_new_tokens=settings.max_new_tokens, batch_size=len(samples)))
    except Exception as error:  # out of memory, an image the processor refuses, ...
        logger.debug("a batch of %d was not answered", len(samples), exc_info=True)
        reason = _reason(error)
    # Outside of `except`, whose traceback would keep the failed batch's tensors in memory.
    if len(samples) == 1:
        return [reason]
    logger.warning("a batch of %d samples failed and is asked one by one (%s)", len(samples), reason)
    return [result for sample in samples for result in _answer(model, [sample], settings, answer_fn)]


def _score(
    sample: Sample, task: str, result: Answer | str, config: Any, seg_tasks: Collection[str]
) -> tuple[Entry, Pictures | None]:
    """The entry of a sample, and what to draw of it."""
    has_mask = bool(sample.regions) or _is_mask_task(task, seg_tasks)
    segs = min(len(sample.regions), config.max_instances)  # as many as the model was trained to give
    entry = _blank(
        sample.index,
        task,
        source=sample.source,
        prompt=sample.turns[-1].text,
        expected=" ".join([sample.answer, *[config.seg_token] * segs]).strip(),
        expected_segs=segs,
    )
    if isinstance(result, str):
        return {**entry, "error": result}, None
    entry |= {"output": result.text, "segs": result.num_segs}
    if not has_mask:
        words = result.text.replace(config.seg_token, " ")
        entry["correct"] = is_correct(task, entry["prompt"], sample.answer, words)
        entry["exact_match"] = exact_match(sample.answer, words)
        return entry, (sample.image, None, None)
    truth, prediction = _masks(sample, result)
    entry["intersection"], entry["union"] = intersection_union(prediction, truth)
    entry["iou"] = iou(entry["intersection"], entry["union"])
    return entry, (sample.image, truth, prediction)


def _is_mask_task(task: str, seg_tasks: Collection[str]) -> bool:
    """Whether rows without polygons say that there is nothing to draw, rather than that a text is wanted."""
    return "segmentation" in task.casefold() or task.casefold() in {name.casefold() for name in seg_tasks}


def _masks(sample: Sample, result: Answer) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction, the unions of all instances, (H, W) bool at the image's own size."""
    width, height = sample.image.size
    polygons = [polygon for region in sample.regions for polygon in region]
    prediction = result.union()
    if prediction is None:
        prediction = np.zeros((height, width), dtype=bool)
    return rasterize(polygons, height, width), prediction


def _blank(index: int, task: str, **known: Any) -> Entry:
    """An entry with every key that `results.json` promises, None where a key does not apply."""
    unknown = dict.fromkeys(
        (
            "source",
            "prompt",
            "expected",
            "output",
            "iou",
            "intersection",
            "union",
            "correct",
            "exact_match",
            "error",
        )
    )
    counts: Entry = {"segs": 0, "expected_segs": 0, "images": {}}
    return {"number": None, "index": index, "task": task} | unknown | counts | known


def _reason(error: Exception) -> str:
    """One line for the report; our own errors need no type name in front."""
    first = (str(error).strip() or repr(error)).splitlines()[0]
    return first if isinstance(error, SatlisaError) else f"{type(error).__name__}: {first}"


def _describe(settings: EvalSettings, model: Any, started: float) -> dict[str, Any]:
    """Settings, machine and time, for someone who wants the same numbers again."""
    return asdict(settings) | {
        "seg_tasks": list(settings.seg_tasks),
        "device": str(model.device),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
        "versions": {"satlisa": __version__, "python": platform.python_version()}
        | {package: version(package) for package in _PACKAGES},
    }
