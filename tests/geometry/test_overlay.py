"""Masks drawn over an image."""

import numpy as np
from PIL import Image

from satlisa.geometry.overlay import draw_objects, draw_overlay, overlay


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


def test_objects_have_colours_of_their_own_and_unfilled_ones_a_white_outline() -> None:
    masks = np.zeros((40, 10, 10), dtype=bool)
    masks[:, 2:8, 2:8] = True
    image = Image.new("RGB", (10, 10), (90, 90, 90))
    colours = {np.asarray(draw_objects(image, [(mask, n, True)]))[2, 2].tobytes() for n, mask in enumerate(masks)}
    assert len(colours) == 40
    filled, light = (np.asarray(draw_objects(image, [(masks[0], 3, is_filled)])) for is_filled in (True, False))
    assert light[2, 2].tolist() == [255, 255, 255] != filled[2, 2].tolist()
    assert 0 < np.ptp(light[4, 4]) < np.ptp(filled[4, 4])  # the lighter tint is nearer to grey
    assert (light[0, 0] == 90).all()
