"""Scores against hand-computed values and pycocotools."""

import math
from typing import Any

import numpy as np
import pytest

from satlisa.evaluation.metrics import exact_match, intersection_union, iou, is_correct, normalise, summarise

coco = pytest.importorskip("pycocotools.mask")


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((10, 12), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def entry(**known: Any) -> dict[str, Any]:
    keys = ("iou", "intersection", "union", "correct", "exact_match", "error")
    return {**dict.fromkeys(keys), "segs": 0, "expected_segs": 0, **known}


def test_intersection_union_by_hand() -> None:
    # 4×6 and 4×6 that share 2×3
    assert intersection_union(rectangle(0, 0, 4, 6), rectangle(2, 3, 6, 9)) == (6, 42)
    assert intersection_union(rectangle(0, 0, 4, 6), rectangle(0, 0, 4, 6)) == (24, 24)
    assert intersection_union(rectangle(0, 0, 0, 0), rectangle(0, 0, 4, 6)) == (0, 24)


def test_iou_of_empty_masks() -> None:
    nothing = rectangle(0, 0, 0, 0)
    assert iou(*intersection_union(nothing, nothing)) == 1.0
    assert iou(*intersection_union(nothing, rectangle(0, 0, 1, 1))) == 0.0
    assert iou(*intersection_union(rectangle(0, 0, 1, 1), nothing)) == 0.0


def test_iou_agrees_with_pycocotools() -> None:
    random = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.7, 0.98):
        for _ in range(10):
            a, b = (random.random((37, 53)) < share for _ in range(2))
            encoded = [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in (a, b)]
            assert iou(*intersection_union(a, b)) == pytest.approx(coco.iou(encoded[:1], encoded[1:], [0])[0, 0])


@pytest.mark.parametrize("other", [np.zeros((10, 1), dtype=bool), np.zeros((10, 12), dtype=np.uint8)])
def test_masks_that_numpy_would_broadcast_or_mix_are_refused(other: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(10, 12\)"):
        intersection_union(other, rectangle(0, 0, 1, 1))


def test_normalise() -> None:
    assert normalise("  Dense_Residential,\tarea! ") == "dense residential area"
    assert normalise("It's") == normalise("its.") == normalise("IT’S")
    assert normalise("Straße") == "strasse"
    assert normalise("...") == ""
    assert normalise("3.5") != normalise("35")


FLOOD = "Is there flooding visible?"
OBJECTS = "What objects are visible?"


@pytest.mark.parametrize(
    ("task", "prompt", "expected", "output", "correct"),
    [
        # yes/no: the first word decides, in any task
        ("flood_assessment", FLOOD, "Yes, 2 flooded buildings visible", "yes", True),
        ("flood_assessment", FLOOD, "yes", "Yes, 2 flooded buildings visible", True),
        (
            "flood_assessment",
            FLOOD,
            "Yes, 2 flooded buildings visible",
            "Yes, 3 flooded buildings visible",
            True,
        ),
        ("flood_assessment", FLOOD, "No", "NO.", True),
        ("flood_assessment", FLOOD, "No", "No flooding is visible", True),
        ("flood_assessment", FLOOD, "No flooding visible", "Yes", False),
        ("flood_assessment", FLOOD, "No", "Not really", False),
        ("flood_assessment", FLOOD, "No", "Nothing", False),
        ("flood_assessment", FLOOD, "Yes", "", False),
        ("visual_question_answering", "Look at the image. Are there any roads?", "No roads", "yes", False),
        ("visual_question_answering", "In this image, is there water", "Yes", " yes!", True),
        ("visual_question_answering", "Tell me about water", "Yes, a lake", "No", False),
        # neither yes/no nor a class: not judged
        ("object_detection", OBJECTS, "No buildings are visible", "3 buildings", None),
        ("visual_question_answering", "What type of land cover is shown?", "Farmland", "Farmland", None),
        ("visual_question_answering", "Is it rural or urban?", "rural", "rural", None),
        ("flood_assessment", "What is flooded?", "Notable parts", "notable parts", None),
        ("image_captioning", "Describe this satellite image", "Many trees", "Many trees", None),
        # classes: all words
        ("scene_classification", "Classify", "Industrial Buildings", "industrial buildings.", True),
        ("scene_classification", "Classify", "dense_residential", "Dense residential", True),
        ("scene_classification", "Classify", "Forest", "Forest area", False),
        ("scene_classification", "Classify", "River", "", False),
    ],
)
def test_is_correct(task: str, prompt: str, expected: str, output: str, correct: bool | None) -> None:
    assert is_correct(task, prompt, expected, output) is correct


def test_exact_match() -> None:
    assert exact_match("3 buildings and 2 roads", "3 Buildings, and 2 roads.")
    assert not exact_match("3 buildings and 2 roads", "2 buildings and 3 roads")


def test_summary_adds_sums_and_counts() -> None:
    entries = [
        entry(iou=1.0, intersection=2, union=2, segs=1, expected_segs=1),
        entry(iou=0.25, intersection=25, union=100, segs=3, expected_segs=1),
        entry(iou=1.0, intersection=0, union=0),  # nothing there, nothing drawn
        entry(error="row 3: broken"),
    ]
    scores = summarise(entries)
    assert (scores["samples"], scores["errors"], scores["masks"]) == (4, 1, 3)
    assert scores["giou"] == scores["mean_iou"] == pytest.approx((1 + 0.25 + 1) / 3)
    assert scores["ciou"] == pytest.approx(27 / 102)
    assert scores["seg_rate"] == pytest.approx(2 / 3)
    assert scores["count_error"] == pytest.approx(2 / 3)
    assert scores["accuracy"] is None and scores["exact_match"] is None


def test_summary_of_text_counts_only_what_is_judged() -> None:
    entries = [
        entry(correct=True, exact_match=False),
        entry(correct=False, exact_match=False),
        entry(correct=True, exact_match=True, segs=1),
        entry(exact_match=True),
    ]
    scores = summarise(entries)
    assert (scores["judged"], scores["accuracy"]) == (3, pytest.approx(2 / 3))
    assert scores["exact_match"] == 0.5
    assert scores["seg_rate"] == 0.25
    assert scores["mean_iou"] is scores["ciou"] is scores["count_error"] is None


def test_summary_of_empty_masks_and_of_nothing() -> None:
    assert summarise([entry(iou=1.0, intersection=0, union=0)])["ciou"] == 1.0
    scores = summarise([entry(error="unreadable")])
    assert (scores["samples"], scores["errors"]) == (1, 1)
    assert all(value is None for key, value in scores.items() if key not in ("samples", "errors", "masks", "judged"))
    assert not any(isinstance(value, float) and math.isnan(value) for value in summarise([]).values())
