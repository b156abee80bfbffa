"""Structures of a synthetic scene: large enough, inside, apart."""

from itertools import combinations

from satlisa.data.synthetic.plan import Plan
from tests.helpers.scenes import filled


def test_structures_lie_inside_and_are_large_enough(plans: list[Plan]) -> None:
    for thing in (thing for plan in plans for thing in plan.objects):
        assert all(0 <= value <= 1000 for point in thing.polygon for value in point)
        assert all(isinstance(value, int) for point in thing.polygon for value in point)
        left, top, right, bottom = thing.box
        assert min(right - left, bottom - top) >= 14 / 256 * 1000
        assert filled(thing.polygon).sum() >= (14 / 256 * 1000) ** 2 * 0.5


def test_structures_do_not_touch(plans: list[Plan]) -> None:
    for plan in plans[:40]:
        for one, other in combinations([filled(thing.polygon) for thing in plan.objects], 2):
            assert not (one & other).any()
