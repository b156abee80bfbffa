"""Counts in words, and numbers that are none."""

import pytest

from satlisa.evaluation.scoring.count_text import (
    as_label,
    asked_label,
    is_count_list,
    read_counts,
    read_number,
    singular,
)
from tests.helpers.quick import quick


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
        ("one hundred and five cars", {"car": 105}),
        ("a hundred cars and 2 dozen planes", {"car": 100, "plane": 24}),
        ("a dozen buildings", {"building": 12}),
        ("half a dozen ships in a dozen harbours", {"ship": 6, "harbour": 12}),
        ("two thousand three hundred and twenty-one trees", {"tree": 2321}),
        ("one hundred cars and five roads", {"car": 100, "road": 5}),
        ("two buildings cross the river", {"building": 2}),
        ("one road crosses the river, two roads cross", {"road": 3}),
        ("2 red crosses, 1 zebra crossing and 3 power lines", {"red cross": 2, "zebra crossing": 1, "power line": 3}),
        ("2 planes parked on the apron, 3 parked cars", {"plane": 2, "parked car": 3}),
        ("The number of buildings is 3", {"building": 3}),
        ("The number of buildings in the image is three, the building count is 4", {"building": 7}),
        ("buildings 3, roads 2", {"building": 3, "road": 2}),
        ("Buildings - 3; road - 1", {"building": 3, "road": 1}),
        ("buildings: 3", {"building": 3}),
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
     "3–4 buildings", "3 to 4 buildings", "three or four planes and 2 ships", "between 3 and 4 buildings",
     "dozens of cars", "a few hundred cars", "Landsat 8", "Floods 2018",
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


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("Three.", 3), ("There are about 1,200 of them.", 1200), ("a dozen", 12), ("zero", 0), ("one", 1),
     ("", None), ("A", None), ("no", None), ("-3", None), ("3.5", None), ("3%", None), ("3 or 4", None),
     ("3-4", None), ("In 2018", None), ("3 buildings", None), ("10 m", None)],
)  # fmt: skip
def test_bare_numbers(text: str, number: int | None) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("text", "is_list"),
    [("3 buildings and 2 roads", True), ("I found 2 planes.", True), ("a plane and two ships", True),
     ("There are 2 roads in the image", True), ("buildings: 3, roads: 2", True), ("", False), ("3", False),
     ("A forest", False), ("No objects", False), ("10 m", False), ("3-4 buildings", False),
     ("A forest; 2 roads", False),
     ("Farmland with fields; 1 road can be seen.", False), ("2 ships sail past a harbour", False)],
)  # fmt: skip
def test_answers_that_are_counts_and_nothing_more(text: str, is_list: bool) -> None:
    assert is_count_list(text) is is_list


@pytest.mark.parametrize(
    ("prompt", "label"),
    [("How many buildings are there?", "building"), ("Count the planes in the image", "plane"),
     ("How many of the flooded buildings can you see?", "flooded building"), ("What is the number of ships?", "ship"),
     ("How many roads cross the river?", "road"), ("How many are there?", None), ("What is the count?", None),
     ("Describe the image", None), ("", None)],
)  # fmt: skip
def test_what_a_prompt_asks_for(prompt: str, label: str | None) -> None:
    assert asked_label(prompt) == label


def test_labels() -> None:
    assert as_label(["storage-tanks"]) == as_label(["storage", "tank"]) == as_label(["storage_tank"]) == "storage tank"
    assert as_label([]) == ""


LONG = ["3 ", "a", "3 building ", "(", "x-", " ", ",", "[", "]", "1", "1,", "111,", "hundred ", "1 hundred ", "3 to ",
        "x (", "number of ", "a: 3 "]  # fmt: skip


@pytest.mark.parametrize("part", LONG)
def test_long_nonsense_is_quick(part: str) -> None:
    text = part * (100_000 // len(part)) + "x"
    with quick(4):  # four parsers
        read_counts(text), read_number(text), is_count_list(text), asked_label(text)
