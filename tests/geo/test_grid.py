"""Windows cover an area; their weights sum to 1 everywhere and fall towards borders."""

import numpy as np
import pytest

pytest.importorskip("rasterio", reason="the extra geo is not installed: bash setup.sh --geo")

from satlisa.errors import SatlisaError
from satlisa.geo.grid import Axis, make_grid


def test_windows_of_an_axis() -> None:
    assert Axis(1000, 512, 64).starts == [0, 448, 488]
    assert Axis(512, 512, 64).starts == [0]
    assert Axis(960, 512, 64).starts == [0, 448]


@pytest.mark.parametrize(
    ("height", "width", "window", "overlap"), [(1000, 777, 256, 64), (100, 33, 64, 0), (9, 5, 64, 16)]
)
def test_weights_sum_to_one(height: int, width: int, window: int, overlap: int) -> None:
    grid, total = make_grid(height, width, window, overlap), np.zeros((height, width))
    for one in grid.windows:
        total[one.place] += grid.weight(one)
    assert np.abs(total - 1).max() < 1e-6


def test_weights_fall_towards_borders() -> None:
    first, second = Axis(112, 64, 16).weights
    assert np.all(np.diff(first[48:]) < 0) and np.all(np.diff(second[:16]) > 0) and (first[:48] == 1).all()


def test_the_owner_has_the_largest_weight() -> None:
    axis = Axis(112, 64, 16)
    assert [axis.owner(position) for position in (0, 55.5, 56.5, 111)] == [0, 0, 1, 1]


def test_windows_in_pixels_of_the_grid() -> None:
    grid = make_grid(4000, 4000, 512, 64, (2.0, 0.5))
    assert (grid.rows.window, grid.columns.window, grid.rows.overlap, grid.columns.overlap) == (256, 1024, 32, 128)


@pytest.mark.parametrize(("window", "overlap"), [(4, 0), (512, 257), (512, -1)])
def test_windows_that_are_none(window: int, overlap: int) -> None:
    with pytest.raises(SatlisaError, match=f"found {window} and {overlap}"):
        make_grid(1000, 1000, window, overlap)


def test_windows_too_large_for_the_memory() -> None:
    with pytest.raises(SatlisaError, match="a window would cover 25,600 rows of 20,000 pixels"):
        make_grid(30_000, 20_000, 512, 64, (50.0, 50.0))
