"""Scores of one mask per sample: precision at IoU thresholds, gIoU, cIoU, and what comes where nothing is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satlisa.evaluation.scoring.bootstrap import Statistic, mean_of

_THRESHOLDS = (50, 60, 70, 80, 90)  # percent

DEFINITIONS = {
    "giou": "mean IoU of the samples, called mIoU in papers on referring expressions; 1.0 where prediction and truth "
    "are both empty (LISA, arXiv:2308.00692)",
    "ciou": "sum of intersections / sum of unions, called oIoU in papers on referring expressions; 1.0 where every "
    "union is empty (LISA, arXiv:2308.00692)",
    **{
        f"precision_{percent}": f"share of the samples with objects whose IoU is at least 0.{percent // 10}; samples "
        "without objects are left out (gRefCOCO, Liu et al. 2023, arXiv:2306.00968)"
        for percent in _THRESHOLDS
    },
    "n_acc": "share of the samples without objects for which no mask comes: the union of the answer's masks has no "
    "pixel (gRefCOCO, Liu et al. 2023, arXiv:2306.00968; its 50 pixels are not allowed here)",
    "t_acc": "share of the samples with objects for which a mask comes: the union has a pixel (as n_acc)",
}


def measure(prediction_pixels: int, truth_pixels: int) -> dict[str, Any]:
    """What is kept of a sample beside its IoU: the pixels of prediction and truth, each the union of all masks.

    Raises:
        ValueError: a negative number.
    """
    if min(prediction_pixels, truth_pixels) < 0:
        raise ValueError(f"expected numbers of pixels, found {prediction_pixels} and {truth_pixels}")
    return {"prediction_pixels": int(prediction_pixels), "truth_pixels": int(truth_pixels)}


def statistics(entries: Sequence[Mapping[str, Any]]) -> dict[str, Statistic]:
    """Scores by the keys of `DEFINITIONS`. gIoU and cIoU are of all samples with an IoU, the others of those with
    `referring`; empty where no sample has either."""
    answered = [entry["error"] is None and entry.get("iou") is not None for entry in entries]
    ious = [entry["iou"] if ok else None for entry, ok in zip(entries, answered, strict=True)]
    found: dict[str, Statistic] = {}
    if any(answered):
        found = {"giou": mean_of(ious), "ciou": _overall(entries, answered)}
    kept = [entry.get("referring") if ok else None for entry, ok in zip(entries, answered, strict=True)]
    if not any(kept):
        return found
    comes = np.array([bool(one and one["prediction_pixels"]) for one in kept])
    is_there = np.array([bool(one and one["truth_pixels"]) for one in kept])
    is_absent = np.array([bool(one and not one["truth_pixels"]) for one in kept])
    numbers = np.array([-1.0 if iou is None else iou for iou in ious])
    for percent in _THRESHOLDS:
        found[f"precision_{percent}"] = mean_of(_among(is_there, numbers >= percent / 100))
    return found | {"n_acc": mean_of(_among(is_absent, ~comes)), "t_acc": mean_of(_among(is_there, comes))}


def _overall(entries: Sequence[Mapping[str, Any]], answered: Sequence[bool]) -> Statistic:
    rows = [
        [entry["intersection"], entry["union"], 1] if ok else [0, 0, 0]
        for entry, ok in zip(entries, answered, strict=True)
    ]
    columns = np.array(rows, dtype=np.float64)  # (N, 3)

    def statistic(counts: np.ndarray) -> np.ndarray:
        shared, covered, samples = (counts @ columns).T
        values: np.ndarray = np.where(samples > 0, 1.0, np.nan)
        np.divide(shared, covered, out=values, where=covered > 0)
        return values

    return statistic


def _among(chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values of the chosen samples, NaN for the others."""
    return np.where(chosen, values.astype(np.float64), np.nan)
