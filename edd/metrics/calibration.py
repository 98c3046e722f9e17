"""Calibration errors, the reliability curve and the temperature that minimises the negative log-likelihood.

Conventions: probabilities [N, K] with integer labels [N]; top-label errors compare the largest probability (the confidence)
with whether its class is the label (first class among equals). Bins are equal-width and *right-closed*, (l/B, (l+1)/B]: 0 falls
into the first, 1 into the last, and empty bins add 0. A confidence is compared as the number it is with the float64 edge l/B:
float64 0.2 lies in (2/15, 3/15], float32 0.2 = 0.2000000030 lies just above that edge, in the next bin. Results are fractions.

Every scalar takes `counts`: how many times each row counts, [N] (a mask or a frequency weight) or [R, N] (one row for each
bootstrap resample; the result is then a float64 array [R]).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edd.metrics import host
from edd.typing import ArrayLike, Float, Int

Counts = ArrayLike | None
_STEP = 1e-12  # relative change of the temperature at which the search ends


class ReliabilityCurve(NamedTuple):
    """One entry for each bin (lower, upper]: how many examples, their mean confidence and their accuracy (nan when empty)."""

    lower: np.ndarray
    upper: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def _top_label(probs, labels) -> tuple[np.ndarray, np.ndarray]:
    probs, labels = host.predictions(probs, labels)
    chosen = probs.argmax(-1)
    return probs[np.arange(labels.size), chosen].astype(np.float64), (chosen == labels).astype(np.float64)


def bin_index(values: np.ndarray, num_bins: int) -> np.ndarray:
    """Index of the right-closed bin (l/B, (l+1)/B] of each value; below 0 and above 1 fall into the first and the last."""
    return np.searchsorted(np.arange(1, num_bins) / num_bins, values, side="left")


def _over_bins(gaps: np.ndarray, bins: np.ndarray, num_bins: int, norm: Callable) -> Callable:
    """The statistic norm(sum of gaps in each bin, rows in each bin) for gaps = confidence - correctness."""

    def statistic(counts):
        return norm(np.bincount(bins, counts * gaps, num_bins), np.bincount(bins, counts, num_bins))

    return statistic


def _expected(gap_sums, sizes):
    return np.abs(gap_sums).sum() / sizes.sum()


def _maximum(gap_sums, sizes):
    return (np.abs(gap_sums) / np.maximum(sizes, 1)).max()


def _root_mean_square(gap_sums, sizes):
    return np.sqrt((gap_sums**2 / np.maximum(sizes, 1)).sum() / sizes.sum())


def _equal_width(probs, labels, num_bins, norm, counts):
    num_bins = host.integer_at_least(num_bins, 1, "num_bins")
    confidence, correct = _top_label(probs, labels)
    statistic = _over_bins(confidence - correct, bin_index(confidence, num_bins), num_bins, norm)
    return host.evaluate(statistic, counts, confidence.size)


def expected_calibration_error(
    probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], num_bins: int = 15, *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Expected calibration error (ECE), a fraction: sum over bins of n_b/N |accuracy_b - confidence_b|.

    Equal-width right-closed bins of the confidence. At least `confidence_gap`, to which it is equal for one bin.

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      num_bins: B >= 1.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]; 0 when in every bin the mean confidence equals the accuracy.

    Raises:
      ValueError: negative or unnormalised `probs` (log-probabilities, logits), NaN, labels out of range, `num_bins` < 1.

    References:
      Guo et al. 2017, eq. 3; Naeini et al. 2015.

    Examples:
      >>> round(expected_calibration_error([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], [0, 1, 0]), 4)
      0.4
    """
    return _equal_width(probs, labels, num_bins, _expected, counts)


def maximum_calibration_error(
    probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], num_bins: int = 15, *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Maximum calibration error (MCE), a fraction: the largest |accuracy_b - confidence_b| of the bins that are not empty.

    One example can decide it: read it with the bins' counts (`reliability_curve`).

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      num_bins: B >= 1 equal-width right-closed bins.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]; at least the expected calibration error of the same bins, 0 when that is 0.

    Raises:
      ValueError: as `expected_calibration_error`.

    References:
      Guo et al. 2017, eq. 5.

    Examples:
      >>> round(maximum_calibration_error([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], [0, 1, 0]), 4)
      0.4
    """
    return _equal_width(probs, labels, num_bins, _maximum, counts)


def root_mean_square_calibration_error(
    probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], num_bins: int = 15, *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Root-mean-square calibration error, a fraction: sqrt of the sum over bins of n_b/N (accuracy_b - confidence_b)^2.

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      num_bins: B >= 1 equal-width right-closed bins.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]; between the expected and the maximum calibration error of the same bins.

    Raises:
      ValueError: as `expected_calibration_error`.

    References:
      Kumar, Liang & Ma 2019, "Verified uncertainty calibration" (the l2 norm over the same bins).

    Examples:
      >>> round(root_mean_square_calibration_error([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], [0, 1, 0]), 4)
      0.4
    """
    return _equal_width(probs, labels, num_bins, _root_mean_square, counts)


def adaptive_calibration_error(
    probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], num_bins: int = 15, *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Expected calibration error over bins of equal mass instead of equal width, a fraction.

    The bin of an example is floor(B r), r the middle of the ranks (as a fraction) of all examples with its confidence: without
    ties the bins' sizes differ by at most one, and equal confidences are never split over two bins. Cost: one sort.

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      num_bins: B >= 1.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]; at least `confidence_gap`, to which it is equal for a constant confidence.

    Raises:
      ValueError: as `expected_calibration_error`.

    References:
      Nguyen & O'Connor 2015; Nixon et al. 2019 (their ACE averages this over classes).

    Examples:
      >>> round(adaptive_calibration_error([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], [0, 1, 0, 0], num_bins=2), 4)
      0.35
    """
    num_bins = host.integer_at_least(num_bins, 1, "num_bins")
    confidence, correct = _top_label(probs, labels)
    groups = host.tie_groups(confidence)
    gaps = (confidence - correct)[groups.order]

    def statistic(counts):
        counts = counts[groups.order]
        ranks = host.prefix_sum(counts)
        middle = ranks[groups.first] + ranks[groups.last]  # twice the middle rank: integers, so that the bin is exact
        bins = np.minimum(num_bins * middle // (2 * ranks[-1]), num_bins - 1)
        return _expected(np.bincount(bins, counts * gaps, num_bins), ranks[-1:])

    return host.evaluate(statistic, counts, confidence.size)


def classwise_calibration_error(
    probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], num_bins: int = 15, *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Classwise calibration error, a fraction: mean over classes of the expected calibration error of "is it class k".

    For class k every example counts, with confidence p_k and the outcome label == k. With many classes most p_k fall into the
    first bin. Cost: O(N K) for each row of `counts`.

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      num_bins: B >= 1 equal-width right-closed bins.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]; 0 when every class is calibrated in every bin.

    Raises:
      ValueError: as `expected_calibration_error`.

    References:
      Kull et al. 2019, "Beyond temperature scaling" (classwise-ECE).

    Examples:
      >>> round(classwise_calibration_error([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], [0, 1, 0]), 4)
      0.4
    """
    num_bins = host.integer_at_least(num_bins, 1, "num_bins")
    probs, labels = host.predictions(probs, labels)
    total = 0.0
    for k in range(probs.shape[1]):
        confidence = probs[:, k].astype(np.float64)
        statistic = _over_bins(confidence - (labels == k), bin_index(confidence, num_bins), num_bins, _expected)
        total = total + host.evaluate(statistic, counts, labels.size)
    return total / probs.shape[1]


def confidence_gap(
    probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Absolute difference of mean confidence and accuracy, a fraction: calibration in the large, without bins.

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]; at most the expected calibration error of any bins; 0 when over- and underconfidence cancel.

    Raises:
      ValueError: as `expected_calibration_error`.

    References:
      Kirsch 2024, appendix E.2 ("calibration error").

    Examples:
      >>> round(confidence_gap([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], [0, 1, 0]), 4)
      0.1333
    """
    confidence, correct = _top_label(probs, labels)
    mean = host.mean_of(confidence - correct)
    return host.evaluate(lambda counts: abs(mean(counts)), counts, confidence.size)


def reliability_curve(probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], num_bins: int = 15) -> ReliabilityCurve:
    """Accuracy against confidence in each equal-width right-closed bin: what a reliability diagram draws.

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      num_bins: B >= 1.

    Returns:
      `ReliabilityCurve`, each field [B]; sum of count/N |accuracy - confidence| over its non-empty bins is the ECE.

    Raises:
      ValueError: as `expected_calibration_error`.

    References:
      Guo et al. 2017, figure 1; Mueller, Kornblith & Hinton 2019, section 3.

    Examples:
      >>> curve = reliability_curve([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], [0, 1, 0], num_bins=5)
      >>> curve.count.tolist(), curve.accuracy.tolist()
      ([0, 0, 1, 0, 2], [nan, nan, 1.0, nan, 0.5])
    """
    num_bins = host.integer_at_least(num_bins, 1, "num_bins")
    confidence, correct = _top_label(probs, labels)
    bins = bin_index(confidence, num_bins)
    sizes = np.bincount(bins, minlength=num_bins)
    filled = np.where(sizes > 0, sizes, np.nan)
    edges = np.arange(num_bins + 1) / num_bins
    means = [np.bincount(bins, values, num_bins) / filled for values in (confidence, correct)]
    return ReliabilityCurve(edges[:-1], edges[1:], sizes, *means)


def fit_temperature(logits: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], *, bounds: tuple[float, float] = (1e-3, 1e3)) -> float:
    """The temperature T that minimises the mean negative log-likelihood of softmax(logits / T); it divides logits.

    The negative log-likelihood is convex in 1/T, so its minimum is unique: Newton steps on ln T inside a shrinking bracket, in
    float64, to a relative 1e-12 in T. Cost: O(N K) for each of some ten steps.

    Args:
      logits: unnormalised or normalised log-probabilities (both give the same T); -inf excludes a class.
      labels: integers in [0, K).
      bounds: smallest and largest temperature allowed, both positive and finite.

    Returns:
      T > 0. A minimum outside `bounds` gives the nearer bound: the lower one when sharpening always helps (every example right),
      the upper one when the logits are no better than the uniform distribution. 1.0 when every row is constant (any T is optimal).

    Raises:
      ValueError: NaN or +inf logits, a label whose logit is -inf (its likelihood is 0 at every T), labels out of range, bad bounds.

    References:
      Guo et al. 2017, section 4.2; Mueller, Kornblith & Hinton 2019, section 3 (which does not state the criterion).

    Examples:
      >>> round(fit_temperature([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]], [0, 0, 0, 1]), 6)  # 2 / ln 3
      1.820478
    """
    low, high = (float(bound) for bound in bounds)
    if not 0 < low < high < np.inf:
        raise ValueError(f"bounds must be two increasing positive finite temperatures, got {bounds}")
    logits, labels = _checked_logits(logits, labels)
    if all(np.all((block == block.max(-1, keepdims=True)) | np.isneginf(block)) for _, block in host.blocks(logits)):
        return 1.0
    if _slope(logits, labels, 1 / low)[0] <= 0:
        return low
    if _slope(logits, labels, 1 / high)[0] >= 0:
        return high
    lower, upper, position = -np.log(high), -np.log(low), float(np.clip(0.0, -np.log(high), -np.log(low)))
    for _ in range(200):  # position = -ln T
        slope, curvature = _slope(logits, labels, np.exp(position))
        lower, upper = (position, upper) if slope < 0 else (lower, position)
        step = slope / (np.exp(position) * curvature) if curvature > 0 else np.inf
        proposal = position - step if lower < position - step < upper else (lower + upper) / 2
        if slope == 0:
            break
        moved, position = abs(proposal - position), proposal
        if moved < _STEP:
            break
    return float(np.exp(-position))


def _checked_logits(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    logits = host.as_numpy(logits, "logits")
    if logits.ndim != 2 or logits.shape[0] < 1 or logits.shape[1] < 2:
        raise ValueError(f"logits must be [N, K] with N >= 1 examples and K >= 2 classes, got shape {logits.shape}")
    labels = host.class_labels(labels, *logits.shape)
    for rows, block in host.blocks(logits):
        if not np.all(block < np.inf):  # NaN compares false
            raise ValueError(f"logits must be finite or -inf, got NaN or +inf in rows {rows.start} to {rows.stop - 1}")
    excluded = np.isneginf(logits[np.arange(labels.size), labels].astype(np.float64))
    if excluded.any():
        raise ValueError(f"logits must not be -inf at the label (no temperature helps), got -inf in row {int(np.flatnonzero(excluded)[0])}")
    return logits, labels


def _slope(logits: np.ndarray, labels: np.ndarray, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood with respect to 1/T."""
    slope = curvature = 0.0
    for rows, block in host.blocks(logits):
        block -= block.max(-1, keepdims=True)
        probs = np.exp(inverse * block)
        probs /= probs.sum(-1, keepdims=True)
        block[np.isneginf(block)] = 0.0
        mean = np.einsum("nk,nk->n", probs, block)
        slope += (mean - block[np.arange(block.shape[0]), labels[rows]]).sum()
        block -= mean[:, None]
        curvature += np.einsum("nk,nk,nk->", probs, block, block)
    return slope / labels.size, curvature / labels.size
