"""Reading order of regions."""

import numpy as np

from satlisa.geometry.regions import reading_order


def test_reading_order_is_top_then_left() -> None:
    def square(x: float, y: float) -> np.ndarray:
        return np.array([[x, y], [x + 0.1, y], [x + 0.1, y + 0.1], [x, y + 0.1]])

    regions = [
        (),
        (square(0.5, 0.5),),
        (square(0.8, 0.1),),
        (square(0.2, 0.1),),
        (square(0.9, 0.9), square(0.1, 0.05)),  # a region starts at its highest part
        (square(0.2, 0.1),),
    ]
    assert reading_order(regions) == [4, 3, 5, 2, 1, 0]
    assert reading_order([]) == []
