"""Detection of out-of-distribution (or otherwise positive) examples from a score: AUROC, AUPR, FPR at a TPR, ROC curve.

Conventions: out-of-distribution is *positive*, a larger score means more positive (so a score is an uncertainty). Only the
order of the scores matters: +-inf are fine, NaN is an error. Equal scores are one threshold, so that no result depends on the
order of the rows: a constant score has AUROC 0.5, AUPR = the prevalence and FPR95 = 1. Counts are integers, sums of them exact.

What a set cannot define is nan, not an error, so that a table or a resample may hold it: AUROC and FPR need a positive and a
negative, AUPR a positive.

Every function but the curve takes `counts`: how many times each row counts, [N] (a mask or a frequency weight) or [R, N] (one
row for each bootstrap resample; the result is then a float64 array [R]). None of these has mergeable sums: the score of one
part of the data cannot be combined with another's without keeping every score, and a histogram would be an approximation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Real

from edd.metrics import host
from edd.typing import ArrayLike, Bool, Float, Int

Counts = ArrayLike | None
Positive = Bool[ArrayLike, " N"] | Int[ArrayLike, " N"]


class RocCurve(NamedTuple):
    """Points of the ROC curve, one for each distinct score, from (0, 0) to (1, 1).

    At `thresholds[i]` the examples with score >= threshold are called positive; the first threshold is +inf and calls none.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    thresholds: np.ndarray


class _Sides(NamedTuple):
    """Positive and negative rows in ascending order of score, and where each positive's tie group begins and ends."""

    positives: np.ndarray  # row indices
    negatives: np.ndarray
    own_first: np.ndarray  # positives with a smaller score
    below: np.ndarray  # negatives with a smaller score
    not_above: np.ndarray  # negatives with a smaller or equal score


def _sides(scores, is_positive) -> tuple[_Sides, int]:
    scores = host.vector(scores, "scores")
    positive = host.binary(is_positive, "is_positive", scores.size)
    order = np.argsort(scores, kind="stable")
    positives, negatives = order[positive[order]], order[~positive[order]]
    high, low = scores[positives], scores[negatives]
    sides = _Sides(
        positives, negatives, np.searchsorted(high, high, "left"), np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    )
    return sides, scores.size


def auroc(scores: Real[ArrayLike, " N"], is_positive: Positive, *, counts: Counts = None) -> float | Float[np.ndarray, " R"]:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties counting one half.

    Cost: one sort, then O(N) for each row of `counts`.

    Args:
      scores: real numbers or +-inf, larger for "more positive" (an uncertainty).
      is_positive: booleans or 0/1; out-of-distribution is positive.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]: 1 when every positive scores above every negative, 0.5 for a constant score; nan without a positive or a negative.

    Raises:
      ValueError: NaN scores, another length, `is_positive` that is neither 0 nor 1.

    References:
      Hanley & McNeil 1982; scikit-learn's `roc_auc_score(is_positive, scores)`.

    Examples:
      >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
      0.75
      >>> auroc([1.0, 1.0, 1.0], [0, 1, 1])
      0.5
    """
    sides, num_rows = _sides(scores, is_positive)

    def statistic(counts):
        weights = counts[sides.positives]
        negatives = host.prefix_sum(counts[sides.negatives])
        pairs = int(weights.sum()) * int(negatives[-1])
        if pairs == 0:
            return np.nan
        return int(weights @ (negatives[sides.below] + negatives[sides.not_above])) / (2 * pairs)

    return host.evaluate(statistic, counts, num_rows)


def aupr(scores: Real[ArrayLike, " N"], is_positive: Positive, *, counts: Counts = None) -> float | Float[np.ndarray, " R"]:
    """Area under the precision-recall curve as average precision: sum over thresholds of (recall step) x precision.

    A step sum, as in scikit-learn; the trapezoid between the points is another, optimistic number.
    Cost: one sort, then O(N) for each row of `counts`.

    Args:
      scores: real numbers or +-inf, larger for "more positive" (an uncertainty).
      is_positive: booleans or 0/1; out-of-distribution is positive.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In (0, 1]: 1 when every positive scores above every negative (also when there is no negative), the prevalence for a
      constant score; nan without a positive.

    Raises:
      ValueError: NaN scores, another length, `is_positive` that is neither 0 nor 1.

    References:
      Davis & Goadrich 2006; scikit-learn's `average_precision_score(is_positive, scores)`.

    Examples:
      >>> round(aupr([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
      0.8333
      >>> aupr([1.0, 1.0, 1.0, 1.0], [0, 1, 0, 0])
      0.25
    """
    sides, num_rows = _sides(scores, is_positive)

    def statistic(counts):
        weights = counts[sides.positives]
        own = host.prefix_sum(weights)
        negatives = host.prefix_sum(counts[sides.negatives])
        if own[-1] == 0:
            return np.nan
        hits = own[-1] - own[sides.own_first]
        called = hits + (negatives[-1] - negatives[sides.below])
        return weights @ (hits / np.maximum(called, 1)) / own[-1]  # nothing is called at a threshold where nothing counts

    return host.evaluate(statistic, counts, num_rows)


def fpr_at_tpr(
    scores: Real[ArrayLike, " N"], is_positive: Positive, tpr: float = 0.95, *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """False-positive rate at the first (largest) threshold whose true-positive rate is at least `tpr`; no interpolation.

    Cost: one sort, then O(N) for each row of `counts`.

    Args:
      scores: real numbers or +-inf, larger for "more positive" (an uncertainty).
      is_positive: booleans or 0/1; out-of-distribution is positive.
      tpr: the true-positive rate to reach, in (0, 1].
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]: 0 when the scores separate the two sides, 1 for a constant score; nan without a positive or a negative.

    Raises:
      ValueError: NaN scores, another length, `is_positive` that is neither 0 nor 1, `tpr` outside (0, 1].

    References:
      Liang, Li & Srikant 2018 (ODIN), "FPR at 95% TPR".

    Examples:
      >>> fpr_at_tpr([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
      0.5
      >>> fpr_at_tpr([1.0, 1.0, 1.0], [0, 1, 1])
      1.0
    """
    tpr = host.fraction(tpr, "tpr")
    sides, num_rows = _sides(scores, is_positive)

    def statistic(counts):
        own = host.prefix_sum(counts[sides.positives])
        negatives = host.prefix_sum(counts[sides.negatives])
        if own[-1] == 0 or negatives[-1] == 0:
            return np.nan
        rate = (own[-1] - own[sides.own_first]) / own[-1]  # falls along the sorted positives; a quotient, so that 19/20 >= 0.95
        chosen = int((rate >= tpr).sum()) - 1
        return (negatives[-1] - negatives[sides.below[chosen]]) / negatives[-1]

    return host.evaluate(statistic, counts, num_rows)


def roc_curve(scores: Real[ArrayLike, " N"], is_positive: Positive) -> RocCurve:
    """Receiver operating characteristic: false- and true-positive rate at every distinct score.

    Args:
      scores: real numbers or +-inf, larger for "more positive" (an uncertainty).
      is_positive: booleans or 0/1; out-of-distribution is positive.

    Returns:
      `RocCurve` from (0, 0) to (1, 1). A rate whose side is empty is nan.

    Raises:
      ValueError: NaN scores, another length, `is_positive` that is neither 0 nor 1.

    References:
      scikit-learn's `roc_curve(is_positive, scores, drop_intermediate=False)`.

    Examples:
      >>> curve = roc_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
      >>> curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist()
      ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    scores = host.vector(scores, "scores")
    positive = host.binary(is_positive, "is_positive", scores.size)
    groups = host.tie_groups(-scores)
    ends = np.concatenate([[0], np.unique(groups.last)])
    hits = host.prefix_sum(positive[groups.order])[ends]
    alarms = ends - hits
    empty = np.full(ends.size, np.nan)
    thresholds = np.concatenate([[np.inf], scores[groups.order][ends[1:] - 1]])
    return RocCurve(alarms / alarms[-1] if alarms[-1] else empty, hits / hits[-1] if hits[-1] else empty, thresholds)
