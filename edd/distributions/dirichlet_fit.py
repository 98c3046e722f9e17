"""Maximum-likelihood Dirichlet of an ensemble's members; `edd.distributions.dirichlet.fit` is the public door."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from edd.math import checks, special
from edd.math.polygamma import promote
from edd.math.reduce import class_sum, log_mean_exp
from edd.typing import Array, ArrayLike, Float

_MAX_ITERATIONS = 60
_LONGEST_STEP = 1.0  # in ln alpha: a longer Newton step is cut, which keeps the iteration stable far from the optimum


def fit(member_log_probs: Float[ArrayLike, "M *B K"]) -> Float[Array, "*B K"]:
    """Concentration of the Dirichlet under which the members are most likely.

    Newton's method on ln alpha for psi(alpha_k) - psi(alpha_0) = mean_m ln pi^m_k, whose Jacobian is diagonal plus rank one: O(K) per
    step, usually below 10 steps from Stirling's precision (K - 1) / (2 RMI). The equations are written in the gap
    ln(mean_m pi^m_k) - mean_m ln pi^m_k, so members that nearly agree are fitted without cancellation.

    Args:
      member_log_probs: normalised and finite: with an exact zero the likelihood has no maximum.

    Returns:
      Positive. +inf for every class where the members agree exactly (and for a single member): the likelihood grows without bound;
      0 for every class where a member's probability is zero and nothing checked it. Differentiable by the implicit function theorem.

    Raises:
      ValueError: if the shape is not [M, *B, K >= 2], or concrete values are not finite, normalised log-probabilities.

    References:
      Minka 2000, "Estimating a Dirichlet distribution", section 1; Ryabinin, Malinin & Gales 2021 (the starting precision).

    Examples:
      >>> import jax.numpy as jnp
      >>> members = jnp.log(jnp.array([[0.7, 0.3], [0.5, 0.5]]))
      >>> [round(float(alpha), 1) for alpha in fit(members)]
      [14.4, 9.6]
    """
    member_log_probs = promote(member_log_probs, "member_log_probs")
    checks.members(member_log_probs, "member_log_probs")
    checks.finite(member_log_probs, "member_log_probs")
    checks.log_probs(member_log_probs, "member_log_probs")
    differences = member_log_probs - member_log_probs[:1]
    safe = jnp.where(jnp.isfinite(differences), differences, 0)
    relative_mean = jnp.log1p(jnp.expm1(safe).mean(0))
    # ln of the mean less the mean of ln, from differences to the first member: exact zeros where all agree
    gap = _gap(safe, relative_mean)
    excluded = ~jnp.isfinite(member_log_probs).all((0, -1))
    return _solve(log_mean_exp(member_log_probs), gap, excluded)


def _gap(differences: Array, relative_mean: Array) -> Array:
    """log(mean_m e^{d_m}) - mean_m d_m >= 0 through mean_m [e^{d_m - r} - 1 - (d_m - r)], r = relative_mean."""
    centred = differences - relative_mean[None]
    near = jnp.abs(centred) < 0.4
    close = jnp.where(near, centred, 0)
    return jnp.where(near, special.x_minus_log1p(jnp.expm1(close)), jnp.expm1(centred) - centred).mean(0)


def _newton_step(concentration: Array, residual: Array) -> tuple[Array, Array]:
    """x with (1 + q_k) x_k - (1 + q_0) sum_j m_j x_j = residual_k, and that sum: q = alpha psi1(alpha) - 1, m the mean."""
    total = class_sum(concentration)[..., None]
    excess, total_excess = special.x_trigamma_minus_one(concentration), special.x_trigamma_minus_one(total)
    weights = concentration / total / (1 + excess)
    along = class_sum(weights * residual)[..., None] / class_sum(weights * (excess - total_excess))[..., None]
    return (residual + (1 + total_excess) * along) / (1 + excess), along


def _residual(offset: Array, log_scale: Array, log_mean: Array, gap: Array) -> tuple[Array, Array]:
    """alpha = scale * mean * e^offset and minus the error of its equations, in which every part is small near the solution."""
    shift = jnp.log1p(class_sum(jnp.exp(log_mean) * jnp.expm1(offset)))[..., None]
    concentration = jnp.exp(log_scale + log_mean + offset)
    bend = special.log_minus_digamma(concentration) - special.log_minus_digamma(jnp.exp(log_scale + shift))
    return concentration, (shift - offset) + bend - gap


@jax.custom_jvp
def _solve(log_mean: Array, gap: Array, excluded: Array) -> Array:
    spread = class_sum(jnp.exp(log_mean) * gap)
    ignored = (spread == 0) | excluded
    start = jnp.log((log_mean.shape[-1] - 1) / 2 / jnp.where(ignored, 1, spread))[..., None]
    tolerance = 32 * jnp.finfo(log_mean.dtype).eps

    def advance(carry):
        offset, log_scale, _, count = carry
        step, along = _newton_step(*_residual(offset, log_scale, log_mean, gap))
        largest = jnp.abs(step).max(-1, keepdims=True)
        good = jnp.isfinite(largest) & ~ignored[..., None]
        cut = jnp.where(good, jnp.minimum(1, _LONGEST_STEP / jnp.where(good & (largest > 0), largest, 1)), 0)
        step, along = jnp.where(good, step, 0) * cut, jnp.where(good, along, 0) * cut
        return offset + (step - along), log_scale + along, jnp.where(good, largest, 0).max(initial=0), count + 1

    def unfinished(carry):
        return (carry[2] > tolerance) & (carry[3] < _MAX_ITERATIONS)

    offset, log_scale, _, _ = lax.while_loop(unfinished, advance, (jnp.zeros_like(gap), start, jnp.full((), jnp.inf, gap.dtype), 0))
    value = jnp.exp(log_scale + log_mean + offset)
    return jnp.where(excluded[..., None], 0, jnp.where((spread == 0)[..., None], jnp.inf, value))


@_solve.defjvp
def _solve_jvp(primals, tangents):
    log_mean, gap, excluded = primals
    log_mean_tangent, gap_tangent, _ = tangents
    value = _solve(log_mean, gap, excluded)
    regular = jnp.isfinite(value) & (value > 0)
    safe = jnp.where(regular, value, 1)
    step, _ = _newton_step(safe, log_mean_tangent - gap_tangent)
    return value, jnp.where(regular, safe * step, 0)
