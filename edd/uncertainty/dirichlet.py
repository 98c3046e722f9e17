"""The five uncertainty measures of a Dirichlet over class probabilities, in nats; the names of `edd.uncertainty.ensemble`.

With p = alpha / alpha_0, d(x) = ln x - psi(x) and e(x) = x (psi(x+1) - ln x), the knowledge measures are sums of one class each:

- mutual information          I = [sum_k e(alpha_k) - e(alpha_0)] / alpha_0
- reverse mutual information  M = [sum_k alpha_k d(alpha_k) - alpha_0 d(alpha_0)] / alpha_0
- expected pairwise KL        K = (K - 1) / alpha_0 = I + M

so nothing of the order of the entropies is subtracted. Accurate in float32 for concentrations of 1e-4 to 1e8, mixed as they may be.
"""

import jax
import jax.numpy as jnp

from edd.distributions.dirichlet import as_concentration
from edd.math import coefficients, special
from edd.math.polygamma import horner, horner_difference
from edd.math.reduce import class_sum, leave_one_out_sum, settle, split_largest
from edd.typing import Array, ArrayLike, Float

__all__ = ["data_uncertainty", "expected_pairwise_kl", "mutual_information", "reverse_mutual_information", "total_uncertainty"]


def total_uncertainty(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """Entropy of the mean prediction, H[alpha / alpha_0], in nats. O(K).

    Args:
      concentration: positive and finite.

    Returns:
      Between 0 (one class holds everything) and ln K (uniform mean).

    Raises:
      ValueError: if the shape is not [*B, K >= 2] or a concrete value is not positive and finite.

    References:
      Malinin, Mlodozeniec & Gales 2020, section 3.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(total_uncertainty(jnp.ones(4))), 5)  # ln 4
      1.38629
    """
    return _total(as_concentration(concentration))


def data_uncertainty(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """Expected entropy of the class probabilities, E H[pi] = sum_k p_k (psi(alpha_0 + 1) - psi(alpha_k + 1)), in nats. O(K).

    Args:
      concentration: positive and finite.

    Returns:
      Between 0 and the total uncertainty; near 0 also where alpha is small, as the draws are then one-hot.

    Raises:
      ValueError: as `total_uncertainty`.

    References:
      Malinin, Mlodozeniec & Gales 2020, section 3.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(data_uncertainty(jnp.ones(3))), 5)  # 1/2 + 1/3
      0.83333
    """
    return _data(as_concentration(concentration))


def mutual_information(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """Mutual information of label and class probabilities, I = total - data uncertainty, in nats. O(K).

    Args:
      concentration: positive and finite.

    Returns:
      Positive and at most the total uncertainty; about (K - 1) / (2 alpha_0) at high precision.

    Raises:
      ValueError: as `total_uncertainty`.

    References:
      Malinin, Mlodozeniec & Gales 2020, section 3.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(mutual_information(jnp.ones(2))), 5)  # ln 2 - 1/2
      0.19315
    """
    return _mutual(as_concentration(concentration))


def reverse_mutual_information(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """Expected KL from the mean prediction to a draw, M = E KL(mean || pi), in nats. O(K).

    Args:
      concentration: positive and finite.

    Returns:
      Positive and unbounded: between (K - 1) / (2 alpha_0), reached at high precision, and (K - 1) / alpha_0.

    Raises:
      ValueError: as `total_uncertainty`.

    References:
      Ryabinin, Malinin & Gales 2021.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(reverse_mutual_information(jnp.ones(2))), 5)  # 1 - ln 2
      0.30685
    """
    return _reverse(as_concentration(concentration))


def expected_pairwise_kl(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """Expected KL divergence between two independent draws, (K - 1) / alpha_0, in nats. O(K).

    Args:
      concentration: positive and finite.

    Returns:
      Positive and unbounded; the sum of mutual and reverse mutual information.

    Raises:
      ValueError: as `total_uncertainty`.

    References:
      Malinin, Mlodozeniec & Gales 2020, section 3.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(expected_pairwise_kl(jnp.ones(2)))
      0.5
    """
    concentration = as_concentration(concentration)
    return (concentration.shape[-1] - 1) / class_sum(concentration)


def _log_means(concentration: Array) -> Array:
    return -jnp.log1p(leave_one_out_sum(concentration) / concentration)


@jax.custom_jvp
def _total(concentration: Array) -> Array:
    return class_sum(-concentration * _log_means(concentration)) / class_sum(concentration)


@_total.defjvp
def _total_jvp(primals, tangents):
    (concentration,), (tangent,) = primals, tangents
    value, total = _total(concentration), class_sum(concentration)
    return value, ((-_log_means(concentration) - value[..., None]) * tangent).sum(-1) / total


def _next_difference(concentration: Array) -> Array:
    """psi(alpha_0 + 1) - psi(alpha_k + 1)."""
    total = class_sum(concentration)[..., None]
    return special.digamma_difference(total + 1, concentration + 1, leave_one_out_sum(concentration))


@jax.custom_jvp
def _data(concentration: Array) -> Array:
    return class_sum(settle(concentration * _next_difference(concentration))) / class_sum(concentration)


@_data.defjvp
def _data_jvp(primals, tangents):
    (concentration,), (tangent,) = primals, tangents
    value, total = _data(concentration), class_sum(concentration)
    total_column = total[..., None]
    # alpha_0 psi1(alpha_0 + 1) - alpha_j psi1(alpha_j + 1); at high precision, where both are near 1, as a difference of complements
    small = total_column * special.trigamma(total_column + 1) - concentration * special.trigamma(concentration + 1)
    large = special.one_minus_x_trigamma_next(concentration) - special.one_minus_x_trigamma_next(total_column)
    weights = jnp.where(total_column < 1, small, large)
    return value, ((_next_difference(concentration) + weights - value[..., None]) * tangent).sum(-1) / total


def _excess_rise(x: Array, difference: Array) -> Array:
    """e(x + difference) - e(x) for difference >= 0, e(x) = x (psi(x + 1) - ln x), accurate for a small difference."""
    end = x + difference
    below = x < 1
    lift = jnp.where(below, 1, 0).astype(x.dtype)
    t, s = 1 / (x + lift), 1 / (end + lift)
    w = difference * t * s
    table = coefficients.LOG_MINUS_DIGAMMA
    above = w * horner_difference(table, t, s)
    log = jnp.log1p(1 / jnp.where(below, end, 1))
    grown = difference * (log - s * horner(table, s))
    moved = x * (jnp.log1p(-jnp.where(below, difference * t / end, 0)) + w * horner_difference(table, t, s, factor=1))
    return jnp.where(below, grown + moved, above)


@jax.custom_jvp
def _mutual(concentration: Array) -> Array:
    # the largest class is taken together with alpha_0: their terms are both 1/2 where it dominates
    largest, count, rest = split_largest(concentration)
    term = special.x_digamma_next_minus_log
    others = class_sum(settle(jnp.where(concentration == largest[..., None], 0, term(concentration)))) + (count - 1) * term(largest)
    return (others - _excess_rise(largest, rest + (count - 1) * largest)) / class_sum(concentration)


@_mutual.defjvp
def _mutual_jvp(primals, tangents):
    (concentration,), (tangent,) = primals, tangents
    value, total = _mutual(concentration), class_sum(concentration)
    slope = jax.jvp(special.x_digamma_next_minus_log, (concentration,), (jnp.ones_like(concentration),))[1]
    total_slope = jax.jvp(special.x_digamma_next_minus_log, (total,), (jnp.ones_like(total),))[1]
    return value, ((slope - (total_slope + value)[..., None]) * tangent).sum(-1) / total


@jax.custom_jvp
def _reverse(concentration: Array) -> Array:
    total = class_sum(concentration)
    return (class_sum(settle(special.x_log_minus_digamma(concentration))) - special.x_log_minus_digamma(total)) / total


@_reverse.defjvp
def _reverse_jvp(primals, tangents):
    (concentration,), (tangent,) = primals, tangents
    value, total = _reverse(concentration), class_sum(concentration)
    slope = jax.jvp(special.x_log_minus_digamma, (concentration,), (jnp.ones_like(concentration),))[1]
    total_slope = jax.jvp(special.x_log_minus_digamma, (total,), (jnp.ones_like(total),))[1]
    return value, ((slope - (total_slope + value)[..., None]) * tangent).sum(-1) / total
