"""Rejection by uncertainty: risk-coverage, prediction rejection ratio, curves by uncertainty quantile.

Conventions: a larger `uncertainty` is rejected first; `errors` lie in [0, 1]: 0/1 mistakes, or fractional ones such as a
sentence's word error rate. Only the order of the uncertainties matters: +-inf are fine, NaN is an error. Equal uncertainties
are averaged over all their orders (the exact expectation, in closed form), so that nothing depends on the order of the rows: a
constant uncertainty has AURC = the error rate and PRR = 0.

With N examples sorted from certain to uncertain, E_j is the expected sum of the errors of the j most certain. The coverages are
j = 1..N (never 0, where a selective risk does not exist):
  selective risk E_j / j;  AURC = mean of E_j / j;  AUGRC = mean of E_j / N;  PRR from the curve E_j / N.

Every scalar takes `counts`: how many times each row counts, [N] (a mask or a frequency weight) or [R, N] (one row for each
bootstrap resample; the result is then a float64 array [R]). Rows that count twice are two tied examples. None of these has
mergeable sums: they need the order of all uncertainties.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Real

from edd.metrics import host
from edd.typing import ArrayLike, Bool, Float

Counts = ArrayLike | None
Errors = Real[ArrayLike, " N"] | Bool[ArrayLike, " N"]
_FLAT = 1e-12  # relative gap between oracle and random below which all errors are equal and no order is better


class RiskCoverageCurve(NamedTuple):
    """Selective risk (mean error of the accepted) when the most certain `coverage` is accepted; coverages 1/N..1, both [N]."""

    coverage: np.ndarray
    risk: np.ndarray


class RejectionCurve(NamedTuple):
    """Remaining error, as a fraction of all N examples, when the most uncertain `rejected` go to an oracle; all [N + 1].

    `rejected` runs from 0 to 1; `error` orders by the uncertainty, `random` does not, `oracle` rejects the largest errors first.
    """

    rejected: np.ndarray
    error: np.ndarray
    random: np.ndarray
    oracle: np.ndarray


class UncertaintyQuantileCurve(NamedTuple):
    """Mean error by uncertainty quantile, all [Q].

    `quantile` (q + 1)/Q; `bucket` the mean inside quantile q alone; `acceptance` the mean of quantiles 0..q; `count` examples in
    quantile q; `uncertainty` their mean uncertainty.
    """

    quantile: np.ndarray
    bucket: np.ndarray
    acceptance: np.ndarray
    count: np.ndarray
    uncertainty: np.ndarray


class _Ranked(NamedTuple):
    """Rows from certain to uncertain with their tie groups, and the rows with an error among them."""

    groups: host.Groups
    errors: np.ndarray  # in that order
    wrong: np.ndarray  # positions whose error is not 0: sums of errors need no others


def _rank(uncertainty: np.ndarray, errors: np.ndarray) -> _Ranked:
    groups = host.tie_groups(uncertainty)
    ordered = errors[groups.order]
    return _Ranked(groups, ordered, np.flatnonzero(ordered))


def _arguments(uncertainty, errors) -> tuple[np.ndarray, np.ndarray]:
    uncertainty = host.vector(uncertainty, "uncertainty")
    return uncertainty, host.unit_interval(errors, "errors", uncertainty.size)


def _cumulative_errors(uncertainty: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """E_0..E_N: inside a tie group the expectation over random orders is linear."""
    groups, ordered, _ = _rank(uncertainty, errors)
    total = host.prefix_sum(ordered)
    place = np.arange(1, errors.size + 1) - groups.first
    inside = total[groups.first] + (total[groups.last] - total[groups.first]) * place / (groups.last - groups.first)
    return np.concatenate([[0.0], inside])


def _wrong_rows(ranked: _Ranked, counts: np.ndarray):
    """(N, error mass of each wrong row, rank range (low, high] of its tie group), ranks counting repeated rows."""
    counts = counts[ranked.groups.order]
    ranks = host.prefix_sum(counts)
    mass = counts[ranked.wrong] * ranked.errors[ranked.wrong]
    return int(ranks[-1]), mass, ranks[ranked.groups.first[ranked.wrong]], ranks[ranked.groups.last[ranked.wrong]]


def _sum_of_cumulative(ranked: _Ranked, counts: np.ndarray) -> float:
    """Sum of E_j over j = 1..N: an error at rank k is in the N + 1 - k sums from there on, k averaged over its tie group."""
    size, mass, low, high = _wrong_rows(ranked, counts)
    return mass @ (2 * size + 1 - low - high) / 2


def _tail_sums(size: int) -> np.ndarray:
    """[N + 1]: sum of T(k) = 1/k + ... + 1/N over the ranks k = 1..m, which is m (1 + T(m + 1))."""
    tails = np.zeros(size + 1)  # tails[m] = T(m + 1), summed from its small end
    tails[:-1] = np.cumsum(1 / np.arange(size, 0, -1))[::-1]
    return np.arange(size + 1) * (1 + tails)


def _mean_selective_risk(ranked: _Ranked, counts: np.ndarray, tail_sums: Callable) -> float:
    """Mean of E_j / j: an error at rank k adds T(k), averaged over its tie group."""
    size, mass, low, high = _wrong_rows(ranked, counts)
    sums = tail_sums(size)
    return mass @ ((sums[high] - sums[low]) / np.maximum(high - low, 1)) / size


def _evaluate(uncertainty, errors, counts, statistic: Callable):
    """`statistic`(ranked by uncertainty, ranked by error, counts) for each row of counts."""
    uncertainty, errors = _arguments(uncertainty, errors)
    ranked, oracle = _rank(uncertainty, errors), _rank(errors, errors)
    return host.evaluate(lambda weights: statistic(ranked, oracle, weights), counts, errors.size)


def risk_coverage_curve(uncertainty: Real[ArrayLike, " N"], errors: Errors) -> RiskCoverageCurve:
    """Risk-coverage curve: mean error of the accepted examples as more and more uncertain ones are accepted.

    Args:
      uncertainty: real numbers or +-inf; the largest is rejected first.
      errors: in [0, 1].

    Returns:
      `RiskCoverageCurve` at the coverages 1/N, 2/N, ..., 1; ties averaged over their orders; the last risk is the error rate.

    Raises:
      ValueError: NaN, errors outside [0, 1], other lengths, no example.

    References:
      El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017.

    Examples:
      >>> risk_coverage_curve([0.1, 0.2, 0.2], [0, 1, 0]).risk.tolist()
      [0.0, 0.25, 0.3333333333333333]
    """
    uncertainty, errors = _arguments(uncertainty, errors)
    accepted = np.arange(1, errors.size + 1)
    return RiskCoverageCurve(accepted / errors.size, _cumulative_errors(uncertainty, errors)[1:] / accepted)


def aurc(uncertainty: Real[ArrayLike, " N"], errors: Errors, *, counts: Counts = None) -> float | Float[np.ndarray, " R"]:
    """Area under the risk-coverage curve: the mean selective risk over all coverages 1/N..1.

    Cost: one sort, then O(N) for each row of `counts`.

    Args:
      uncertainty: real numbers or +-inf; the largest is rejected first.
      errors: in [0, 1].
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]; 0 without errors, 1 when all are wrong, the error rate for a constant uncertainty.

    Raises:
      ValueError: NaN, errors outside [0, 1], other lengths, no example.

    References:
      Geifman, Uziel & El-Yaniv 2019, "Bias-reduced uncertainty estimation for deep neural classifiers".

    Examples:
      >>> aurc([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1])
      0.0625
      >>> aurc([7.0, 7.0, 7.0, 7.0], [0, 0, 0, 1])
      0.25
    """
    tail_sums = functools.lru_cache(maxsize=1)(_tail_sums)  # resamples have one size: one table for all of them
    return _evaluate(uncertainty, errors, counts, lambda ranked, _, weights: _mean_selective_risk(ranked, weights, tail_sums))


def e_aurc(uncertainty: Real[ArrayLike, " N"], errors: Errors, *, counts: Counts = None) -> float | Float[np.ndarray, " R"]:
    """Excess AURC: AURC minus that of the oracle, which accepts the smallest errors first.

    Args:
      uncertainty: real numbers or +-inf; the largest is rejected first.
      errors: in [0, 1].
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      >= 0 (up to rounding); 0 for the oracle's order, and without errors or with nothing but errors.

    Raises:
      ValueError: NaN, errors outside [0, 1], other lengths, no example.

    References:
      Geifman, Uziel & El-Yaniv 2019, "Bias-reduced uncertainty estimation for deep neural classifiers"; the oracle's sum is exact
      here, not approximated.

    Examples:
      >>> e_aurc([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1])
      0.0
    """
    tail_sums = functools.lru_cache(maxsize=1)(_tail_sums)

    def statistic(ranked, oracle, weights):
        return _mean_selective_risk(ranked, weights, tail_sums) - _mean_selective_risk(oracle, weights, tail_sums)

    return _evaluate(uncertainty, errors, counts, statistic)


def augrc(uncertainty: Real[ArrayLike, " N"], errors: Errors, *, counts: Counts = None) -> float | Float[np.ndarray, " R"]:
    """Area under the generalised risk-coverage curve: the mean over all coverages 1/N..1 of selective risk times coverage.

    The generalised risk E_j / N is the probability of being accepted and wrong, so that early errors are not overweighted as in
    AURC. With 0/1 errors, error rate r and a := AUROC of the uncertainty for errors it is (1 - a) r (1 - r) + r^2 / 2 + r / (2N);
    the last term is there because the mean starts at coverage 1/N (the trapezoid from coverage 0 has not got it).

    Args:
      uncertainty: real numbers or +-inf; the largest is rejected first.
      errors: in [0, 1].
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, (N + 1) / (2N)]; 0 without errors.

    Raises:
      ValueError: NaN, errors outside [0, 1], other lengths, no example.

    References:
      Traub et al. 2024, "Overcoming common flaws in the evaluation of selective classification systems".

    Examples:
      >>> augrc([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
      0.1875
    """
    return _evaluate(
        uncertainty, errors, counts, lambda ranked, _, weights: _sum_of_cumulative(ranked, weights) / float(weights.sum()) ** 2
    )


def _smallest_first_error(ranked: _Ranked, counts: np.ndarray) -> float:
    """E_1: the mean error of the most certain tie group that counts."""
    first = int(np.argmax(counts[ranked.groups.order] > 0))
    rows = slice(int(ranked.groups.first[first]), int(ranked.groups.last[first]))
    weights = counts[ranked.groups.order[rows]]
    return weights @ ranked.errors[rows] / weights.sum()


def prediction_rejection_ratio(
    uncertainty: Real[ArrayLike, " N"], errors: Errors, *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Prediction rejection ratio (PRR): how much of the oracle's gain over random rejection the uncertainty has; a fraction.

    Rejected examples are handed to an oracle (error 0) and the denominator stays N. The curve after i rejections is E_(N-i) / N;
    areas are trapezoids over the N points i = 0..N-1, and PRR = (random - uncertainty) / (random - oracle), where random is the
    straight line and the oracle rejects the largest errors first (exact for fractional errors too).
    Cost: one sort, then O(N) for each row of `counts`.

    Args:
      uncertainty: real numbers or +-inf; the largest is rejected first.
      errors: in [0, 1].
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      At most 1: 1 for the oracle's order, 0 for a constant uncertainty, negative when worse than random (-1 at the reversed
      oracle, but for the end points of the sum). nan when all errors are equal (none, or all wrong): then no order is better.

    Raises:
      ValueError: NaN, errors outside [0, 1], other lengths, no example.

    References:
      Malinin 2019 (thesis); Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation" (there in percent).

    Examples:
      >>> prediction_rejection_ratio([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1])
      1.0
      >>> prediction_rejection_ratio([7.0, 7.0, 7.0, 7.0], [0, 0, 0, 1])
      0.0
    """

    def statistic(ranked, oracle, weights):
        size = int(weights.sum())
        total = weights[ranked.groups.order] @ ranked.errors
        areas = [_sum_of_cumulative(by, weights) - (total + _smallest_first_error(by, weights)) / 2 for by in (ranked, oracle)]
        random = total * (size + 1) / 2 - (total + total / size) / 2
        gain = random - areas[1]
        return (random - areas[0]) / gain if gain > _FLAT * size * total else np.nan

    return _evaluate(uncertainty, errors, counts, statistic)


def rejection_curve(uncertainty: Real[ArrayLike, " N"], errors: Errors) -> RejectionCurve:
    """Rejection curve: the error that remains when the most uncertain examples are handed to an oracle, as fractions of all N.

    Args:
      uncertainty: real numbers or +-inf; the largest is rejected first.
      errors: in [0, 1].

    Returns:
      `RejectionCurve`; each curve falls from the error rate to 0. `prediction_rejection_ratio` compares their areas.

    Raises:
      ValueError: NaN, errors outside [0, 1], other lengths, no example.

    References:
      Malinin 2019 (thesis); Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation".

    Examples:
      >>> rejection_curve([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]).error.tolist()
      [0.5, 0.25, 0.25, 0.0, 0.0]
    """
    uncertainty, errors = _arguments(uncertainty, errors)
    rejected = np.arange(errors.size + 1) / errors.size
    by_uncertainty = _cumulative_errors(uncertainty, errors)[::-1] / errors.size
    oracle = _cumulative_errors(errors, errors)[::-1] / errors.size
    return RejectionCurve(rejected, by_uncertainty, by_uncertainty[0] * (1 - rejected), oracle)


def uncertainty_quantile_curve(uncertainty: Real[ArrayLike, " N"], errors: Errors, num_quantiles: int = 20) -> UncertaintyQuantileCurve:
    """Mean error inside each quantile of the uncertainty (buckets) and up to it (acceptance).

    Quantiles hold N/Q examples (the first N mod Q one more). Examples tied across a border are shared between its two sides in
    expectation over their orders. A mean is linear, a calibration gap is not: for the gap of Kirsch's buckets pass
    confidence - correctness and take the absolute values.

    Args:
      uncertainty: finite numbers; ascending order, the most certain first.
      errors: finite per-example values, of any sign: 0/1 error, negative log-likelihood, confidence - correctness.
      num_quantiles: 1 <= Q <= N.

    Returns:
      `UncertaintyQuantileCurve`; the last acceptance is the mean over all examples, as is the mean of the buckets weighted by count.

    Raises:
      ValueError: NaN or infinite values, other lengths, Q outside [1, N].

    References:
      Kirsch 2024, appendix E.3 ("bucket average" and "acceptance threshold"; the paper does not state Q).

    Examples:
      >>> curve = uncertainty_quantile_curve([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1], num_quantiles=2)
      >>> curve.bucket.tolist(), curve.acceptance.tolist()
      ([0.0, 0.5], [0.0, 0.25])
    """
    uncertainty = host.vector(uncertainty, "uncertainty")
    errors = host.vector(errors, "errors", uncertainty.size)
    if not (np.isfinite(uncertainty).all() and np.isfinite(errors).all()):
        raise ValueError("uncertainty and errors must be finite: their means inside a quantile are reported")
    num_quantiles = host.integer_at_least(num_quantiles, 1, "num_quantiles")
    if num_quantiles > errors.size:
        raise ValueError(f"num_quantiles must be at most the number of examples {errors.size}, got {num_quantiles}")
    base, extra = divmod(errors.size, num_quantiles)
    sizes = base + (np.arange(num_quantiles) < extra)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    total, levels = _cumulative_errors(uncertainty, errors)[ends], _cumulative_errors(uncertainty, uncertainty)[ends]
    quantile = np.arange(1, num_quantiles + 1) / num_quantiles
    return UncertaintyQuantileCurve(quantile, np.diff(total) / sizes, total[1:] / ends[1:], sizes, np.diff(levels) / sizes)
