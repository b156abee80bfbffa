"""Average precision of drawn samples against a plain loop over physically repeated ones."""

from typing import Any

import numpy as np
import pytest

from satlisa.evaluation.scoring import average_precision as module
from satlisa.evaluation.scoring.bootstrap import Statistic


def average_precision(*given: Any) -> Statistic:
    return module.average_precision(*given, {"ap": slice(None)})["ap"]


def _plain(scores: list[float], hits: list[bool], expected: int) -> float:
    """COCOeval.accumulate for one threshold, as a loop."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    true, points = 0, []
    for rank, place in enumerate(order, start=1):
        true += hits[place]
        points.append((true / expected, true / rank))
    best = [max((p for r, p in points if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)]
    return float(np.mean(best))


def _random(rng: np.random.Generator, num_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    given = rng.integers(0, 6, num_samples)
    owners = np.repeat(np.arange(num_samples), given)
    hits = rng.random((3, len(owners))) < rng.random()
    scores = rng.permutation(len(owners)) / max(1, len(owners))
    expected = np.array([hits[:, owners == n].sum(axis=1).max(initial=0) for n in range(num_samples)])
    return owners, scores, hits, expected + rng.integers(0, 3, num_samples)


@pytest.mark.parametrize("seed", range(8))
def test_equals_repeated_samples(seed: int, monkeypatch) -> None:
    rng = np.random.default_rng(seed)
    owners, scores, hits, expected = _random(rng, 12)
    monkeypatch.setattr(module, "_CELLS", 2 * len(owners))  # two draws at a time
    counts = rng.integers(0, 4, size=(5, 12)).astype(float)
    counts[0] = 1
    values = average_precision(owners, scores, hits, expected)(counts)
    for row, value in zip(counts.astype(int), values, strict=True):
        repeat = row[owners]
        repeated = np.repeat(scores, repeat).tolist()
        wanted = [_plain(repeated, np.repeat(hit, repeat).tolist(), int(row @ expected)) for hit in hits]
        assert value == pytest.approx(np.mean(wanted), abs=1e-12)


def test_hand_computed() -> None:
    """True, false, true of 4 objects: precision 1 up to recall 1/4 (26 of 101 recalls), 2/3 up to 1/2 (25), then 0."""
    statistic = average_precision(np.array([0, 0, 1]), np.array([0.9, 0.8, 0.7]), np.array([[1, 0, 1]]) > 0, [2, 2])
    assert statistic(np.ones((1, 2))) == pytest.approx((26 + 25 * 2 / 3) / 101)


def test_draws_without_objects_have_no_value() -> None:
    statistic = average_precision(np.array([0, 1]), np.array([0.5, 0.4]), np.array([[True, False]]), [1, 0])
    assert np.isnan(statistic(np.array([[0.0, 3.0], [0.0, 0.0]]))).all()
    nothing = average_precision(np.zeros(0, int), np.zeros(0), np.zeros((2, 0), bool), [1, 0])
    assert nothing(np.array([[1.0, 1.0], [0.0, 1.0]])) == pytest.approx([0.0, np.nan], nan_ok=True)
    assert average_precision(np.zeros(1, int), np.ones(1), np.ones((1, 1), bool), [1])(np.ones((1, 1))).tolist() == [1]


def test_means_over_thresholds_share_their_draws() -> None:
    hits = np.array([[True, True, False], [True, False, False]])
    given = np.array([0, 0, 1]), np.array([0.9, 0.8, 0.7]), hits, np.array([2, 1])
    found = module.average_precision(*given, {"both": slice(0, 2), "first": slice(0, 1), "last": slice(1, 2)})
    for counts in (np.ones((1, 2)), np.array([[2.0, 0.0], [0.0, 2.0]]), np.ones((1, 2))):
        both, first, last = (found[name](counts) for name in ("both", "first", "last"))
        np.testing.assert_allclose(both, (first + last) / 2)
