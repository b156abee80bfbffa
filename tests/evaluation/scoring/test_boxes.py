"""Scores of boxes, computed by hand."""

import json

import pytest

from satlisa.evaluation.scoring.bootstrap import value_of
from satlisa.evaluation.scoring.boxes import DEFINITIONS, asks_for_boxes, measure, statistics
from tests.helpers.quick import quick

PROMPT = "List the boxes of all buildings and planes"


def _entry(expected: str, output: str, metadata=None, prompt: str = PROMPT) -> dict:
    measured = measure(prompt, expected, output, metadata)
    return {"error": None, "boxes": json.loads(json.dumps(measured, allow_nan=False))}


def _values(*entries: dict) -> dict[str, float | None]:
    return {key: value_of(statistic, len(entries)) for key, statistic in statistics(entries).items()}


def _scores(expected: str, output: str) -> tuple:
    values = _values(_entry(expected, output))
    return tuple(values[f"box_{name}"] for name in ("precision", "recall", "f1"))


@pytest.mark.parametrize(
    ("expected", "output", "scores"),
    [
        ("building [0,0,10,10]; plane [20,20,30,30]", "Plane [20,20,30,30]; BUILDING [0,0,10,10]", (1, 1, 1)),
        ("building [0,0,10,10]", "building [0,0,10,10]; building [0,0,10,10]", (0.5, 1, 2 / 3)),  # a duplicate
        ("building [0,0,10,10]", "building [0,0,10,5]", (1, 1, 1)),  # IoU 0.5
        ("building [0,0,10,10]", "building [0,0,10,4.9]", (0, 0, 0)),
        ("building [0,0,10,10]", "plane [0,0,10,10]", (0, 0, 0)),
        ("building [0,0,10,10]", "[0,0,10,10]", (1, 1, 1)),  # without label: by place alone
        ("building [0,0,10,10]", "Buildings: [0,0,10,10]", (1, 1, 1)),
        ("building [0,0,10,10]", "building 1: [0,0,10,10]", (1, 1, 1)),
        ("building 2 [0,0,10,10]", "building 1: [0,0,10,10]", (0, 0, 0)),
        ("plane [0,0,10,10]", "The plane is at [0,0,10,10]", (1, 1, 1)),
        ("plane [0,0,10,10]", "[0,0,10,10]: plane", (1, 1, 1)),
        ("plane [0,0,10,10]", "[0,0,10,10]: ship", (0, 0, 0)),
        ("plane [0,0,10,10]", '{"bbox": [0,0,10,10], "Class_Name": "Planes"}', (1, 1, 1)),
        ("[0,0,10,10]", "building [0,0,10,10]", (1, 1, 1)),  # none is
        ("[0,0,10,10]", "[0,0,10,10]", (1, 1, 1)),
        ("a [0,0,10,10]; a [10,0,20,10]", "a [0,0,20,10]", (1, 0.5, 2 / 3)),  # one over two
        ("a [0,0,10,10]; b [0,0,10,10]", "b [0,0,10,10]; a [0,0,10,10]", (1, 1, 1)),
        ("a [0,0,10,10]; a [0,0,10,10]", "a [0,0,10,10]; a [0,0,10,10]", (1, 1, 1)),  # written twice, given twice
        ("a [5,5,5,9]", "a [5,5,5,9]", (1, 1, 1)),  # rounded to no area
        ("a [5,5,5,9]", "a [5,5,5,8]", (0, 0, 0)),
        ("a [0.1,0.1,0.5,0.5]", "a [100,100,500,500]", (1, 1, 1)),
        ("a [0,0,10,10]", "a [0,0,1e300,1e300]; a [-1e308,-1e308,1e308,1e308]", (0, 0, 0)),
        ("a [0,0,1e300,1e300]", "a [0,0,1e300,1e300]", (1, 1, 1)),
        ("a [0,0,10,10]", "None", (0, 0, 0)),
        ("None", "None", (None, None, None)),
        ("[]", "There are no buildings.", (None, None, None)),
        ("None", "a [0,0,10,10]", (0, None, 0)),
        ("No buildings or planes", "a [0,0,10,10]", (0, None, 0)),
    ],
)
def test_precision_recall_f1(expected: str, output: str, scores: tuple) -> None:
    assert _scores(expected, output) == pytest.approx(scores)


def test_boxes_are_matched_in_the_order_of_the_answer() -> None:
    """A box over both objects (IoU 0.54 and 0.82) takes the better one; the other box fits only that (0.82)."""
    expected, both, other = "a [0,0,10,10]; a [4,0,14,10]", "a [3,0,13,10]", "a [5,0,15,10]"
    assert _scores(expected, f"{other}; {both}") == (1, 1, 1)
    assert _scores(expected, f"{both}; {other}") == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("building [0,0,10,10]", 1.0),
        ("building [0,0,10,10]; building [50,50,60,60]", 1.0),
        ("building [50,50,60,60]; building [0,0,10,10]", 0.0),  # the first box counts
        ("plane [0,0,10,10]", 0.0),
        ("building [0,0,10", 0.0),
        ("", 0.0),
    ],
)
def test_accuracy_of_one_box_questions(output: str, value: float) -> None:
    several = _entry("a [0,0,10,10]; a [20,0,30,10]", "nonsense")
    values = _values(_entry("building [0,0,10,10]", output, prompt="Where is the building?"), several)
    assert values["box_accuracy"] == value


@pytest.mark.parametrize(
    ("output", "unparsed"),
    [("a [0,0,10,10]", 0), ("a [10,0,0,10]", 1), ("Many buildings", 1), ("none", 0), ("[]", 0), ("```json\n[]\n```", 0),
     ("There are no planes", 0), ("", 0), ("a [0,0,10,10]; b [1,2", 1)],
)  # fmt: skip
def test_unparsed_answers(output: str, unparsed: int) -> None:
    values = _values(_entry("a [0,0,10,10]", output), _entry("None", "None"))
    assert values["boxes_unparsed"] == unparsed / 2 and values["boxes_expected_unparsed"] == 0.0


def test_the_truth_scores_one() -> None:
    answers = ["building [0, 0, 10, 10]; plane [20, 20, 20, 30]", "None", '[{"bbox_2d": [1,2,3,4], "label": "x"}]']
    values = _values(*(_entry(answer, answer) for answer in answers))
    assert list(values) == list(DEFINITIONS)
    assert values == dict.fromkeys(DEFINITIONS, 1.0) | {"boxes_unparsed": 0.0, "boxes_expected_unparsed": 0.0}


def test_metadata() -> None:
    """Boxes of the metadata are expected where the text has none, but not where it says that there are none."""
    metadata = {"objects": [{"label": "plane", "bbox": [0, 0, 10, 10]}], "size": [512, 512]}
    assert _entry("See the objects.", "plane [0,0,10,10]", metadata)["boxes"]["matched"] == 1
    assert _entry("None", "plane [0,0,10,10]", metadata)["boxes"]["expected"] == 0
    assert _entry("plane [0,0,5,5]", "plane [0,0,5,5]", metadata)["boxes"]["matched"] == 1
    assert _entry("plane [5,0,0,5]", "plane [0,0,10,10]", metadata)["boxes"]["matched"] == 1
    assert measure("Describe the image", "A plane.", "A plane.", metadata) is None


def test_labels_of_the_metadata() -> None:
    metadata = {"bboxes": [[100, 100, 300, 300]], "labels": ["plane"]}
    assert _entry("See there.", "plane [100,100,300,300]", metadata)["boxes"]["matched"] == 1
    assert _entry("See there.", "ship [100,100,300,300]", metadata)["boxes"]["matched"] == 0


@pytest.mark.parametrize(
    ("prompt", "expected", "task", "asks"),
    [
        ("Detect all planes", "Here they are.", "object_detection", True),
        ("Where are the planes?", "Here they are.", "visual_grounding", True),
        ("Where are the planes?", "Here they are.", "", True),
        ("Where are the planes?", "In the north", "visual_question_answering", False),
        ("Detect all objects", "3 buildings and 2 roads", "object_detection", False),
        ("How many boxes are there?", "3", "object_detection", False),
        ("Are there planes?", "Yes", "object_detection", False),
        ("Detect all planes", "No planes", "object_detection", False),
        ("List the boxes", "3 buildings", "", True),
    ],
)
def test_questions_with_boxes_in_the_metadata(prompt: str, expected: str, task: str, asks: bool) -> None:
    metadata = {"objects": [{"label": "plane", "bbox": [0, 0, 10, 10]}]}
    assert asks_for_boxes(prompt, expected, metadata, task) is asks
    measured = measure(prompt, expected, "plane [0,0,10,10]", metadata, task=task)
    assert (measured is not None and measured["matched"] == 1) is asks
    assert not asks_for_boxes(prompt, expected, {}, task)


def test_boxes_without_labels_are_counted() -> None:
    values = _values(_entry("a [0,0,9,9]", "[0,0,9,9]; b [0,0,9,9]; c [0,0,9,9]"), _entry("[0,0,9,9]", "[0,0,9,9]"))
    assert values["boxes_labelled"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("part", [" ", ",", "1", "[", "]", "[ ", "`", "{", "}", "json"])
def test_long_nonsense_is_quick(part: str) -> None:
    with quick(1):
        measure("Give the boxes", "a [1,2,3,4]", part * (100_000 // len(part)) + "x")


def test_expected_boxes_that_cannot_be_read() -> None:
    broken = _entry("a [10,0,0,10]", "a [0,0,10,10]")
    assert broken["boxes"]["expected_unparsed"] == 1
    values = _values(broken, _entry("a [0,0,10,10]", "a [0,0,10,10]"))
    assert values["boxes_expected_unparsed"] == 0.5 and values["box_precision"] == values["box_recall"] == 1.0


@pytest.mark.parametrize(
    ("prompt", "expected", "asks"),
    [
        (PROMPT, "building [1, 2, 3, 4]", True),
        ("Find the planes", "plane [1, 2, 3, 4]", True),
        (PROMPT, "None", True),
        ("Give bounding boxes", "[]", True),
        ("Return bbox_2d of ships", "No ships", True),
        ("Return the bbox of ships", "No ships", True),
        ("What objects are visible?", "No objects", False),
        ("How many boxes are there?", "3", False),
        ("Are there boxes on the ground?", "No", False),
        ("Describe the image", "In [2018] a flood", False),
        ("Which years are shown?", "[2018, 2019, 2020, 2021]", False),
        ("Which years are shown?", "years [2018, 2019, 2020, 2021]", False),
        ("Which bands are used?", "[1, 2, 3, 4]", False),
        ("Where is the plane?", "[1, 2, 3, 4]", True),
        ("Where is the plane?", "[1, 2, 3, 4000]", False),
    ],
)
def test_questions_about_boxes(prompt: str, expected: str, asks: bool) -> None:
    assert asks_for_boxes(prompt, expected) is asks
    assert (measure(prompt, expected, "anything") is not None) is asks


def test_entries_without_boxes_count_nothing() -> None:
    others = [{"error": None}, {"error": None, "boxes": None}, {**_entry("a [0,0,9,9]", "x"), "error": "x"}]
    assert statistics(others) == {} and statistics([]) == {}
    assert _values(*others, _entry("a [0,0,9,9]", "a [0,0,9,9]"))["box_f1"] == 1.0
