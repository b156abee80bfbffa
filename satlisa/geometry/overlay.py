"""Masks as images, and masks drawn over an image."""

from typing import Literal

import numpy as np
from PIL import Image

_PREDICTION = np.array([255, 140, 0], dtype=np.float32)  # orange and cyan: safe for colour blindness
_TRUTH = np.array([0, 229, 255], dtype=np.uint8)


def mask_image(mask: np.ndarray) -> Image.Image:
    """(H, W) bool as a PIL "L" image with 0 and 255."""
    return Image.fromarray(mask.astype(np.uint8) * 255)


def overlay(image: Image.Image, masks: np.ndarray) -> Image.Image:
    """The image with each mask (N, H, W) bool tinted and outlined in its own colour."""
    pixels = np.asarray(image.convert("RGB")).astype(np.float32)
    colours = np.array([[255, 64, 64], [64, 160, 255], [255, 208, 48], [80, 220, 100], [224, 96, 255], [64, 224, 224]])
    for number, mask in enumerate(masks):
        colour = colours[number % len(colours)]
        inner = _eroded(mask, at_image_border="edge")
        pixels[inner] = 0.6 * pixels[inner] + 0.4 * colour
        pixels[mask & ~inner] = colour
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _eroded(mask: np.ndarray, *, at_image_border: Literal["edge", "constant"]) -> np.ndarray:
    """A mask (H, W) without its boundary pixels; "edge" keeps those at the image border, "constant" removes them."""
    padded = np.pad(mask, 1, mode=at_image_border)
    inner: np.ndarray = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def draw_overlay(image: Image.Image, truth: np.ndarray, prediction: np.ndarray) -> Image.Image:
    """The image with the prediction tinted orange and the truth outlined in cyan. Masks (H, W) bool."""
    pixels = np.array(image.convert("RGB"))  # (H, W, 3)
    for channel, colour in enumerate(_PREDICTION):
        tinted = (0.5 * np.arange(256) + 0.5 * colour).astype(np.uint8)  # by grey level: no pixels as floats
        pixels[prediction, channel] = tinted[pixels[prediction, channel]]
    inner = truth
    for _ in range(max(1, max(truth.shape) // 128)):  # thick enough to be visible at the report's width
        inner = _eroded(inner, at_image_border="constant")
    pixels[truth & ~inner] = _TRUTH
    return Image.fromarray(pixels)
