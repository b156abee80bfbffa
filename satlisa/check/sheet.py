"""A few samples as pictures with their masks, for the eye."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from satlisa.check.facts import Facts
from satlisa.data.sample import Sample
from satlisa.data.sampler import spread
from satlisa.geometry.overlay import overlay
from satlisa.geometry.raster import rasterize

SAMPLES = 24
_SIDE = 320  # longest side in pixels
_BOX = (0, 229, 255)


@dataclass(frozen=True)
class Shown:
    """A sample of the sheet: its facts, prompt and answer, and its picture."""

    facts: Facts
    prompt: str
    answer: str
    picture: Image.Image


def choose(facts: Sequence[Facts], seed: int) -> list[Facts]:
    """`SAMPLES` usable rows, spread over the tasks."""
    usable = [one for one in facts if one.kind]
    return [usable[place] for place in spread([one.task for one in usable], SAMPLES, seed)]


def draw(facts: Facts, sample: Sample) -> Shown:
    """A sample with its masks tinted, or the boxes of its answer outlined."""
    image = sample.image.copy()
    image.thumbnail((_SIDE, _SIDE))
    if sample.regions:
        masks = np.stack([rasterize(region, image.height, image.width) for region in sample.regions])
        image = overlay(image, masks)
    pen = ImageDraw.Draw(image)
    for x0, y0, x1, y1 in facts.boxes:
        corners = np.array([[min(x0, x1), min(y0, y1)], [max(x0, x1), max(y0, y1)]]) / 1000 * image.size
        pen.rectangle([*map(float, corners.clip(-2, 2 * _SIDE).ravel())], outline=_BOX, width=2)
    answer = sample.answer + " <SEG>" * len(sample.regions)
    return Shown(facts, sample.turns[-1].text, answer, image)
