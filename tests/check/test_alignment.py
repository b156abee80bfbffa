"""Outlines on edges: literal pictures, and each way in which outlines may have been meant."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from satlisa.check.alignment import SIDE, TURNS, Comparison, compare, draw_outlines, edge_ranks, pool

L_SHAPE = np.array([[0.1, 0.2], [0.5, 0.2], [0.5, 0.3], [0.2, 0.3], [0.2, 0.8], [0.1, 0.8]])
# What the picture underwent, as a change of points; the name of the turn that explains it.
UNDERGONE = {
    "swapped": lambda x, y: (y, x),
    "flipped left to right": lambda x, y: (1 - x, y),
    "flipped top to bottom": lambda x, y: (x, 1 - y),
    "turned by 180°": lambda x, y: (1 - x, 1 - y),
    "turned by 90° clockwise": lambda x, y: (1 - y, x),
    "turned by 90° counterclockwise": lambda x, y: (y, 1 - x),
    "swapped and turned": lambda x, y: (1 - y, 1 - x),
}


def picture(ring: np.ndarray, size: tuple[int, int] = (300, 200)) -> Image.Image:
    noise = np.random.default_rng(0).integers(90, 110, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    ImageDraw.Draw(image).polygon([(x * size[0], y * size[1]) for x, y in ring], fill=(200, 40, 40))
    return image


def moved(ring: np.ndarray, name: str) -> np.ndarray:
    return np.stack(UNDERGONE[name](*ring.T), axis=1)


def test_ranks_are_of_the_steps() -> None:
    image = Image.new("RGB", (SIDE, SIDE))
    image.paste((255, 255, 255), (128, 0, SIDE, SIDE))
    ranks = edge_ranks(image)
    assert ranks.shape == (SIDE, SIDE) and ranks[100, 128] > 0.98 and ranks[100, 20] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", UNDERGONE)
def test_a_turn_is_told_by_the_picture(name: str) -> None:
    ranks, read = edge_ranks(picture(moved(L_SHAPE, name))), draw_outlines([(L_SHAPE,)])
    scores = {turn: compare(ranks, read, undo(read)).score for turn, undo in TURNS.items()}
    assert max(scores, key=lambda turn: scores[turn]) == name and scores[name] > 3
    assert all(compare(edge_ranks(picture(L_SHAPE)), read, undo(read)).score < -3 for undo in TURNS.values())


def test_a_scale_is_told_by_the_picture() -> None:
    ranks, small = edge_ranks(picture(L_SHAPE)), (L_SHAPE * 0.3,)
    assert compare(ranks, draw_outlines([small]), draw_outlines([small], (1 / 0.3, 1 / 0.3))).score > 3


def test_nothing_is_said_of_nothing() -> None:
    ranks, outside = edge_ranks(picture(L_SHAPE)), draw_outlines([(L_SHAPE + 5,)])
    assert not outside.any() and not draw_outlines([(L_SHAPE[:2],)]).any()
    assert compare(ranks, outside, draw_outlines([(L_SHAPE,)])) == Comparison(0, 0)
    assert pool([]) == Comparison(0, 0) and Comparison(0, 0).score == 0


def test_rows_are_weighted_by_what_they_say() -> None:
    together = pool([Comparison(0.1, 100), Comparison(-0.1, 300)])
    assert together.gain == pytest.approx(-0.05) and together.weight == 400 and together.score == pytest.approx(-1)
