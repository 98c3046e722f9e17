"""Accuracy, likelihood and calibration by quantile of an uncertainty: buckets, acceptance, their areas and covariances.

Examples in ascending order of uncertainty are cut into Q quantiles of N/Q (the first N mod Q one more). A *bucket* is one quantile, an
*acceptance* all quantiles up to and including it: what is left when the rest is rejected. Examples tied across a border are shared
between its sides in expectation (`rejection.uncertainty_quantile_curve`), so that nothing depends on the order of the rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Real

from edd.metrics import host
from edd.metrics.rejection import UncertaintyQuantileCurve, uncertainty_quantile_curve
from edd.typing import ArrayLike, Float, Int

X_SCALES = ("zscore", "quantile", "raw")


class PredictionCurves(NamedTuple):
    """Three `UncertaintyQuantileCurve`s of the same quantiles: fractions, nats, fractions."""

    accuracy: UncertaintyQuantileCurve
    nll: UncertaintyQuantileCurve
    calibration_error: UncertaintyQuantileCurve


def prediction_curves(
    uncertainty: Real[ArrayLike, " N"], log_probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], num_quantiles: int = 20
) -> PredictionCurves:
    """Accuracy, negative log-likelihood and calibration error by quantile of an uncertainty.

    The calibration error of a set is the absolute difference of its mean confidence and its accuracy (`calibration.confidence_gap`).
    It is not linear: the last acceptance is that of all examples, but the buckets do not average to it; those of accuracy and
    likelihood do, weighted by their counts. The prediction that is scored and the uncertainty that ranks may come from different models.

    Args:
      uncertainty: finite numbers; the most certain first.
      log_probs: normalised log-probabilities; -inf is a probability of exactly zero.
      labels: integers in [0, K).
      num_quantiles: 1 <= Q <= N.

    Returns:
      `PredictionCurves`; the likelihood is +inf from where a label of probability zero is accepted.

    Raises:
      ValueError: NaN, unnormalised `log_probs`, labels out of range, other lengths, Q outside [1, N].

    References:
      Kirsch 2024, appendix E.2-E.3 ("bucket average", "acceptance threshold"; the paper does not state Q).

    Examples:
      >>> import numpy as np
      >>> curves = prediction_curves([0.1, 0.2], np.log([[0.9, 0.1], [0.6, 0.4]]), [0, 1], num_quantiles=2)
      >>> curves.accuracy.acceptance.tolist(), curves.calibration_error.acceptance.round(3).tolist()
      ([1.0, 0.5], [0.1, 0.25])
    """
    log_probs = host.log_probabilities(log_probs)
    labels = host.class_labels(labels, *log_probs.shape)
    chosen, rows = log_probs.argmax(-1), np.arange(labels.size)
    correct = (chosen == labels).astype(np.float64)
    confidence = np.exp(log_probs[rows, chosen].astype(np.float64))
    losses = 0.0 - log_probs[rows, labels].astype(np.float64)
    zero = np.isinf(losses)
    nll, infinite, gap = (
        uncertainty_quantile_curve(uncertainty, values, num_quantiles) for values in (np.where(zero, 0, losses), zero, confidence - correct)
    )
    nll = nll._replace(**{name: np.where(getattr(infinite, name) > 0, np.inf, getattr(nll, name)) for name in ("bucket", "acceptance")})
    gap = gap._replace(bucket=np.abs(gap.bucket), acceptance=np.abs(gap.acceptance))
    return PredictionCurves(uncertainty_quantile_curve(uncertainty, correct, num_quantiles), nll, gap)


def curve_area(quantile: Real[ArrayLike, " Q"], values: Real[ArrayLike, " Q"]) -> float:
    """Area under a curve over quantile levels by the trapezoid rule, in the unit of the values.

    Args:
      quantile: ascending levels, at least two.
      values: the curve at these levels.

    Returns:
      A constant c has c times the last level less the first: c (1 - 1/Q) for levels 1/Q..1. Infinite where a value is.

    Raises:
      ValueError: NaN, other lengths, fewer than two levels, levels that do not rise.

    References:
      Kirsch 2024, figure 3 (areas in the legends; the rule is not stated).

    Examples:
      >>> curve_area([0.5, 1.0], [1.0, 0.8])
      0.45
    """
    quantile = host.vector(quantile, "quantile")
    values = host.vector(values, "values", quantile.size)
    if quantile.size < 2 or not (np.diff(quantile) > 0).all():
        raise ValueError(f"quantile must hold at least two rising levels, got {quantile.tolist()}")
    return float((np.diff(quantile) * (values[1:] + values[:-1]) / 2).sum())


def neg_cov(x: Real[ArrayLike, " Q"], y: Real[ArrayLike, " Q"], x_scale: str = "zscore", *, ddof: int = 0) -> float:
    """Negative covariance of an uncertainty with a metric over the points of a curve, -cov(x, y), in the unit of y (times x's).

    What x is and how it is scaled is not stated where such numbers were published; that they hardly change with the uncertainty's scale
    and exceed what levels in [0, 1] can give speaks for "zscore". State the choice with the number.

    Args:
      x: finite; a curve's `uncertainty`, or its `quantile` levels.
      y: finite; the same curve's `bucket` or `acceptance`.
      x_scale: "zscore": x less its mean over its standard deviation, so that the result is minus correlation times the standard deviation
        of y; "quantile": x as ranks over their number, ties averaged, in (0, 1]; "raw": x as it is.
      ddof: 0 divides by the number of points, 1 by one less (also in the z-score).

    Returns:
      Positive where y falls as x rises. nan where all x are equal under "zscore".

    Raises:
      ValueError: NaN or infinite values, other lengths, an unknown scale, `ddof` neither 0 nor 1, no more points than `ddof`.

    References:
      Kirsch 2024, tables 3-6 (negative bucket and acceptance covariances).

    Examples:
      >>> round(neg_cov([1.0, 2.0, 9.0], [0.9, 0.8, 0.7], "quantile"), 4)
      0.0222
    """
    x = host.vector(x, "x")
    y = host.vector(y, "y", x.size)
    for name, values in (("x", x), ("y", y)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
    if x_scale not in X_SCALES:
        raise ValueError(f"x_scale must be one of {', '.join(X_SCALES)}, got {x_scale!r}")
    if ddof not in (0, 1) or x.size <= ddof:
        raise ValueError(f"ddof must be 0 or 1 and less than the {x.size} points, got {ddof!r}")
    if x_scale == "quantile":
        groups = host.tie_groups(x)
        ranks = np.empty(x.size)
        ranks[groups.order] = (groups.first + groups.last + 1) / 2
        x = ranks / x.size
    elif x_scale == "zscore":
        if (x == x[0]).all():
            return float("nan")
        x = (x - x.mean()) / x.std(ddof=ddof)
    return float(-((x - x.mean()) @ (y - y.mean())) / (x.size - ddof))
