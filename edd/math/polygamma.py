"""ln Gamma and its derivatives for positive arguments, accurate and cheap; `edd.math.special` is the public door.

Method. For y >= 1 each function is a short polynomial in t = 1/y after its leading terms are taken out (which also gives the
limit y = inf); arguments below 1 are moved up once by the recurrence, whose terms all have one sign. ln Gamma on [1, 3]
and psi on [1, 2] are factored around their zeros. So each function costs a logarithm, a division or two and about ten
multiply-adds in float32, and no generic polygamma is differentiated: every derivative is the next function.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from edd.math import coefficients
from edd.math.checks import as_float
from edd.typing import Array, ArrayLike, Float

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def promote(x: ArrayLike, name: str = "x") -> Array:
    """`x` as float32 or float64 (half precision is computed in float32)."""
    x = as_float(x, name)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def bits(x: Array) -> int:
    """Which column of the coefficient tables `x` needs: 64 or 32."""
    return 64 if x.dtype == jnp.float64 else 32


def horner(table: dict, u: Array) -> Array:
    """The polynomial of `table` at `u`."""
    first, *rest = table[bits(u)]
    value = jnp.full_like(u, first)
    for coefficient in rest:
        value = value * u + coefficient
    return value


def horner_difference(table: dict, t: Array, s: Array, factor: int = 0) -> Array:
    """Divided difference (p(t) - p(s)) / (t - s) of p(u) = u^factor * polynomial, without subtracting."""
    first, *rest = table[bits(t)]
    value, slope = jnp.full_like(t, first), jnp.zeros_like(t)
    for coefficient in (*rest, *(0.0,) * factor):
        slope = slope * s + value
        value = value * t + coefficient
    return slope


def lifted(x: Array) -> tuple[Array, Array, Array]:
    """(x < 1, y, 1 / y) with y = x + 1 below 1 and x above: the argument of the polynomials."""
    below = x < 1
    y = jnp.where(below, x + 1, x)
    return below, y, 1 / y


def _floor(x: Array) -> Array:
    """x kept away from zero, so that 1 / x is finite where a limit is selected instead."""
    return jnp.maximum(x, jnp.finfo(x.dtype).tiny)


@jax.custom_jvp
def _log_gamma(x: Array) -> Array:
    below, y, t = lifted(x)
    near = y < 3
    inside = jnp.where(near, y, 2)
    product = jnp.where(below, x * (x - 1), (inside - 1) * (inside - 2))
    centred = product * horner(coefficients.LOG_GAMMA, inside - 2)
    outside = jnp.where(near, 3, y)
    log = jnp.log(jnp.where(below, x, outside))
    stirling = (outside - 0.5) * (log - 1) + (HALF_LOG_TWO_PI - 0.5) + t * horner(coefficients.STIRLING, t)
    return jnp.where(below, centred - log, jnp.where(near, centred, stirling))


@jax.custom_jvp
def _digamma(x: Array) -> Array:
    below, y, t = lifted(x)
    near = y < 2
    inside = jnp.where(near, y, 1.5)
    root, at_root = coefficients.DIGAMMA_ROOT[bits(x)]
    centred = (inside - root) * horner(coefficients.DIGAMMA, inside - 1.5) + at_root
    asymptotic = jnp.log(y) - t * horner(coefficients.LOG_MINUS_DIGAMMA, t)
    return jnp.where(near, centred, asymptotic) - jnp.where(below, 1 / x, 0)


@jax.custom_jvp
def _trigamma(x: Array) -> Array:
    below, _, t = lifted(x)
    above_one = t * (1 + t * horner(coefficients.X_TRIGAMMA_MINUS_ONE, t))
    return above_one + jnp.where(below, (1 / x) * (1 / x), 0)


@jax.custom_jvp
def _tetragamma(x: Array) -> Array:
    below, _, t = lifted(x)
    reciprocal = 1 / x
    return -(t * t * horner(coefficients.TETRAGAMMA, t) + jnp.where(below, 2 * reciprocal * reciprocal * reciprocal, 0))


_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def _high_polygamma(order: int, x: Array) -> Array:
    """psi of derivative order >= 3: sums of one sign up to x + 16, then the asymptotic series. Only third derivatives come here."""
    shift = 16
    t = 1 / (x + shift)
    tail = sum(number * math.factorial(2 * k + order - 1) / math.factorial(2 * k) * t ** (2 * k) for k, number in enumerate(_BERNOULLI, 1))
    series = t**order * (math.factorial(order - 1) + math.factorial(order) / 2 * t + tail)
    head = sum((1 / (x + i)) ** (order + 1) for i in range(shift))
    return (-1) ** (order + 1) * (math.factorial(order) * head + series)


def _make_high(order: int):
    @jax.custom_jvp
    def high(x: Array) -> Array:
        return _high_polygamma(order, x)

    @high.defjvp
    def _jvp(primals, tangents):
        (x,), (tangent,) = primals, tangents
        return high(x), tangent * _make_high(order + 1)(x)

    return high


def _chain(function, derivative):
    @function.defjvp
    def _jvp(primals, tangents):
        (x,), (tangent,) = primals, tangents
        return function(x), tangent * derivative(x)


_chain(_log_gamma, _digamma)
_chain(_digamma, _trigamma)
_chain(_trigamma, _tetragamma)
_chain(_tetragamma, _make_high(3))


def log_gamma(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """ln Gamma(x) for x > 0, accurate relative to its value also near its zeros at 1 and 2.

    Stirling's series as a polynomial in 1/x from 3 on, (x - 1)(x - 2) times a polynomial on [1, 3], one recurrence below 1.
    One logarithm and one division per element; the derivative is `digamma`.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      +inf at 0 and at +inf.

    Raises:
      TypeError: if `x` is not real.

    References:
      Abramowitz & Stegun, Handbook of Mathematical Functions, 6.1.40.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(log_gamma(jnp.float32(2.0)))
      0.0
      >>> round(float(log_gamma(jnp.float32(5.0))), 5)  # ln 24
      3.17805
    """
    return _log_gamma(promote(x))


def digamma(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """psi(x), the derivative of ln Gamma, for x > 0; accurate relative to its value also near its zero at 1.4616.

    One logarithm and two divisions per element; the derivative is `trigamma`.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Negative below 1.4616 and positive above; -inf at 0, +inf at +inf.

    Raises:
      TypeError: if `x` is not real.

    References:
      Abramowitz & Stegun, 6.3.18.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(digamma(jnp.float32(1.0))), 5)  # minus Euler's constant
      -0.57722
    """
    return _digamma(promote(x))


def trigamma(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """psi'(x) for x > 0. Two divisions and about ten multiply-adds per element; the derivative is `tetragamma`.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Positive and decreasing: +inf at 0 (in float32 below 5e-20, where 1/x^2 passes the largest number), 0 at +inf.

    Raises:
      TypeError: if `x` is not real.

    References:
      Abramowitz & Stegun, 6.4.12.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(trigamma(jnp.float32(1.0))), 5)  # pi^2 / 6
      1.64493
    """
    return _trigamma(promote(x))


def tetragamma(x: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """psi''(x) for x > 0: negative, -inf at 0 and 0 at +inf. Derivatives of any higher order exist.

    Args:
      x: positive; half precision is computed in float32.

    Returns:
      Negative and increasing.

    Raises:
      TypeError: if `x` is not real.

    References:
      Abramowitz & Stegun, 6.4.13.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(tetragamma(jnp.float32(1.0))), 5)  # -2 zeta(3)
      -2.40411
    """
    return _tetragamma(promote(x))
