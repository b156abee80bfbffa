"""The evaluation with made-up answers: whom it asks, what it counts, what it does with what goes wrong."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.evaluation.evaluate import choose, evaluate
from satlisa.evaluation.partial_report import PartialReport
from satlisa.evaluation.report import write_report
from satlisa.evaluation.windows import EvalSettings
from satlisa.inference.generation import Answer
from tests.helpers.made_up_answers import (
    BUILDINGS,
    FLOOD,
    INSTANCES,
    MODEL,
    NO_BUILDINGS,
    REPLIES,
    SCENE,
    Question,
    answering,
    columns,
    make_rows,
    reply,
    row,
)


def run(questions: Sequence[Question], replies: dict[str, Answer] = REPLIES, **settings: Any) -> dict[str, Any]:
    return evaluate(MODEL, make_rows(*questions), EvalSettings(**settings), answer_fn=answering(replies))


def test_scores_by_hand() -> None:
    results = run([FLOOD, INSTANCES, SCENE, BUILDINGS], samples_per_task=0)
    assert [entry["task"] for entry in results["samples"]] == sorted(results["tasks"]) == list(results["tasks"])
    building, flood, instances, scene = results["samples"]
    # truth is columns 0..19 of 40, the prediction 0..29
    assert (building["intersection"], building["union"], building["iou"]) == (
        20 * 20,
        20 * 30,
        pytest.approx(2 / 3),
    )
    # against all four instances of 4 columns, although the model may name three at most
    assert (instances["intersection"], instances["union"], instances["iou"]) == (20 * 8, 20 * 16, 0.5)
    assert (instances["segs"], instances["expected_segs"]) == (2, 3)
    assert instances["expected"] == "Four structures. <SEG> <SEG> <SEG>"
    assert (flood["correct"], flood["exact_match"], flood["iou"]) == (False, False, None)
    assert (scene["correct"], scene["exact_match"], scene["segs"]) == (True, True, 0)
    assert results["tasks"]["building_segmentation"]["ciou"] == pytest.approx(2 / 3)
    assert results["tasks"]["building_segmentation"]["seg_rate"] == 1.0
    assert results["tasks"]["instance_segmentation"]["count_error"] == 1.0
    assert results["tasks"]["scene_classification"]["accuracy"] == 1.0
    assert results["tasks"]["flood_assessment"]["accuracy"] == 0.0


def test_schema() -> None:
    results = run([FLOOD, BUILDINGS], model_dir="runs/a", dataset="demo", split="test", seg_tasks=("x",))
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert set(results) == {"settings", "tasks", "samples"}
    settings = results["settings"]
    assert {f.name for f in dataclasses.fields(EvalSettings)} < set(settings)
    assert (settings["model_dir"], settings["dataset"], settings["split"]) == ("runs/a", "demo", "test")
    assert settings["device"] == "cpu" and settings["seconds"] >= 0
    assert {"torch", "transformers", "python", "satlisa"} <= set(settings["versions"])
    for scores in results["tasks"].values():
        assert {
            "samples",
            "errors",
            "mean_iou",
            "giou",
            "ciou",
            "accuracy",
            "exact_match",
            "seg_rate",
        } <= set(scores)
    promised = {"index", "task", "source", "prompt", "expected", "output", "iou", "error"}
    assert all(promised < set(entry) for entry in results["samples"])
    assert results["samples"][1] == {
        "number": 1,
        "index": 0,
        "task": "flood_assessment",
        "source": "drawn",
        "prompt": "Is there flooding visible?",
        "expected": "Yes, 2 flooded buildings visible",
        "output": "No",
        "iou": None,
        "intersection": None,
        "union": None,
        "correct": False,
        "exact_match": False,
        "segs": 0,
        "expected_segs": 0,
        "images": {},
        "error": None,
    }


def test_a_mask_that_is_missing_scores_zero_and_one_that_should_be_none() -> None:
    silent = {BUILDINGS[1]: reply("I see none.")}
    assert [entry["iou"] for entry in run([BUILDINGS], silent)["samples"]] == [0.0]
    assert [entry["iou"] for entry in run([NO_BUILDINGS], silent)["samples"]] == [1.0]
    assert [entry["iou"] for entry in run([NO_BUILDINGS])["samples"]] == [0.0]


def test_seg_tasks_make_a_mask_task_of_any_name() -> None:
    footprints = ("footprints", *BUILDINGS[1:])
    assert run([footprints], seg_tasks=("Footprints",))["tasks"]["footprints"]["giou"] == pytest.approx(2 / 3)
    assert run([footprints])["tasks"]["footprints"]["giou"] is None


def test_a_stray_seg_is_counted_and_does_not_change_the_words() -> None:
    results = run([SCENE], {SCENE[1]: reply("Forest <SEG>", columns(0, 1))})
    assert results["tasks"]["scene_classification"]["accuracy"] == 1.0
    assert results["tasks"]["scene_classification"]["seg_rate"] == 1.0


def test_a_row_that_cannot_be_read_is_an_error_entry() -> None:
    rows = [row(*BUILDINGS), row(*BUILDINGS), row(*BUILDINGS)]
    rows[0]["metadata"] = "nan"
    rows[2]["image"] = {"bytes": b"no image", "path": None}
    results = evaluate(MODEL, datasets.Dataset.from_list(rows), EvalSettings(), answer_fn=answering(REPLIES))
    first, second, third = results["samples"]
    assert first["error"].startswith("row 0") and "metadata" in first["error"] and "nan" in first["error"]
    assert second["error"] is None and second["iou"] == pytest.approx(2 / 3)
    assert "row 2" in third["error"] and "image" in third["error"]
    assert (first["index"], first["output"], first["iou"], first["images"]) == (0, None, None, {})
    scores = results["tasks"]["building_segmentation"]
    assert (scores["samples"], scores["errors"], scores["giou"]) == (3, 2, pytest.approx(2 / 3))


def test_a_batch_that_fails_is_asked_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []
    unanswerable = ("scene_classification", "Surprise me", "Forest", None)
    rows = make_rows(SCENE, unanswerable, SCENE)
    results = evaluate(MODEL, rows, EvalSettings(batch_size=3), answer_fn=answering(REPLIES, sizes))
    assert sizes == [3, 1, 1, 1]
    assert [entry["correct"] for entry in results["samples"]] == [True, None, True]
    assert results["samples"][1]["error"] == "KeyError: 'Surprise me'"
    assert results["samples"][1]["expected"] == "Forest"
    assert results["tasks"]["scene_classification"]["errors"] == 1
    assert "one by one" in caplog.text


def test_batches_cross_tasks_and_keep_the_order() -> None:
    sizes: list[int] = []
    rows = make_rows(*[SCENE, FLOOD] * 5)
    settings = EvalSettings(samples_per_task=0, batch_size=4)
    results = evaluate(MODEL, rows, settings, answer_fn=answering(REPLIES, sizes))
    assert sizes == [4, 4, 2]
    assert [entry["index"] for entry in results["samples"]] == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]
    assert [entry["number"] for entry in results["samples"]] == list(range(10))


def test_choice_follows_the_seed_and_grows() -> None:
    tasks = ["b", "a", "c", "a", "b"] * 40
    few, more = set(choose(tasks, 3, seed=1)), set(choose(tasks, 10, seed=1))
    assert few < more and len(few) == 9 and len(more) == 30
    assert few == set(choose(tasks, 3, seed=1)) != set(choose(tasks, 3, seed=2))
    assert choose(tasks, 3, seed=1) == sorted(few, key=lambda pick: (pick[1], pick[0]))
    assert all(tasks[index] == task for index, task in more)
    assert len(choose(tasks, 0, seed=1)) == 200
    assert len(choose(["a", "a", "b"], 5, seed=0)) == 3


def test_same_seed_same_results() -> None:
    def comparable() -> Any:
        results = run([SCENE, FLOOD, BUILDINGS] * 6, samples_per_task=2, seed=5)
        return results["tasks"], results["samples"]

    assert comparable() == comparable()


def test_rows_without_columns_do_as_well() -> None:
    plain: Any = [row(*FLOOD), row(*SCENE)]  # as the demo's rows: a sequence of dicts
    results = evaluate(MODEL, plain, EvalSettings(), answer_fn=answering(REPLIES))
    assert [(entry["index"], entry["correct"]) for entry in results["samples"]] == [(0, False), (1, True)]


def test_pictures_up_to_the_limit(tmp_path: Path) -> None:
    settings = EvalSettings(samples_per_task=0, report_samples=2)
    rows = make_rows(*[SCENE, BUILDINGS] * 4)
    with PartialReport(tmp_path) as report:
        results = evaluate(MODEL, rows, settings, report, answering(REPLIES))
        write_report(results, report.folder)
    named = [path for entry in results["samples"] for path in entry["images"].values()]
    assert sorted(named) == sorted(f"images/{path.name}" for path in (tmp_path / "images").iterdir())
    assert [entry["number"] for entry in results["samples"] if entry["images"]] == [0, 1, 4, 5]
    with Image.open(tmp_path / "images/sample_001_pred_mask.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved) > 0, columns(0, 30))
    with Image.open(tmp_path / "images/sample_001_gt_mask.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved) > 0, columns(0, 20))


def test_a_split_without_rows() -> None:
    rows = make_rows(SCENE).select([])
    with pytest.raises(SatlisaError, match="holds no rows"):
        evaluate(MODEL, rows, EvalSettings(), answer_fn=answering(REPLIES))
