"""The mask frame: geometry and preprocessing against transformers."""

import pytest
from transformers import SamImageProcessor

from satlisa.geometry.frame import Frame
from tests.helpers.model_fixtures import SLIMSAM, box, picture


@pytest.mark.parametrize(("width", "height"), [(64, 64), (512, 384), (2149, 1479), (37, 900), (900, 37)])
def test_geometry_and_pixels_equal_transformers(width: int, height: int) -> None:
    processor = SamImageProcessor()
    image = picture(width, height)
    theirs = processor(images=[image], return_tensors="pt")
    frame = Frame((height, width), **SLIMSAM)
    assert list(frame.resized) == theirs["reshaped_input_sizes"][0].tolist()
    inside = theirs["pixel_values"][0, 0] != 0
    rows, columns = frame.resized
    assert not inside[rows:].any() and not inside[:, columns:].any()


def test_padding_is_not_valid() -> None:
    frame = Frame((384, 512), **SLIMSAM)
    assert frame.resized == (768, 1024) and frame.extent == (192.0, 256.0)
    assert frame.valid[:192].all() and not frame.valid[192:].any()
    assert frame.draw(box(0, 0, 1, 1)).sum() == 192 * 256
