"""Average precision as COCO's evaluation computes it, for samples that are drawn any number of times.

Precision at 101 recalls, 0 to 1, interpolated as the highest at that recall or above, and averaged; then averaged over
IoU thresholds (Lin et al. 2014, arXiv:1405.0312; `COCOeval.accumulate`). A sample that is drawn twice counts as two
samples. Along a run of true positives with no false positive between, precision only rises, for any counts: the highest
precision from a recall on is reached at the end of a run, and no other prediction is looked at.
"""

from collections.abc import Mapping

import numpy as np

from satlisa.evaluation.scoring.bootstrap import Statistic

RECALLS = np.linspace(0.0, 1.0, 101)
_CELLS = 2**19  # draws × predictions that are processed at a time: 4 MB


def average_precision(
    samples: np.ndarray, scores: np.ndarray, hits: np.ndarray, expected: np.ndarray, means: Mapping[str, slice]
) -> dict[str, Statistic]:
    """Means of the average precisions at K IoU thresholds; NaN in draws without objects.

    Args:
        samples: (M,) int, the sample that each prediction belongs to, ascending.
        scores: (M,) float; equal scores keep their order.
        hits: (K, M) bool, whether the prediction matches an object at each threshold.
        expected: (N,) number of objects of each sample.
        means: by name, over which of the thresholds. They share the work for the same draws.
    """
    order = np.argsort(-scores, kind="stable")
    owners = samples[order]
    runs = [_runs(row) for row in hits[:, order]]
    size = max(1, _CELLS // max(1, len(order)))

    latest: list[np.ndarray] = []  # counts, and the precisions (K, B) of these draws

    def precisions(counts: np.ndarray) -> np.ndarray:
        if not latest or latest[0] is not counts:
            parts = [counts[start : start + size] for start in range(0, len(counts), size)]
            found = [_precisions(part[:, owners], runs, part @ expected) for part in parts]
            latest[:] = counts, np.concatenate(found, axis=1)
        return latest[1]

    def mean(rows: slice) -> Statistic:
        return lambda counts: np.asarray(precisions(counts)[rows].mean(axis=0))

    return {name: mean(rows) for name, rows in means.items()}


def _runs(hits: np.ndarray) -> np.ndarray:
    """Starts and ends (2, R) of the runs of true positives; `hits[start:end]` are all true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hits, [False]]).astype(np.int8)))
    return np.asarray(edges.reshape(-1, 2).T)


def _precisions(weights: np.ndarray, runs: list[np.ndarray], expected: np.ndarray) -> np.ndarray:
    """(K, B) means over recalls, from (B, M) weights of predictions by falling score."""
    known = expected > 0
    needed = _needed(np.where(known, expected, 1.0))
    given = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=given[:, 1:])
    values = np.array([_at_recalls(given[:, start], given[:, end], needed).mean(axis=1) for start, end in runs])
    return np.where(known, values, np.nan)


def _needed(expected: np.ndarray) -> np.ndarray:
    """The (B, 101) smallest numbers of true positives that reach each recall, by the division that COCO compares."""
    objects = expected[:, None]
    least = np.ceil(RECALLS * objects)
    least -= (least - 1) / objects >= RECALLS
    return np.asarray(least + (least / objects < RECALLS))


def _at_recalls(before: np.ndarray, given: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Interpolated precision (B, 101), 0 at recalls that are not reached.

    Args:
        before, given: (B, R) predictions before each run of true positives, and up to its end.
        needed: (B, 101) numbers of true positives.
    """
    if not given.shape[1]:
        return np.zeros(needed.shape)
    true = np.cumsum(given - before, axis=1)
    precision = np.divide(true, given, out=np.zeros(true.shape), where=given > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # One sorted line of all rows, so that one search finds the first run that reaches each recall.
    rows = np.arange(len(true))[:, None]
    span = max(true[:, -1].max(), needed.max()) + 1
    first = np.searchsorted((true + rows * span).ravel(), (needed + rows * span).ravel()).reshape(needed.shape)
    first = np.minimum(first - rows * true.shape[1], true.shape[1] - 1)
    return np.where(needed <= true[:, -1:], best[rows, first], 0.0)
