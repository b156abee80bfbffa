"""Masks drawn over an image."""

import numpy as np
from PIL import Image

from satlisa.geometry.overlay import draw_overlay, overlay


def test_overlay_tints_only_the_mask() -> None:
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, 2:6, 2:6] = True
    drawn = np.asarray(overlay(image, masks))
    assert (drawn[~masks[0]] == (10, 20, 30)).all() and (drawn[masks[0]] != (10, 20, 30)).any(axis=-1).all()


def test_overlay_outlines_truth_and_tints_prediction() -> None:
    truth, prediction = np.zeros((2, 20, 30), dtype=bool)
    truth[2:10, 3:12] = True
    prediction[12:18, 5:25] = True
    pixels = np.asarray(draw_overlay(Image.new("RGB", (30, 20), (100, 100, 100)), truth, prediction))
    assert pixels[2, 3].tolist() == [0, 229, 255] and pixels[9, 11].tolist() == [0, 229, 255]
    assert pixels[5, 5].tolist() == [100, 100, 100]  # inside the outline
    assert pixels[13, 6].tolist() == [177, 120, 50]
    assert pixels[0, 0].tolist() == [100, 100, 100]
    assert (pixels == [0, 229, 255]).all(-1).sum() == 8 * 9 - 6 * 7
