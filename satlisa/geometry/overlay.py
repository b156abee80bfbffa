"""Masks as images, and masks drawn over an image."""

import colorsys
from collections.abc import Iterable
from typing import Literal

import numpy as np
from PIL import Image

_PREDICTION = np.array([255, 140, 0], dtype=np.float32)  # orange and cyan: safe for colour blindness
_COLOURS = np.array([[255, 64, 64], [64, 160, 255], [255, 208, 48], [80, 220, 100], [224, 96, 255], [64, 224, 224]])
_TRUTH = np.array([0, 229, 255], dtype=np.uint8)


def mask_image(mask: np.ndarray) -> Image.Image:
    """(H, W) bool as a PIL "L" image with 0 and 255."""
    return Image.fromarray(mask.astype(np.uint8) * 255)


def fit_within(image: Image.Image, longest: int) -> Image.Image:
    """The image, reduced to at most `longest` pixels on a side."""
    reduction = max(image.size) / longest
    if reduction <= 1:
        return image
    size = (max(1, round(image.width / reduction)), max(1, round(image.height / reduction)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def reduce_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) bool at another size (width, height); what is at least half a pixel there stays."""
    return np.asarray(mask_image(mask).resize(size, Image.Resampling.BOX)) >= 128


def overlay(image: Image.Image, masks: np.ndarray) -> Image.Image:
    """The image with each mask (N, H, W) bool tinted and outlined in its own colour."""
    return draw_objects(image, zip(masks, range(len(masks)), [True] * len(masks), strict=True))


def draw_objects(
    image: Image.Image, objects: Iterable[tuple[np.ndarray, int, bool]], opacity: float = 0.4
) -> Image.Image:
    """The image with objects in colours.

    Args:
        objects: of each the mask (H, W) bool, the number of its colour, and whether it is filled: the others are
            outlined in white and lightly tinted.
        opacity: of the fillings, 0 to 1.
    """
    pixels = np.array(image.convert("RGB"))
    for mask, number, is_filled in objects:
        colour = colour_of(number)
        inner = _eroded(mask, at_image_border="edge")
        _tint(pixels, inner, colour, opacity if is_filled else 0.25)
        pixels[mask & ~inner] = colour if is_filled else 255
    return Image.fromarray(pixels)


def _tint(pixels: np.ndarray, mask: np.ndarray, colour: np.ndarray, share: float) -> None:
    """Mix a colour into the pixels (H, W, 3) of a mask, in place: by grey level, without floats."""
    for channel, level in enumerate(colour):
        tinted = ((1 - share) * np.arange(256) + share * float(level)).astype(np.uint8)
        pixels[mask, channel] = tinted[pixels[mask, channel]]


def colour_of(number: int) -> np.ndarray:
    """The colour (3,) of an object: six by hand, then hues a golden ratio apart."""
    if number < len(_COLOURS):
        return np.asarray(_COLOURS[number])
    hue, value = number * 0.618034 % 1, (1.0, 0.75)[number % 2]
    return np.array(colorsys.hsv_to_rgb(hue, 0.75, value)) * 255


def _eroded(mask: np.ndarray, *, at_image_border: Literal["edge", "constant"]) -> np.ndarray:
    """A mask (H, W) without its boundary pixels; "edge" keeps those at the image border, "constant" removes them."""
    padded = np.pad(mask, 1, mode=at_image_border)
    inner: np.ndarray = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def draw_overlay(image: Image.Image, truth: np.ndarray, prediction: np.ndarray) -> Image.Image:
    """The image with the prediction tinted orange and the truth outlined in cyan. Masks (H, W) bool."""
    pixels = np.array(image.convert("RGB"))  # (H, W, 3)
    _tint(pixels, prediction, _PREDICTION, 0.5)
    inner = truth
    for _ in range(max(1, max(truth.shape) // 128)):  # thick enough to be visible at the report's width
        inner = _eroded(inner, at_image_border="constant")
    pixels[truth & ~inner] = _TRUTH
    return Image.fromarray(pixels)
