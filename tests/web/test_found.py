import numpy as np
import pytest

from satlisa.web.bits import Bits
from satlisa.web.found import LONGEST
from tests.helpers.pages import found_of


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 64)])
def test_bits_give_the_mask_again(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    assert np.array_equal(Bits.of(mask).mask(), mask)


def test_what_is_hidden_is_not_in_the_union() -> None:
    masks = np.zeros((2, 4, 6), dtype=bool)
    masks[0, 0, :3], masks[1, 3, 5] = True, True
    found = found_of(masks)
    assert [one.pixels for one in found.objects] == [3, 1]
    assert found.union().sum() == 4 and found.toggle(0).union().sum() == 1
    assert np.array_equal(found.toggle(0).toggle(0).union(), masks.any(axis=0))


def test_masks_are_on_the_grid_of_the_file_and_drawn_upright() -> None:
    masks = np.zeros((1, 4, 6), dtype=bool)
    masks[0, 0, 5] = True  # the upper right corner of the upright picture
    found = found_of(masks, orientation=6)  # stored lying on its side: 6 rows of 4 pixels
    assert found.size == (6, 4) and found.objects[0].shown.mask()[0, 5]
    assert found.union().sum() == 1 and found.union()[0, 0]  # Pillow's ROTATE_270 brings it to the upper right


def test_large_pictures_are_drawn_small() -> None:
    masks = np.zeros((1, 300, 2 * LONGEST), dtype=bool)
    masks[0, :150] = True
    found = found_of(masks)
    assert found.image.size == (LONGEST, 150) and found.objects[0].pixels == 150 * 2 * LONGEST
    assert found.objects[0].shown.mask()[:75].all() and not found.objects[0].shown.mask()[75:].any()


def test_an_answer_without_masks() -> None:
    found = found_of(np.zeros((0, 4, 6)))
    assert found.objects == () and found.size == (4, 6) and not found.union().any()
