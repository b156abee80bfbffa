"""Predictions matched to objects, one image at a time, by the matcher of COCO's evaluation (`pycocotools`).

Predictions are taken by falling score; each takes the free object with which its IoU is highest, if that reaches the
threshold. An object is matched once, so that its duplicates are false positives (Lin et al. 2014, arXiv:1405.0312).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from satlisa.evaluation.scoring.bootstrap import Statistic, ratio_of

_IMAGE = (1, 1)  # image and category, by which COCOeval keeps what it matches


def match(ious: np.ndarray, scores: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Match P predictions to T objects at each threshold.

    Args:
        ious: (P, T) float.
        scores: (P,) float; equal scores keep their order.
        thresholds: lowest IoU of a match.

    Returns:
        (len(thresholds), P) int64, the object that each prediction matches; -1: none.
    """
    near: np.ndarray = ious >= min(thresholds)
    alone = near & (near.sum(axis=1, keepdims=True) == 1) & (near.sum(axis=0, keepdims=True) == 1)
    matches = np.full((len(thresholds), len(ious)), -1, dtype=np.int64)
    for place, truth in zip(*np.nonzero(alone), strict=True):  # pairs that nothing else competes for
        matches[ious[place, truth] >= np.array(thresholds), place] = truth
    near &= ~alone
    order = np.argsort(-scores, kind="stable")
    rows = order[np.take(near.any(axis=1), order)]
    columns = np.flatnonzero(near.any(axis=0))
    if len(rows):
        found = _match_contested(ious[np.ix_(rows, columns)], thresholds)
        matches[:, rows] = np.where(found >= 0, columns[found], -1)
    return matches


def _match_contested(ious: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """`match` by COCOeval, with the predictions by falling score. Ranks stand for scores, which may be infinite."""
    matcher = COCOeval(iouType="segm")
    matcher.params.iouThrs = list(thresholds)
    matcher.ious = {_IMAGE: ious}
    matcher._dts[_IMAGE] = [{"id": rank + 1, "score": -rank, "area": 1} for rank in range(len(ious))]
    matcher._gts[_IMAGE] = [{"id": place + 1, "ignore": 0, "iscrowd": 0, "area": 1} for place in range(ious.shape[1])]
    found = matcher.evaluateImg(*_IMAGE, [0, np.inf], len(ious))["dtMatches"]
    return np.asarray(found, dtype=np.int64) - 1


def found_statistics(prefix: str, matched: Any, given: Any, expected: Any) -> dict[str, Statistic]:
    """Precision, recall and F1 of all samples together, from (N,) numbers of matches, predictions and objects.

    Precision is 0 where objects are expected and nothing is given; recall has no value where nothing is expected, and
    neither have all three where nothing is given either.
    """
    matched, given, expected = (np.asarray(numbers, dtype=np.float64) for numbers in (matched, given, expected))
    return {
        f"{prefix}_precision": _precision(matched, given, expected),
        f"{prefix}_recall": ratio_of(matched, expected),
        f"{prefix}_f1": ratio_of(matched, given + expected, scale=2.0),
    }


def _precision(matched: np.ndarray, given: np.ndarray, expected: np.ndarray) -> Statistic:
    columns = np.stack([matched, given, expected], axis=1)  # (N, 3)

    def statistic(counts: np.ndarray) -> np.ndarray:
        found, answered, asked = (counts @ columns).T
        values: np.ndarray = np.where(asked > 0, 0.0, np.nan)
        np.divide(found, answered, out=values, where=answered > 0)
        return values

    return statistic
