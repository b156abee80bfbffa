"""Public API (docs/architecture.md#public-interface): load a model; ask, as text, a mask, instances or a stream.

An image is a Pillow image, a path, encoded bytes, an open file or an array, as `satlisa.data.images.open_image` says.
Masks have the size and orientation of what was given: those of `Image.open(path)`, also where EXIF turns a photo.
"""

import logging
import re
import warnings
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.utils import logging as transformers_logging

from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.data.images import Opened, open_oriented
from satlisa.geometry.overlay import mask_image
from satlisa.inference.decoding import Sampling
from satlisa.inference.generation import Answer, answer, stream_answer
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained import model_directory

logger = logging.getLogger(__name__)

_SHRUNK = 4  # times that an image may be reduced for the model before this is said
_NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_COUNT = re.compile(rf"\b(\d{{1,3}}|{'|'.join(_NUMBERS)})\s+[a-z]", re.IGNORECASE)

# transformers warns about its own call, once for each process
warnings.filterwarnings("ignore", r"`is_gradient_checkpointing` is deprecated", FutureWarning)


def load_model(model_dir: str | Path, device: str | int | torch.device | None = None) -> SatLisa:
    """Load a trained model from a folder or hub id, without progress bars.

    Args:
        model_dir: see `satlisa.pretrained.model_directory.load_model`.
        device: "cuda", "cuda:1" or 1, "cpu", "mps"; by default the best available.
    """
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        return model_directory.load_model(model_dir, None if device is None else str(device))
    finally:
        if had_bars:
            transformers_logging.enable_progress_bar()


def generate_text(
    model: SatLisa,
    image: Any,
    prompt: str,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    *,
    temperature: float = 0.0,
    seed: int | None = None,
) -> str:
    """Return the answer as text.

    Args:
        max_new_tokens: maximum answer length; a longer answer is cut.
        temperature: 0 gives the most likely answer (greedy); above 0, tokens are drawn, the wilder the higher.
        seed: of the draws; with it, the answer can be repeated.
    """
    return ask(model, image, prompt, max_new_tokens, temperature=temperature, seed=seed).text


def generate_segmentation(
    model: SatLisa,
    image: Any,
    prompt: str,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    *,
    temperature: float = 0.0,
    seed: int | None = None,
) -> tuple[str, Image.Image | None]:
    """Return the answer's text and the union of its masks. Arguments as of `generate_text`.

    The mask is an "L" image (0/255) of the image's size, or None without `<SEG>`.
    """
    found = ask(model, image, prompt, max_new_tokens, temperature=temperature, seed=seed)
    union = found.union()
    return found.text, None if union is None else mask_image(union)


def generate_instances(
    model: SatLisa,
    image: Any,
    prompt: str,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    *,
    temperature: float = 0.0,
    seed: int | None = None,
) -> tuple[str, list[tuple[Image.Image, float]]]:
    """Return the answer's text and, for each `<SEG>` in order, its mask ("L", 0/255) and score (`Answer.scores`).

    Arguments as of `generate_text`.
    """
    found = ask(model, image, prompt, max_new_tokens, temperature=temperature, seed=seed)
    return found.text, [(mask_image(m), float(s)) for m, s in zip(found.masks, found.scores, strict=True)]


def ask(
    model: SatLisa,
    image: Any,
    prompt: str,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    *,
    temperature: float = 0.0,
    seed: int | None = None,
) -> Answer:
    """Return the whole `Answer`: text, masks, scores and the image, which a notebook shows.

    Doubts about the answer are logged. Arguments as of `generate_text`; `image` may be an `Opened` as well.
    """
    opened, sampling = _opened(image), Sampling(temperature, seed)
    found = answer(model, [opened.rgb], [prompt], max_new_tokens=max_new_tokens, sampling=sampling)[0]
    return _finished(model, opened, found)


def stream_text(
    model: SatLisa,
    image: Any,
    prompt: str,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    *,
    temperature: float = 0.0,
    seed: int | None = None,
) -> Iterator[str]:
    """Yield the answer's text as it grows: each time all of it so far, at the end what `generate_text` returns.

    SAM is not run. Leaving the loop, or Ctrl-C, stops the answer; the model can be asked again at once. Arguments as of
    `generate_text`.
    """
    rgb, sampling = _opened(image).rgb, Sampling(temperature, seed)
    return stream_answer(model, rgb, prompt, max_new_tokens=max_new_tokens, sampling=sampling, with_masks=False)


def stream_ask(
    model: SatLisa,
    image: Any,
    prompt: str,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    *,
    temperature: float = 0.0,
    seed: int | None = None,
) -> Generator[str, None, Answer]:
    """Yield the text as `stream_text` does, and return the `Answer`: `answer = yield from stream_ask(...)`."""
    opened, sampling = _opened(image), Sampling(temperature, seed)
    found = yield from stream_answer(model, opened.rgb, prompt, max_new_tokens=max_new_tokens, sampling=sampling)
    return _finished(model, opened, found)


def _opened(image: Any) -> Opened:
    return image if isinstance(image, Opened) else open_oriented(image)


def _finished(model: SatLisa, opened: Opened, found: Answer) -> Answer:
    """The answer on the pixel grid of the image's source; doubts about it are logged."""
    for line in remarks(found, opened.rgb.size, model.segmenter.inputs.image_size):
        logger.warning("%s", line)
    return replace(found, masks=opened.to_stored(found.masks), image=opened.stored())


def remarks(found: Answer, size: tuple[int, int], input_size: int) -> list[str]:
    """What a person should know about an answer: empty masks, an image far too large, a count that is not the masks'.

    Args:
        size: (width, height) of the image.
        input_size: longest side at which the model sees it, in pixels.
    """
    lines = []
    empty, total = int((~found.masks.any(axis=(1, 2))).sum()), found.num_segs
    if empty:
        lines.append("the mask is empty" if total == 1 else f"{empty} of {total} masks are empty")
    if reduced := reduction_remark(size, input_size, 1 if empty else _SHRUNK):
        lines.append(reduced)
    named = [_NUMBERS.index(n.lower()) + 1 if n.isalpha() else int(n) for n in _COUNT.findall(found.text)]
    if total > 1 and named and total not in (*named, sum(named)):
        lines.append(f"the answer names {sum(named)} objects and has {total} masks")
    return lines


def reduction_remark(size: tuple[int, int], input_size: int, most: float = _SHRUNK) -> str:
    """That an image (width, height) is reduced more than `most` times for the model; "" where it is not."""
    if (reduced := max(size) / input_size) <= most:
        return ""
    return (
        f"the image of {size[0]:,} × {size[1]:,} pixels is reduced {reduced:.1f}-fold for the model, and small "
        f"objects vanish; cut it into tiles of at most {input_size:,} × {input_size:,} pixels and ask about each"
    )
