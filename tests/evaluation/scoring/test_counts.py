"""Scores of counts, computed by hand."""

import json

import pytest

from satlisa.evaluation.scoring.bootstrap import value_of
from satlisa.evaluation.scoring.counts import DEFINITIONS, asks_for_counts, measure, states_counts, statistics


def _entry(expected: str, output: str) -> dict:
    return {"error": None, "counts": json.loads(json.dumps(measure(expected, output)))}


def _values(*entries: dict) -> dict[str, float | None]:
    return {key: value_of(statistic, len(entries)) for key, statistic in statistics(entries).items()}


@pytest.mark.parametrize(
    ("expected", "output", "values"),
    [
        ("3 buildings and 2 roads", "Two roads, three buildings", (1, 1, 0, 0)),
        ("3 buildings and 2 roads", "3 buildings", (0, 0.5, 1, 0)),  # a missing label counts 0
        ("3 buildings", "3 buildings and 4 planes", (0, 0.5, 2, 0)),
        ("2 buildings", "2 flooded buildings", (0, 0, 2, 0)),
        ("2 buildings", "many", (0, 0, 2, 1)),
        ("2 buildings", "", (0, 0, 2, 0)),
        ("2 buildings", "None", (0, 0, 2, 0)),
        ("No objects", "no objects", (1, None, None, 0)),
        ("No objects", "0 planes", (1, None, None, 0)),
        ("No objects", "a plane", (0, 0, 1, 0)),
        ("1 ship", "999999999 ships", (0, 0, 999999998, 0)),
    ],
)
def test_scores(expected: str, output: str, values: tuple) -> None:
    assert tuple(_values(_entry(expected, output)).values()) == pytest.approx(values)


def test_samples_together() -> None:
    values = _values(_entry("3 buildings and 2 roads", "3 buildings and 4 roads"), _entry("1 ship", "1 ship"))
    assert list(values) == list(DEFINITIONS)
    assert values["object_count_exact"] == 0.5
    assert values["label_count_exact"] == pytest.approx(2 / 3) and values["label_count_mae"] == pytest.approx(2 / 3)


def test_the_truth_scores_one() -> None:
    answers = ["3 buildings, 1 plane and 2 roads", "No objects", "1 building", "I found 2 buildings."]
    values = _values(*(_entry(answer, answer) for answer in answers))
    assert values == {"object_count_exact": 1, "label_count_exact": 1, "label_count_mae": 0, "counts_unparsed": 0}


def test_entries_without_counts_count_nothing() -> None:
    assert measure("Forest", "3 buildings") is None
    others = [{"error": None}, {"error": None, "counts": None}, {**_entry("1 ship", "2 ships"), "error": "x"}]
    assert statistics(others) == {} and statistics([]) == {}
    assert _values(*others, _entry("1 ship", "1 ship"))["object_count_exact"] == 1.0


@pytest.mark.parametrize(
    ("expected", "output", "prompt", "wanted", "given"),
    [
        ("3", "Three.", "How many buildings are there?", {"building": 3}, {"building": 3}),
        ("3", "There are 3 buildings.", "How many buildings are there?", {"building": 3}, {"building": 3}),
        ("3", "3 large buildings", "How many buildings are there?", {"building": 3}, {"building": 3}),
        ("3", "3 buildings", "How many flooded buildings are there?", {"flooded building": 3}, {"flooded building": 3}),
        ("3", "3 planes", "How many buildings are there?", {"building": 3}, {"plane": 3}),
        ("3", "4", "How many are there?", {"object": 3}, {"object": 4}),
        ("3", "three planes", "How many are there?", {"object": 3}, {"object": 3}),
        ("0", "There are no buildings", "How many buildings are there?", {}, {}),
        ("None", "2", "How many buildings are there?", {}, {"building": 2}),
        ("3 buildings", "3", "", {"building": 3}, {"building": 3}),
        ("3 buildings and 2 roads", "3", "", {"building": 3, "road": 2}, None),
        ("3 buildings", "3-4 buildings", "", {"building": 3}, None),
    ],
)
def test_bare_numbers(expected: str, output: str, prompt: str, wanted: dict, given: dict | None) -> None:
    measured = measure(expected, output, prompt)
    assert measured == {"expected": wanted, "given": given or {}, "unparsed": given is None}


def test_questions_about_counts() -> None:
    assert asks_for_counts("object_detection", "What objects are visible?")
    assert asks_for_counts("visual_question_answering", "How many planes are there?")
    assert not asks_for_counts("image_captioning", "Describe this satellite image")
    assert asks_for_counts("visual_question_answering", "What objects are visible?", "3 buildings and 2 roads")
    assert not asks_for_counts("visual_question_answering", "What land cover is shown?", "A forest")
    assert not asks_for_counts("image_captioning", "Describe it", "A dense forest; 1 building can be seen.")


def test_answers_that_state_counts() -> None:
    assert states_counts("How many planes are there?", "3") and states_counts("", "3 planes")
    assert not states_counts("Which band?", "3") and not states_counts("How many?", "Here they are")
