"""Bootstrap confidence intervals for any metric: rows (examples) drawn with replacement, percentiles of the results.

A resample is how many times each row was drawn. The metrics of this package take such `counts` directly: predictions are
checked and sorted once, and a resample of a sort-based metric (AUROC, AURC, PRR) costs O(N). Any other function of arrays is
called on the repeated rows instead. The same seed and number of rows draw the same rows, so that the intervals of several
methods on one test set are paired; draw `counts` once and pass them on to skip drawing again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edd.metrics import host
from edd.typing import ArrayLike, Int


class Interval(NamedTuple):
    """A metric on the data, its percentile interval, the resamples' standard deviation, and how many resamples defined it."""

    estimate: float
    lower: float
    upper: float
    standard_error: float
    num_defined: int


def draw(num_rows: int, num_resamples: int = 1000, *, seed: int = 0, strata: ArrayLike | None = None) -> Int[np.ndarray, "R N"]:
    """Bootstrap resamples as counts: how many times each row was drawn.

    Args:
      num_rows: N >= 1.
      num_resamples: R >= 1; the first rows of a larger R are those of a smaller one.
      seed: integer >= 0; equal seeds draw equal rows.
      strata: [N], or None; rows with equal entries are resampled among themselves, so that each stratum keeps its size (for
        detection: `is_positive`, when the sizes of the two sets are fixed by design).

    Returns:
      int32 [R, N] (4 R N bytes), each row summing to N.

    Raises:
      ValueError: sizes below 1, a negative seed, strata of another length.

    References:
      Efron 1979.

    Examples:
      >>> draw(5, 2, seed=1).sum(1).tolist()
      [5, 5]
    """
    num_rows = host.integer_at_least(num_rows, 1, "num_rows")
    num_resamples = host.integer_at_least(num_resamples, 1, "num_resamples")
    generator = np.random.Generator(np.random.Philox(host.integer_at_least(seed, 0, "seed")))
    groups = [np.arange(num_rows)]
    if strata is not None:
        codes = host.vector(strata, "strata", num_rows)
        groups = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    counts = np.empty((num_resamples, num_rows), np.int32)
    for row in counts:
        for group in groups:
            row[group] = np.bincount(generator.integers(0, group.size, group.size), minlength=group.size)
    return counts


def replicates(metric: Callable, *arrays: ArrayLike, counts: Int[ArrayLike, "R N"], **options) -> np.ndarray:
    """`metric` on every resample: float64 [R], nan where a resample does not define it.

    Args:
      metric: a function of `arrays` (rows first) to a scalar. With an argument `counts` (every scalar metric of this package) it is
        called once; any other function is called once for each resample on the repeated rows, which is slower.
      *arrays: the metric's arrays, each with the N rows on its first axis.
      counts: resamples, from `draw`.
      **options: further arguments of the metric, the same for every resample.

    Returns:
      float64 [R].

    Raises:
      ValueError: no array, arrays of different lengths, counts of another length; whatever the metric raises.

    References:
      Efron 1979.

    Examples:
      >>> replicates(lambda x: x.mean(), [0.0, 1.0], counts=[[2, 0], [1, 1]]).tolist()
      [0.0, 0.5]
    """
    rows = _numpy(arrays)
    counts = host.row_counts(counts, _num_rows(rows))
    if counts.ndim != 2:
        raise ValueError(f"counts must be [R, N], one row for each resample, got shape {counts.shape}")
    if "counts" in inspect.signature(metric).parameters:
        return np.asarray(metric(*rows, counts=counts, **options), np.float64)
    repeated = ([np.repeat(array, row, axis=0) for array in rows] for row in counts)
    return np.array([metric(*sample, **options) for sample in repeated], np.float64)


def interval(
    metric: Callable,
    *arrays: ArrayLike,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    strata: ArrayLike | None = None,
    counts: Int[ArrayLike, "R N"] | None = None,
    **options,
) -> Interval:
    """Percentile bootstrap interval of a metric over resampled rows.

    The interval's ends are order statistics of the resamples, rounded outwards, so that infinite values are fine. It measures the
    sampling of the test set, not the randomness of training (for that: several seeds).

    Args:
      metric: a function of `arrays` to a scalar; see `replicates`.
      *arrays: the metric's arrays, each with the N rows on its first axis.
      level: probability the interval covers, in (0, 1).
      num_resamples: R >= 1.
      seed: integer >= 0; equal seeds draw equal rows (paired intervals).
      strata: as in `draw`.
      counts: resamples from `draw`, in place of the three arguments before.
      **options: further arguments of the metric.

    Returns:
      `Interval`. Resamples that leave the metric undefined (nan) are left out and not counted in `num_defined`; with none left the
      ends are nan. `standard_error` is nan below two resamples or with infinite ones.

    Raises:
      ValueError: `level` outside (0, 1), no array, arrays of different lengths; whatever the metric raises.

    References:
      Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13.

    Examples:
      >>> from edd.metrics import classification
      >>> result = interval(classification.accuracy, [[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]], [0, 0, 0], num_resamples=100)
      >>> round(result.estimate, 3), result.lower, result.upper, result.num_defined
      (0.667, 0.0, 1.0, 100)
    """
    _check_level(level)
    counts = _counts(arrays, num_resamples, seed, strata, counts)
    return _percentiles(float(metric(*_numpy(arrays), **options)), replicates(metric, *arrays, counts=counts, **options), level)


def paired_difference(
    metric: Callable,
    first: tuple[ArrayLike, ...],
    second: tuple[ArrayLike, ...],
    *,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    strata: ArrayLike | None = None,
    counts: Int[ArrayLike, "R N"] | None = None,
    **options,
) -> Interval:
    """Percentile bootstrap interval of metric(second) - metric(first), both on the same resampled rows.

    Args:
      metric: a function of arrays to a scalar; see `replicates`.
      first: its arrays for one method, on N examples.
      second: its arrays for the other method, on the same N examples in the same order.
      level: probability the interval covers, in (0, 1).
      num_resamples: R >= 1.
      seed: integer >= 0.
      strata: as in `draw`.
      counts: resamples from `draw`, in place of the three arguments before.
      **options: further arguments of the metric.

    Returns:
      `Interval` of the difference; an interval without 0 says that the methods differ on more than the choice of test examples.

    Raises:
      ValueError: as `interval`; different numbers of examples.

    References:
      Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13.

    Examples:
      >>> from edd.metrics import detection
      >>> paired_difference(detection.auroc, ([0, 1, 2], [0, 1, 1]), ([5, 6, 7], [0, 1, 1]), strata=[0, 1, 1])[:3]
      (0.0, 0.0, 0.0)
    """
    _check_level(level)
    counts = _counts((*first, *second), num_resamples, seed, strata, counts)
    estimates = [float(metric(*_numpy(arrays), **options)) for arrays in (first, second)]
    samples = [replicates(metric, *arrays, counts=counts, **options) for arrays in (first, second)]
    with np.errstate(invalid="ignore"):  # inf - inf is nan: undefined
        return _percentiles(float(np.subtract(estimates[1], estimates[0])), samples[1] - samples[0], level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")


def _numpy(arrays) -> list[np.ndarray]:
    return [host.as_numpy(array, f"array {index}") for index, array in enumerate(arrays)]


def _num_rows(rows: list[np.ndarray]) -> int:
    lengths = [array.shape[0] if array.ndim else 0 for array in rows]
    if not lengths or lengths[0] < 1 or len(set(lengths)) > 1:
        raise ValueError(f"the metric's arrays must have the same number of rows, at least one, got {lengths}; pass scalars by keyword")
    return lengths[0]


def _counts(arrays, num_resamples, seed, strata, counts) -> np.ndarray:
    num_rows = _num_rows(_numpy(arrays))
    return draw(num_rows, num_resamples, seed=seed, strata=strata) if counts is None else host.row_counts(counts, num_rows)


def _percentiles(estimate: float, samples: np.ndarray, level: float) -> Interval:
    ordered = np.sort(samples[~np.isnan(samples)])
    if ordered.size == 0:
        return Interval(estimate, np.nan, np.nan, np.nan, 0)
    tail = (1 - level) / 2 * (ordered.size - 1)
    spread = float(np.std(ordered, ddof=1)) if ordered.size > 1 and np.isfinite(ordered).all() else np.nan
    lower, upper = ordered[int(np.floor(tail))], ordered[ordered.size - 1 - int(np.floor(tail))]
    return Interval(estimate, float(lower), float(upper), spread, int(ordered.size))
