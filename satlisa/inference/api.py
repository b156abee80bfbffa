"""Public API (docs/architecture.md#public-interface): load a model; generate text, a mask, or instances."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from satlisa.config import DEFAULT_MAX_NEW_TOKENS
from satlisa.data.images import open_image
from satlisa.geometry.overlay import mask_image
from satlisa.inference.generation import Answer, answer
from satlisa.model.satlisa import SatLisa
from satlisa.pretrained import model_directory


def load_model(model_dir: str | Path, device: str | torch.device | None = None) -> SatLisa:
    """Load a trained model from a folder or hub id; see `satlisa.pretrained.model_directory.load_model`."""
    return model_directory.load_model(model_dir, device)


def generate_text(model: SatLisa, image: Any, prompt: str, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS) -> str:
    """Return the answer as text. `image`: a PIL image, a path, encoded bytes or an (H, W, 3) uint8 array."""
    return _ask(model, image, prompt, max_new_tokens).text


def generate_segmentation(
    model: SatLisa, image: Any, prompt: str, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
) -> tuple[str, Image.Image | None]:
    """Return the answer's text and the union of its masks.

    The mask is an "L" image (0/255) of the image's size, or None without `<SEG>`.
    """
    found = _ask(model, image, prompt, max_new_tokens)
    union = found.union()
    return found.text, None if union is None else mask_image(union)


def generate_instances(
    model: SatLisa, image: Any, prompt: str, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
) -> tuple[str, list[tuple[Image.Image, float]]]:
    """Return the answer's text and, for each `<SEG>` in order, its mask ("L", 0/255) and SAM's predicted IoU."""
    found = _ask(model, image, prompt, max_new_tokens)
    return found.text, [(mask_image(m), float(s)) for m, s in zip(found.masks, found.scores, strict=True)]


def _ask(model: SatLisa, image: Any, prompt: str, max_new_tokens: int) -> Answer:
    return answer(model, [open_image(image)], [prompt], max_new_tokens=max_new_tokens)[0]
