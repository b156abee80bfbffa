"""Real pictures for pretraining: the training rows of a dataset, one `Chip` per picture."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from satlisa.data.dataset import load_rows
from satlisa.data.rows import read_sample
from satlisa.demo.collages import Collage
from satlisa.demo.gallery import turn_array
from satlisa.demo.tiny_models import IMAGE_SIZE
from satlisa.errors import SatlisaError
from satlisa.geometry.raster import rasterize

_MOST_OUTLINES = 250  # of a picture; their numbers fit into uint8
_LEAST_PIXELS = 600
_SMALLEST_CROP = 0.4  # of the picture's shorter side


@dataclass
class Chip:
    """A real picture and what its rows say of it.

    Attributes:
        image: RGB.
        shapes: (H, W) uint8: 1, 2, … of the buildings, 0 elsewhere.
        dialogues: (question, answer) of its rows without masks.
    """

    image: Image.Image
    shapes: np.ndarray
    dialogues: list[tuple[str, str]] = field(default_factory=list)

    def crop(self, rng: np.random.Generator) -> Collage:
        """A square part, turned and resized to the models' input; half of the time the largest one."""
        height, width = self.shapes.shape
        shorter = min(height, width)
        side = shorter if rng.random() < 0.5 else int(shorter * rng.uniform(_SMALLEST_CROP, 1))
        left, top = (int(rng.integers(extent - side + 1)) for extent in (width, height))
        box, size = (left, top, left + side, top + side), (IMAGE_SIZE, IMAGE_SIZE)
        pixels = np.asarray(self.image.crop(box).resize(size, Image.Resampling.BICUBIC))
        shapes = np.asarray(Image.fromarray(self.shapes).crop(box).resize(size, Image.Resampling.NEAREST))
        number = int(rng.integers(8))
        shapes = turn_array(shapes, number)
        return Collage(turn_array(pixels, number), shapes, (shapes > 0).astype(np.uint8))

    def whole(self, number: int) -> np.ndarray:
        """All of it at the models' size, turned as `Exhibit.turned`."""
        return turn_array(np.asarray(self.image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)), number)


def read_chips(dataset: str) -> list[Chip]:
    """The pictures of a dataset's training split, in the order of its rows; of outlines, those named buildings alone.

    Raises:
        SatlisaError: there is no such dataset, or none of its rows has an outline of a building.
    """
    chips: dict[str, Chip] = {}
    rows = load_rows(dataset, "train")
    for index in range(len(rows)):
        sample = read_sample(rows[index], index, max_instances=_MOST_OUTLINES)
        key = hashlib.sha256(np.asarray(sample.image).tobytes()).hexdigest()
        width, height = sample.image.size
        chip = chips.setdefault(key, Chip(sample.image, np.zeros((height, width), np.uint8)))
        if not sample.regions:
            chip.dialogues.append((sample.turns[-1].text, sample.answer))
        elif "instance" in sample.task or not chip.shapes.any():
            outlines = [[polygon] for region in sample.regions for polygon in region]
            for number, outline in enumerate(outlines[:_MOST_OUTLINES], start=1):
                chip.shapes[rasterize(outline, height, width)] = number
    if not any(chip.shapes.any() for chip in chips.values()):
        raise SatlisaError(f"--chips: expected outlines of buildings in the training rows of '{dataset}', found none")
    return [*chips.values()]


def with_buildings(chips: Sequence[Chip]) -> list[Chip]:
    """The chips with a building that is large enough to be asked for, wherever it is cropped."""
    return [chip for chip in chips if np.bincount(chip.shapes.ravel())[1:].max(initial=0) >= _LEAST_PIXELS]
