"""What a notebook shows of an answer."""

import base64
import io
import re

import numpy as np
from PIL import Image

from satlisa.geometry.overlay import overlay
from satlisa.inference.generation import Answer
from tests.helpers.model_fixtures import picture


def two_masks(width: int, height: int) -> np.ndarray:
    masks = np.zeros((2, height, width), dtype=bool)
    masks[0, : height // 4, : width // 4] = True
    masks[1, height // 2 :, width // 2 :] = True
    return masks


def test_small_pictures_are_the_overlay_pixel_by_pixel() -> None:
    image, masks = picture(60, 40), two_masks(60, 40)
    shown = Answer("a <SEG> b <SEG>", masks, np.ones(2, "f4"), [], image=image)._repr_png_()
    assert shown is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown))), np.asarray(overlay(image, masks)))


def test_large_pictures_are_reduced_with_their_masks() -> None:
    image, masks = picture(3000, 1500), two_masks(3000, 1500)
    shown = Answer("<SEG><SEG>", masks, np.ones(2, "f4"), [], image=image)._repr_png_()
    assert shown is not None
    found = Image.open(io.BytesIO(shown))
    assert found.size == (1024, 512)
    changed = (
        np.asarray(found) != np.asarray(image.resize((1024, 512), Image.Resampling.LANCZOS, reducing_gap=2.0))
    ).any(-1)
    expected = two_masks(1024, 512).any(0)
    assert (changed & ~expected).sum() == 0 and (changed & expected).sum() > 0.95 * expected.sum()


def test_html_is_the_picture_with_the_escaped_text_under_it() -> None:
    answer = Answer("1 <SEG> & <b>\nx", two_masks(60, 40)[:1], np.ones(1, "f4"), [], image=picture(60, 40))
    shown = answer._repr_html_()
    data = re.search(r'src="data:image/png;base64,([^"]+)"', shown)
    assert data and base64.b64decode(data[1]) == answer._repr_png_()
    assert shown.index("<img") < shown.index("1 &lt;SEG&gt; &amp; &lt;b&gt;<br>x") and "1 mask<" in shown


def test_an_answer_without_its_picture_shows_text_only() -> None:
    answer = Answer("Water", np.zeros((0, 4, 4), bool), np.zeros(0, "f4"), [])
    assert answer._repr_png_() is None
    assert "<img" not in answer._repr_html_() and "Water" in answer._repr_html_() and "no mask" in answer._repr_html_()
    pictured = Answer("Water", np.zeros((0, 40, 60), bool), np.zeros(0, "f4"), [], image=picture(60, 40))
    assert "<img" in pictured._repr_html_()
