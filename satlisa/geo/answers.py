"""What a model says about a window: text, blended logits of its masks, and each mask as an object.

Logits are kept above or below that of the threshold, in steps of 1/12 from -10.6 to 10.6, one byte each; their sign is
exact, so that a window's mask is the model's own. An answer of a model and one from the journal are the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.errors import SatlisaError
from satlisa.geometry.raster import pack_mask, unpack_mask

STEP = 1 / 12  # logits per level
LOWEST = -127  # level of a pixel where a window has no mask


@dataclass(frozen=True)
class Piece:
    """A mask of one window: `box` (top, left, height, width) inside it, its packed bits, and its score."""

    box: tuple[int, int, int, int]
    bits: bytes
    score: float

    def mask(self) -> np.ndarray:
        """(height, width) bool inside the box."""
        return unpack_mask(self.bits, self.box[2:])


@dataclass(frozen=True)
class WindowAnswer:
    """The answer about one window.

    Attributes:
        text: the answer, with `<SEG>`.
        num_segs: number of its masks.
        levels: (H, W) int8, the largest logit of all masks above the threshold's, in steps; None without masks.
        pieces: masks that are not empty.
    """

    text: str
    num_segs: int
    levels: np.ndarray | None
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Reply:
    """What a model returns about one picture: text, the encoded masks in order, and their scores (N,)."""

    text: str
    masks: Sequence[Any]
    scores: Sequence[float]


Encode = Callable[[np.ndarray], Any]
"""Takes the logits (h, w) of one mask on the picture; what it returns goes into `Reply.masks`."""
Ask = Callable[[Sequence[Image.Image], Encode], Sequence[Reply]]
"""Answers pictures, all of one size, about one prompt."""


@dataclass(frozen=True)
class Encoder:
    """Brings logits onto the grid of their window.

    Attributes:
        size: (height, width) of a window on the grid.
        upright: turns rows of a picture into those of the grid.
        level: logit above which a pixel is in the mask.
    """

    size: tuple[int, int]
    upright: Callable[[np.ndarray], np.ndarray]
    level: float = 0.0

    def __call__(self, logits: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int, int] | None, bytes]:
        """Levels (H, W) int8, and the box and bits of the mask; no box where it is empty."""
        logits = self.upright(np.asarray(logits, dtype=np.float32))
        if logits.shape != self.size:
            resized = Image.fromarray(np.ascontiguousarray(logits)).resize(self.size[::-1], Image.Resampling.BILINEAR)
            logits = np.asarray(resized)
        logits = logits - np.float32(self.level)
        mask = logits > 0
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            return to_steps(logits), None, b""
        top, left = int(rows[0]), int(columns[0])
        part = mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
        return to_steps(logits), (top, left, *part.shape), pack_mask(part)


def to_steps(logits: np.ndarray) -> np.ndarray:
    """Logits as int8 steps, rounded away from 0: the sign stays."""
    steps = np.clip(np.abs(logits) / STEP, 0, -LOWEST)
    return np.asarray(np.copysign(np.ceil(steps), logits), dtype=np.int8)


def logit(probability: float) -> float:
    """The logit of a probability between 0 and 1.

    Raises:
        SatlisaError: it is not between them.
    """
    if not 0 < probability < 1:
        raise SatlisaError(f"--threshold: expected a probability between 0 and 1, found {probability}")
    return math.log(probability / (1 - probability))


def to_answer(reply: Reply) -> WindowAnswer:
    """A reply with its masks joined."""
    if len(reply.masks) != len(reply.scores):
        raise SatlisaError(f"expected a score for each mask, found {len(reply.masks)} and {len(reply.scores)}")
    levels = np.max([levels for levels, _, _ in reply.masks], axis=0) if reply.masks else None
    found = zip(reply.masks, reply.scores, strict=True)
    pieces = tuple(Piece(box, bits, float(np.float32(score))) for (_, box, bits), score in found if box is not None)
    return WindowAnswer(reply.text, len(reply.masks), levels, pieces)


def model_asker(model: Any, prompt: str, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS) -> Ask:
    """Ask a trained model one prompt about each picture, by the one way that answers come about."""
    from satlisa.inference.generation import answer  # torch: scenes are opened and checked without it

    def ask(pictures: Sequence[Image.Image], encode: Encode) -> list[Reply]:
        found = answer(
            model,
            pictures,
            [prompt] * len(pictures),
            max_new_tokens=max_new_tokens,
            batch_size=len(pictures),
            only_union=True,
            encode_logits=encode,
        )
        return [Reply(one.text, one.encoded, one.scores.tolist()) for one in found]

    return ask
