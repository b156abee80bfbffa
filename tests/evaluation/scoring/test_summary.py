"""All scores of a task: who answers with the truth has 1.0 everywhere, who always says the same has the baseline."""

import json
from typing import Any

import numpy as np
import pytest

from satlisa.data.rows import read_sample
from satlisa.data.synthetic.rows import demo_rows
from satlisa.evaluation.entry import Pick, score
from satlisa.evaluation.scoring.summary import DEFINITIONS, scores_of, statistics_of
from satlisa.geometry.raster import rasterize
from satlisa.inference.generation import Answer
from tests.helpers.made_up_answers import MODEL

WORST = {"count_error": 0, "instance_count_mae": 0, "label_count_mae": 0, "overlapping_pairs": 0}
WORST |= {"boxes_unparsed": 0, "boxes_expected_unparsed": 0, "counts_unparsed": 0, "cider_d": 10.0}
COUNTS = {"samples", "errors", "masks", "judged"}


@pytest.fixture(scope="module")
def tasks() -> dict[str, list[dict[str, Any]]]:
    """Entries of the true answers about scenes, by task."""
    found: dict[str, list[dict[str, Any]]] = {}
    rows = demo_rows("test", 24)
    for index in range(len(rows)):
        sample = read_sample(rows[index], index, max_instances=99)
        size = sample.image.size[::-1]
        masks = [rasterize(region, *size) for region in sample.regions]
        answer = Answer(
            sample.answer, np.stack(masks) if masks else np.zeros((0, *size), dtype=bool), np.ones(len(masks)), []
        )
        entry, _ = score(Pick(index, index, sample.task, False), sample, answer, MODEL.config, ())
        found.setdefault(sample.task, []).append(entry)
    return found


def test_the_truth_scores_one_everywhere(tasks: dict[str, list[dict[str, Any]]]) -> None:
    seen = set()
    for task, entries in tasks.items():
        found = scores_of(entries)
        for key in DEFINITIONS.keys() & found.keys():
            expected = WORST.get(key, 1.0)
            if key == "seg_rate":
                expected = float("segmentation" in task)
            if key.startswith("constant"):
                assert 0 < found[key] <= 1
            elif found[key] is not None:
                seen.add(key)
                assert found[key] == pytest.approx(expected), (task, key)
                assert found["intervals"][key] == pytest.approx([expected] * 2), (task, key)
    assert {"ap", "pq", "box_f1", "object_count_exact", "bleu_4", "giou", "macro_accuracy", "precision_90"} <= seen


def test_the_same_answer_to_everything_scores_the_printed_baseline(tasks: dict[str, list[dict[str, Any]]]) -> None:
    entries = tasks["scene_classification"]
    best = max({e["expected"] for e in entries}, key=[e["expected"] for e in entries].count)
    same = [
        e | {"output": best, "correct": e["expected"] == best, "exact_match": e["expected"] == best} for e in entries
    ]
    found = scores_of(same)
    assert found["accuracy"] == found["constant_accuracy"] < 1
    assert found["macro_accuracy"] == pytest.approx(1 / len({e["expected"] for e in entries}))


def test_values_of_statistics_are_those_of_before(tasks: dict[str, list[dict[str, Any]]]) -> None:
    """The keys that results.json had keep their values, and each has an interval around its value."""
    entries = [dict(entry) for entry in tasks["building_segmentation"]]
    for number, entry in enumerate(entries):
        entry["intersection"] //= 1 + number % 3
        entry["iou"] = entry["intersection"] / entry["union"]
    found = scores_of(entries)
    assert found["giou"] == found["mean_iou"] == pytest.approx(np.mean([entry["iou"] for entry in entries]))
    for key in ("giou", "ciou"):
        low, high = found["intervals"][key]
        assert low < found[key] < high


def test_sources_have_their_own_scores_and_a_failed_sample_none(tasks: dict[str, list[dict[str, Any]]]) -> None:
    entries = [e | {"source": "ab"[n % 2]} for n, e in enumerate(tasks["scene_classification"])]
    wrong = [e | ({"correct": False} if e["source"] == "b" else {}) for e in entries]
    wrong[0] |= {"error": "unreadable", "correct": None, "exact_match": None, "output": None}
    found = scores_of(wrong)
    assert found["sources"]["a"]["accuracy"] == 1.0 and found["sources"]["b"]["accuracy"] == 0.0
    assert (found["sources"]["a"]["errors"], found["sources"]["b"]["errors"]) == (1, 0)
    assert found["sources"]["a"]["intervals"]["accuracy"] == [1.0, 1.0]
    (alone,) = scores_of(tasks["scene_classification"])["sources"].values()
    assert alone["accuracy"] == 1.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_task_with_several_objects_in_some_rows_is_scored_by_objects_in_all() -> None:
    """False positives of rows with one object or none count too, whatever the task is called."""

    def entry(truths: int, given: int) -> dict[str, Any]:
        pairs = [[n, n, 10] for n in range(min(truths, given))]
        areas = {"areas": [10] * given, "truth_areas": [10] * truths, "overlaps": pairs, "scores": [1.0] * given}
        kinds = {
            "instances": areas | {"pairs": 0, "overlapping_pairs": 0},
            "referring": {"prediction_pixels": 10 * given, "truth_pixels": 10 * truths},
        }
        known = {
            "task": "reason_seg",
            "source": "",
            "prompt": "p",
            "expected": "a",
            "output": "a",
            "iou": 1.0,
            "segs": given,
        }
        more = {
            "intersection": 1,
            "union": 1,
            "correct": None,
            "exact_match": None,
            "error": None,
            "expected_segs": truths,
        }
        return kinds | known | more

    found = scores_of([entry(2, 2), entry(1, 8), entry(0, 8)])
    assert found["instance_precision"] == pytest.approx(3 / 18) and found["instance_recall"] == 1.0
    assert found["instance_count_exact"] == pytest.approx(1 / 3) and "precision_50" not in found
    found = scores_of([entry(1, 1), entry(0, 1)])
    assert found["precision_50"] == 1.0 and found["n_acc"] == 0.0 and "ap" not in found


def test_every_score_is_defined_in_a_line(tasks: dict[str, list[dict[str, Any]]]) -> None:
    for entries in tasks.values():
        assert statistics_of(entries).keys() <= DEFINITIONS.keys()
        assert scores_of(entries).keys() - COUNTS - {
            "mean_iou",
            "count_error",
            "intervals",
            "sources",
            "confusion",
        } <= (DEFINITIONS.keys())
    assert all(text and "\n" not in text for text in DEFINITIONS.values())


def test_nothing_answered() -> None:
    blank = {"task": "t", "source": None, "prompt": None, "expected": None, "output": None, "iou": None, "segs": 0}
    blank |= {
        "intersection": None,
        "union": None,
        "correct": None,
        "exact_match": None,
        "error": "x",
        "expected_segs": 0,
    }
    found = scores_of([blank])
    assert found["errors"] == 1 and found["intervals"] == {"seg_rate": None}
