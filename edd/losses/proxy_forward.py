"""The core of the forward-KL proxy loss, KL[Dir(beta) || Dir(alpha)] with alpha = e^z + s and beta = D e^l + t, in logarithms.

With a_0, b_0 the totals, v_k = ln(b_k / b_0) - ln(a_k / a_0) and d(x) = ln x - psi(x):

    value     sum_k R(b_k, a_k) - R(b_0, a_0) + sum_k a_k (e^{v_k} - 1 - v_k)        R: `special.log_gamma_bregman_remainder`
    gradient  e^{z_k} [ d(b_k) - d(a_k) - (d(b_0) - d(a_0)) - v_k ]

A term a_k v_k^2 / 2 may hold a_k = 1e30 and v_k = 1e-10, so v is formed from the inputs, not from rounded concentrations: l - z + ln D
to twice the working precision, less the same of the class where beta is largest, less the logarithm of the mean of what is left.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edd.math import special
from edd.math.differences import _rise_past_largest
from edd.math.reduce import class_sum, compensated_add
from edd.typing import Array

LOG_TWO = (45426 / 65536, math.log(2.0) - 45426 / 65536)  # the first factor times an exponent is exact, also in float32
ABSENT = -1e4  # stands for the logarithm of zero
CEILING = 60.0  # largest logarithm of a concentration that is summed as it is
SMALL = 0.5  # |v| below which e^v - 1 - v is a series
TINY = 1e-30  # a target concentration below it enters through its logarithm
EULER = 0.57721566490153286


class Ratios(NamedTuple):
    """Concentrations and their logarithmic ratios: [*B, K], or [*B, 1] where the classes share them."""

    alpha: Array
    total: Array  # alpha_0 / e^shift
    shift: Array
    beta: Array  # may underflow to 0
    beta_total: Array
    log_beta: Array
    difference: Array  # alpha - beta
    log_ratio: Array  # ln beta - ln alpha
    mean_log_ratio: Array  # v


def _split_log(precision: Array, drift: Array) -> tuple[Array, Array]:
    """ln(precision) - log1p(drift) as an exact multiple of `LOG_TWO[0]` and a rest below 1/2."""
    mantissa, exponent = jnp.frexp(jnp.where(precision > 0, precision, 1))
    low = mantissa < math.sqrt(0.5)
    mantissa, exponent = jnp.where(low, 2 * mantissa, mantissa), (exponent - low).astype(precision.dtype)
    return exponent * LOG_TWO[0], exponent * LOG_TWO[1] + jnp.log(mantissa) - jnp.log1p(drift)


def _soft_maximum(x: Array, offset: float) -> tuple[Array, Array]:
    """(base, lift) with ln(e^x + offset) = base + lift, base = max(x, ln offset)."""
    if offset == 0:
        return x, jnp.zeros_like(x)
    floor = math.log(offset)
    return jnp.maximum(x, floor), jnp.log1p(jnp.exp(-jnp.abs(x - floor)))


def _excess(x: Array) -> Array:
    """e^x - 1 - x, accurate relative to its value."""
    near = jnp.abs(x) <= SMALL
    small = jnp.where(near, x, 0)
    value = jnp.ones_like(x)
    for n in range(15 if x.dtype == jnp.float64 else 9, 2, -1):
        value = 1 + value * small / n
    return jnp.where(near, small * small * value / 2, jnp.expm1(x) - x)


def _ratios(logits: Array, log_probs: Array, precision: Array, offset: float, target_offset: float) -> Ratios:
    """`precision` [*B, 1] is finite; `log_probs` are renormalised."""
    large = log_probs > -0.5
    surplus = jnp.where(large, jnp.expm1(log_probs), jnp.exp(log_probs))
    drift = class_sum(surplus)[..., None] - jnp.where(large.any(-1, keepdims=True), 0, 1)
    log_precision, rest = _split_log(precision, drift)
    own = jnp.where(precision > 0, jnp.maximum(log_probs, ABSENT), ABSENT)

    # ln beta - ln alpha without the offsets, in three parts; the third, common to all classes, would round the second away
    first, lost = compensated_add(own, -logits)
    first, lost_again = compensated_add(first, jnp.broadcast_to(log_precision, first.shape))
    second = lost + lost_again

    base, lift = _soft_maximum(logits, offset)
    log_bare = own + (log_precision + rest)
    target_base, target_lift = _soft_maximum(log_bare, target_offset)
    inside = (base == logits) & (target_base == log_bare)  # else an offset leads, and the concentration is no larger than it
    high = jnp.where(inside, first, target_base - base)
    low = jnp.where(inside, second, 0) + (target_lift - lift)
    has_rest = jnp.where(inside, 1, 0).astype(high.dtype)

    exponential = jnp.exp(logits)
    bare_total = precision * jnp.ones_like(drift)
    bare = precision * jnp.exp(own) * (1 / (1 + drift))
    alpha, beta = exponential + offset, bare + target_offset
    grown = first + (second + rest)
    near = jnp.abs(grown) <= SMALL
    close = (offset - target_offset) - exponential * jnp.expm1(jnp.where(near, grown, 0))
    # e^z - 1 is exact near z = 0, where e^z may cancel with a target offset
    apart = jnp.where(
        jnp.abs(logits) < 1,
        jnp.expm1(jnp.clip(logits, -1, 1)) + ((1 + offset - target_offset) - bare),
        (offset - target_offset) + (exponential - bare),
    )
    difference = jnp.where(near, close, apart)

    shift = jnp.maximum(jnp.max(logits, -1, keepdims=True) - CEILING, 0)
    scaled = jnp.exp(logits - shift) + offset * jnp.exp(-shift)
    total = class_sum(scaled)[..., None]
    beta_total = bare_total + logits.shape[-1] * target_offset

    index = jnp.argmax(own, -1, keepdims=True)
    pick = functools.partial(jnp.take_along_axis, indices=index, axis=-1)
    relative = (high - pick(high)) + ((low - pick(low)) + (has_rest - pick(has_rest)) * rest)
    shares, share = scaled / total, pick(scaled) / total
    near = jnp.abs(relative) <= SMALL
    moved = jnp.where(near, shares * jnp.expm1(jnp.where(near, relative, 0)), beta / pick(beta) * share - shares)
    moved = class_sum(moved)[..., None]
    apart = (jnp.log(beta_total) - pick(target_base + target_lift)) - (shift + jnp.log(total) - pick(base + lift))
    apart = jnp.where(share > TINY, jnp.log(beta_total / pick(beta) * jnp.maximum(share, TINY)), apart)
    common = jnp.where(moved > -0.9, jnp.log1p(jnp.maximum(moved, -0.9)), apart)
    log_ratio = high + (low + has_rest * rest)
    return Ratios(alpha, total, shift, beta, beta_total, target_base + target_lift, difference, log_ratio, relative - common)


def _class_remainders(ratios: Ratios) -> Array:
    """R(beta_k, alpha_k), also where beta_k underflows."""
    low = ratios.beta < TINY
    safe = jnp.where(low, ratios.alpha, ratios.beta)
    regular = special.log_gamma_bregman_remainder(safe, ratios.alpha, jnp.where(low, 0, ratios.difference))
    limit = special.log_gamma(1 + ratios.alpha) + ratios.alpha * (EULER + 1 + ratios.log_ratio)
    return jnp.where(low, _excess(-ratios.log_ratio) + jnp.where(ratios.alpha < TINY, 0, limit), regular)


def _remainder_sum(ratios: Ratios) -> Array:
    """sum_k R(beta_k, alpha_k) - R(beta_0, alpha_0) [*B].

    A class that holds nearly all of both Dirichlets is taken together with the totals (`_rise_past_largest`).
    alpha_0 may overflow: R(beta_0, alpha_0) is then alpha_0 d(beta_0) up to logarithms.
    """
    dominant, leads, rise = _rise_past_largest(ratios.beta, ratios.alpha)
    huge = (ratios.shift > 0) & (ratios.beta_total < 1e15)
    total = ratios.total * jnp.exp(ratios.shift)
    difference = class_sum(ratios.difference)[..., None]
    safe = jnp.where(huge | dominant, ratios.beta_total, total)
    regular = special.log_gamma_bregman_remainder(ratios.beta_total, safe, jnp.where(huge | dominant, 0, difference))
    linear = ratios.total * special.log_minus_digamma(ratios.beta_total) * jnp.exp(ratios.shift)
    whole = jnp.where(dominant, rise, jnp.where(huge, linear, regular))[..., 0]
    classes = class_sum(jnp.where(leads & dominant, 0, _class_remainders(ratios)))
    return jnp.where(jnp.isinf(classes), jnp.inf, classes - jnp.where(jnp.isinf(classes), 0, whole))


def divergence(logits: Array, log_probs: Array, precision: Array, offset: float, target_offset: float) -> Array:
    """KL[Dir(D e^l + t) || Dir(e^z + s)] [*B] for logits, log_probs [*B, K] and a finite precision [*B].

    Differentiable once, in reverse mode, with respect to the logits; the target's cotangents are zero. Without an offset, logits whose
    e^z underflows enter through ln Gamma(e^z) = -z; with e^z beyond the largest number the value and the gradient are infinite.
    """
    if offset:
        return _divergence(logits, log_probs, precision, offset, target_offset)
    kept = jnp.maximum(logits, math.log(jnp.finfo(logits.dtype).tiny) + 2)
    lost = jnp.sum(kept - logits, -1)
    small = jnp.max(logits, -1) < -40  # alpha_0 is small too, and -ln Gamma(alpha_0) = ln alpha_0
    lost += jnp.where(small, jax.nn.logsumexp(logits, -1) - jax.nn.logsumexp(kept, -1), 0)
    return _divergence(kept, log_probs, precision, offset, target_offset) + lost


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _divergence(logits: Array, log_probs: Array, precision: Array, offset: float, target_offset: float) -> Array:
    return _forward(logits, log_probs, precision, offset, target_offset)[0]


@functools.partial(jax.jit, static_argnums=(3, 4))
def _forward(logits: Array, log_probs: Array, precision: Array, offset: float, target_offset: float):
    ratios = _ratios(logits, log_probs, precision[..., None], offset, target_offset)
    v = ratios.mean_log_ratio
    near = jnp.abs(v) <= SMALL
    close = ratios.alpha * _excess(jnp.where(near, v, 0))
    apart = ratios.beta / ratios.beta_total * ratios.total * jnp.exp(ratios.shift) - ratios.alpha * (1 + v)
    value = _remainder_sum(ratios) + class_sum(jnp.where(near, close, apart))
    beyond = jnp.isinf(ratios.alpha).any(-1)  # e^z passes the largest number
    return jnp.where(beyond, jnp.inf, jnp.maximum(value, 0)), (logits, log_probs, precision)


def _total_and_gaps(concentration: Array) -> tuple[Array, Array]:
    """Total [*B, 1] and total - concentration [*B, K], which for the largest class is the sum of the others."""
    top = jnp.max(concentration, -1, keepdims=True)
    is_top = concentration == top
    others = class_sum(jnp.where(is_top, 0, concentration))[..., None]
    others = others + (jnp.sum(is_top, -1, keepdims=True, dtype=top.dtype) - 1) * top
    total = top + others
    return total, jnp.where(is_top, others, total - concentration)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _backward(offset: float, target_offset: float, residuals, cotangent: Array):
    logits, log_probs, precision = residuals
    ratios = _ratios(logits, log_probs, precision[..., None], offset, target_offset)
    exponential = jnp.exp(logits)
    low = ratios.beta < TINY
    alpha, beta = jnp.maximum(ratios.alpha, jnp.finfo(logits.dtype).tiny), jnp.where(low, 1, ratios.beta)
    # E[ln pi] under alpha less the same under beta, each on its own, or in differences of the arguments: what has the smaller parts
    (total, gaps), (target_total, target_gaps) = _total_and_gaps(alpha), _total_and_gaps(ratios.beta)
    own, target = special.digamma_difference(total, alpha, gaps), special.digamma_difference(target_total, beta, target_gaps)
    own_rest = special.log_minus_digamma(alpha)
    rests = special.log_minus_digamma(ratios.beta_total) - special.log_minus_digamma(total)
    classes = special.log_minus_digamma(beta) - own_rest
    largest = jnp.maximum(jnp.maximum(jnp.abs(classes), jnp.abs(rests)), jnp.abs(ratios.mean_log_ratio))
    apart = jnp.maximum(own, target) < largest
    slope = exponential * jnp.where(apart, target - own, classes - rests - ratios.mean_log_ratio)
    limit = jnp.exp(jnp.where(low, logits - ratios.log_beta, 0)) - exponential * (own_rest + rests + ratios.mean_log_ratio)
    slope = jnp.where(low, limit, slope)
    beyond = jnp.isinf(ratios.alpha).any(-1, keepdims=True)
    slope = jnp.where(beyond, _slope_beyond(logits, ratios, offset), slope)
    return cotangent[..., None] * slope, jnp.zeros_like(log_probs), jnp.zeros_like(precision)


def _slope_beyond(logits: Array, ratios: Ratios, offset: float) -> Array:
    """The gradient where an e^z passes the largest number: digammas through their logarithms, never inf - inf."""
    exponential, low, largest = jnp.exp(logits), ratios.beta < TINY, jnp.finfo(logits.dtype).max
    base, lift = _soft_maximum(logits, offset)
    log_alpha = base + lift
    mean_log = log_alpha - special.log_minus_digamma(jnp.clip(ratios.alpha, jnp.finfo(logits.dtype).tiny, largest))
    mean_log = mean_log - jax.nn.logsumexp(log_alpha, -1, keepdims=True)
    target = jnp.log(ratios.beta_total) - special.log_minus_digamma(ratios.beta_total)
    safe = jnp.where(low, 1, ratios.beta)
    target = target - jnp.where(low, -EULER, jnp.log(safe) - special.log_minus_digamma(safe))
    gap = target + mean_log
    main = jnp.where(gap == 0, 0, exponential * gap)
    rest = jnp.where(low, jnp.exp(jnp.where(low, logits - ratios.log_beta, 0)), 0)  # -psi(beta) = 1 / beta + ...
    return jnp.where(jnp.isinf(rest), jnp.inf, main + jnp.where(jnp.isinf(rest), 0, rest))


_divergence.defvjp(_forward, _backward)
