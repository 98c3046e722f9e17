"""Measures of members that count unequally in the prediction and equally elsewhere: the kernel of the expectation of products.

With weights w [M, N], q = sum_m w_m pi^m and g the uniform mean of ln pi^m, as `edd.uncertainty.sequence` defines them:

    total   H[q]
    data    EH = mean_m H[pi^m]
    mutual  H[q] - EH     = sum_m w_m KL(pi^m || q) + sum_m (w_m - 1/M) H[pi^m]        of either sign
    reverse -q.g - H[q]   = mean_m KL(q || pi^m)                                       >= 0

The divergences are sums of non-negative terms as in `edd.uncertainty.member_sums`, and the entropies of the second sum are taken
relative to each class's largest member (their common part has weight zero), so that members that agree give exactly zero and near ones
keep their digits.
"""

from __future__ import annotations

import jax.numpy as jnp

from edd.math.reduce import class_sum
from edd.typing import Array
from edd.uncertainty import ensemble, member_sums

_NEGLIGIBLE = 1e-30  # of the largest member's probability: a mixture below it counts as zero


def measures(log_probs: Array, weights: Array) -> ensemble.Measures:
    """`Measures` of arrays [N] from normalised log_probs [M, N, K] and weights [M, N] that sum to one."""
    num_members = log_probs.shape[0]
    weights = jnp.where(weights < _NEGLIGIBLE, 0, weights)
    column = weights[..., None]
    parts = member_sums.split(log_probs)
    excess, scaled = (column * parts.excess).sum(0), (column * parts.scaled).sum(0)  # q over the largest member, less one and itself
    dead = parts.dead | (scaled < _NEGLIGIBLE)
    near = excess > -0.5
    log_scaled = jnp.where(near, jnp.log1p(jnp.where(near, excess, 0)), jnp.log(jnp.where(near | dead, 1, scaled)))
    scaled = jnp.where(dead, 1, jnp.where(near, 1 + excess, scaled))
    mean = jnp.where(dead, 0, parts.largest_prob * scaled)
    log_mean = jnp.where(dead, 0, parts.largest + log_scaled)
    r = parts.difference - log_scaled[None]
    ratio = parts.scaled / scaled[None]

    drift = class_sum(parts.largest_prob[None] * parts.excess)  # rounding of the members' normalisation, up to a common constant
    total = jnp.maximum(class_sum(-mean * log_mean), 0)
    data = ensemble.data_uncertainty(log_probs)

    terms = jnp.where(dead[None] | (column == 0), 0, member_sums.psi(ratio, r))
    centred = drift - (weights * drift).sum(0, keepdims=True)
    divergence = class_sum(mean * (column * terms).sum(0)) - (weights * centred**2).sum(0) / 2
    # entropies relative to the largest members'; with data - 1 the drift enters as it would after renormalising
    slope = (parts.largest + (data - 1)[..., None])[None] * parts.excess + parts.scaled * member_sums.floored(parts.difference)
    entropy = class_sum(jnp.where(parts.dead[None], 0, -parts.largest_prob[None] * slope))
    mutual = jnp.maximum(divergence, 0) + ((weights - 1 / num_members) * entropy).sum(0)

    terms = jnp.where(dead[None], 0, member_sums.phi(ratio, r)).mean(0)
    reverse = class_sum(jnp.where(jnp.isinf(terms) & ~dead, jnp.inf, mean * terms)) - (centred**2).mean(0) / 2
    reverse = jnp.maximum(reverse, 0)
    return ensemble.Measures(total, data, mutual, mutual + reverse, reverse)
