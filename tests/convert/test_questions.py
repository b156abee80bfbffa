"""A scene → rows, read as training reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satlisa.convert.picture import STORED, Picture
from satlisa.convert.problems import Problems
from satlisa.convert.questions import TASKS, Asking, ask, choose_negatives, task_name
from satlisa.convert.scene import Scene, Spoken, Thing
from satlisa.convert.shapes import box_thing, polygon_thing
from satlisa.convert.templates import Templates
from satlisa.data.polygons import Reading
from satlisa.data.rows import read_text

WORDS = Templates.load(None, {}, 0)
PICTURE = Picture(Path("a.png"), (100, 100))


def outlined(label: str, x: float = 10) -> Thing:
    square = np.array([[x, 10], [x + 10, 10], [x + 10, 20], [x, 20]])
    return polygon_thing(label, [[square]], PICTURE, (100, 100), STORED)


def rows_of(
    *things: Thing, labels: tuple[str, ...] = ("roof",), problems: Problems | None = None, **how: Any
) -> list[Any]:
    scene = Scene("a.png", PICTURE, things, labels)
    asking = Asking(WORDS, **{"tasks": TASKS, **how})
    return [read_text(row, 0, (), Reading()) for row in ask(scene, asking, problems or Problems())]


def test_every_task() -> None:
    rows = rows_of(outlined("roof"), outlined("roof", 40), outlined("tree", 70), labels=("roof", "tree"))
    assert [(row.task, len(row.regions)) for row in rows] == [
        ("roof_segmentation", 2),
        ("instance_segmentation", 2),
        ("tree_segmentation", 1),
        ("instance_segmentation", 1),
        ("object_detection", 0),
        ("object_detection", 0),
        ("visual_question_answering", 0),
    ]
    assert rows[4].turns[-1].text == "roof [100, 100, 200, 200]; roof [400, 100, 500, 200]; tree [700, 100, 800, 200]"
    assert rows[5].turns[-1].text == "2 roofs and 1 tree" and rows[6].turns[-1].text == "Yes"


def test_a_class_that_is_not_there() -> None:
    rows = rows_of(tasks=("segmentation", "boxes", "counts", "presence"), negatives={"a.png"})
    assert [row.turns[-1].text for row in rows[:3]] == ["None", "None", "No"]
    assert rows[3].task == "roof_segmentation" and rows[3].kind == "negatives" and "roofs" in rows[3].turns[-1].text


def test_too_many_boxes_and_boxes_alone_are_said() -> None:
    problems = Problems()
    rows = rows_of(outlined("roof"), outlined("roof", 40), tasks=("boxes", "counts"), max_boxes=1, problems=problems)
    assert [row.turns[-1].text for row in rows] == ["2 roofs"]
    box = box_thing("roof", (1, 1, 9, 9), PICTURE, (100, 100), STORED)
    rows = rows_of(outlined("roof"), box, problems=problems)
    assert {row.task for row in rows} == {"object_detection", "visual_question_answering"}
    assert list(problems.counts.values()) == [1, 1]


def test_negatives_are_a_share_and_all_that_are_empty() -> None:
    full = [Scene(f"f{n}", PICTURE, [outlined("roof")], ("roof", "tree")) for n in range(20)]
    empty = [Scene(f"e{n}", PICTURE, [], ("roof", "tree")) for n in range(3)]
    found = choose_negatives([*full, *empty], 0.2, WORDS)
    assert {name for name in found if name[0] == "e"} == {"e0", "e1", "e2"} and len(found) == 7
    assert not choose_negatives([*full, *empty], 0, WORDS)


def test_what_the_format_says_is_kept() -> None:
    said = [Spoken("visual_question_answering", "Roads?", "2"), Spoken("scene_classification", "", "SeaLake")]
    scene = Scene("a.png", PICTURE, spoken=said)
    rows = [read_text(row, 0, (), Reading()) for row in ask(scene, Asking(WORDS), Problems())]
    assert [row.turns[-1].text for row in rows] == ["2", "Sea lake"] and rows[0].turns[0].text == "Roads?"


@pytest.mark.parametrize(("label", "name"), [("Small Car", "small_car"), ("instance", "semantic"), ("-", "semantic")])
def test_names_of_tasks(label: str, name: str) -> None:
    assert task_name(label) == f"{name}_segmentation"
