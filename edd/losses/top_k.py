"""Targets over large vocabularies compressed to their k largest probabilities and the mass of the rest, with a bound of the error.

Instead of V log-probabilities a step keeps k of them, their classes and one number: 2k + 1 in place of V (64 + 65 in place of 32,000 is
250 times smaller). The rest of the mass r is spread evenly over the V - k other classes. With p the distribution and q what comes back:

    total variation  (1/2) sum_k |p_k - q_k| <= r
    KL(p || q)       <= r ln((V - k) min(1, p_(k) / r)) <= r ln(V - k),     p_(k) the smallest probability that is kept

so the gradient of a cross-entropy in the logits, q - softmax(z), is off by at most 2r in sum of absolute values, and the reconstruction
term of the proxy losses, sum_k p_k (psi(alpha_0) - psi(alpha_k)), by at most r times the range of psi(alpha_k) over the classes left out.
A proxy's precision is kept as it is. Means of log-probabilities (EnD2) are not normalised and must not be compressed this way.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edd.math import checks
from edd.typing import Array, Float, Int


class TopK(NamedTuple):
    """The k largest log-probabilities, the largest first, their classes, and ln of the mass of all others (-inf where there is none)."""

    classes: Int[Array, "*B k"]
    log_probs: Float[Array, "*B k"]
    log_rest: Float[Array, "*B"]


def compress(log_probs: Float[Array, "*B K"], k: int) -> TopK:
    """The k most probable classes of each row and the mass of the rest, in nats. O(K log k).

    Args:
      log_probs: normalised; -inf is probability zero.
      k: in [1, K - 1].

    Returns:
      `TopK`; the mass of the rest is summed, not taken from one.

    Raises:
      ValueError: k out of range, fewer than two classes, (eagerly) rows that are not normalised.
      TypeError: not real numbers.

    References:
      Bounds: sum_rest p ln(p (V - k) / r) with p <= min(r, p_(k)); compare Tan et al. 2019, "Multilingual Neural
      Machine Translation with Knowledge Distillation" (top-k distillation).

    Examples:
      >>> found = compress(jnp.log(jnp.array([0.1, 0.6, 0.2, 0.1])), 2)
      >>> found.classes.tolist(), round(float(jnp.exp(found.log_rest)), 4)
      ([1, 2], 0.2)
    """
    log_probs = checks.as_float(log_probs, "log_probs")
    checks.classes(log_probs, "log_probs")
    checks.log_probs(log_probs, "log_probs")
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < log_probs.shape[-1]:
        raise ValueError(f"k must be an integer in [1, {log_probs.shape[-1] - 1}], got {k!r}")
    log_probs = log_probs.astype(jnp.promote_types(log_probs.dtype, jnp.float32))
    kept, classes = jax.lax.top_k(log_probs, k)
    rest = jnp.put_along_axis(log_probs, classes, -jnp.inf, -1, inplace=False)
    return TopK(classes, kept, jax.nn.logsumexp(rest, -1))


def expand(compressed: TopK, num_classes: int) -> Float[Array, "*B K"]:
    """Log-probabilities of all classes, those that were left out equal, in nats.

    Args:
      compressed: from `compress`.
      num_classes: K.

    Returns:
      [*B, K], normalised.

    Raises:
      ValueError: K not above k.

    References:
      See `compress`.

    Examples:
      >>> compressed = compress(jnp.log(jnp.array([0.1, 0.6, 0.25, 0.05])), 2)
      >>> [round(float(prob), 4) for prob in jnp.exp(expand(compressed, 4))]
      [0.075, 0.6, 0.25, 0.075]
    """
    others = _others(compressed, num_classes)
    even = (compressed.log_rest - math.log(others))[..., None]
    whole = jnp.broadcast_to(even, (*compressed.log_rest.shape, num_classes))
    return jnp.put_along_axis(whole, compressed.classes, compressed.log_probs, -1, inplace=False)


def error_bound(compressed: TopK, num_classes: int) -> Float[Array, "*B"]:
    """Upper bound of KL(p || q) between a distribution and its compression expanded, r ln((K - k) min(1, p_(k) / r)), in nats.

    Args:
      compressed: from `compress`.
      num_classes: K.

    Returns:
      [*B], >= 0; 0 where nothing or a single class was left out, or all that was is as probable as the least that was kept.

    Raises:
      ValueError: K not above k.

    References:
      See `compress`; the total variation is at most exp(log_rest).

    Examples:
      >>> compressed = compress(jnp.log(jnp.array([0.1, 0.6, 0.25, 0.05])), 2)
      >>> round(float(error_bound(compressed, 4)), 4)  # the divergence itself is 0.0085
      0.104
    """
    others = _others(compressed, num_classes)
    log_rest = jnp.where(jnp.isneginf(compressed.log_rest), 0, compressed.log_rest)
    spread = jnp.maximum(jnp.minimum(compressed.log_probs[..., -1] - log_rest, 0) + math.log(others), 0)
    return jnp.where(jnp.isneginf(compressed.log_rest), 0, jnp.exp(log_rest) * spread)


def _others(compressed: TopK, num_classes: int) -> int:
    kept = compressed.classes.shape[-1]
    if not num_classes > kept:
        raise ValueError(f"num_classes must be above the {kept} classes that were kept, got {num_classes}")
    return num_classes - kept
