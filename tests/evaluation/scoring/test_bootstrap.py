"""Right values of bootstrap intervals."""

import math

import numpy as np
import pytest

from satlisa.evaluation.scoring.bootstrap import intervals, mean_of, paired_intervals, ratio_of, value_of


def _binomial(successes: int, trials: int, share: float) -> float:
    """P(X <= successes) of a binomial."""
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(share) + (trials - k) * math.log(1 - share)
        for k in range(successes + 1)
    ]  # fmt: skip
    return math.fsum(map(math.exp, logs))


def _exact(successes: int, trials: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934), by bisection."""

    def solve(is_above: bool) -> float:
        low, high = 1e-9, 1 - 1e-9
        for _ in range(60):
            middle = (low + high) / 2
            if is_above:
                too_low = 1 - _binomial(successes - 1, trials, middle) < 0.025
            else:
                too_low = _binomial(successes, trials, middle) > 0.025
            low, high = (middle, high) if too_low else (low, middle)
        return low

    return solve(True), solve(False)


@pytest.mark.parametrize(("successes", "trials"), [(600, 2000), (1000, 2000), (100, 2000), (450, 500)])
def test_interval_of_a_share_is_close_to_the_exact_one(successes: int, trials: int) -> None:
    interval = intervals({"share": mean_of(np.arange(trials) < successes)}, trials)["share"]
    assert interval == pytest.approx(_exact(successes, trials), abs=0.01)


def test_values_are_means_and_ratios_of_sums() -> None:
    assert value_of(mean_of([1.0, None, 0.0, float("nan")]), 4) == 0.5
    assert value_of(ratio_of([1, 3], [2, 6], scale=100.0), 2) == 50.0


@pytest.mark.parametrize("statistic", [mean_of([None, None]), ratio_of([1, 2], [0, 0])])
def test_nothing_to_average_is_none(statistic) -> None:
    assert value_of(statistic, 2) is None
    assert intervals({"x": statistic}, 2) == {"x": None}
    assert value_of(mean_of([]), 0) is None and intervals({"x": mean_of([])}, 0) == {"x": None}


def test_samples_without_a_value_widen_the_interval() -> None:
    known = np.arange(100) % 2.0
    alone = intervals({"x": mean_of(known)}, 100)["x"]
    among = intervals({"x": mean_of([*known, *[None] * 900])}, 1000)["x"]
    assert among[1] - among[0] == pytest.approx(alone[1] - alone[0], rel=0.15)


def test_the_same_seed_gives_the_same_interval_whatever_else_is_asked(monkeypatch) -> None:
    values = np.random.default_rng(1).random(300)
    alone = intervals({"x": mean_of(values)}, 300)
    assert intervals({"y": mean_of(values**2), "x": mean_of(values)}, 300)["x"] == alone["x"]
    assert intervals({"x": mean_of(values)}, 300, seed=1) != alone
    monkeypatch.setattr("satlisa.evaluation.scoring.bootstrap._CELLS", 7 * 300)  # 7 draws at a time
    assert intervals({"x": mean_of(values)}, 300) == alone


def test_paired_interval_sees_a_small_constant_difference() -> None:
    values = np.random.default_rng(0).random(200)
    apart = intervals({"x": mean_of(values)}, 200)["x"]
    assert apart[1] - apart[0] > 0.05
    paired = paired_intervals({"x": mean_of(values)}, {"x": mean_of(values + 0.01), "y": mean_of(values)}, 200)
    assert list(paired) == ["x"] and paired["x"] == pytest.approx([0.01, 0.01])
