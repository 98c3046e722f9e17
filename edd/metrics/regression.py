"""Scores of predictive distributions over a real target: an equal-weight mixture of S Gaussians for each example.

Conventions: components (members, or draws of a student) on the first axis, examples on the second; `means` and `variances` [S, N],
`targets` [N]; everything in the targets' unit. A single Gaussian is S = 1. Variances include the noise of an observation: a mixture
of the members' functions alone is not a prediction of a target.

The Gaussian cumulative distribution is JAX's, computed in float64 whatever the global setting.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from edd.metrics import host
from edd.typing import ArrayLike, Float

Counts = ArrayLike | None

_BLOCK_ELEMENTS = 1 << 22
_QUANTILE_STEPS = 80  # halvings: below float64's resolution of any bracket


def rmse(predictions: Float[ArrayLike, " N"], targets: Float[ArrayLike, " N"], *, counts: Counts = None) -> float | Float[np.ndarray, " R"]:
    """Root mean squared error, in the targets' unit.

    Args:
      predictions: point predictions, for a mixture its mean.
      targets: what was observed.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      >= 0.

    Raises:
      ValueError: other shapes, NaN or infinite values.

    Examples:
      >>> rmse([1.0, 2.0], [1.0, 4.0], counts=[1, 1]) == 2**0.5
      True
    """
    predictions = _finite(host.vector(predictions, "predictions"), "predictions")
    targets = _finite(host.vector(targets, "targets", predictions.size), "targets")
    mean = host.mean_of(np.square(predictions - targets))
    return host.evaluate(lambda rows: np.sqrt(mean(rows)), counts, targets.size)


def gaussian_mixture_nll(
    means: Float[ArrayLike, "S N"], variances: Float[ArrayLike, "S N"], targets: Float[ArrayLike, " N"], *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Mean negative log-density of the targets under the mixture, in nats.

    Args:
      means: [S, N].
      variances: [S, N], positive.
      targets: [N].
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      Any real number; it shifts by ln c when everything is measured in a unit c times smaller.

    Raises:
      ValueError: other shapes, NaN or infinite values, variances that are not positive.

    References:
      arXiv 2510.19290, section 5 (specification 4).

    Examples:
      >>> round(gaussian_mixture_nll([[0.0], [0.0]], [[1.0], [1.0]], [0.0]), 4)  # ln(2 pi) / 2
      0.9189
    """
    means, variances, targets = _mixture(means, variances, targets)
    log_density = -0.5 * (np.square(targets - means) / variances + np.log(2 * np.pi * variances))
    largest = log_density.max(0)
    values = -(largest + np.log(np.exp(log_density - largest).mean(0)))
    return host.evaluate(host.mean_of(values), counts, targets.size)


def gaussian_mixture_crps(
    means: Float[ArrayLike, "S N"], variances: Float[ArrayLike, "S N"], targets: Float[ArrayLike, " N"], *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Mean continuous ranked probability score of the mixture, in the targets' unit: int (F(v) - 1{target <= v})^2 dv, in closed form.

    Cost: S^2 N evaluations, in blocks.

    Args and Raises as `gaussian_mixture_nll`.

    Returns:
      >= 0; for one Gaussian of vanishing variance the absolute error.

    References:
      Grimit et al. 2006; specification 4 (closed form).

    Examples:
      >>> round(gaussian_mixture_crps([[0.0]], [[1.0]], [0.0]), 6)  # (sqrt 2 - 1) / sqrt pi
      0.233695
    """
    means, variances, targets = _mixture(means, variances, targets)
    components = means.shape[0]
    values = np.empty(targets.size)
    step = max(1, _BLOCK_ELEMENTS // components**2)
    for start in range(0, targets.size, step):
        rows = slice(start, start + step)
        values[rows] = _in_float64(_crps, means[:, rows], variances[:, rows], targets[rows])
    return host.evaluate(host.mean_of(values), counts, targets.size)


def ensemble_crps(
    samples: Float[ArrayLike, "M N"], targets: Float[ArrayLike, " N"], *, fair: bool = False, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Mean continuous ranked probability score of M point forecasts per example, in the targets' unit.

    Args:
      samples: [M, N].
      targets: [N].
      fair: divide the members' mutual distances by M (M - 1) instead of M^2, which is unbiased for the distribution they were drawn from;
        needs M >= 2.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Raises:
      ValueError: other shapes, NaN or infinite values, one member with `fair`.

    References:
      Gneiting & Raftery 2007, equation 21; Ferro 2014 (fair).

    Examples:
      >>> ensemble_crps([[0.0], [2.0]], [1.0]), ensemble_crps([[0.0], [2.0]], [1.0], fair=True)
      (0.5, 0.0)
    """
    samples, targets = _table(samples, "samples"), _finite(host.vector(targets, "targets"), "targets")
    members = samples.shape[0]
    _same_rows(samples, targets, "samples")
    if fair and members < 2:
        raise ValueError("fair needs at least 2 members, got 1")
    ordered = np.sort(samples, axis=0)
    weights = 2 * np.arange(1, members + 1) - members - 1.0  # sum_ij |x_i - x_j| = 2 sum_i weights_i x_(i)
    spread = weights @ ordered / (members * (members - 1 if fair else members))
    values = np.abs(samples - targets).mean(0) - spread
    return host.evaluate(host.mean_of(values), counts, targets.size)


def interval_coverage(
    means: Float[ArrayLike, "S N"],
    variances: Float[ArrayLike, "S N"],
    targets: Float[ArrayLike, " N"],
    level: float = 0.95,
    *,
    counts: Counts = None,
) -> float | Float[np.ndarray, " R"]:
    """Fraction of targets inside the mixture's central interval, between its (1 - level) / 2 and (1 + level) / 2 quantiles.

    A target is inside where the cumulative distribution at it lies between the two, so no quantile is searched.

    Args:
      level: in (0, 1]; the others as `gaussian_mixture_nll`.

    Returns:
      In [0, 1]; `level` for a calibrated prediction. A student is compared with its teachers' coverage, not with `level`.

    Raises:
      ValueError: as `gaussian_mixture_nll`, or a level out of range.

    References:
      Specification 4 (the paper leaves the interval undefined).

    Examples:
      >>> interval_coverage([[0.0, 0.0]], [[1.0, 1.0]], [1.9, 2.0])
      0.5
    """
    level = host.fraction(level, "level")
    means, variances, targets = _mixture(means, variances, targets)
    cumulative = _in_float64(_cumulative, means, variances, targets)
    inside = np.abs(cumulative - 0.5) <= level / 2
    return host.evaluate(host.mean_of(inside.astype(np.float64)), counts, targets.size)


def gaussian_mixture_quantile(
    means: Float[ArrayLike, "S N"], variances: Float[ArrayLike, "S N"], probability: float
) -> Float[np.ndarray, " N"]:
    """The value below which the mixture has `probability`, by bisection between its components' quantiles.

    Args:
      means: [S, N].
      variances: [S, N], positive.
      probability: in (0, 1).

    Raises:
      ValueError: as `gaussian_mixture_nll`, or a probability out of range.

    Examples:
      >>> gaussian_mixture_quantile([[0.0], [2.0]], [[1.0], [1.0]], 0.5).round(6).tolist()
      [1.0]
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must lie in (0, 1), got {probability}")
    means = _table(means, "means")
    means, variances, _ = _mixture(means, variances, np.zeros(means.shape[1]))
    return _in_float64(_quantile, means, variances, np.float64(probability))


# --- float64 kernels --------------------------------------------------------------------------------------------------


def _in_float64(function, *arrays: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(function(*(jnp.asarray(array, jnp.float64) for array in arrays)))


def _expected_distance(difference, variance):
    """E|X| for X ~ N(difference, variance)."""
    deviation = jnp.sqrt(variance)
    ratio = difference / deviation
    density = jnp.exp(-0.5 * jnp.square(ratio)) / jnp.sqrt(2 * jnp.pi)
    return 2 * deviation * density + difference * jax.lax.erf(ratio / jnp.sqrt(2.0))


@jax.jit
def _crps(means, variances, targets):
    to_target = _expected_distance(targets[None] - means, variances).mean(0)
    between = _expected_distance(means[:, None] - means[None], variances[:, None] + variances[None]).mean((0, 1))
    return to_target - between / 2


@jax.jit
def _cumulative(means, variances, targets):
    return jax.scipy.special.ndtr((targets[None] - means) / jnp.sqrt(variances)).mean(0)


@jax.jit
def _quantile(means, variances, probability):
    own = means + jnp.sqrt(variances) * jax.scipy.special.ndtri(probability)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        below = _cumulative(means, variances, middle) < probability
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, _QUANTILE_STEPS, halve, (own.min(0), own.max(0)))
    return (low + high) / 2


# --- arguments --------------------------------------------------------------------------------------------------------


def _table(value, name: str) -> np.ndarray:
    array = host.as_numpy(value, name).astype(np.float64)
    if array.ndim != 2 or min(array.shape) < 1:
        raise ValueError(f"{name} must be [S, N], components first, with at least one of each, got shape {array.shape}")
    return _finite(array, name)


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[index]} at index {index}")
    return array


def _same_rows(table: np.ndarray, targets: np.ndarray, name: str) -> None:
    if table.shape[1] != targets.size:
        raise ValueError(f"{name} [S, N] and targets [N] must have the same N, got shapes {table.shape} and {targets.shape}")


def _mixture(means, variances, targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    means, variances = _table(means, "means"), _table(variances, "variances")
    targets = _finite(host.vector(targets, "targets"), "targets")
    if means.shape != variances.shape:
        raise ValueError(f"means and variances must have the same shape [S, N], got {means.shape} and {variances.shape}")
    _same_rows(means, targets, "means")
    if not (variances > 0).all():
        raise ValueError(f"variances must be positive, got {variances.min():.6g}")
    return means, variances, targets
