"""Differences and Bregman divergences of the log-gamma family; `edd.math.special` is the public door.

Everything is written in the difference of the two arguments, which may be handed in when it is known better than the
rounded arguments tell (a Dirichlet's precision and its largest concentration, for instance).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from edd.math import coefficients
from edd.math.polygamma import _floor, _trigamma, bits, horner_difference, promote
from edd.math.reduce import class_sum
from edd.math.remainders import _log_minus_digamma, _x_trigamma_minus_one
from edd.typing import Array, ArrayLike, Float

_SCALE, _LOG_SCALE = 2.0**100, 100 * math.log(2.0)


def _near_phi(d: Array) -> Array:
    """d - log1p(d) for |d| <= 1/2, through u = d / (2 + d): log1p(d) = 2 artanh(u)."""
    u = d * (1 / (2 + d))
    square = u * u
    terms = 18 if bits(d) == 64 else 8
    series = jnp.full_like(d, 1 / (2 * terms + 1))
    for k in range(terms - 1, 0, -1):
        series = series * square + 1 / (2 * k + 1)
    return u * (d - 2 * square * series)


@jax.custom_jvp
def _x_minus_log1p(d: Array) -> Array:
    near = jnp.abs(d) <= 0.5
    far = jnp.where(near, 1, d)
    return jnp.where(near, _near_phi(jnp.where(near, d, 0)), far - jnp.log1p(far))


@_x_minus_log1p.defjvp
def _x_minus_log1p_jvp(primals, tangents):
    (d,), (tangent,) = primals, tangents
    return _x_minus_log1p(d), tangent * (d / (1 + d))


def _phi_ratio(base: Array, other: Array, difference: Array, scaled: bool = False) -> Array:
    """phi(other / base - 1), phi(d) = d - log1p(d), or base times that, given difference = other - base; no overflow but its own."""
    reciprocal = 1 / base  # products with reciprocals stay in one fused loop, repeated divisions do not
    relative = difference * reciprocal
    near = jnp.abs(relative) <= 0.5
    ratio = jnp.where(near, 1, other) * jnp.where(near, 1, reciprocal)
    info = jnp.finfo(base.dtype)
    lost = ratio < info.tiny  # underflow: the logarithm is taken of a scaled ratio; where it overflows, `relative` dominates
    ratio = jnp.where(lost, (other * _SCALE) * reciprocal, ratio)
    log_ratio = jnp.log(jnp.minimum(ratio, info.max)) - jnp.where(lost, _LOG_SCALE, 0)
    close = _near_phi(jnp.where(near, relative, 0))
    if scaled:
        return jnp.where(near, base * close, difference - base * log_ratio)
    return jnp.where(near, close, relative - log_ratio)


@jax.custom_jvp
def _digamma_difference(x: Array, y: Array, difference: Array) -> Array:
    low, high = jnp.minimum(x, y), jnp.maximum(x, y)
    gap = jnp.abs(jnp.where(x == y, jnp.where(jnp.isinf(x), 0, difference), difference))
    below = low < 1
    lift = jnp.where(below, 1, 0).astype(x.dtype)
    t, s = 1 / (low + lift), 1 / (high + lift)
    relative = jnp.where(jnp.isinf(high), jnp.where(jnp.isinf(low), 0, 1), gap / jnp.where(jnp.isinf(high), 1, high + lift))
    bend = t * relative * horner_difference(coefficients.LOG_MINUS_DIGAMMA, t, s, factor=1)
    step = jnp.where(below, (gap * (1 / _floor(high))) * (1 / _floor(low)), 0)
    return jnp.where(difference < 0, -1, 1) * (jnp.log1p(gap * t) + bend + step)


@_digamma_difference.defjvp
def _digamma_difference_jvp(primals, tangents):
    x, y, difference = primals
    x_tangent, y_tangent, _ = tangents
    return _digamma_difference(x, y, difference), _trigamma(x) * x_tangent - _trigamma(y) * y_tangent


def _stirling_terms(t: Array, s: Array) -> tuple[Array, Array]:
    """S'(t) and the divided difference S[t, t, s] of the Stirling remainder S(t) = t sigma(t)."""
    first, *rest = coefficients.STIRLING[bits(t)]
    value, slope, second = jnp.full_like(t, first), jnp.zeros_like(t), jnp.zeros_like(t)
    for coefficient in (*rest, 0.0):
        second = second * s + slope
        slope = slope * t + value
        value = value * t + coefficient
    return slope, second


@jax.custom_jvp
def _bregman_remainder(x: Array, y: Array, difference: Array) -> Array:
    below = jnp.minimum(x, y) < 1
    lift = jnp.where(below, 1, 0).astype(x.dtype)
    upper_x, upper_y = x + lift, y + lift
    t, s = 1 / upper_x, 1 / upper_y
    v = difference * t
    w = v * s
    slope, second = _stirling_terms(t, s)
    leading = _phi_ratio(upper_x, upper_y, difference)
    smooth = 0.5 * leading + w * w * second + slope * v * w
    small_x, small_y = jnp.where(below, _floor(x), 1), jnp.where(below, _floor(y), 1)
    gap = jnp.where(below, difference, 0)
    crossed = _phi_ratio(small_y * upper_x, small_x * upper_y, -gap, scaled=True) * t
    moved = _phi_ratio(small_x, small_y, gap) - crossed
    return smooth + jnp.where(below, moved - leading, 0)


@_bregman_remainder.defjvp
def _bregman_remainder_jvp(primals, tangents):
    x, y, difference = primals
    x_tangent, y_tangent, _ = tangents
    along_x = -(difference / x) * _x_trigamma_minus_one(x)  # in this order nothing overflows that the result does not
    along_y = _log_minus_digamma(x) - _log_minus_digamma(y)
    return _bregman_remainder(x, y, difference), along_x * x_tangent + along_y * y_tangent


@jax.custom_jvp
def _bregman(x: Array, y: Array, difference: Array) -> Array:
    return _bregman_remainder(x, y, difference) + _phi_ratio(_floor(y), x, -difference, scaled=True)


@_bregman.defjvp
def _bregman_jvp(primals, tangents):
    x, y, difference = primals
    x_tangent, y_tangent, _ = tangents
    slope = -(difference / x) * (1 + _x_trigamma_minus_one(x)) * x_tangent - _digamma_difference(x, y, -difference) * y_tangent
    return _bregman(x, y, difference), slope


def _rise_past_largest(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """R(x_0, y_0) - R(x_c, y_c) where class c holds nearly all of both totals; R is `log_gamma_bregman_remainder`.

    Returns (dominant [*B, 1], leads [*B, K], rise [*B, 1]): where there is such a class, which it is, and the difference, by Simpson's
    rule on the derivative of R: subtracting the two would lose what is left.
    """
    x_top, y_top = jnp.max(x, -1, keepdims=True), jnp.max(y, -1, keepdims=True)
    leads = (x == x_top) & (y == y_top)
    x_gap, y_gap = (class_sum(jnp.where(leads, 0, values))[..., None] for values in (x, y))
    share = 1e-3 if bits(x) == 64 else 3e-2
    dominant = (x_gap < share * x_top) & (y_gap < share * y_top) & (jnp.sum(leads, -1, keepdims=True) == 1)
    dominant = dominant & (jnp.abs(y_top - x_top) > 0.25 * x_top)  # near ones have a small R, and their differences would cancel here
    rise = jnp.zeros_like(x_top)
    for weight, part in ((1 / 6, 0.0), (2 / 3, 0.5), (1 / 6, 1.0)):
        u, v = x_top + part * x_gap, y_top + part * y_gap
        along_x = (v - u) * (x_gap / u) * _x_trigamma_minus_one(u)
        rise = rise + weight * (y_gap * (_log_minus_digamma(u) - _log_minus_digamma(v)) - along_x)
    return dominant, leads, rise


def _pair(x: ArrayLike, y: ArrayLike, difference: ArrayLike | None, default) -> tuple[Array, Array, Array]:
    x, y = promote(x, "x"), promote(y, "y")
    dtype = jnp.promote_types(x.dtype, y.dtype)
    x, y = x.astype(dtype), y.astype(dtype)
    difference = default(x, y) if difference is None else jnp.asarray(difference, dtype)
    x, y, difference = jnp.broadcast_arrays(x, y, difference)
    return x, y, jax.lax.stop_gradient(difference)


def x_minus_log1p(d: Float[ArrayLike, "*B"]) -> Float[Array, "*B"]:
    """phi(d) = d - ln(1 + d) for d > -1, accurate relative to its value at small d, where it is d^2 / 2.

    Args:
      d: above -1; half precision is computed in float32.

    Returns:
      Non-negative; 0 at 0, +inf at -1 and at +inf.

    Raises:
      TypeError: if `d` is not real.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(jnp.float32(1e10) * x_minus_log1p(jnp.float32(1e-5))) > 0.499
      True
    """
    return _x_minus_log1p(promote(d, "d"))


def digamma_difference(
    x: Float[ArrayLike, "*B"], y: Float[ArrayLike, "*B"], difference: Float[ArrayLike, "*B"] | None = None
) -> Float[Array, "*B"]:
    """psi(x) - psi(y) for positive x and y, accurate relative to its value for near and for far arguments.

    ln(x/y) - (d(x) - d(y)) with d = ln - psi: both parts have one sign, and d's difference is a divided difference of its
    polynomial. Two logarithms and about five divisions per element.

    Args:
      x: positive.
      y: positive, of x's shape or a scalar.
      difference: x - y, where it is known more exactly than the rounded x and y tell. Derivatives go through x and y alone.

    Returns:
      Of the sign of `difference`; exactly 0 where it is 0.

    Raises:
      TypeError: if an argument is not real.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(1e8 * float(digamma_difference(jnp.float32(1e8), jnp.float32(1e8), difference=1.0)), 5)
      1.0
    """
    return _digamma_difference(*_pair(x, y, difference, lambda a, b: a - b))


def log_gamma_bregman(
    x: Float[ArrayLike, "*B"], y: Float[ArrayLike, "*B"], difference: Float[ArrayLike, "*B"] | None = None
) -> Float[Array, "*B"]:
    """D(x, y) = ln Gamma(y) - ln Gamma(x) - (y - x) psi(x), the Bregman divergence of ln Gamma.

    Args:
      x: positive.
      y: positive, of x's shape or a scalar.
      difference: y - x, where it is known more exactly than the rounded x and y tell. Derivatives go through x and y alone.

    Returns:
      Non-negative, 0 where x = y; accurate relative to its value for near and for far arguments.

    Raises:
      TypeError: if an argument is not real.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(log_gamma_bregman(jnp.float32(1.0), jnp.float32(2.0))), 5)  # Euler's constant
      0.57722
    """
    return _bregman(*_pair(x, y, difference, lambda a, b: b - a))


def log_gamma_bregman_remainder(
    x: Float[ArrayLike, "*B"], y: Float[ArrayLike, "*B"], difference: Float[ArrayLike, "*B"] | None = None
) -> Float[Array, "*B"]:
    """R(x, y) = D(x, y) - [y ln(y/x) - (y - x)]: `log_gamma_bregman` less the same divergence of x ln x.

    It is the Bregman divergence of ln Gamma(x) - x ln x + x, which is convex. Of two Dirichlets the parts taken out add up to
    alpha_0 times a categorical KL, so that sum_k R(a_k, b_k) - R(a_0, b_0) is what is left.

    Args:
      x: positive.
      y: positive, of x's shape or a scalar.
      difference: y - x, where it is known more exactly than the rounded x and y tell. Derivatives go through x and y alone.

    Returns:
      Non-negative, 0 where x = y; about phi((y - x)/x) / 2 for large arguments.

    Raises:
      TypeError: if an argument is not real.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(log_gamma_bregman_remainder(jnp.float32(3.0), jnp.float32(3.0)))
      0.0
    """
    return _bregman_remainder(*_pair(x, y, difference, lambda a, b: b - a))
