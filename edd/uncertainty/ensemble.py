"""Uncertainty measures of an ensemble, from its members' log-probabilities [M, *B, K] -> [*B], in nats.

With `pi^m` the members' probabilities and `pb` their mean, for one example:

    total       H  = -sum_k pb_k ln pb_k
    data        EH = -mean_m sum_k pi^m_k ln pi^m_k
    mutual inf. I  = H - EH = mean_m KL(pi^m || pb)      0 <= I <= ln M
    reverse MI  M  = mean_m KL(pb || pi^m)
    EPKL        K  = mean_ij KL(pi^i || pi^j) = I + M

The three knowledge measures are never formed as differences of entropies. With `r = ln pi^m - ln pb` they are sums of
non-negative terms, `pb * psi(r)` and `pb * phi(r)` with `phi(r) = e^r - 1 - r` and `psi(r) = r e^r - e^r + 1`, and `r` itself
comes from differences to the largest member of each class: identical members give exactly zero, members that differ by
1e-5 in their logits keep all their digits, and -inf log-probabilities (excluded classes) need no epsilon.

Derivatives are written by hand and equal those of the formulas above in `log_probs` taken as free variables; composed
with `jax.nn.log_softmax` they are the derivatives in the logits. They are finite everywhere: an excluded class on which a
measure is +inf contributes no slope through the infinite term.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edd.math import checks
from edd.typing import Array, Float
from edd.uncertainty import member_sums

NAMES = ("total", "data", "mutual_information", "reverse_mutual_information")


class Measures(NamedTuple):
    """The five measures of each example, in nats; `expected_pairwise_kl` is the sum of the two mutual informations."""

    total: Float[Array, "*B"]
    data: Float[Array, "*B"]
    mutual_information: Float[Array, "*B"]
    expected_pairwise_kl: Float[Array, "*B"]
    reverse_mutual_information: Float[Array, "*B"]


def measures(log_probs: Float[Array, "M *B K"], *, batch_size: int | None = None) -> Measures:
    """All five uncertainty measures of an ensemble in one pass, in nats.

    O(M K) per example, about six plain exp-and-sum passes over the array on CPU, where it works through cache-sized
    tiles. Half precision is computed and returned in float32. float32 sums of probabilities that miss 1 by rounding are
    treated as if renormalised.

    Args:
      log_probs: members' normalised log-probabilities, members first, classes last; -inf is probability zero.
      batch_size: examples held in temporary arrays at a time, >= 1; None lets the backend decide (all at once on
        accelerators). It changes memory, not results.

    Returns:
      `Measures` of arrays [*B], all >= 0. The last three are exactly 0 for identical members (and for M = 1), and
      `mutual_information` <= ln M; `expected_pairwise_kl` and `reverse_mutual_information` are +inf where one member
      excludes a class that another allows.

    Raises:
      ValueError: wrong shape, fewer than two classes, or (eagerly) rows whose exp does not sum to 1.
      TypeError: not real numbers.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", eq. 3-5 (total, data, mutual information);
      Ryabinin, Malinin & Gales 2021, "Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets",
      appendix (reverse mutual information, EPKL).

    Examples:
      >>> import jax.numpy as jnp
      >>> from edd.uncertainty import ensemble
      >>> log_probs = jnp.log(jnp.array([[[0.9, 0.1]], [[0.5, 0.5]]]))
      >>> result = ensemble.measures(log_probs)
      >>> print(result.total.round(4), result.mutual_information.round(4))
      [0.6109] [0.1017]
      >>> bool(jnp.all(ensemble.measures(log_probs[:1]).expected_pairwise_kl == 0))
      True
    """
    total, data, mutual, reverse = _evaluate(log_probs, NAMES, batch_size)
    return Measures(total, data, mutual, mutual + reverse, reverse)


def total_uncertainty(log_probs: Float[Array, "M *B K"], *, batch_size: int | None = None) -> Float[Array, "*B"]:
    """Entropy of the ensemble's mean prediction, H[pb] = -sum_k pb_k ln pb_k, in nats. O(M K) per example.

    Args:
      log_probs: members' normalised log-probabilities; -inf is probability zero (0 ln 0 = 0).
      batch_size: examples held in temporary arrays at a time, or None; see `measures`.

    Returns:
      [*B] in [0, ln K]; 0 when the mean prediction is certain.

    Raises:
      ValueError, TypeError: as `measures`.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", eq. 4 (first term).

    Examples:
      >>> import jax.numpy as jnp
      >>> print(total_uncertainty(jnp.log(jnp.array([[1.0, 0.0], [0.0, 1.0]]))))
      0.6931472
    """
    return _evaluate(log_probs, ("total",), batch_size)[0]


def data_uncertainty(log_probs: Float[Array, "M *B K"], *, batch_size: int | None = None) -> Float[Array, "*B"]:
    """Mean entropy of the members, -mean_m sum_k pi^m_k ln pi^m_k, in nats. O(M K) per example.

    Args:
      log_probs: members' normalised log-probabilities; -inf is probability zero (0 ln 0 = 0).
      batch_size: examples held in temporary arrays at a time, or None; see `measures`.

    Returns:
      [*B] in [0, ln K]; 0 when every member is certain, whether or not they agree.

    Raises:
      ValueError, TypeError: as `measures`.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", eq. 4 (second term).

    Examples:
      >>> import jax.numpy as jnp
      >>> print(abs(data_uncertainty(jnp.log(jnp.array([[1.0, 0.0], [0.0, 1.0]])))))
      0.0
    """
    return _evaluate(log_probs, ("data",), batch_size)[0]


def mutual_information(log_probs: Float[Array, "M *B K"], *, batch_size: int | None = None) -> Float[Array, "*B"]:
    """Mutual information of prediction and member, mean_m KL(pi^m || pb), in nats. O(M K) per example.

    Equals total minus data uncertainty, formed without that difference.

    Args:
      log_probs: members' normalised log-probabilities; -inf is probability zero.
      batch_size: examples held in temporary arrays at a time, or None; see `measures`.

    Returns:
      [*B] in [0, ln M]; exactly 0 for identical members.

    Raises:
      ValueError, TypeError: as `measures`.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", eq. 4.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(mutual_information(jnp.log(jnp.array([[1.0, 0.0], [0.0, 1.0]]))))
      0.6931472
    """
    return _evaluate(log_probs, ("mutual_information",), batch_size)[0]


def reverse_mutual_information(log_probs: Float[Array, "M *B K"], *, batch_size: int | None = None) -> Float[Array, "*B"]:
    """Reverse mutual information, mean_m KL(pb || pi^m), in nats. O(M K) per example.

    Args:
      log_probs: members' normalised log-probabilities; -inf is probability zero.
      batch_size: examples held in temporary arrays at a time, or None; see `measures`.

    Returns:
      [*B] >= 0; exactly 0 for identical members, +inf where one member excludes a class that another allows.

    Raises:
      ValueError, TypeError: as `measures`.

    References:
      Ryabinin, Malinin & Gales 2021, "Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets",
      appendix; it sets the precision of the proxy Dirichlet, (K - 1) / (2 M).

    Examples:
      >>> import jax.numpy as jnp
      >>> print(reverse_mutual_information(jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))).round(4))
      0.118
    """
    return _evaluate(log_probs, ("reverse_mutual_information",), batch_size)[0]


def expected_pairwise_kl(log_probs: Float[Array, "M *B K"], *, batch_size: int | None = None) -> Float[Array, "*B"]:
    """Expected KL divergence between two members drawn with replacement (EPKL), in nats.

    Mean over all M*M ordered pairs, in O(M K): mutual information plus reverse mutual information. The mean over
    distinct pairs only is M / (M - 1) times it.

    Args:
      log_probs: members' normalised log-probabilities; -inf is probability zero.
      batch_size: examples held in temporary arrays at a time, or None; see `measures`.

    Returns:
      [*B] >= 0; exactly 0 for identical members, +inf where one member excludes a class that another allows.

    Raises:
      ValueError, TypeError: as `measures`.

    References:
      Ryabinin, Malinin & Gales 2021, "Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets",
      appendix.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(expected_pairwise_kl(jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))).round(4))
      0.2197
    """
    mutual, reverse = _evaluate(log_probs, ("mutual_information", "reverse_mutual_information"), batch_size)
    return mutual + reverse


def log_mean_probs(log_probs: Float[Array, "M *B K"]) -> Float[Array, "*B K"]:
    """Logarithm of the members' mean probabilities, ln mean_m pi^m, in nats. O(M K) per example.

    Formed from differences to the largest member of each class, so that identical members give their own log-probability
    bit for bit. Not the mean of the logarithms.

    Args:
      log_probs: members' normalised log-probabilities; -inf is probability zero.

    Returns:
      [*B, K], <= 0; -inf where every member excludes the class.

    Raises:
      ValueError, TypeError: as `measures`.

    References:
      Ryabinin, Malinin & Gales 2021, "Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets",
      section 3 (the mean of the proxy target).

    Examples:
      >>> import jax.numpy as jnp
      >>> print(jnp.exp(log_mean_probs(jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]])))).round(4))
      [0.7        0.29999998]
    """
    return _log_mean(_checked(log_probs))


def _checked(log_probs) -> Array:
    """`log_probs` as [M, *B, K] of float32 or wider; eager rows must be normalised (looked at on the device, in one exp pass)."""
    log_probs = checks.as_float(log_probs, "log_probs")
    checks.members(log_probs, "log_probs")
    if checks.is_concrete(log_probs) and log_probs.size:
        tolerance = 3e-2 if jnp.finfo(log_probs.dtype).bits == 16 else checks.NORMALISATION_TOLERANCE
        if not float(_normalisation_error(log_probs)) <= tolerance / 2:
            checks.log_probs(log_probs, "log_probs")
    return log_probs if jnp.finfo(log_probs.dtype).bits >= 32 else log_probs.astype(jnp.float32)


@jax.jit
def _normalisation_error(log_probs: Array) -> Array:
    return jnp.max(jnp.abs(jnp.sum(jnp.exp(log_probs.astype(jnp.promote_types(log_probs.dtype, jnp.float32))), -1) - 1))


def _evaluate(log_probs, names: tuple[str, ...], batch_size: int | None) -> tuple[Array, ...]:
    """The named ones of the four measures from which all five follow, each [*B]."""
    log_probs = _checked(log_probs)
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be an integer >= 1 or None, got {batch_size!r}")
    num_members, *batch, num_classes = log_probs.shape
    flat = log_probs.reshape(num_members, math.prod(batch), num_classes)
    return tuple(value.reshape(batch) for value in _measures(flat, names, batch_size))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
@partial(jax.jit, static_argnums=(1, 2))
def _measures(log_probs: Array, names: tuple[str, ...], batch_size: int | None) -> tuple[Array, ...]:
    """The named measures of [M, N, K] log-probabilities, each [N]."""
    tiled = partial(member_sums.tiled_sums, names=names, batch_size=batch_size)
    if batch_size is None:
        sums = jax.lax.platform_dependent(log_probs, cpu=tiled, default=partial(member_sums.sums, names=names))
    else:
        sums = tiled(log_probs)
    return member_sums.finish(sums, names)


@_measures.defjvp
def _measures_jvp(names, batch_size, primals, tangents):
    (log_probs,), (tangent,) = primals, tangents
    parts = member_sums.split(log_probs)
    probs, mean = parts.largest_prob[None] * parts.scaled, member_sums.mean_probs(parts)
    ratio, r = member_sums.ratio(parts), member_sums.log_to_mean(parts)
    drift = jnp.sum(parts.largest_prob[None] * parts.excess, -1, keepdims=True)
    drift = drift - jnp.mean(drift, 0, keepdims=True)  # rounding of the members' normalisation, see `member_sums.finish`
    weights = {}
    if "total" in names:
        weights["total"] = -probs * (member_sums.log_mean_probs(parts) + 1)[None]
    if "data" in names:
        weights["data"] = -probs * (member_sums.floored(log_probs) + 1)
    if "mutual_information" in names:
        weights["mutual_information"] = probs * (member_sums.floored(r) - drift)
    if "reverse_mutual_information" in names:
        phi = member_sums.phi(ratio, r)
        slope = jnp.mean(phi, 0)  # ln pb - mean_m ln pi^m
        excess = jnp.where(jnp.abs(r) < member_sums.SMALL, r + phi, ratio - 1)  # pi^m / pb - 1
        weights["reverse_mutual_information"] = probs * (jnp.where(jnp.isinf(slope), 0, slope)[None] - drift) + mean[None] * excess
    outputs = _measures(log_probs, names, batch_size)
    return outputs, tuple(jnp.sum(weights[name] * tangent, (0, -1)) / log_probs.shape[0] for name in names)


@jax.custom_jvp
@jax.jit
def _log_mean(log_probs: Array) -> Array:
    parts = member_sums.split(log_probs)
    return jnp.where(parts.dead, -jnp.inf, member_sums.log_mean_probs(parts))


@_log_mean.defjvp
def _log_mean_jvp(primals, tangents):
    (log_probs,), (tangent,) = primals, tangents
    parts = member_sums.split(log_probs)
    weights = jnp.where(parts.dead[None], 0, member_sums.ratio(parts)) / log_probs.shape[0]
    return _log_mean(log_probs), jnp.sum(weights * tangent, 0)
