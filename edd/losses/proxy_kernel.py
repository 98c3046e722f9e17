"""The speed-critical core of the reverse-KL proxy loss: two fused elementwise passes, one for the value, one for the gradient.

For one example, alpha_k = e^{z_k} + s, alpha_0 = sum alpha, S = sum e^{z_k}, b_k = alpha_k - 1, pb the target's mean, D the divisor:

    L = sum_k pb_k (psi(alpha_0) - psi(alpha_k)) + KL[Dir(alpha) || Dir(1)] / D

KL[Dir(alpha) || Dir(1)] is a sum of terms that do not cancel, chosen per example by the mean concentration u = alpha_0 / K:

    u < 2:   sum_k D(alpha_k, 1) - K phi(u - 1) - R(alpha_0, K)        D(a, 1) = b psi(a) - ln Gamma(a), phi(v) = v - ln(1 + v)
    u >= 2:  K ln u - sum_k (h(alpha_k) - 1) - R(alpha_0, K)           h(a) = a - D(a, 1)

with R the Bregman divergence of ln Gamma(x) - x ln x. The gradient is

    dL/dz_k = e_k f(alpha_k) / D - q_k S F / D - pb_k e_k psi'(alpha_k) + q_k S psi'(alpha_0)

with q = softmax(z), and either f(a) = (a - 1) psi'(a), F = (alpha_0 - K) psi'(alpha_0), or both less 1 (their weights e_k and q_k S are
equal), whichever is small: F < 1/2 takes the first. Every factor is bounded or a power of e^{-z}: nothing overflows before the result does.
Each pass needs one division, one or two exponentials and at most one logarithm per element; the rest is short polynomials.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edd.losses import proxy_tables
from edd.losses.proxy_tables import SHIFT
from edd.math import special
from edd.typing import Array

LOGIT_CEILING = 70.0  # above it only ln alpha and the softmax still change: K e^70 stays far below float32's largest number


class Row(NamedTuple):
    """Scalars of one example, each [*B, 1]."""

    top: Array  # max logit
    excess: Array  # how far the top lies above LOGIT_CEILING
    mass: Array  # S, divided by e^excess
    softmax_sum: Array  # sum e^{z - top}
    total: Array  # alpha_0, divided by e^excess
    mean_less_one: Array  # u - 1
    gap: Array  # alpha_0 - alpha_top
    uniform: Array  # all alpha are exactly 1


def _table(name: str, t: Array) -> Array:
    """Horner's rule on a table of `proxy_tables`."""
    *lower, top = getattr(proxy_tables, name)[64 if t.dtype == jnp.float64 else 32]
    value = jnp.full_like(t, top)
    for coefficient in reversed(lower):
        value = value * t + coefficient
    return value


def _reciprocals(exponential: Array, logits: Array, offset: float) -> tuple[Array, Array, Array | None, Array | None]:
    """(b, t, r, e / alpha): t belongs to psi(1 + b) for offset >= 1; below, to psi(1 + alpha), and r = 1 / alpha is the recurrence's."""
    if offset >= 1:
        b = exponential + (offset - 1)
        return b, 1 / (b + SHIFT), None, None
    alpha = exponential + offset
    r = 1 / jnp.maximum(alpha, jnp.finfo(alpha.dtype).tiny)
    b = jnp.expm1(jnp.minimum(logits, LOGIT_CEILING)) + offset
    return b, 1 / (alpha + SHIFT), r, jnp.ones_like(r) if offset == 0 else exponential * r


def row_scalars(logits: Array, offset: float) -> Row:
    """The sums over classes that both passes need. The top class is kept apart: alpha_0 - alpha_top must not cancel."""
    num_classes = logits.shape[-1]
    top = jnp.max(logits, -1, keepdims=True)
    is_top = logits == top
    rest = jnp.sum(jnp.where(is_top, 0, jnp.exp(logits - top)), -1, keepdims=True)
    count = jnp.sum(is_top, -1, keepdims=True, dtype=logits.dtype)
    unit = jnp.exp(jnp.minimum(top, LOGIT_CEILING))
    mass = unit * (count + rest)
    if offset >= 1:
        mean_less_one = mass / num_classes + (offset - 1)
        own = unit + (offset - 1)
    else:
        near_one = jnp.mean(jnp.expm1(jnp.minimum(logits, LOGIT_CEILING)) + offset, -1, keepdims=True)
        mean_less_one = jnp.where(mass < 2 * num_classes, near_one, mass / num_classes + (offset - 1))
        own = jnp.expm1(top) + offset
    return Row(
        top=top,
        excess=jnp.maximum(top - LOGIT_CEILING, 0),
        mass=mass,
        softmax_sum=count + rest,
        total=mass + num_classes * offset,
        mean_less_one=mean_less_one,
        gap=unit * (rest + (count - 1)) + (num_classes - 1) * offset,
        uniform=(count == num_classes) & (own == 0),
    )


def value(logits: Array, log_probs: Array, inverse: Array, row: Row, offset: float) -> Array:
    """The loss [*B, 1]; `inverse` = 1 / D is finite."""
    num_classes = logits.shape[-1]
    tiny = jnp.finfo(logits.dtype).tiny
    total = jnp.maximum(row.total, tiny)
    mean = jnp.maximum(row.total / num_classes, tiny)
    small, log_mean = mean < 2, jnp.log(mean)
    deviation = jnp.where(small & (mean > 0.5), row.mean_less_one, 0)
    near = num_classes * jnp.where(mean > 0.5, special.x_minus_log1p(deviation), row.mean_less_one - log_mean)
    remainder = special.log_gamma_bregman_remainder(total, num_classes, difference=-num_classes * row.mean_less_one) + row.excess / 2
    constant = jnp.where(small, -near, num_classes / 2 * (log_mean + row.excess)) - remainder
    top_alpha = jnp.exp(jnp.minimum(row.top, LOGIT_CEILING)) + offset
    top_difference = special.digamma_difference(total, top_alpha, difference=row.gap)

    b, t, r, _ = _reciprocals(jnp.exp(jnp.minimum(logits, LOGIT_CEILING)), logits, offset)
    relative = jnp.log(mean * t) + (row.excess - jnp.maximum(logits - LOGIT_CEILING, 0))  # ln u - ln(b + SHIFT)
    digamma, entropy = _table("DIGAMMA", t), _table("ENTROPY", t)
    difference = relative + (math.log(num_classes) - special.log_minus_digamma(total)) - digamma
    entropy_less_one = entropy - relative / 2 - 1  # h(alpha) - 1 - ln(u) / 2
    near_one, t_near = b < 1, t
    if offset < 1:
        difference = difference + r
        entropy_less_one = entropy_less_one + digamma + jnp.log1p(SHIFT * r) - r
        near_one, t_near = jnp.abs(b - 0.25) < 0.75, 1 / (b + SHIFT)
    bregman = jnp.where(near_one, b * b * _table("BREGMAN", t_near), b - (entropy_less_one + log_mean / 2))
    difference = jnp.where(logits == row.top, top_difference, difference)
    probs = jnp.exp(log_probs)
    recon = probs * difference if offset >= 1 else jnp.where(probs > 0, probs * difference, 0)
    # a select as the last step: the CPU compiler then runs the whole pass as one loop instead of splitting it around the sum
    terms = jnp.where(small, recon + inverse * bregman, recon - inverse * entropy_less_one)
    return jnp.sum(terms, -1, keepdims=True) + inverse * constant


def gradient(logits: Array, log_probs: Array, inverse: Array, row: Row, offset: float) -> Array:
    """dL/dz [*B, K]; `inverse` = 1 / D may be infinite."""
    num_classes = logits.shape[-1]
    tiny = jnp.finfo(logits.dtype).tiny
    total = jnp.maximum(row.total, tiny)
    surplus = special.x_trigamma_minus_one(total)  # alpha_0 psi'(alpha_0) - 1
    slope = (row.mass / total) * (1 + surplus)  # S psi'(alpha_0)
    excess = num_classes * row.mean_less_one  # alpha_0 - K
    direct = (excess / total) * (1 + surplus) < 0.5
    weight = jnp.where(direct, excess * slope, row.mass * surplus - num_classes * slope)

    exponential = jnp.exp(logits)
    b, t, r, ratio = _reciprocals(exponential, logits, offset)
    share = jnp.minimum(exponential, jnp.finfo(logits.dtype).max / 8) * t  # e^z / (b + SHIFT) without inf / inf
    z = _table("TRIGAMMA", t)
    own = share * (1 + t * z)
    bounded = -share * (SHIFT - z + SHIFT * t * z)
    if offset < 1:
        bounded = bounded - own + ratio * (1 - r)
        own = own + ratio * r
    softmax = jnp.exp(logits - row.top) / row.softmax_sum
    prior = jnp.where(direct, b * own, bounded) - softmax * weight
    prior = jnp.where(prior == 0, 0, prior * inverse)
    return prior - jnp.exp(log_probs) * own + softmax * slope


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def reverse_kl(logits: Array, log_probs: Array, divisor: Array, offset: float) -> Array:
    """sum_k pb_k (psi(alpha_0) - psi(alpha_k)) + KL[Dir(alpha) || Dir(1)] / D for logits, log_probs [*B, K], divisor [*B] in [0, inf].

    Differentiable once, in reverse mode, with respect to the logits; the target's cotangents are zero.
    """
    return _forward(logits, log_probs, divisor, offset)[0]


@functools.partial(jax.jit, static_argnums=3)  # an eager call compiles one program, not a hundred
def _forward(logits: Array, log_probs: Array, divisor: Array, offset: float):
    row = row_scalars(logits, offset)
    inverse = jnp.where(divisor > 0, 1 / jnp.where(divisor > 0, divisor, 1), 0)[..., None]
    loss = value(logits, log_probs, inverse, row, offset)
    impossible = (divisor == 0)[..., None] & ~row.uniform
    return jnp.where(impossible, jnp.inf, loss)[..., 0], (logits, log_probs, divisor, row)


@functools.partial(jax.jit, static_argnums=0)
def _backward(offset: float, residuals, cotangent: Array):
    logits, log_probs, divisor, row = residuals
    # the barrier keeps the compiler from storing the value pass's exponentials and quotients as [*B, K] buffers for this pass
    logits, log_probs = jax.lax.optimization_barrier((logits, log_probs))
    slope = gradient(logits, log_probs, 1 / divisor[..., None], row, offset)
    return cotangent[..., None] * slope, jnp.zeros_like(log_probs), jnp.zeros_like(divisor)


reverse_kl.defvjp(_forward, _backward)
