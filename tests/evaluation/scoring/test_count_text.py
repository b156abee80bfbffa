"""Counts in words, and numbers that are none."""

import time

import pytest

from satlisa.evaluation.scoring.count_text import read_counts, singular


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("3 buildings and 2 roads", {"building": 3, "road": 2}),
        ("3 buildings, 1 plane and 2 roads", {"building": 3, "plane": 1, "road": 2}),
        ("Two planes, one ship", {"plane": 2, "ship": 1}),
        ("A building and a plane", {"building": 1, "plane": 1}),
        ("I found 3 buildings and an airplane.", {"building": 3, "airplane": 1}),
        ("There are twenty-one storage tanks & twenty two ships in it.", {"storage tank": 21, "ship": 22}),
        ("Visible: 3 buildings, 2 roads", {"building": 3, "road": 2}),
        ("Buildings: 3 Roads: 2", {"building": 3, "road": 2}),
        ("3 large buildings visible", {"large building": 3}),
        ("Zero planes, twenty ships", {"ship": 20}),
        ("2 flooded buildings; 1 building", {"flooded building": 2, "building": 1}),
        ("Yes, 2 flooded buildings visible", {"flooded building": 2}),
        ("1,200 trees and 12 vehicles", {"tree": 1200, "vehicle": 12}),
        ("Buildings: 3\nRoads: 2", {"building": 3, "road": 2}),
        ('{"storage tank": 3, "plane": 0}', {"storage tank": 3}),
        ("buildings (3), roads (2)", {"building": 3, "road": 2}),
        ("three (3) buildings", {"building": 3}),
        ("1. 3 buildings\n2. 4 roads", {"building": 3, "road": 4}),
        ("- 3 buildings\n- 4 roads", {"building": 3, "road": 4}),
        ("3 buildings. The 3 buildings are flooded.", {"building": 3}),
        ("The 3 buildings are flooded.", {"building": 3}),
        ("2 ships on the left and 3 ships on the right", {"ship": 5}),
        ("a total of 5 visible swimming-pools", {"swimming pool": 5}),
        ("A residential area with 3 buildings in a forest", {"building": 3}),
        ("a satellite image with a plane", {"plane": 1}),
        ("5 people, 2 buses, 3 churches, 1 bus, 4 factories", {"person": 5, "bus": 3, "church": 3, "factory": 4}),
        ("In 2018, 3 buildings of 10 m, 30% forest, 2 of them at 12 by 12 grid", {"building": 3}),
        ("2018 buildings", {"building": 2018}),
        ("３ Gebäude", {"gebäude": 3}),
        ("no planes, 2 ships", {"ship": 2}),
        ("No objects", {}),
        ("There are no buildings.", {}),
        ("None", {}),
        ("0 buildings", {}),
    ],
)  # fmt: skip
def test_counts(text: str, counts: dict[str, int]) -> None:
    assert read_counts(text) == counts


@pytest.mark.parametrize(
    "text",
    ["", "Forest", "Yes", "No", "No.", "3", "2018", "In 2018", "in 2018 flood", "10 m", "10 m long", "30%",
     "30 percent", "12 by 12", "12x12", "3D buildings", "2.5 buildings", "1/2 buildings", "2-3 buildings",
     "the 2nd building", "one", "several buildings",
     "a few buildings", "a number of ships", "buildings and roads", "9" * 5000 + " ships", "building [10, 20, 30, 40]",
     "<SEG>", "count: 3", "one of the buildings", "🛰️"],
)  # fmt: skip
def test_no_counts(text: str) -> None:
    assert read_counts(text) is None


@pytest.mark.parametrize(
    ("plural", "one"),
    [("buildings", "building"), ("roads", "road"), ("bridges", "bridge"), ("houses", "house"), ("buses", "bus"),
     ("churches", "church"), ("boxes", "box"), ("overpasses", "overpass"), ("factories", "factory"),
     ("people", "person"),
     ("chimneys", "chimney"), ("aircraft", "aircraft"), ("bases", "base"), ("ships", "ship")],
)  # fmt: skip
def test_both_numbers_give_one_form(plural: str, one: str) -> None:
    assert singular(plural) == singular(one) == one


@pytest.mark.parametrize("text", ["3 " * 50_000, "a" * 200_000, "3 building " * 20_000, "(" * 100_000, "x-" * 50_000])
def test_long_nonsense_is_quick(text: str) -> None:
    started = time.perf_counter()
    read_counts(text)
    assert time.perf_counter() - started < 2
