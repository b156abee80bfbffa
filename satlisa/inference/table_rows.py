"""Images × prompts → the rows of a table: answered in batches, masks as run lengths, failures as rows of their own.

All prompts about an image go into one batch where they fit, and share its features. Batches depend on the list of
images and prompts alone, so that an interrupted table gets the answers that it would have got. A thread reads the next
images meanwhile.
"""

import gc
import logging
import math
import time
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from pycocotools import mask as coco

from satlisa.data.images import Opened, open_oriented
from satlisa.errors import SatlisaError, first_line
from satlisa.inference.api import reduction_remark
from satlisa.inference.decoding import Sampling
from satlisa.inference.generation import Answer, answer
from satlisa.inference.table import Key, Row, file_size
from satlisa.model.satlisa import SatLisa
from satlisa.runtime.memory import is_out_of_memory

logger = logging.getLogger(__name__)

T = TypeVar("T")
_PIXELS = 2**25  # of the images that are answered together, 100 MB; one image may have more
_UNION_PIXELS = 2**28  # of the masks of a batch, a byte each: one union per question


@dataclass(frozen=True)
class Request:
    """What is asked about each image.

    Attributes:
        batch_size: questions answered together, halved when memory runs out.
        max_new_tokens, sampling: see `answer`.
    """

    prompts: tuple[str, ...]
    max_new_tokens: int
    sampling: Sampling
    batch_size: int = 8


@dataclass(frozen=True)
class Shot:
    """An image that was read, or why it could not be."""

    image: str
    num_bytes: int | None
    opened: Opened | None
    error: str = ""


Question = tuple[Shot, str]


def make_rows(model: SatLisa, images: Sequence[str], request: Request, done: Container[Key]) -> Iterator[list[Row]]:
    """The rows that are not `done`, in the order of images and prompts, some at a time.

    A row holds `image` and `prompt`; `text`; `masks` (COCO's compressed run lengths, on the pixel grid of the file as
    it is stored); `boxes` (of the masks: x, y, width, height in pixels) and `scores` (one per mask: SAM's own guess at
    the IoU, which no loss of this model trains); `width` and `height` of the stored image, `bytes` of its file;
    `seconds` (of its batch, shared out evenly); and `error`: None, or why there is no answer.
    """
    per = max(1, request.batch_size // len(request.prompts))
    chunks = [images[start : start + per] for start in range(0, len(images), per)]
    asked = {image: [p for p in request.prompts if (image, p) not in done] for image in images}
    answering = _Answering(model, request)
    for group in _ahead(_groups([chunk for chunk in chunks if any(asked[image] for image in chunk)])):
        for rows in answering.rows(group, asked):
            if missing := [row for row in rows if row["prompt"] in asked[row["image"]]]:
                yield missing


class _Answering:
    """Answers questions, with smaller batches once memory has run out."""

    def __init__(self, model: SatLisa, request: Request) -> None:
        self.model, self.request, self.batch_size = model, request, request.batch_size
        self.input_size = model.segmenter.inputs.image_size  # pixels
        self.has_remarked = False

    def rows(self, group: Sequence[Shot], asked: Mapping[str, list[str]]) -> Iterator[list[Row]]:
        """The rows of some images, in order, batch by batch; a batch of which nothing is `asked` is left out."""
        for shot in group:
            self._remark(shot)
        left = deque((shot, prompt) for shot in group for prompt in self.request.prompts)
        for answered in self._answer([question for question in left if question[0].opened], asked):
            rows = []
            for row in answered:
                while not left[0][0].opened:
                    rows.append(_broken(left.popleft()))
                left.popleft()
                rows += [row] if row else []
            yield rows
        yield [_broken(question) for question in left]

    def _remark(self, shot: Shot) -> None:
        """Say of the first image that is far too large for the model that it is; the others come without a word."""
        if shot.opened and not self.has_remarked and (text := reduction_remark(shot.opened.rgb.size, self.input_size)):
            logger.warning("%s: %s (said once)", shot.image, text)
            self.has_remarked = True

    def _answer(self, questions: list[Question], asked: Mapping[str, list[str]]) -> Iterator[Sequence[Row | None]]:
        """A row of each question, batch by batch; None in a batch that is left out."""
        while questions:
            part = questions[: self.batch_size]
            part = part[: _most_questions(part)]
            if any(prompt in asked[shot.image] for shot, prompt in part):
                result = self._try(part)
                if isinstance(result, _Failure) and result.is_memory and len(part) > 1:
                    self._halve(len(part), result.reason)
                    continue
                yield self._one_by_one(part, result.reason) if isinstance(result, _Failure) else result
            else:
                yield [None] * len(part)
            questions = questions[len(part) :]

    def _one_by_one(self, part: Sequence[Question], reason: str) -> list[Row]:
        """The rows of a batch that failed: one bad question costs no other."""
        if len(part) == 1:
            return [_row(*part[0], reason)]
        logger.warning("a batch of %d failed and is repeated one by one (%s)", len(part), reason)
        found = [(question, self._try([question])) for question in part]
        return [_row(*question, one.reason) if isinstance(one, _Failure) else one[0] for question, one in found]

    def _try(self, part: Sequence[Question]) -> "list[Row] | _Failure":
        """Rows of one batch. The exception is not kept: its traceback holds the tensors of the failed batch."""
        start = time.perf_counter()
        try:
            found = answer(
                self.model,
                [shot.opened.rgb for shot, _ in part if shot.opened],
                [prompt for _, prompt in part],
                max_new_tokens=self.request.max_new_tokens,
                batch_size=len(part),
                sampling=self.request.sampling,
                only_union=True,
                encode=_run_lengths,
            )
            seconds = (time.perf_counter() - start) / len(part)
            return [_answered(*question, one, seconds) for question, one in zip(part, found, strict=True)]
        except Exception as error:
            logger.debug("a batch of %d was not answered", len(part), exc_info=True)
            return _Failure(_reason(error), is_out_of_memory(error))

    def _halve(self, size: int, reason: str) -> None:
        self.batch_size = size // 2
        logger.warning("out of memory with a batch of %d (%s): going on with %d", size, reason, self.batch_size)
        gc.collect()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Failure:
    reason: str
    is_memory: bool


def _groups(chunks: Sequence[Sequence[str]]) -> Iterator[list[Shot]]:
    """The images of each chunk, read, as many together as have `_PIXELS`."""
    for chunk in chunks:
        group: list[Shot] = []
        pixels = 0
        for image in chunk:
            shot = _read(image)
            own = math.prod(shot.opened.rgb.size) if shot.opened else 0
            if group and pixels + own > _PIXELS:
                yield group
                group, pixels = [], 0
            group.append(shot)
            pixels += own
        yield group


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, of which a thread makes the next one meanwhile."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item


def _read(image: str) -> Shot:
    size = file_size(image)
    try:
        return Shot(image, size, open_oriented(image))
    except Exception as error:  # besides SatlisaError, memory that ends
        return Shot(image, size, None, _reason(error))


def _most_questions(questions: Sequence[Question]) -> int:
    """How many questions may be answered together, by the size of the largest image."""
    largest = max(math.prod(shot.opened.rgb.size) for shot, _ in questions if shot.opened)
    return max(1, _UNION_PIXELS // largest)


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) bool as COCO's compressed run lengths."""
    packed = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in packed["size"]], "counts": packed["counts"].decode("ascii")}


def _answered(shot: Shot, prompt: str, found: Answer, seconds: float) -> Row:
    masks = [_stored(packed, shot) for packed in found.encoded]
    scores = [round(float(score), 6) if math.isfinite(score) else None for score in found.scores]
    boxes = [[int(number) for number in coco.toBbox(packed)] for packed in masks]
    return _row(shot, prompt, None) | {
        "text": found.text,
        "masks": masks,
        "boxes": boxes,
        "scores": scores,
        "seconds": round(seconds, 4),
    }


def _stored(packed: dict[str, Any], shot: Shot) -> dict[str, Any]:
    """A mask of the upright image on the pixel grid of its file."""
    if shot.opened is None or shot.opened.orientation == 1:
        return packed
    return _run_lengths(shot.opened.to_stored(coco.decode(packed)))


def _broken(question: Question) -> Row:
    shot, prompt = question
    return _row(shot, prompt, shot.error)


def _row(shot: Shot, prompt: str, error: str | None) -> Row:
    """A row without an answer."""
    width, height = shot.opened.rgb.size if shot.opened else (None, None)
    if shot.opened and shot.opened.orientation in (5, 6, 7, 8):
        width, height = height, width
    return {
        "image": shot.image,
        "prompt": prompt,
        "text": None,
        "masks": [],
        "boxes": [],
        "scores": [],
        "width": width,
        "height": height,
        "bytes": shot.num_bytes,
        "seconds": None,
        "error": error,
    }


def _reason(error: Exception) -> str:
    """One line for the table; errors of other libraries start with their type."""
    line = first_line(error)
    return line if isinstance(error, SatlisaError) else f"{type(error).__name__}: {line}"
