"""The categorical distribution over K classes, a function of its normalised log-probabilities [*B, K] (-inf allowed)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from edd.math import checks, reduce
from edd.math.polygamma import promote
from edd.math.reduce import class_sum
from edd.typing import Array, ArrayLike, Float, Int, Key


def _as_log_probs(log_probs: ArrayLike, name: str) -> Array:
    array = promote(log_probs, name)
    checks.classes(array, name)
    checks.log_probs(array, name)
    return array


def _as_pair(p_log_probs: ArrayLike, q_log_probs: ArrayLike) -> tuple[Array, Array]:
    p, q = _as_log_probs(p_log_probs, "p_log_probs"), _as_log_probs(q_log_probs, "q_log_probs")
    checks.same_shape(p, q, "p_log_probs", "q_log_probs")
    dtype = jnp.promote_types(p.dtype, q.dtype)
    return p.astype(dtype), q.astype(dtype)


def validate_log_probs(log_probs: Float[ArrayLike, "*B K"], name: str = "log_probs") -> Float[Array, "*B K"]:
    """Checks that exp(log_probs) sums to one over the classes, eagerly or, under jit, through `checkify`.

    Args:
      log_probs: [*B, K] with K >= 2.
      name: what the message calls it.

    Returns:
      The same values, as float32 or float64.

    Raises:
      ValueError: if eager values are not normalised, or the shape is wrong.
      checkify.JaxRuntimeError: from `err.throw()` of a `checkify.checkify`-transformed function.

    Examples:
      >>> import jax.numpy as jnp
      >>> validate_log_probs(jnp.log(jnp.array([0.25, 0.75]))).shape
      (2,)
    """
    array = _as_log_probs(log_probs, name)
    if not checks.is_concrete(array):
        good = jnp.abs(class_sum(jnp.exp(array)) - 1) <= checks.NORMALISATION_TOLERANCE  # false for NaN
        checkify.check(good.all(), f"{name} must be log-probabilities whose exp sums to 1 over the last axis")
    return array


def validate_logits(logits: Float[ArrayLike, "*B K"], name: str = "logits") -> Float[Array, "*B K"]:
    """Checks that logits are finite, eagerly or, under jit, through `checkify`; arguments, result and errors as `validate_log_probs`.

    Examples:
      >>> import jax.numpy as jnp
      >>> validate_logits(jnp.array([0.0, jnp.nan]))
      Traceback (most recent call last):
      ValueError: logits must be finite, got nan at index (1,)
    """
    array = promote(logits, name)
    checks.classes(array, name)
    checks.finite(array, name)
    if not checks.is_concrete(array):
        checkify.check(jnp.isfinite(array).all(), f"{name} must be finite")
    return array


def validate_labels(labels: Int[ArrayLike, "*B"], num_classes: int, name: str = "labels") -> Int[Array, "*B"]:
    """Checks that labels are integers in [0, num_classes), eagerly or, under jit, through `checkify`.

    Raises:
      TypeError: labels that are not integers.
      ValueError: eager labels out of range.
      checkify.JaxRuntimeError: from `err.throw()` of a `checkify.checkify`-transformed function.

    Examples:
      >>> import jax.numpy as jnp
      >>> validate_labels(jnp.array([0, 2]), 3).tolist()
      [0, 2]
    """
    array = jnp.asarray(labels)
    checks.labels(array, num_classes, name)
    if not checks.is_concrete(array):
        checkify.check(((array >= 0) & (array < num_classes)).all(), f"{name} must lie in [0, {num_classes})")
    return array


def entropy(log_probs: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """Shannon entropy -sum_k p_k ln p_k in nats, with 0 ln 0 = 0. O(K).

    Args:
      log_probs: normalised.

    Returns:
      Between 0 (one-hot) and ln K (uniform). Gradients are finite, 0 at zero probabilities.

    Raises:
      ValueError: if the shape is not [*B, K >= 2] or concrete values are not normalised.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(entropy(jnp.array([0.0, -jnp.inf])))
      0.0
    """
    log_probs = _as_log_probs(log_probs, "log_probs")
    safe = jnp.where(jnp.isneginf(log_probs), 0, log_probs)
    return class_sum(-jnp.where(jnp.isneginf(log_probs), 0, jnp.exp(safe)) * safe)


def cross_entropy(p_log_probs: Float[ArrayLike, "*B K"], q_log_probs: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """-sum_k p_k ln q_k in nats, with 0 ln 0 = 0. O(K).

    Args:
      p_log_probs: normalised.
      q_log_probs: normalised, of the same shape.

    Returns:
      Non-negative; +inf where q excludes a class that p allows. Gradients are finite.

    Raises:
      ValueError: as `entropy`, or if the shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> uniform = jnp.log(jnp.full(2, 0.5))
      >>> round(float(cross_entropy(jnp.array([0.0, -jnp.inf]), uniform)), 5)  # ln 2
      0.69315
    """
    p, q = _as_pair(p_log_probs, q_log_probs)
    excluded = jnp.isneginf(q)
    probs = jnp.exp(p)
    forbidden = (excluded & (probs > 0)).any(-1)
    return jnp.where(forbidden, jnp.inf, class_sum(-probs * jnp.where(excluded, 0, q)))


def kl_divergence(p_log_probs: Float[ArrayLike, "*B K"], q_log_probs: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """KL(p || q) = sum_k p_k (ln p_k - ln q_k) in nats. O(K).

    Summed as p_k (l_k + e^(-l_k) - 1), l = ln p - ln q: all terms are non-negative, so near-equal distributions keep their digits.
    A rounding of the inputs that leaves them unnormalised by a few units in the last place is taken out.

    Args:
      p_log_probs: normalised.
      q_log_probs: normalised, of the same shape.

    Returns:
      Non-negative, exactly 0 for equal distributions; +inf where q excludes a class that p allows. The gradient is p (l + 1) by ln p
      and -p by ln q, finite (0 at the classes that q excludes).

    Raises:
      ValueError: as `entropy`, or if the shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> p = jnp.log(jnp.array([0.5, 0.5]))
      >>> float(kl_divergence(p, p)), float(kl_divergence(p, jnp.array([0.0, -jnp.inf])))
      (0.0, inf)
    """
    return _kl_divergence(*_as_pair(p_log_probs, q_log_probs))


def _log_ratio(p: Array, q: Array) -> Array:
    """ln p - ln q where both allow the class, else 0."""
    both = ~jnp.isneginf(p) & ~jnp.isneginf(q)
    return jnp.where(both, p, 0) - jnp.where(both, q, 0)


def _exponential_remainder(x: Array) -> Array:
    """e^-x - 1 + x for |x| < 1/2, accurate relative to its value."""
    terms = 14 if x.dtype == jnp.float64 else 8
    series = jnp.full_like(x, 1.0)
    for k in range(terms, 2, -1):  # x^2/2 (1 - x/3 (1 - x/4 (...)))
        series = 1 - x / k * series
    return x * x / 2 * series


@jax.custom_jvp
def _kl_divergence(p: Array, q: Array) -> Array:
    ratio = _log_ratio(p, q)
    both = ~jnp.isneginf(p) & ~jnp.isneginf(q)
    near = both & (jnp.abs(ratio) < 0.4)
    probs, q_probs = jnp.exp(p), jnp.exp(q)
    excess = class_sum(jnp.where(near, probs * jnp.expm1(-jnp.where(near, ratio, 0)), q_probs - probs))
    ratio = jnp.where(both, ratio + jnp.log1p(excess)[..., None], 0)  # ln p - ln q, had both been normalised
    close = probs * _exponential_remainder(jnp.where(near, ratio, 0))
    value = class_sum(jnp.where(near, close, probs * ratio - probs + q_probs))
    return jnp.where((jnp.isneginf(q) & (probs > 0)).any(-1), jnp.inf, jnp.maximum(value, 0))


@_kl_divergence.defjvp
def _kl_divergence_jvp(primals, tangents):
    (p, q), (p_tangent, q_tangent) = primals, tangents
    probs = jnp.where(jnp.isneginf(q), 0, jnp.exp(p))
    slope = probs * (_log_ratio(p, q) + 1)
    return _kl_divergence(p, q), (slope * p_tangent - probs * q_tangent).sum(-1)


def log_mean_probs(member_log_probs: Float[ArrayLike, "M *B K"]) -> Float[Array, "*B K"]:
    """ln of the mean of the members' class probabilities, ln((1/M) sum_m pi^m). O(M K).

    Args:
      member_log_probs: normalised.

    Returns:
      Normalised log-probabilities; -inf where every member excludes the class.

    Raises:
      ValueError: if the shape is not [M >= 1, *B, K >= 2] or concrete values are not normalised.

    Examples:
      >>> import jax.numpy as jnp
      >>> log_mean_probs(jnp.array([[0.0, -jnp.inf], [-jnp.inf, 0.0]])).tolist() == [-float(jnp.log(2.0))] * 2
      True
    """
    array = promote(member_log_probs, "member_log_probs")
    checks.members(array, "member_log_probs")
    checks.log_probs(array, "member_log_probs")
    return reduce.log_mean_exp(array)


def sample(key: Key, log_probs: Float[ArrayLike, "*B K"], num_samples: int) -> Int[Array, "S *B"]:
    """Independent class labels.

    Args:
      key: a typed random key.
      log_probs: normalised; classes at -inf are never drawn.
      num_samples: S, at least 1.

    Returns:
      Labels in [0, K), int32.

    Raises:
      ValueError: as `entropy`, or if num_samples < 1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> sample(jax.random.key(0), jnp.array([-jnp.inf, 0.0]), 3).tolist()
      [1, 1, 1]
    """
    log_probs = _as_log_probs(log_probs, "log_probs")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    return jax.random.categorical(key, log_probs[None], axis=-1, shape=(num_samples, *log_probs.shape[:-1])).astype(jnp.int32)
