"""Losses on labels: cross-entropy and label smoothing."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from edd.losses.softmax import log_softmax
from edd.math import checks
from edd.typing import Array, ArrayLike, Float, Int

VARIANTS = ("uniform", "others")


def cross_entropy(logits: Float[Array, "*B K"], labels: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Cross-entropy of each example with its label, -ln softmax(z)_y, in nats. O(K).

    Args:
      logits: [*B, K]; half precision is computed in float32.
      labels: in [0, K).

    Returns:
      [*B], >= 0, accurate relative to its value also when the label's class dominates.

    Raises:
      ValueError: wrong shapes, fewer than two classes, (eagerly) non-finite logits or labels out of range.
      TypeError: logits not real or labels not integers.

    References:
      Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", section 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4))  # ln 4
      [1.3863]
      >>> print(cross_entropy(jnp.array([20.0, 0.0]), jnp.array(0)))
      2.0611537e-09
    """
    log_probs, labels = _checked(logits, labels)
    return -jnp.take_along_axis(log_probs, labels[..., None], -1)[..., 0]


def label_smoothed_cross_entropy(
    logits: Float[Array, "*B K"],
    labels: Int[Array, "*B"],
    smoothing: float,
    *,
    variant: str = "uniform",
    prior: Float[ArrayLike, "K"] | None = None,
    subtract_entropy: bool = False,
) -> Float[Array, "*B"]:
    """Cross-entropy with softened labels y, -sum_k y_k ln softmax(z)_k, in nats. O(K).

        uniform:  y = (1 - smoothing) onehot + smoothing / K                       (the paper)
        others:   y = 1 - smoothing on the label, smoothing / (K - 1) elsewhere    (Tensor2Tensor)
        prior:    y = (1 - smoothing) onehot + smoothing prior, for instance the classes' frequencies

    "others" at a equals "uniform" at a K / (K - 1). At the optimum of "uniform" the label's logit leads by ln(K (1 - a) / a + 1).

    Args:
      logits: [*B, K]; half precision is computed in float32.
      labels: in [0, K).
      smoothing: a in [0, 1]; 0 is plain cross-entropy.
      variant: "uniform" or "others".
      prior: probabilities [K] that sum to one, in place of the uniform ones; None: uniform.
      subtract_entropy: subtract the entropy of y, which makes it KL(y || softmax(z)), 0 at its minimum.

    Returns:
      [*B], >= 0 up to rounding; at least the entropy of y unless that is subtracted.

    Raises:
      ValueError: wrong shapes, unknown variant, a prior with the variant "others", smoothing outside [0, 1], (eagerly) non-finite logits,
        labels out of range or a prior that is no distribution.
      TypeError: logits not real or labels not integers.

    References:
      Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", section 1; Pereyra et al. 2017 (the unigram prior).

    Examples:
      >>> import jax.numpy as jnp
      >>> logits = jnp.array([4.5109, 0, 0, 0, 0, 0, 0, 0, 0, 0])  # the optimum for K = 10
      >>> print(label_smoothed_cross_entropy(logits, jnp.array(0), 0.1).round(4))
      0.5003
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"smoothing must lie in [0, 1], got {smoothing}")
    log_probs, labels = _checked(logits, labels)
    num_classes = log_probs.shape[-1]
    if prior is not None:
        if variant != "uniform":
            raise ValueError(f"a prior takes the place of the uniform distribution; leave variant at 'uniform', got {variant!r}")
        return _towards(log_probs, labels, smoothing, prior, subtract_entropy)
    off = smoothing / (num_classes if variant == "uniform" else num_classes - 1)
    on = 1 - smoothing + (off if variant == "uniform" else 0)
    chosen = -jnp.take_along_axis(log_probs, labels[..., None], -1)[..., 0]
    loss = (on - off) * chosen - off * jnp.sum(log_probs, -1)
    if subtract_entropy:
        loss = loss + sum(count * p * math.log(p) for p, count in ((on, 1), (off, num_classes - 1)) if p > 0)
    return loss


def _towards(log_probs: Array, labels: Array, smoothing: float, prior: ArrayLike, subtract_entropy: bool) -> Array:
    """The smoothed loss towards a prior; a class that the prior excludes costs nothing, whatever its logit."""
    prior = checks.as_float(prior, "prior").astype(log_probs.dtype)
    checks.shape(prior, log_probs.shape[-1:], "prior")
    checks.log_probs(jnp.log(prior), "ln prior")
    onehot = jax.nn.one_hot(labels, prior.shape[0], dtype=prior.dtype)
    target = smoothing * jnp.broadcast_to(prior, onehot.shape) + (1 - smoothing) * onehot
    loss = -jnp.sum(jnp.where(target > 0, target * log_probs, 0), -1)
    return loss - jnp.sum(jax.scipy.special.entr(target), -1) if subtract_entropy else loss


def _checked(logits: Array, labels: Array) -> tuple[Array, Array]:
    """(ln softmax of the logits, labels), checked."""
    logits = checks.as_float(logits, "logits")
    labels = jnp.asarray(labels)
    checks.classes(logits, "logits")
    checks.shape(labels, logits.shape[:-1], "labels")
    checks.finite(logits, "logits")
    checks.labels(labels, logits.shape[-1])
    return log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32))), labels
