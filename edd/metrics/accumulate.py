"""Mergeable sums: metrics that are a function of sums over examples, taken batch by batch inside jit.

Each `...Sums` is a NamedTuple of arrays, so it is a pytree: add two with `add`, sum it over a mesh axis with `jax.lax.psum`,
carry it through `jax.lax.scan`. Counts are int32 and exact; float sums have the rounding of float32, so over many batches move
them to the host (`to_host`: int64 and float64) and add there. Two halves give the whole's result: bins and counts exactly, float
sums to rounding.

Not here, because they need the order of all scores and no fixed-size sum holds it: AUROC, AUPR, FPR at a TPR, AURC, PRR,
adaptive calibration and rank correlation. Histograms would approximate them; keep the scores (4 bytes for each example) and
call `edd.metrics.detection` and its neighbours.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from edd.math import checks
from edd.metrics import host
from edd.typing import Array, ArrayLike, Float, Int

Mask = ArrayLike | None
Sums = TypeVar("Sums")


class MeanSums(NamedTuple):
    """`total` of the values and `count` of the examples that count."""

    count: Int[Array, ""]
    total: Float[Array, ""]


class ClassificationSums(NamedTuple):
    """Sums over the examples that count: examples, right predictions, negative log-likelihood (nats), Brier score."""

    count: Int[Array, ""]
    correct: Int[Array, ""]
    nll: Float[Array, ""]
    brier: Float[Array, ""]


class CalibrationSums(NamedTuple):
    """For each equal-width right-closed bin of the confidence: examples, right predictions, sum of confidences."""

    count: Int[Array, " bins"]
    correct: Int[Array, " bins"]
    confidence: Float[Array, " bins"]


class ClassificationScores(NamedTuple):
    """Fractions and nats, as `edd.metrics.classification` defines them."""

    accuracy: float
    nll: float
    brier_score: float


class CalibrationErrors(NamedTuple):
    """Fractions, as `edd.metrics.calibration` defines them."""

    expected: float
    maximum: float
    root_mean_square: float
    confidence_gap: float


def _mask(mask: Mask, shape: tuple[int, ...]) -> Array:
    if mask is None:
        return jnp.ones(shape, bool)
    mask = checks.as_float(mask, "mask")
    checks.shape(mask, shape, "mask")
    return mask != 0


def _predictions(array: ArrayLike, labels: ArrayLike, mask: Mask, name: str) -> tuple[Array, Array, Array]:
    """(float array [*B, K], labels [*B], mask [*B]), what padding holds replaced by the uniform distribution and label 0."""
    array = checks.as_float(array, name)
    checks.classes(array, name)
    labels = jnp.asarray(labels)
    checks.shape(labels, array.shape[:-1], "labels")
    mask = _mask(mask, labels.shape)
    checks.labels(jnp.where(mask, labels, jnp.zeros_like(labels)), array.shape[-1])
    uniform = 1.0 / array.shape[-1] if name == "probs" else -np.log(array.shape[-1])
    array = jnp.where(mask[..., None], array, jnp.full_like(array, uniform))
    if checks.is_concrete(array):  # in its own precision, which sets the tolerance
        check = host.probabilities if name == "probs" else host.log_probabilities
        check(np.asarray(array).reshape(-1, array.shape[-1]))
    return array.astype(jnp.promote_types(array.dtype, jnp.float32)), jnp.where(mask, labels, jnp.zeros_like(labels)), mask


def mean(values: Float[ArrayLike, "*B"], mask: Mask = None) -> MeanSums:
    """Sums for the mean of any value per example (an uncertainty, a loss), in the value's unit.

    Args:
      values: any shape, one value for each example.
      mask: the same shape, 1 counts, 0 is padding (whose value may be anything, NaN too); None counts all.

    Returns:
      `MeanSums`; `mean_value` of it is the mean.

    Raises:
      ValueError: a mask of another shape.

    References:
      None: a sum.

    Examples:
      >>> import jax.numpy as jnp
      >>> mean_value(add(mean(jnp.array([1.0, 2.0])), mean(jnp.array([6.0, jnp.nan]), mask=jnp.array([1, 0]))))
      3.0
    """
    values = checks.as_float(values, "values")
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    mask = _mask(mask, values.shape)
    return MeanSums(mask.sum(dtype=jnp.int32), jnp.where(mask, values, jnp.zeros_like(values)).sum())


def classification(log_probs: Float[ArrayLike, "*B K"], labels: Int[ArrayLike, "*B"], mask: Mask = None) -> ClassificationSums:
    """Sums for accuracy, negative log-likelihood and Brier score of one batch.

    Args:
      log_probs: normalised log-probabilities; -inf is a probability of exactly zero.
      labels: integers in [0, K).
      mask: [*B], 1 counts, 0 is padding (which may hold anything, NaN and labels out of range too); None counts all.

    Returns:
      `ClassificationSums`; `classification_scores` turns it into the three scores.

    Raises:
      ValueError: wrong shapes; outside jit also unnormalised log-probabilities and labels out of range.
      TypeError: labels that are not integers.

    References:
      As `edd.metrics.classification`.

    Examples:
      >>> import jax.numpy as jnp
      >>> classification_scores(classification(jnp.log(jnp.array([[0.8, 0.2], [0.4, 0.6]])), jnp.array([0, 0]))).accuracy
      0.5
    """
    log_probs, labels, mask = _predictions(log_probs, labels, mask, "log_probs")
    nll = 0.0 - jnp.take_along_axis(log_probs, labels[..., None], -1)[..., 0]
    target = jax.nn.one_hot(labels, log_probs.shape[-1], dtype=log_probs.dtype)
    brier = jnp.square(jnp.exp(log_probs) - target).sum(-1)
    zero = jnp.zeros_like(nll)
    correct = mask & (log_probs.argmax(-1) == labels)
    sums = (jnp.where(mask, value, zero).sum() for value in (nll, brier))
    return ClassificationSums(mask.sum(dtype=jnp.int32), correct.sum(dtype=jnp.int32), *sums)


def calibration(probs: Float[ArrayLike, "*B K"], labels: Int[ArrayLike, "*B"], mask: Mask = None, num_bins: int = 15) -> CalibrationSums:
    """Sums for the calibration errors over equal-width right-closed bins of the confidence, for one batch.

    The bins are exactly those of `edd.metrics.calibration`: the edges are rounded down to the confidences' type, which leaves no
    number between an edge and its rounding.

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      mask: [*B], 1 counts, 0 is padding (which may hold anything); None counts all.
      num_bins: B >= 1.

    Returns:
      `CalibrationSums`, each field [num_bins]; `calibration_errors` turns it into the errors.

    Raises:
      ValueError: wrong shapes, `num_bins` < 1; outside jit also probabilities below 0 or not summing to 1, and labels out of range.
      TypeError: labels that are not integers.

    References:
      As `edd.metrics.calibration`.

    Examples:
      >>> import jax.numpy as jnp
      >>> sums = calibration(jnp.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]), jnp.array([0, 1, 0]))
      >>> round(calibration_errors(sums).expected, 4)
      0.4
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    probs, labels, mask = _predictions(probs, labels, mask, "probs")
    confidence, correct = probs.max(-1), probs.argmax(-1) == labels
    exact = np.arange(1, num_bins) / num_bins
    edges = exact.astype(probs.dtype)
    edges = np.where(edges > exact, np.nextafter(edges, edges.dtype.type(-1)), edges)
    bins = jnp.searchsorted(jnp.asarray(edges), confidence, side="left")
    member = jax.nn.one_hot(bins, num_bins, dtype=bool) & mask[..., None]
    axes = tuple(range(confidence.ndim))
    counts = [member.sum(axes, dtype=jnp.int32), (member & correct[..., None]).sum(axes, dtype=jnp.int32)]
    return CalibrationSums(*counts, jnp.where(member, confidence[..., None], 0.0).sum(axes))


def add(first: Sums, second: Sums) -> Sums:
    """Sums of both batches together; works inside jit and on the host.

    Args:
      first: any `...Sums` of this module.
      second: the same kind, with the same number of bins.

    Returns:
      The same kind, as if both batches had been one.

    Raises:
      TypeError: two different kinds of sums.
      ValueError: different numbers of bins.

    References:
      None: a sum.

    Examples:
      >>> import jax.numpy as jnp
      >>> int(add(mean(jnp.ones(2)), mean(jnp.ones(3))).count)
      5
    """
    if type(first) is not type(second):
        raise TypeError(f"first and second must be the same kind of sums, got {type(first).__name__} and {type(second).__name__}")
    shapes = [np.shape(leaf) for leaf in first], [np.shape(leaf) for leaf in second]
    if shapes[0] != shapes[1]:
        raise ValueError(f"first and second must have the same number of bins, got shapes {shapes[0]} and {shapes[1]}")
    return jax.tree.map(lambda one, two: one + two, first, second)


def to_host(sums: Sums) -> Sums:
    """The sums as numpy int64 and float64, so that further additions lose neither counts nor digits.

    Args:
      sums: any `...Sums` of this module, not traced.

    Returns:
      The same kind.

    Raises:
      jax.errors.TracerArrayConversionError: inside jit.

    References:
      None: a conversion.

    Examples:
      >>> import jax.numpy as jnp
      >>> to_host(mean(jnp.ones(2))).total.dtype
      dtype('float64')
    """
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.int64 if np.asarray(leaf).dtype.kind in "iu" else np.float64), sums)


def mean_value(sums: MeanSums) -> float:
    """The mean of all values that counted, in their unit; nan when none did.

    Args:
      sums: from `mean`.

    Returns:
      The mean, or nan.

    Raises:
      jax.errors.TracerArrayConversionError: inside jit.

    References:
      None: a mean.

    Examples:
      >>> import jax.numpy as jnp
      >>> mean_value(mean(jnp.array([1.0, 3.0])))
      2.0
    """
    sums = to_host(sums)
    return float(sums.total / sums.count) if sums.count else float("nan")


def classification_scores(sums: ClassificationSums) -> ClassificationScores:
    """Accuracy (fraction), negative log-likelihood (nats) and Brier score of all examples summed; nan when there are none.

    Args:
      sums: from `classification`.

    Returns:
      `ClassificationScores`, equal to `edd.metrics.classification` on all examples at once, up to the rounding of the sums.

    Raises:
      jax.errors.TracerArrayConversionError: inside jit.

    References:
      As `edd.metrics.classification`.

    Examples:
      >>> import jax.numpy as jnp
      >>> sums = classification(jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([1]))
      >>> [round(score, 3) for score in classification_scores(sums)]
      [0.0, 0.693, 0.5]
    """
    sums = to_host(sums)
    if not sums.count:
        return ClassificationScores(float("nan"), float("nan"), float("nan"))
    return ClassificationScores(*(float(total / sums.count) for total in (sums.correct, sums.nll, sums.brier)))


def calibration_errors(sums: CalibrationSums) -> CalibrationErrors:
    """Expected, maximum and root-mean-square calibration error and the confidence gap; fractions, nan when there are no examples.

    Args:
      sums: from `calibration`.

    Returns:
      `CalibrationErrors`, equal to `edd.metrics.calibration` on all examples at once, up to the rounding of the sums.

    Raises:
      jax.errors.TracerArrayConversionError: inside jit.

    References:
      As `edd.metrics.calibration`.

    Examples:
      >>> import jax.numpy as jnp
      >>> sums = calibration(jnp.array([[0.75, 0.25], [0.75, 0.25]]), jnp.array([0, 1]))
      >>> calibration_errors(sums)
      CalibrationErrors(expected=0.25, maximum=0.25, root_mean_square=0.25, confidence_gap=0.25)
    """
    sums = to_host(sums)
    total = sums.count.sum()
    if not total:
        return CalibrationErrors(*[float("nan")] * 4)
    gaps = sums.confidence - sums.correct
    size = np.maximum(sums.count, 1)
    errors = (np.abs(gaps).sum() / total, (np.abs(gaps) / size).max(), np.sqrt((gaps**2 / size).sum() / total), abs(gaps.sum()) / total)
    return CalibrationErrors(*map(float, errors))
