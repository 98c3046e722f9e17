"""Arithmetic of `edd.uncertainty.sequence` on whole hypotheses, in differences between members that no long sum swallows."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from edd.math import coefficients, special
from edd.math.polygamma import horner_difference
from edd.math.reduce import leave_one_out_sum, log_mean_exp, masked_mean
from edd.typing import Array


def _differences(log_probs: Array, keep: Array) -> tuple[Array, Array]:
    """(a level of each token [S, L], members' log-probabilities less it [M, S, L]); 0 at padding and where every member excludes the token.

    The level is the members' mean where they are near, so that sums over a sequence hold their differences alone, and within 1/2 of the
    largest member elsewhere, so that nothing cancels when it is added again.
    """
    largest = jnp.where(keep, log_probs.max(0), 0)
    excluded = jnp.isneginf(largest)
    difference = jnp.where((excluded | ~keep)[None], 0, log_probs - jnp.where(excluded, 0, largest)[None])
    shift = jnp.maximum(difference, -0.5).mean(0)
    return largest + shift, difference - shift[None]


@jax.jit
def prefix_weights(log_probs: Array, keep: Array) -> Array:
    """Members' weights [M, S, L] from their log-probabilities of the tokens, uniform where all exclude the prefix."""
    _, difference = _differences(log_probs, keep)
    before = jnp.concatenate([jnp.zeros_like(difference[..., :1]), jnp.cumsum(difference, -1)[..., :-1]], -1)
    top = before.max(0)
    shift = jnp.where(jnp.isneginf(top), 0, top)
    scaled = jnp.where(jnp.isneginf(top)[None], 1, jnp.exp(before - shift[None]))
    return scaled / scaled.sum(0, keepdims=True)


@jax.jit
def joint_scores(log_probs: Array, keep: Array) -> tuple[Array, ...]:
    """The fields of `sequence.JointScores` from log-probabilities [M, S, L] and a mask of booleans."""
    level, difference = _differences(log_probs, keep)
    common = masked_mean(level, keep, -1)
    count = jnp.maximum(keep.sum(-1), 1).astype(level.dtype)
    reverse_poe = masked_mean(_log_mean_less_mean_log(difference), keep, -1)
    summed = difference.sum(-1)
    reverse_eop = _log_mean_less_mean_log(summed) / count
    total_poe, total_eop = masked_mean(log_mean_exp(difference), keep, -1) + common, log_mean_exp(summed) / count + common
    return -total_poe, -total_eop, -(summed.mean(0) / count + common), reverse_poe, reverse_eop


@jax.jit
def dirichlet_scores(concentration: Array, tokens: Array, keep: Array, log_probs: Array | None) -> tuple[Array, ...]:
    """The fields of `sequence.DirichletJointScores`; `log_probs` None: of the concentration's own mean."""

    def of_token(values):
        return jnp.take_along_axis(values, tokens[..., None], -1)[..., 0]

    own, gap = of_token(concentration), of_token(leave_one_out_sum(concentration))
    total = own + gap
    if log_probs is None:
        log_prob, reverse = -jnp.log1p(gap / own), _log_minus_digamma_drop(own, total, gap)
        data = reverse - log_prob
    else:
        log_prob, data = of_token(log_probs), special.digamma_difference(total, own, gap)
        reverse = data + log_prob
    return tuple(masked_mean(value, keep, -1) for value in (-log_prob, data, reverse))


def _log_mean_less_mean_log(difference: Array) -> Array:
    """ln mean_m e^d - mean_m d >= 0 over axis 0 of d [M, *B], without cancellation for members that are near; 0 where all are -inf."""
    mean = difference.mean(0)
    centred = difference - mean[None]
    near = difference.max(0) - difference.min(0) < 0.5
    small = jnp.where(near[None], centred, 0)
    terms = 14 if difference.dtype == jnp.float64 else 8
    series = jnp.full_like(small, 1.0)
    for k in range(terms, 2, -1):  # e^x - 1 - x = x^2/2 (1 + x/3 (1 + x/4 (...)))
        series = 1 + small / k * series
    close = jnp.log1p((small * small / 2 * series).mean(0))
    far = jnp.where(jnp.isneginf(difference.max(0)), 0, jnp.maximum(log_mean_exp(difference) - mean, 0))
    return jnp.where(near, close, far)


def _log_minus_digamma_drop(own: Array, total: Array, gap: Array) -> Array:
    """d(own) - d(total) >= 0 for d(x) = ln x - psi(x) and total = own + gap, without subtracting.

    From 1 on a divided difference of d's polynomial; below, d(x) = d(x + 1) + 1/x - ln(1 + 1/x) adds one of x - ln(1 + x).
    """
    below = own < 1
    lift = jnp.where(below, 1, 0).astype(own.dtype)
    t, s = 1 / (own + lift), 1 / (total + lift)
    bend = gap * t * s * horner_difference(coefficients.LOG_MINUS_DIGAMMA, t, s, factor=1)
    step = gap / own / (1 + total)
    return bend + jnp.where(below, special.x_minus_log1p(step) + step / total, 0)
