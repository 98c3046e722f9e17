"""The Dirichlet distribution over K classes, a function of its concentration [*B, K] alone.

Every quantity is computed from forms in which nothing cancels, so that float32 carries concentrations of 1e-4 to 1e8, also mixed
within one vector, for any number of classes. Gradients are closed forms; second derivatives exist and are finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from edd.distributions.dirichlet_fit import fit
from edd.math import checks, special
from edd.math.differences import _near_phi, _phi_ratio, _rise_past_largest
from edd.math.polygamma import promote
from edd.math.reduce import class_sum, compensated_add, compensated_class_sum, compensated_product, leave_one_out_sum, settle
from edd.typing import Array, ArrayLike, Float, Key

__all__ = [
    "entropy",
    "expected_log_probs",
    "fit",
    "kl_divergence",
    "log_prob",
    "mean",
    "precision",
    "sample",
    "sample_log_probs",
    "validate_concentration",
]


def as_concentration(concentration: ArrayLike, name: str = "concentration") -> Array:
    """`concentration` as float32 or float64 [*B, K], its shape and, where concrete, its values checked."""
    array = promote(concentration, name)
    checks.classes(array, name)
    checks.positive(array, name)
    checks.finite(array, name)
    return array


def validate_concentration(concentration: Float[ArrayLike, "*B K"], name: str = "concentration") -> Float[Array, "*B K"]:
    """Checks that a concentration is positive and finite everywhere, eagerly or, under jit, through `checkify`.

    Args:
      concentration: [*B, K] with K >= 2.
      name: what the message calls it.

    Returns:
      The same values, as float32 or float64.

    Raises:
      ValueError: if an eager concentration is not positive and finite, or the shape is wrong.
      checkify.JaxRuntimeError: from `err.throw()` of a `checkify.checkify`-transformed function.

    Examples:
      >>> import jax.numpy as jnp
      >>> validate_concentration(jnp.array([0.5, 0.0]))
      Traceback (most recent call last):
      ValueError: concentration must be positive everywhere, got 0.0 at index (1,)
    """
    array = as_concentration(concentration, name)
    if not checks.is_concrete(array):
        checkify.check(jnp.all((array > 0) & jnp.isfinite(array)), f"{name} must be positive and finite everywhere")
    return array


def precision(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """alpha_0, the sum of the concentration over classes.

    Args:
      concentration: positive and finite.

    Returns:
      Positive.

    Raises:
      ValueError: if the shape is not [*B, K >= 2] or a concrete value is not positive and finite.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(precision(jnp.array([1.0, 3.0])))
      4.0
    """
    return class_sum(as_concentration(concentration))


def mean(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B K"]:
    """The expected class probabilities alpha / alpha_0.

    Args:
      concentration: positive and finite.

    Returns:
      Probabilities that sum to one.

    Raises:
      ValueError: as `precision`.

    Examples:
      >>> import jax.numpy as jnp
      >>> mean(jnp.array([1.0, 3.0])).tolist()
      [0.25, 0.75]
    """
    concentration = as_concentration(concentration)
    return concentration / class_sum(concentration)[..., None]


def log_mean(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B K"]:
    """ln of the expected class probabilities, ln(alpha / alpha_0), accurate relative to itself also where one class dominates.

    Args:
      concentration: positive and finite.

    Returns:
      Negative.

    Raises:
      ValueError: as `precision`.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(1e12 * float(log_mean(jnp.array([1e8, 1e-4], jnp.float32))[0]), 4)
      -1.0
    """
    concentration = as_concentration(concentration)
    return -jnp.log1p(leave_one_out_sum(concentration) / concentration)


def expected_log_probs(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B K"]:
    """E[ln pi_k] = psi(alpha_k) - psi(alpha_0), in nats.

    A cancellation-free difference, accurate relative to itself also for a class that holds nearly all of alpha_0.

    Args:
      concentration: positive and finite.

    Returns:
      Negative.

    Raises:
      ValueError: as `precision`.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", appendix A.

    Examples:
      >>> import jax.numpy as jnp
      >>> expected_log_probs(jnp.ones(2)).tolist()
      [-1.0, -1.0]
    """
    concentration = as_concentration(concentration)
    total = class_sum(concentration)[..., None]
    return -special.digamma_difference(total, concentration, leave_one_out_sum(concentration))


def entropy(concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """Differential entropy on the simplex, in nats.

    sum_k h(alpha_k) - h(alpha_0) - (K - 1) psi(alpha_0) with h of `special.entropy_term`. O(K).

    Args:
      concentration: positive and finite.

    Returns:
      At most -ln Gamma(K), reached at alpha = 1; unbounded below.

    Raises:
      ValueError: as `precision`.

    References:
      Malinin, Mlodozeniec & Gales 2020, appendix A.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(entropy(jnp.ones(3))), 5)  # -ln 2
      -0.69315
    """
    return _entropy(as_concentration(concentration))


@jax.custom_jvp
def _entropy(concentration: Array) -> Array:
    total = class_sum(concentration)
    rest = special.entropy_term(total) + (concentration.shape[-1] - 1) * special.digamma(total)
    value = class_sum(settle(special.entropy_term(concentration))) - rest
    if concentration.shape[-1] > 2:
        return value
    # near the uniform density, where it vanishes for two classes (and for no other number of them), it is minus the KL to it
    near = (jnp.abs(concentration - 1) < 0.5).all(-1)
    return jnp.where(near, -_kl_divergence(jnp.where(near[..., None], concentration, 1), jnp.ones_like(concentration)), value)


@_entropy.defjvp
def _entropy_jvp(primals, tangents):
    (concentration,), (tangent,) = primals, tangents
    total = class_sum(concentration)[..., None]
    rest = class_sum(concentration - 1)[..., None]  # alpha_0 - K
    slope = (1 - concentration) * special.trigamma(concentration) + rest * special.trigamma(total)
    return _entropy(concentration), (slope * tangent).sum(-1)


def kl_divergence(p_concentration: Float[ArrayLike, "*B K"], q_concentration: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """KL(Dir(p) || Dir(q)) between two Dirichlets, in nats.

    sum_k R(p_k, q_k) - R(p_0, q_0) + q_0 KL(mean of q || mean of p), where R is `special.log_gamma_bregman_remainder`: the leading
    terms of the textbook form, which cancel, are gone. Near-equal concentrations are compared to twice the working precision. O(K).

    Args:
      p_concentration: positive and finite.
      q_concentration: positive and finite, of the same shape.

    Returns:
      Non-negative, exactly 0 for equal concentrations; +inf only where the true value passes the largest number.
      Gradients are the closed forms (p_j - q_j) psi1(p_j) - (p_0 - q_0) psi1(p_0) and
      psi(q_j) - psi(p_j) - (psi(q_0) - psi(p_0)), each difference free of cancellation.

    Raises:
      ValueError: as `precision`, or if the shapes differ.

    References:
      Ryabinin, Malinin & Gales 2021, "Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets", equation 17.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(kl_divergence(jnp.ones(3), jnp.ones(3)))
      0.0
      >>> round(float(kl_divergence(jnp.array([1.0, 1.0]), jnp.array([2.0, 1.0]))), 5)  # 1 - ln 2
      0.30685
    """
    p, q = as_concentration(p_concentration, "p_concentration"), as_concentration(q_concentration, "q_concentration")
    checks.same_shape(p, q, "p_concentration", "q_concentration")
    dtype = jnp.promote_types(p.dtype, q.dtype)
    return _kl_divergence(p.astype(dtype), q.astype(dtype))


@jax.custom_jvp
def _kl_divergence(p: Array, q: Array) -> Array:
    difference, lost = compensated_add(q, -p)
    total_difference, total_lost = compensated_class_sum(difference, lost)
    q_total, q_total_lost = compensated_class_sum(q)
    p_total = class_sum(p)
    # cross = p_k q_0 - p_0 q_k = q_k (q_0 - p_0) - q_0 (q_k - p_k), in doubled precision
    first, first_lost = compensated_product(q, jnp.broadcast_to(total_difference[..., None], q.shape))
    second, second_lost = compensated_product(jnp.broadcast_to(q_total[..., None], q.shape), difference)
    small = first_lost - second_lost + q * total_lost[..., None] - (q_total_lost[..., None] * difference + q_total[..., None] * lost)
    cross = (first - second) + small
    means = q * _phi_ratio(p_total[..., None] * q, q_total[..., None] * p, cross)
    classes = special.log_gamma_bregman_remainder(p, q, difference)
    dominant, leads, rise = _rise_past_largest(p, q)
    value = class_sum(settle(jnp.where(leads & dominant, 0, classes) + means))
    whole = special.log_gamma_bregman_remainder(p_total, q_total, total_difference)
    whole = jnp.where(dominant[..., 0], rise[..., 0], whole)
    return jnp.where(jnp.isinf(value), jnp.inf, jnp.maximum(value - jnp.where(jnp.isinf(value), 0, whole), 0))


@_kl_divergence.defjvp
def _kl_divergence_jvp(primals, tangents):
    (p, q), (p_tangent, q_tangent) = primals, tangents
    p_total, q_total = class_sum(p)[..., None], class_sum(q)[..., None]
    total_difference = class_sum(q - p)[..., None]
    by_p = total_difference * special.trigamma(p_total) - ((q - p) / p) * (1 + special.x_trigamma_minus_one(p))
    by_q = special.digamma_difference(q, p) - special.digamma_difference(q_total, p_total, total_difference)
    return _kl_divergence(p, q), (by_p * p_tangent + by_q * q_tangent).sum(-1)


def log_prob(concentration: Float[ArrayLike, "*B K"], log_probs: Float[ArrayLike, "*B K"]) -> Float[Array, "*B"]:
    """Log-density of the class probabilities exp(log_probs) under Dir(concentration), in nats.

    ln Gamma(alpha_0) - sum_k ln Gamma(alpha_k) + sum_k (alpha_k - 1) ln pi_k, with the leading terms combined into
    -alpha_0 KL(mean || pi), so that a density near its peak is right at any precision. The value is insensitive to the rounding of
    log_probs that leaves them unnormalised by a few units in the last place. O(K).

    Args:
      concentration: positive and finite.
      log_probs: normalised log-probabilities of the same shape; -inf for a probability of zero.

    Returns:
      A log-density of either sign. A zero probability adds 0 where alpha_k = 1, gives +inf where alpha_k < 1 and -inf where
      alpha_k > 1 (-inf if both occur). The gradient by log_probs is alpha - 1, that by the concentration
      psi(alpha_0) - psi(alpha_k) + ln pi_k, finite (0 at a zero probability).

    Raises:
      ValueError: as `precision`; if the shapes differ, or concrete log_probs are not normalised.

    References:
      Malinin, Mlodozeniec & Gales 2020.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(log_prob(jnp.ones(3), jnp.log(jnp.array([0.2, 0.3, 0.5])))), 5)  # ln 2
      0.69315
    """
    concentration, log_probs = as_concentration(concentration), promote(log_probs, "log_probs")
    checks.same_shape(concentration, log_probs, "concentration", "log_probs")
    checks.log_probs(log_probs, "log_probs")
    dtype = jnp.promote_types(concentration.dtype, log_probs.dtype)
    return _log_prob(concentration.astype(dtype), log_probs.astype(dtype))


@jax.custom_jvp
def _log_prob(concentration: Array, log_probs: Array) -> Array:
    total = class_sum(concentration)
    zero = jnp.isneginf(log_probs)
    log_probs = jnp.where(zero, 0, log_probs)
    log_means = -jnp.log1p(leave_one_out_sum(concentration) / concentration)
    log_ratio = log_probs - log_means
    near = (jnp.abs(log_ratio) < 0.4) & ~zero
    close = concentration * _near_phi(jnp.expm1(jnp.where(near, log_ratio, 0))) + log_probs
    probs = jnp.where(zero, 0, jnp.exp(log_probs))
    apart = (total[..., None] * probs - concentration) + concentration * log_means - (concentration - 1) * log_probs
    terms = special.log_gamma_remainder(concentration) + jnp.where(near, close, apart)
    value = special.log_gamma_remainder(total) - class_sum(settle(terms))
    if concentration.shape[-1] == 2:  # near the uniform density, whose logarithm is 0 for two classes alone, the formula as it stands
        constant = special.log_gamma(total) - special.log_gamma(concentration).sum(-1)
        direct = constant + ((concentration - 1) * log_probs).sum(-1)
        value = jnp.where((jnp.abs(concentration - 1) < 0.5).all(-1), direct, value)
    value = jnp.where((zero & (concentration < 1)).any(-1), jnp.inf, value)
    return jnp.where((zero & (concentration > 1)).any(-1), -jnp.inf, value)


@_log_prob.defjvp
def _log_prob_jvp(primals, tangents):
    (concentration, log_probs), (tangent, log_tangent) = primals, tangents
    zero = jnp.isneginf(log_probs)
    slope = jnp.where(zero, 0, jnp.where(zero, 0, log_probs) - expected_log_probs(concentration))
    return _log_prob(concentration, log_probs), (slope * tangent + jnp.where(zero, 0, concentration - 1) * log_tangent).sum(-1)


def sample_log_probs(key: Key, concentration: Float[ArrayLike, "*B K"], num_samples: int) -> Float[Array, "S *B K"]:
    """Log-probabilities of independent draws from Dir(concentration), in nats.

    Normalised log-gamma variates: at a concentration of 1e-4, where probabilities underflow to one-hot vectors, they keep their order
    of magnitude.

    Args:
      key: a typed random key.
      concentration: positive and finite.
      num_samples: S, at least 1.

    Returns:
      Normalised over the last axis.

    Raises:
      ValueError: as `precision`, or if num_samples < 1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> sample_log_probs(jax.random.key(0), jnp.ones((2, 3)), 5).shape
      (5, 2, 3)
    """
    concentration = as_concentration(concentration)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    variates = jax.random.loggamma(key, concentration[None], (num_samples, *concentration.shape), concentration.dtype)
    return jax.nn.log_softmax(variates, axis=-1)


def sample(key: Key, concentration: Float[ArrayLike, "*B K"], num_samples: int) -> Float[Array, "S *B K"]:
    """Class probabilities drawn independently from Dir(concentration); `sample_log_probs` in probability space.

    Args:
      key: a typed random key.
      concentration: positive and finite.
      num_samples: S, at least 1.

    Returns:
      Probabilities that sum to one over the last axis; at small concentrations one-hot, never NaN.

    Raises:
      ValueError: as `sample_log_probs`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> float(sample(jax.random.key(0), jnp.full(3, 1e-4), 1).sum())
      1.0
    """
    return jnp.exp(sample_log_probs(key, concentration, num_samples))
