"""Referring masks: values computed by hand, and against `metrics.summarise`."""

import json

import numpy as np
import pytest

from satlisa.evaluation.metrics import iou, summarise
from satlisa.evaluation.scoring.bootstrap import value_of
from satlisa.evaluation.scoring.referring import DEFINITIONS, measure, statistics


def _entry(shared: int, predicted: int, true: int, *, kept: bool = True, **known) -> dict:
    union = predicted + true - shared
    entry = {"error": None, "iou": iou(shared, union), "intersection": shared, "union": union, "segs": 1}
    entry |= {"expected_segs": 1, "correct": None, "exact_match": None}
    return json.loads(json.dumps(entry | {"referring": measure(predicted, true) if kept else None} | known))


def _values(entries: list[dict]) -> dict[str, float | None]:
    return {key: value_of(statistic, len(entries)) for key, statistic in statistics(entries).items()}


def test_thresholds_are_reached_when_equal() -> None:
    """IoU 0.5, 0.6, 0.7, 0.8, 0.9, each exactly."""
    values = _values([_entry(n, n, 10) for n in (5, 6, 7, 8, 9)])
    assert list(values) == list(DEFINITIONS)
    assert [values[f"precision_{percent}"] for percent in (50, 60, 70, 80, 90)] == [1.0, 0.8, 0.6, 0.4, 0.2]
    assert values["giou"] == values["ciou"] == pytest.approx(0.7)
    assert values["t_acc"] == 1.0 and values["n_acc"] is None


def test_negatives() -> None:
    """Two samples without objects, one of them with a mask; three with objects, one of them without a mask."""
    entries = [_entry(0, 0, 0), _entry(0, 1, 0), _entry(8, 8, 8), _entry(0, 5, 8), _entry(0, 0, 8)]
    values = _values(entries)
    assert values["n_acc"] == 0.5 and values["t_acc"] == pytest.approx(2 / 3)
    assert values["precision_50"] == values["precision_90"] == pytest.approx(1 / 3)  # negatives are left out
    assert values["giou"] == pytest.approx(2 / 5)  # a negative without a mask counts 1.0
    assert values["ciou"] == pytest.approx(8 / (1 + 8 + 13 + 8))


def test_only_negatives() -> None:
    values = _values([_entry(0, 0, 0)])
    assert values["n_acc"] == values["giou"] == values["ciou"] == 1.0
    assert values["t_acc"] is None and values["precision_50"] is None


def test_equal_those_of_the_summary() -> None:
    rng = np.random.default_rng(0)
    entries = [_entry(int(shared), int(shared + extra), 50) for shared, extra in rng.integers(0, 50, size=(40, 2))]
    entries += [_entry(0, 0, 0), {**_entry(1, 1, 1), "error": "unreadable"}, {**_entry(0, 0, 0), "iou": None}]
    values, summary = _values(entries), summarise(entries)
    assert values["giou"] == pytest.approx(summary["giou"]) and values["ciou"] == pytest.approx(summary["ciou"])
    assert value_of(statistics([_entry(0, 0, 0)])["ciou"], 1) == summarise([_entry(0, 0, 0)])["ciou"] == 1.0


def test_samples_without_the_kind() -> None:
    """Results of an older version have IoUs only."""
    old = _entry(5, 5, 10, kept=False)
    del old["referring"]
    assert _values([old]) == {"giou": 0.5, "ciou": 0.5}
    assert statistics([]) == statistics([{"error": None, "iou": None}]) == statistics([{"error": "x"}]) == {}
    both = _values([old, _entry(9, 9, 10)])
    assert both["giou"] == pytest.approx(0.7) and both["precision_90"] == 1.0


def test_draws_without_samples_have_no_value() -> None:
    found = statistics([_entry(5, 5, 10), {"error": "x", "iou": None}])
    values = {key: statistic(np.array([[0.0, 2.0]]))[0] for key, statistic in found.items()}
    assert np.isnan(list(values.values())).all()


def test_pixels_are_numbers() -> None:
    with pytest.raises(ValueError, match="found -1 and 3"):
        measure(-1, 3)
    assert json.dumps(measure(np.int64(3), np.int32(0))) == '{"prediction_pixels": 3, "truth_pixels": 0}'
