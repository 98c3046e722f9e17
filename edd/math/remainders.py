"""What is left of psi and psi1 when their leading terms are taken out; `edd.math.special` is the public door.

Each is a quantity whose textbook form subtracts nearly equal numbers; here it is computed from its own polynomial.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from edd.math import coefficients
from edd.math.polygamma import HALF_LOG_TWO_PI, _chain, _digamma, _floor, _log_gamma, _trigamma, horner, lifted, promote
from edd.typing import Array, ArrayLike, Float


def _log1p_reciprocal(x: Array) -> Array:
    """ln(1 + 1/x), finite at 0."""
    return jnp.log1p(1 / _floor(x))


@jax.custom_jvp
def _log_minus_digamma(x: Array) -> Array:
    below, y, t = lifted(x)
    small = jnp.where(below, _floor(x), 1)
    moved = t * horner(coefficients.LOG_MINUS_DIGAMMA, t)
    return moved + jnp.where(below, jnp.where(x == 0, jnp.inf, 1 / small - jnp.log1p(1 / small)), 0)


def _x_trigamma_minus_one(x: Array) -> Array:
    below, _, t = lifted(x)
    remainder = t * horner(coefficients.X_TRIGAMMA_MINUS_ONE, t)
    small = jnp.where(below, x, 1)
    return jnp.where(below, small * t * (1 + remainder) + (1 / small - 1), remainder)


def _one_minus_x_trigamma_next(x: Array) -> Array:
    below, _, t = lifted(x)
    polynomial = horner(coefficients.X_TRIGAMMA_MINUS_ONE, t)
    small = jnp.where(below, x, 0)
    return jnp.where(below, 1 - small * t * (1 + t * polynomial), t * (1 - polynomial))


def _x_log_minus_digamma(x: Array) -> Array:
    return 1 - _x_digamma_next_minus_log(x)


@jax.custom_jvp
def _digamma_next_minus_log(x: Array) -> Array:
    below, _, t = lifted(x)
    polynomial = horner(coefficients.LOG_MINUS_DIGAMMA, t)
    small = jnp.where(below, x, 1)
    return jnp.where(below, jnp.where(x == 0, jnp.inf, _log1p_reciprocal(small)) - t * polynomial, t * (1 - polynomial))


@jax.custom_jvp
def _x_digamma_next_minus_log(x: Array) -> Array:
    below, _, t = lifted(x)
    polynomial = horner(coefficients.LOG_MINUS_DIGAMMA, t)
    small = jnp.where(below, x, 1)
    return jnp.where(below, small * (_log1p_reciprocal(small) - t * polynomial), 1 - polynomial)


def _x_digamma_next_minus_log_slope(x: Array) -> Array:
    """Derivative of x (psi(x + 1) - ln x): x psi1(x) - 1 - (ln x - psi(x)), about 1 / (12 x^2) for large x."""
    below, y, t = lifted(x)
    first, *rest = coefficients.LOG_MINUS_DIGAMMA[64 if x.dtype == jnp.float64 else 32]
    value, slope = jnp.full_like(t, first), jnp.zeros_like(t)
    for coefficient in rest:
        slope = slope * t + value
        value = value * t + coefficient
    small = jnp.where(below, x, 1)
    remainder = horner(coefficients.X_TRIGAMMA_MINUS_ONE, t)
    moved = _log1p_reciprocal(small) - t - t * value + small * t * t * remainder
    return jnp.where(below, moved, t * t * slope)


@jax.custom_jvp
def _entropy_term(x: Array) -> Array:
    below, y, t = lifted(x)
    above = jnp.where(below, 1, x)
    stirling = t * horner(coefficients.STIRLING, t)
    large = 0.5 * jnp.log(above) + HALF_LOG_TWO_PI + stirling + (1 - t) * horner(coefficients.LOG_MINUS_DIGAMMA, t)
    small = jnp.where(below, _floor(x), 0.5)
    direct = _log_gamma(small) + (1 - small) * _digamma(small) + small
    return jnp.where(below, jnp.where(x == 0, -jnp.inf, direct), jnp.where(jnp.isinf(x), jnp.inf, large))


def _entropy_term_slope(x: Array) -> Array:
    """1 - (x - 1) psi1(x), about 1 / (2 x) for large x."""
    below = x < 1
    above = jnp.where(below, 1, x)
    return jnp.where(below, 1 + (1 - x) * _trigamma(x), _trigamma(above) - _x_trigamma_minus_one(above))


@jax.custom_jvp
def _log_gamma_remainder(x: Array) -> Array:
    below, _, t = lifted(x)
    above = jnp.where(below, 1, x)
    small = jnp.where(below, _floor(x), 1)
    direct = _log_gamma(jnp.where(below, x, 1)) - small * jnp.log(small) + small
    return jnp.where(below, direct, HALF_LOG_TWO_PI - 0.5 * jnp.log(above) + t * horner(coefficients.STIRLING, t))


_chain(_log_gamma_remainder, lambda x: -_log_minus_digamma(x))
_chain(_log_minus_digamma, lambda x: -_x_trigamma_minus_one(x) / x)
_chain(_x_digamma_next_minus_log, _x_digamma_next_minus_log_slope)
_chain(_digamma_next_minus_log, lambda x: -_one_minus_x_trigamma_next(x) / x)
_chain(_entropy_term, _entropy_term_slope)


def log_minus_digamma(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """ln x - psi(x) for x > 0: between 1/(2x) and 1/x, without the cancellation of the two logarithms at large x.

    One division per element from 1 on, two and a logarithm below.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Positive and decreasing; +inf at 0, 0 at +inf.

    Raises:
      TypeError: if `x` is not real.

    References:
      Abramowitz & Stegun, 6.3.18.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(1e8 * log_minus_digamma(jnp.float32(1e8))), 5)
      0.5
    """
    return _log_minus_digamma(promote(x))


def x_log_minus_digamma(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """x (ln x - psi(x)) for x > 0: what one class adds to a Dirichlet's reverse mutual information times its precision.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Decreasing from 1 at 0 to 1/2 at +inf.

    Raises:
      TypeError: if `x` is not real.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(x_log_minus_digamma(jnp.float32(1.0))), 5)
      0.57722
    """
    return _x_log_minus_digamma(promote(x))


def digamma_next_minus_log(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """psi(x + 1) - ln x = 1/x - (ln x - psi(x)) for x > 0, without cancellation at small or large x.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Positive and decreasing: +inf at 0, about 1/(2x) at large x, 0 at +inf.

    Raises:
      TypeError: if `x` is not real.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(digamma_next_minus_log(jnp.float32(1.0))), 5)
      0.42278
    """
    return _digamma_next_minus_log(promote(x))


def x_digamma_next_minus_log(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """x (psi(x + 1) - ln x) for x > 0: what one class adds to a Dirichlet's mutual information times its precision.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Increasing from 0 at 0 to 1/2 at +inf; one minus `x_log_minus_digamma`.

    Raises:
      TypeError: if `x` is not real.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(x_digamma_next_minus_log(jnp.float32(1e8))), 5)
      0.5
    """
    return _x_digamma_next_minus_log(promote(x))


def x_trigamma_minus_one(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """x psi1(x) - 1 for x > 0, without cancellation at large x, where it is about 1/(2x).

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Positive and decreasing; +inf at 0, 0 at +inf.

    Raises:
      TypeError: if `x` is not real.

    References:
      Abramowitz & Stegun, 6.4.12.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(x_trigamma_minus_one(jnp.float32(1.0))), 5)
      0.64493
    """
    return _x_trigamma_minus_one(promote(x))


def one_minus_x_trigamma_next(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """1 - x psi1(x + 1) for x > 0, without cancellation at large x, where it is about 1/(2x).

    With x = e^z it is 1 - w of the reverse-KL gradient of a class whose concentration is e^z + 1.

    Args:
      x: non-negative; half precision is computed in float32.

    Returns:
      Decreasing from 1 at 0 to 0 at +inf.

    Raises:
      TypeError: if `x` is not real.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(1e8 * one_minus_x_trigamma_next(jnp.float32(1e8))), 5)
      0.5
    """
    return _one_minus_x_trigamma_next(promote(x))


def entropy_term(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """h(x) = ln Gamma(x) - (x - 1) psi(x) + x for x > 0: what one class adds to a Dirichlet's differential entropy.

    The entropy is sum_k h(alpha_k) - h(alpha_0) - (K - 1) psi(alpha_0). No part larger than the result is subtracted at
    large x, where h is about ln(x)/2 + ln(2 pi)/2 + 1/2.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Increasing; -inf at 0 and +inf at +inf.

    Raises:
      TypeError: if `x` is not real.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(entropy_term(jnp.float32(1.0)))
      1.0
    """
    return _entropy_term(promote(x))


def log_gamma_remainder(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """ln Gamma(x) - x ln x + x for x > 0: convex, about -ln(x)/2 + ln(2 pi)/2 for large x; its Bregman divergence is
    `log_gamma_bregman_remainder`.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Decreasing; +inf at 0, -inf at +inf. Its derivative is minus `log_minus_digamma`.

    Raises:
      TypeError: if `x` is not real.

    References:
      Abramowitz & Stegun, 6.1.40.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(log_gamma_remainder(jnp.float32(1.0)))
      1.0
    """
    return _log_gamma_remainder(promote(x))
