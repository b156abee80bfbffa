"""Masks of several windows that are one object, and those that are not."""

import zlib

import numpy as np
import pytest

pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

from satlisa.geo.answers import Piece
from satlisa.geo.grid import Grid, Window, make_grid
from satlisa.geo.objects import blend, extent, join


def piece(window: Window, mask: np.ndarray, score: float = 0.5) -> Piece:
    """The part of a mask of the whole area that a window sees."""
    part = mask[window.place]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    box = (int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    inside = part[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
    return Piece(box, zlib.compress(np.packbits(inside).tobytes()), score)


def area(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((112, 112), dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


GRID = make_grid(112, 112, 64, 16)  # 2 × 2 windows that share rows and columns 48 to 63


def found(grid: Grid, *masks: tuple[int, np.ndarray]) -> list[list[int]]:
    pieces = [(grid.windows[number], [piece(grid.windows[number], mask)]) for number, mask in masks]
    return [sorted(one.window.number for one in group) for group in join(grid, pieces)]


def test_a_copy_in_the_overlap_is_one_object() -> None:
    assert found(GRID, (0, area((10, 50, 20, 60))), (1, area((10, 51, 20, 61)))) == [[0, 1]]


def test_an_object_across_four_windows_is_one() -> None:
    mask = area((30, 30, 90, 90))
    assert found(GRID, *[(number, mask) for number in range(4)]) == [[0, 1, 2, 3]]


def test_objects_apart_or_touching_are_several() -> None:
    assert found(GRID, (0, area((10, 50, 20, 56))), (1, area((10, 56, 20, 63)))) == [[0], [1]]


def test_two_arms_join_where_another_window_sees_both() -> None:
    one, other, whole = (
        area((10, 40, 20, 70)),
        area((30, 40, 40, 70)),
        area((10, 40, 20, 90), (30, 40, 40, 90), (10, 70, 40, 90)),
    )
    pieces = [
        (GRID.windows[0], [piece(GRID.windows[0], one), piece(GRID.windows[0], other)]),
        (GRID.windows[1], [piece(GRID.windows[1], whole)]),
    ]
    assert len(join(GRID, pieces)) == 1


def test_without_overlap_parts_join_along_the_border() -> None:
    grid = make_grid(112, 112, 56, 0)
    assert found(grid, (0, area((10, 40, 20, 56))), (1, area((11, 56, 20, 70)))) == [[0, 1]]
    assert found(grid, (0, area((10, 40, 20, 56))), (1, area((18, 56, 40, 70)))) == [[0], [1]]
    assert found(grid, (0, area((10, 40, 20, 55))), (1, area((10, 57, 20, 70)))) == [[0], [1]]


def test_windows_vote_with_their_weights() -> None:
    """In the left half of the overlap the left window decides, in the right half the right one."""
    left, right = area((10, 20, 20, 64)), area((12, 40, 22, 90))
    pieces = [(GRID.windows[n], [piece(GRID.windows[n], mask)]) for n, mask in ((0, left), (1, right))]
    (group,) = join(GRID, pieces)
    assert extent(group) == (10, 20, 22, 90)
    expected = np.where(np.arange(112) < 56, left, right)
    assert np.array_equal(blend(GRID, group), expected[10:22, 20:90])


def test_windows_with_another_between_them_do_not_join_along_a_border() -> None:
    """With an overlap of half a window, every second window only meets: the one in between sees that both are two."""
    grid = make_grid(112, 128, 64, 32)  # columns 0 to 63, 32 to 95, 64 to 127
    assert [axis.starts for axis in (grid.rows, grid.columns)] == [[0, 32, 48], [0, 32, 64]]
    left, right = np.zeros((2, 112, 128), dtype=bool)
    left[10:20, 40:64] = right[10:20, 64:90] = True
    assert found(grid, (0, left), (1, left), (1, right), (2, right)) == [[0, 1], [1, 2]]
