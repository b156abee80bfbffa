"""Matching against COCOeval without its shortcuts, and precision where nothing is given."""

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval, Params

from satlisa.evaluation.scoring.bootstrap import value_of
from satlisa.evaluation.scoring.matching import found_statistics, match

THRESHOLDS = tuple(Params("segm").iouThrs)


def _by_coco(ious: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Every prediction and object through COCOeval, with its own order of scores."""
    evaluator = COCOeval(iouType="segm")
    order = np.argsort(-scores, kind="mergesort")
    evaluator.ious = {(1, 1): ious[order]}
    evaluator._dts[1, 1] = [{"id": n + 1, "score": scores[n], "area": 1} for n in range(len(ious))]
    evaluator._gts[1, 1] = [{"id": n + 1, "ignore": 0, "iscrowd": 0, "area": 1} for n in range(ious.shape[1])]
    found = evaluator.evaluateImg(1, 1, [0, 1e10], 100)
    matches = np.zeros((len(THRESHOLDS), len(ious)), dtype=int)
    matches[:, [place - 1 for place in found["dtIds"]]] = found["dtMatches"]
    return matches - 1


def test_equals_coco_on_any_table_of_ious() -> None:
    rng = np.random.default_rng(0)
    contested = 0
    for _ in range(300):
        predictions, objects = rng.integers(1, 9, size=2)
        ious = rng.choice([0.0, 0.3, 0.5, 0.55, 0.6, 0.75, 0.95, 1.0], size=(predictions, objects))
        ious[rng.random(ious.shape) < rng.random()] = 0.0
        scores = rng.integers(0, 4, predictions) / 4
        assert np.array_equal(match(ious, scores, THRESHOLDS), _by_coco(ious, scores))
        contested += ((ious >= 0.5).sum(axis=1) > 1).any()
    assert contested > 50


def test_an_object_is_matched_once_by_the_highest_score() -> None:
    ious = np.array([[0.9], [0.6]])
    assert match(ious, np.array([0.1, 0.8]), (0.5,)).tolist() == [[-1, 0]]
    assert match(ious, np.array([0.5, 0.5]), (0.5, 0.7)).tolist() == [[0, -1], [0, -1]]  # equal scores keep their order
    assert match(ious, np.array([-np.inf, 0.8]), (0.5,)).tolist() == [[-1, 0]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_match(shape: tuple[int, int]) -> None:
    assert match(np.zeros(shape), np.zeros(shape[0]), (0.5, 0.7)).tolist() == [[-1] * shape[0]] * 2


@pytest.mark.parametrize(
    ("matched", "given", "expected", "values"),
    [
        ([1, 0], [2, 1], [2, 0], [1 / 3, 0.5, 0.4]),
        ([0], [0], [2], [0.0, 0.0, 0.0]),
        ([0], [2], [0], [0.0, None, 0.0]),
        ([0], [0], [0], [None, None, None]),
    ],
)
def test_precision_recall_f1(matched, given, expected, values) -> None:
    statistics = found_statistics("x", matched, given, expected)
    assert list(statistics) == ["x_precision", "x_recall", "x_f1"]
    assert [value_of(statistic, len(given)) for statistic in statistics.values()] == pytest.approx(values)
