"""Proxy-Dirichlet distillation: the ensemble summarised by one Dirichlet per example, and KL losses against it.

The members' mean gives the proxy's mean, their disagreement its precision (`proxy_target`); `reverse_kl` is the loss of the paper,
`forward_kl` the one its image command line trains with. Both are written so that nothing cancels in float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd.losses import proxy_forward, proxy_kernel
from edd.losses.options import clipped_logits, offset_value
from edd.math import checks
from edd.typing import Array, Float
from edd.uncertainty import ensemble

ESTIMATORS = ("stirling", "epkl")
PRIORS = ("paper", "authors")


class ProxyTarget(NamedTuple):
    """What the proxy losses need of an ensemble, M times smaller than its members.

    Attributes:
      log_mean_probs: [*B, K], ln of the members' mean probabilities (not the mean of their logarithms); -inf where all exclude a class.
      precision: [*B], the proxy's precision before any offset, in [0, inf]; +inf where all members agree.
    """

    log_mean_probs: Array
    precision: Array


def proxy_target(member_log_probs: Float[Array, "M *B K"], estimator: str = "stirling") -> ProxyTarget:
    """The proxy Dirichlet of an ensemble: its mean and its precision.

    With pb the members' mean, RMI = mean_m KL(pb || pi^m) and EPKL = mean_ij KL(pi^i || pi^j):

        stirling:  precision = (K - 1) / (2 RMI)   (maximum likelihood given the mean, under Stirling's approximation)
        epkl:      precision = (K - 1) / EPKL      (exact when the members are draws from a Dirichlet)

    No epsilon is added: RMI and EPKL are exact down to identical members. O(M K) per example.

    Args:
      member_log_probs: members' normalised log-probabilities; -inf is probability zero.
      estimator: "stirling" or "epkl".

    Returns:
      `ProxyTarget`. The precision is +inf for identical members (and M = 1) and 0 where one member excludes a class another allows.

    Raises:
      ValueError: unknown estimator, wrong shape, fewer than two classes, or (eagerly) rows whose exp does not sum to 1.
      TypeError: not real numbers.

    References:
      Ryabinin, Malinin & Gales 2021, "Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets", section 3.

    Examples:
      >>> import jax.numpy as jnp
      >>> target = proxy_target(jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]])))
      >>> round(float(target.precision), 2), round(float(jnp.exp(target.log_mean_probs[0])), 2)
      (4.24, 0.7)
      >>> bool(jnp.isinf(proxy_target(jnp.log(jnp.array([[0.9, 0.1], [0.9, 0.1]]))).precision))
      True
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {ESTIMATORS}, got {estimator!r}")
    member_log_probs = checks.as_float(member_log_probs, "member_log_probs")
    checks.members(member_log_probs, "member_log_probs")
    checks.log_probs(member_log_probs, "member_log_probs")
    if estimator == "stirling":
        disagreement = 2 * ensemble.reverse_mutual_information(member_log_probs)
    else:
        disagreement = ensemble.expected_pairwise_kl(member_log_probs)
    precision = (member_log_probs.shape[-1] - 1) / disagreement
    return ProxyTarget(ensemble.log_mean_probs(member_log_probs), precision)


def reverse_kl(
    logits: Float[Array, "*B K"],
    target: ProxyTarget,
    offset: float = 1.0,
    target_offset: float = 1.0,
    prior: str = "paper",
    *,
    max_concentration: float | None = None,
) -> Float[Array, "*B"]:
    """Reverse-KL proxy loss of each example, in nats: reconstruction plus a prior term scaled by the target's precision.

    With alpha = exp(z) + offset, pb and beta0 the target's mean and precision, Hd the differential entropy of Dir(alpha):

        paper:    sum_k pb_k (psi(alpha_0) - psi(alpha_k)) + KL[Dir(alpha) || Dir(1)] / beta0
        authors:  sum_k pb_k (psi(alpha_0) - psi(alpha_k)) - Hd(alpha) / (beta0 + target_offset K)

    "paper" is KL[Dir(alpha) || Dir(beta0 pb + 1)] / beta0 up to a constant of the target, and does not use `target_offset`. Its
    minimiser at offset 1 is exp(z) = beta0 pb, so that softmax(z) is the ensemble's mean; "authors" has beta0 + target_offset K in
    place of beta0. Both terms are sums of non-negative parts, accurate to 1e-5 relative in float32, with a stable hand-written
    gradient. Two elementwise passes of O(K); the gradient takes one [*B, K] buffer beside its result. Differentiable once, in
    reverse mode, in the logits; the target is a constant. Unlike the reference code, no epsilon and no clipping.

    Args:
      logits: the student's.
      target: from `proxy_target`.
      offset: added to exp(z), a Python number >= 0. The speed is tuned for offsets >= 1.
      target_offset: t of the "authors" divisor, a Python number >= 0.
      prior: "paper" or "authors".
      max_concentration: clips alpha from above (with zero gradient there); None, the default: not needed for stability.

    Returns:
      [*B], >= 0 (for offset 1 and up to rounding: zero only in the limit of one certain class). Infinite precision leaves the
      reconstruction alone; precision 0 with a divisor of 0 gives +inf unless alpha = 1.

    Raises:
      ValueError: shapes that differ, unknown prior, negative offset, max_concentration not above offset, (eagerly) non-finite logits
        or a precision that is negative or NaN.
      TypeError: not real numbers.

    References:
      Ryabinin, Malinin & Gales 2021, "Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets", eqs. 17-18;
      the authors' code for "authors".

    Examples:
      >>> import jax.numpy as jnp
      >>> target = ProxyTarget(jnp.log(jnp.array([0.5, 0.5])), jnp.array(4.0))
      >>> print(reverse_kl(jnp.array([0.6931472, 0.6931472]), target).round(3))  # at the optimum, exp(z) = 4 * 0.5
      0.85
      >>> print(jax.grad(reverse_kl)(jnp.array([0.6931472, 0.6931472]), target).round(5) + 0.0)
      [0. 0.]
    """
    if prior not in PRIORS:
        raise ValueError(f"prior must be one of {PRIORS}, got {prior!r}")
    offset, target_offset = offset_value(offset, "offset"), offset_value(target_offset, "target_offset")
    logits, log_probs, precision = _checked(logits, target, max_concentration, offset)
    num_classes = logits.shape[-1]
    if prior == "paper":
        return proxy_kernel.reverse_kl(logits, log_probs, precision, offset)
    divisor = precision + target_offset * num_classes
    # -Hd(alpha) = KL[Dir(alpha) || Dir(1)] + ln Gamma(K): both parts non-negative
    constant = math.lgamma(num_classes) / divisor if num_classes > 2 else jnp.zeros_like(divisor)
    return proxy_kernel.reverse_kl(logits, log_probs, divisor, offset) + constant


def forward_kl(
    logits: Float[Array, "*B K"],
    target: ProxyTarget,
    offset: float = 1.0,
    target_offset: float = 1.0,
    *,
    max_concentration: float | None = None,
) -> Float[Array, "*B"]:
    """Forward-KL proxy loss of each example, in nats: KL[Dir(beta) || Dir(alpha)].

    alpha = exp(z) + offset and beta = precision * mean + target_offset. Minimal, 0, at alpha = beta. O(K), cancellation-free.

    Args:
      logits: the student's.
      target: from `proxy_target`; a constant for differentiation.
      offset: added to exp(z), a Python number >= 0.
      target_offset: added to the proxy's concentration, a Python number >= 0.
      max_concentration: clips alpha from above (with zero gradient there); None, the default: not needed for stability.

    Returns:
      [*B], >= 0, zero when alpha = beta. +inf, with a gradient of 0, in the limits: infinite precision
      (identical members; the reverse KL carries them) and a concentration beta_k of zero (target_offset 0).

    Raises:
      ValueError, TypeError: as `reverse_kl`.

    References:
      Ryabinin, Malinin & Gales 2021, "Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets", the
      forward criterion that the reverse one is compared with.

    Examples:
      >>> import jax.numpy as jnp
      >>> target = ProxyTarget(jnp.log(jnp.array([0.5, 0.5])), jnp.array(4.0))
      >>> bool(abs(forward_kl(jnp.log(jnp.array([2.0, 2.0])), target)) < 1e-6)
      True
    """
    offset, target_offset = offset_value(offset, "offset"), offset_value(target_offset, "target_offset")
    logits, log_probs, precision = _checked(logits, target, max_concentration, offset)
    possible = jnp.isfinite(precision)
    if target_offset == 0:
        possible = possible & (precision > 0) & ~jnp.isneginf(log_probs).any(-1)
    safe = jnp.where(possible[..., None], log_probs, -math.log(logits.shape[-1]))
    divergence = proxy_forward.divergence(
        jnp.where(possible[..., None], logits, 0), safe, jnp.where(possible, precision, 1), offset, target_offset
    )
    return jnp.where(possible, divergence, jnp.inf)


def _checked(logits, target: ProxyTarget, max_concentration: float | None, offset: float) -> tuple[Array, Array, Array]:
    """(logits, log_mean_probs, precision) in one dtype of at least float32, with shapes and values checked."""
    logits = checks.as_float(logits, "logits")
    log_probs = checks.as_float(target.log_mean_probs, "target.log_mean_probs")
    precision = checks.as_float(target.precision, "target.precision")
    checks.classes(logits, "logits")
    checks.same_shape(logits, log_probs, "logits", "target.log_mean_probs")
    checks.shape(precision, logits.shape[:-1], "target.precision")
    checks.finite(logits, "logits")
    checks.log_probs(log_probs, "target.log_mean_probs")
    if checks.is_concrete(precision) and not np.all(np.asarray(precision) >= 0):
        raise ValueError(f"target.precision must be >= 0 (inf where members agree), got {np.min(np.asarray(precision))}")
    dtype = jnp.promote_types(jnp.promote_types(logits.dtype, log_probs.dtype), jnp.float32)
    log_probs, precision = jax.lax.stop_gradient((log_probs.astype(dtype), precision.astype(dtype)))
    return clipped_logits(logits.astype(dtype), max_concentration, offset), log_probs, precision
