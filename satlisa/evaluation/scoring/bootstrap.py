"""Bootstrap intervals: how far a score would move with other samples of the same kind.

Percentile bootstrap over samples (Efron and Tibshirani 1993, chapter 13). A draw takes N of the N samples with
replacement, so that it is a row of counts; a statistic maps all rows to values in one matrix product.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

DRAWS = 1000
LEVEL = 0.95
_CELLS = 2**22  # of the counts that are drawn at a time: 32 MB

Statistic = Callable[[np.ndarray], np.ndarray]
"""(B, N) counts, how often each sample is in each of B draws, to (B,) float64 values; NaN where there is none."""


def mean_of(values: Any) -> Statistic:
    """The mean of (N,) values; samples whose value is None or NaN are not counted."""
    numbers = _numbers(values)
    return ratio_of(np.nan_to_num(numbers), ~np.isnan(numbers))


def ratio_of(numerators: Any, denominators: Any, scale: float = 1.0) -> Statistic:
    """`scale` times the sum of (N,) numerators over the sum of (N,) denominators; NaN where the latter is 0."""
    columns = np.stack([_numbers(numerators), _numbers(denominators)], axis=1)  # (N, 2)

    def statistic(counts: np.ndarray) -> np.ndarray:
        above, below = (counts @ columns).T
        values: np.ndarray = np.divide(scale * above, below, out=np.full(len(below), np.nan), where=below != 0)
        return values

    return statistic


def value_of(statistic: Statistic, num_samples: int) -> float | None:
    """The value over all samples, each once; None where there is none."""
    return _finite(float(statistic(np.ones((1, num_samples)))[0])) if num_samples else None


def intervals(
    statistics: Mapping[str, Statistic], num_samples: int, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, list[float] | None]:
    """The 95 % intervals [low, high] of statistics over the same draws; None where half of the draws have no value."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    for counts in _draw(num_samples, draws, seed):
        for name, statistic in statistics.items():
            found[name].append(statistic(counts))
    return {name: _percentiles(np.concatenate(values) if values else np.empty(0)) for name, values in found.items()}


def paired_intervals(
    first: Mapping[str, Statistic],
    second: Mapping[str, Statistic],
    num_samples: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, list[float] | None]:
    """As `intervals`, of second - first: two systems on the same samples, in the same draws."""
    differences = {name: _difference(first[name], second[name]) for name in first if name in second}
    return intervals(differences, num_samples, draws=draws, seed=seed)


def _difference(first: Statistic, second: Statistic) -> Statistic:
    return lambda counts: second(counts) - first(counts)


def _draw(num_samples: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Counts (B, N) of `draws` draws in all, a part at a time; the same for each seed, however they are parted."""
    if not num_samples:
        return
    rng = np.random.default_rng(seed)
    size = max(1, _CELLS // num_samples)
    for start in range(0, draws, size):
        rows = min(size, draws - start)
        taken = rng.integers(num_samples, size=(rows, num_samples)) + num_samples * np.arange(rows)[:, None]
        yield np.bincount(taken.ravel(), minlength=rows * num_samples).reshape(rows, num_samples).astype(np.float64)


def _percentiles(values: np.ndarray) -> list[float] | None:
    known = values[~np.isnan(values)]
    if len(known) <= len(values) / 2:
        return None
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(known, [tail, 100 - tail])
    return [float(low), float(high)]


def _numbers(values: Any) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
