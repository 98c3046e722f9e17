"""How far apart two laws of a number are, both given as equal-weight mixtures of Gaussians at each of N inputs; numpy in and out.

A component of variance 0 is an atom, so that an ensemble's members are a law too.
"""

import jax
import jax.numpy as jnp
import numpy as np

from edd.metrics import host

GRID = 4001  # points of the quadrature in `wasserstein`


def energy_distance(first: tuple, second: tuple) -> np.ndarray:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| at each input, >= 0 and 0 only for equal laws, in the unit of the values.

    Twice the expected excess of the second law's CRPS over the first's on values drawn from the first. Cost O((S + T)^2 N).

    Args:
      first, second: (means [S, N], variances [S, N] >= 0) each; S may differ.

    Returns:
      [N].

    Raises:
      ValueError: other shapes, values that are not finite, negative variances.

    References:
      Székely & Rizzo 2013, "Energy statistics: A class of statistics based on distances"; Gneiting & Raftery 2007, equation 21 (CRPS).

    Examples:
      >>> atom = lambda at: (np.array([[at]]), np.zeros((1, 1)))
      >>> energy_distance(atom(0.0), atom(3.0)).tolist()
      [6.0]
    """
    first, second = _law(first, "first"), _law(second, "second")
    _same_inputs(first, second)
    value = 2 * _expected_distance(first, second) - _expected_distance(first, first) - _expected_distance(second, second)
    return np.maximum(value, 0.0)


def wasserstein(first: tuple, second: tuple) -> np.ndarray:
    """The least mean distance over which one law's mass must move to make the other (W_1), at each input, in the unit of the values.

    The integral of |F - G| by the trapezoidal rule, exact to about the range over 4,000.

    Args and Raises as `energy_distance`.

    Returns:
      [N].

    References:
      Villani 2003, "Topics in Optimal Transportation", theorem 2.18.

    Examples:
      >>> atom = lambda at: (np.array([[at]]), np.zeros((1, 1)))
      >>> wasserstein(atom(0.0), atom(3.0)).round(2).tolist()
      [3.0]
    """
    first, second = _law(first, "first"), _law(second, "second")
    _same_inputs(first, second)
    found = np.empty(first[0].shape[1])
    for index in range(len(found)):
        columns = [(means[:, index], np.sqrt(variances[:, index])) for means, variances in (first, second)]
        low = min((means - 9 * deviations).min() for means, deviations in columns)
        high = max((means + 9 * deviations).max() for means, deviations in columns)
        grid = np.linspace(low, high, GRID)
        gap = np.abs(_cumulative(grid, *columns[0]) - _cumulative(grid, *columns[1]))
        found[index] = np.trapezoid(gap, grid)
    return found


def _expected_distance(first, second) -> np.ndarray:
    """E|X - Y| [N] for independent X and Y."""
    total = np.zeros(first[0].shape[1])
    for means, variances in zip(*first):
        total += _mean_absolute(means[None] - second[0], variances[None] + second[1]).mean(0)
    return total / len(first[0])


def _mean_absolute(difference: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """E|X| for X ~ N(difference, variance)."""
    deviation = np.sqrt(variance)
    ratio = difference / np.where(deviation > 0, deviation, 1.0)
    spread = 2 * deviation * np.exp(-0.5 * np.square(ratio)) / np.sqrt(2 * np.pi) + difference * (2 * _normal_cdf(ratio) - 1)
    return np.where(deviation > 0, spread, np.abs(difference))


def _cumulative(grid: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    total = np.zeros_like(grid)
    for mean, deviation in zip(means, deviations):
        total += _normal_cdf((grid - mean) / deviation) if deviation > 0 else (grid >= mean)
    return total / len(means)


def _normal_cdf(values: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(jax.scipy.special.ndtr(jnp.asarray(values, jnp.float64)))


def _law(law: tuple, name: str) -> tuple[np.ndarray, np.ndarray]:
    means, variances = (host.as_numpy(each, name).astype(np.float64) for each in law)
    if means.ndim != 2 or min(means.shape) < 1 or means.shape != variances.shape:
        raise ValueError(f"{name} must be (means [S, N], variances [S, N]), got shapes {means.shape} and {variances.shape}")
    if not (np.isfinite(means).all() and np.isfinite(variances).all() and variances.min() >= 0):
        raise ValueError(f"{name} must have finite means and variances, none of them negative")
    return means, variances


def _same_inputs(first, second) -> None:
    if first[0].shape[1] != second[0].shape[1]:
        raise ValueError(f"both laws must be at the same N inputs, got {first[0].shape[1]} and {second[0].shape[1]}")
