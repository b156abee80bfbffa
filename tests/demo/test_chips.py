"""Real pictures for pretraining."""

import numpy as np
import pytest
from PIL import Image

from satlisa.demo.chips import Chip, read_chips, with_buildings
from satlisa.demo.tiny_models import IMAGE_SIZE
from satlisa.errors import SatlisaError
from tests.helpers.chip_rows import BLUE, RED, write_rows

SQUARE = [[0, 0], [500, 0], [500, 500], [0, 500]]


def test_rows_of_one_picture_are_one_chip(tmp_path):
    outline = {"objects": [{"label": "building", "polygon": SQUARE}]}
    rows = [
        ("scene_classification", "Classify", "Land", {}, RED),
        ("building_segmentation", "Segment the buildings", "I segmented 1 building.", outline, RED),
        ("scene_classification", "Classify", "Water", {}, BLUE),
    ]
    write_rows(tmp_path / "train", rows)
    red, blue = read_chips(str(tmp_path))
    assert red.dialogues == [("Classify", "Land")] and blue.dialogues == [("Classify", "Water")]
    assert red.shapes.shape == (48, 64) and (red.shapes[:24, :32] == 1).all() and red.shapes.sum() == 24 * 32
    assert with_buildings([red, blue]) == [red]


def test_a_dataset_without_outlines_is_refused(tmp_path):
    write_rows(tmp_path / "train", [("scene_classification", "Classify", "Land", {}, RED)])
    with pytest.raises(SatlisaError, match="expected outlines of buildings"):
        read_chips(str(tmp_path))


def test_crops_keep_picture_and_shapes_together():
    shapes = np.zeros((120, 100), np.uint8)
    shapes[30:70, 20:60], shapes[80:110, 50:90] = 1, 2
    chip = Chip(Image.fromarray(np.repeat((shapes > 0)[..., None] * np.uint8(255), 3, axis=2)), shapes)
    rng = np.random.default_rng(0)
    sizes = set()
    for _ in range(20):
        collage = chip.crop(rng)
        assert collage.pixels.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        bright = collage.pixels[..., 0] > 127
        assert (bright == (collage.shapes > 0)).mean() > 0.97  # edges may fall on the next pixel
        assert np.array_equal(collage.surfaces, collage.shapes > 0)
        sizes.add(int(bright.sum()))
    assert len(sizes) > 5
    assert chip.whole(3).shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
