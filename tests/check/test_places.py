"""Coordinates that were meant otherwise, in single rows."""

from dataclasses import replace

from satlisa.check.alignment import Comparison
from satlisa.check.facts import Facts
from satlisa.check.places import wrong_places
from satlisa.data.rows import MASKS

READ = Comparison(-0.3, 100.0)  # outlines that lie on edges as they are read


def masked(index: int, **looks: Comparison) -> Facts:
    return Facts(0, index, "building_segmentation", kind=MASKS, size=(512, 512), looks={"swapped": READ, **looks})


def test_a_turned_picture_among_many_that_were_turned_with_their_masks_is_no_surprise() -> None:
    key = "turned by 90° clockwise"
    turned = [replace(masked(number, **{key: READ}), orientation=6) for number in range(60)]
    odd = [replace(turned[0], index=60 + step, looks={key: Comparison(0.1 * step, 100.0)}) for step in (2, 4)]
    (line,) = wrong_places([*turned, *odd])
    assert "EXIF turns" in line and "(row 64)" in line


def test_one_row_within_a_units_limits_needs_less_evidence_than_one_that_is_swapped() -> None:
    clean = [masked(number) for number in range(1, 60)]
    four = Comparison(0.3, (4 / 0.3) ** 2)  # standard errors
    (line,) = wrong_places([masked(0, pixels=four), *clean])
    assert "look like pixels" in line and "(row 0)" in line
    assert not list(wrong_places([masked(0, swapped=four), *clean]))
    assert not list(wrong_places([masked(0, pixels=Comparison(0.3, (2.5 / 0.3) ** 2)), *clean]))
