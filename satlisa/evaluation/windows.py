"""Rows of an evaluation, read, answered and scored window by window.

A thread reads the next window while one is answered. Of a window of large images only some are kept until their batch
is taken, the others are read again then; masks and pictures are dropped row by row.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.data.dataset import Rows
from satlisa.data.rows import read_sample
from satlisa.data.sample import Sample
from satlisa.errors import SatlisaError, first_line
from satlisa.evaluation.entry import Pick, blank, score
from satlisa.evaluation.partial_report import Entry
from satlisa.evaluation.report import Pictures
from satlisa.inference.generation import Answer

logger = logging.getLogger(__name__)

_ALL_INSTANCES = 2**31  # read_sample's limit: no instance is left out of the truth
_PIXELS_AHEAD = 2**25  # of a window's images that are kept until their batch is taken: 32 of 1024², 100 MB

AnswerFn = Callable[..., list[Answer]]
ReadFn = Callable[[int], Sample | str]
Scored = tuple[Entry, Pictures | None]


@dataclass(frozen=True)
class EvalSettings:
    """What is evaluated and how; saved in `results.json`.

    Attributes:
        model_dir: folder or hub id, only recorded.
        model_files: fingerprint of its files, only recorded.
        dataset, split: names, only recorded.
        samples_per_task: rows of each task; 0: all.
        seed: selects the rows where not all are taken.
        batch_size: questions answered together.
        max_new_tokens: longest answer.
        seg_tasks: tasks with masks that are not named segmentation.
        report_samples: rows of each task that are shown, with pictures, in REPORT.md.
    """

    model_dir: str = ""
    model_files: str = ""
    dataset: str = ""
    split: str = "validation"
    samples_per_task: int = 3
    seed: int = 0
    batch_size: int = 8
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    seg_tasks: tuple[str, ...] = ()
    report_samples: int = 50

    def __post_init__(self) -> None:
        least = {"samples_per_task": 0, "report_samples": 0, "batch_size": 1, "max_new_tokens": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise SatlisaError(f"--{name}: expected at least {minimum}, found {getattr(self, name)}")


@dataclass(frozen=True)
class Opened:
    """A row of a window once it was read.

    Attributes:
        order: size of the image and length of the prompt, by which rows are put into batches.
        sample: the row, or why it cannot be read; None: it is read again when its batch is taken.
    """

    pick: Pick
    order: tuple[tuple[int, int], int]
    sample: Sample | str | None


def score_windows(
    model: Any, read: ReadFn, windows: Sequence[Sequence[Pick]], settings: EvalSettings, answer_fn: AnswerFn
) -> Iterator[Iterator[Scored]]:
    """The windows, each as entries and pictures of its picks, in the order of the batches, to be taken before the next
    window. A thread reads the next window meanwhile."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(_open_window, read, windows[0] if windows else [])
        for _, following in zip_longest(windows, windows[1:]):
            opened = coming.result()
            if following:
                coming = reader.submit(_open_window, read, following)
            yield _score_window(model, read, opened, settings, answer_fn)


def _open_window(read: ReadFn, window: Sequence[Pick]) -> list[Opened]:
    """Read the rows of a window; from `_PIXELS_AHEAD` on, images are not kept."""
    opened, pixels = [], 0
    for pick in window:
        sample = read(pick.index)
        if isinstance(sample, str):
            opened.append(Opened(pick, ((0, 0), 0), sample))
            continue
        size = sample.image.size
        pixels += size[0] * size[1]
        kept = sample if pixels <= _PIXELS_AHEAD else None
        opened.append(Opened(pick, (size, len(sample.turns[-1].text)), kept))
    return opened


def _score_window(
    model: Any, read: ReadFn, opened: list[Opened], settings: EvalSettings, answer_fn: AnswerFn
) -> Iterator[Scored]:
    """Entry and pictures of each of a window's picks, batch by batch. It empties `opened`, so that nothing is kept."""
    readable = sorted((item for item in opened if not isinstance(item.sample, str)), key=lambda item: item.order)
    unread = [(item.pick, item.sample) for item in opened if isinstance(item.sample, str)]
    opened.clear()
    while readable:
        batch = []
        for item in readable[: settings.batch_size]:
            sample = read(item.pick.index) if item.sample is None else item.sample
            if isinstance(sample, str):
                unread.append((item.pick, sample))
            else:
                batch.append((item.pick, sample))
        del readable[: settings.batch_size], item, sample
        results = _answer(model, [sample for _, sample in batch], settings, answer_fn) if batch else []
        while batch:
            pick, sample = batch.pop(0)
            entry, pictures = score(pick, sample, results.pop(0), model.config, settings.seg_tasks)
            del sample
            yield entry, pictures if pick.is_pictured else None
            del pictures
    for pick, reason in unread:
        yield blank(pick, error=reason), None


def read_row(rows: Rows, seg_tasks: Collection[str], fractions: bool, index: int) -> Sample | str:
    """The sample of a row, or the reason why it cannot be read."""
    try:
        most = _ALL_INSTANCES
        return read_sample(rows[index], index, max_instances=most, seg_tasks=seg_tasks, fractions=fractions)
    except Exception as error:  # besides RowError, what the readers raise on damaged files
        logger.debug("row %d was not read", index, exc_info=True)
        return _reason(error)


def _answer(model: Any, samples: Sequence[Sample], settings: EvalSettings, answer_fn: AnswerFn) -> list[Answer | str]:
    """An answer for each sample, or the reason why it failed; a batch that fails is repeated sample by sample."""
    try:
        images, prompts = [sample.image for sample in samples], [sample.turns for sample in samples]
        return list(answer_fn(model, images, prompts, max_new_tokens=settings.max_new_tokens, batch_size=len(samples)))
    except Exception as error:  # out of memory, an image the processor refuses, ...
        logger.debug("a batch of %d was not answered", len(samples), exc_info=True)
        reason = _reason(error)
    # Outside `except`: its traceback would keep the tensors of the failed batch in memory.
    if len(samples) == 1:
        return [reason]
    logger.warning("a batch of %d samples failed and is repeated one by one (%s)", len(samples), reason)
    return [result for sample in samples for result in _answer(model, [sample], settings, answer_fn)]


def _reason(error: Exception) -> str:
    """One line for the report; errors of other libraries start with their type."""
    first = first_line(error)
    return first if isinstance(error, SatlisaError) else f"{type(error).__name__}: {first}"
