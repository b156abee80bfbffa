"""Public API (docs/architecture.md#public-interface): load a model; generate text, a mask, or instances.

An image is a Pillow image, a path, encoded bytes, an open file or an array, as `satlisa.data.images.open_image` says.
Masks have the size and orientation of what was given: those of `Image.open(path)`, also where EXIF turns a photo.
"""

import logging
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.utils import logging as transformers_logging

from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.data.images import Opened, open_oriented
from satlisa.geometry.overlay import mask_image
from satlisa.inference.generation import Answer, answer
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


def generate_text(model: SatLisa, image: Any, prompt: str, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS) -> str:
    """Return the answer as text."""
    return ask(model, open_oriented(image), prompt, max_new_tokens).text


def generate_segmentation(
    model: SatLisa, image: Any, prompt: str, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
) -> tuple[str, Image.Image | None]:
    """Return the answer's text and the union of its masks.

    The mask is an "L" image (0/255) of the image's size, or None without `<SEG>`.
    """
    found = ask(model, open_oriented(image), prompt, max_new_tokens)
    union = found.union()
    return found.text, None if union is None else mask_image(union)


def generate_instances(
    model: SatLisa, image: Any, prompt: str, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
) -> tuple[str, list[tuple[Image.Image, float]]]:
    """Return the answer's text and, for each `<SEG>` in order, its mask ("L", 0/255) and score (`Answer.scores`)."""
    found = ask(model, open_oriented(image), prompt, max_new_tokens)
    return found.text, [(mask_image(m), float(s)) for m, s in zip(found.masks, found.scores, strict=True)]


def ask(model: SatLisa, image: Opened, prompt: str, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS) -> Answer:
    """Answer one prompt; the masks lie on the pixel grid of the image's source. Doubts about the answer are logged."""
    found = answer(model, [image.rgb], [prompt], max_new_tokens=max_new_tokens)[0]
    for line in remarks(found, image.rgb.size, model.segmenter.inputs.image_size):
        logger.warning("%s", line)
    return replace(found, masks=image.to_stored(found.masks))


def remarks(found: Answer, size: tuple[int, int], input_size: int) -> list[str]:
    """What a person should know about an answer: empty masks, an image far too large, a count that is not the masks'.

    Args:
        size: (width, height) of the image.
        input_size: longest side at which the model sees it, in pixels.
    """
    lines = []
    empty, total, reduced = int((~found.masks.any(axis=(1, 2))).sum()), found.num_segs, max(size) / input_size
    if empty:
        lines.append("the mask is empty" if total == 1 else f"{empty} of {total} masks are empty")
    if reduced > _SHRUNK or (empty and reduced > 1):
        lines.append(
            f"the image of {size[0]:,} × {size[1]:,} pixels is reduced {reduced:.1f}-fold for the model, and small "
            f"objects vanish; cut it into tiles of at most {input_size:,} × {input_size:,} pixels and ask about each"
        )
    named = [_NUMBERS.index(n.lower()) + 1 if n.isalpha() else int(n) for n in _COUNT.findall(found.text)]
    if total > 1 and named and total not in (*named, sum(named)):
        lines.append(f"the answer names {sum(named)} objects and has {total} masks")
    return lines
