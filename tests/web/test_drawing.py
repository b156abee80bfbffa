import numpy as np

from satlisa.geometry.overlay import colour_of, overlay
from satlisa.web.drawing import draw, object_at, rows
from tests.helpers.pages import found_of

MASKS = np.zeros((2, 12, 16), dtype=bool)
MASKS[0, 1:6, 1:6] = True
MASKS[1, 3:11, 4:15] = True


def test_colours_are_those_of_overlays() -> None:
    found = found_of(MASKS)
    assert np.array_equal(draw(found, 0.4), overlay(found.image, MASKS))


def test_opacity_and_hidden_objects() -> None:
    found = found_of(MASKS)
    clear, full = np.asarray(draw(found, 0.0)), np.asarray(draw(found, 1.0))
    assert clear[2, 2].tolist() == [90, 90, 90] and full[2, 2].tolist() == colour_of(0).tolist()
    assert clear[1, 1].tolist() == colour_of(0).tolist()  # outlines stay
    assert np.asarray(draw(found.toggle(0), 1.0))[2, 2].tolist() == [90, 90, 90]


def test_a_row_for_each_object() -> None:
    first, second = rows(found_of(MASKS).toggle(1))
    assert first[1:] == ["1", "0.90", "25", "–"] and second[1:] == ["2", "0.50", "88", "–"]
    assert "rgb(255, 64, 64)" in first[0] and "■" in first[0] and "☐" in second[0]


def test_the_smallest_object_under_the_pointer() -> None:
    found = found_of(MASKS)
    assert object_at(found, 4.5, 4.2) == 0  # both are there
    assert object_at(found.toggle(0), 4.5, 4.2) == 0  # a click shows it again
    assert object_at(found, 12, 9) == 1
    assert object_at(found, 15.5, 0) is None and object_at(found, 400, -3) is None
