"""Ensembles of ensembles: how knowledge uncertainty divides between and within sub-ensembles, and why it collapses.

Members [G, M, *B, K] are G sub-ensembles of M networks each. Knowledge uncertainty obeys a chain rule, exactly, for every input:

    I[Y; G, M] = I[Y; G] + I[Y; M | G]           total = between + within

`between` is what an ensemble of G predictions sees when each of them is already an average of M networks. As M grows the averages
agree and it collapses, about as `collapse_law`, although the networks disagree as much as ever. `variance_decompose` is the same for
regression. `weighted_mutual_information` is the mutual information of members that count unequally, as tiles of one image may.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from edd.distributions import categorical
from edd.math import checks
from edd.math.polygamma import promote
from edd.math.reduce import class_sum
from edd.typing import Array, ArrayLike, Float, Key
from edd.uncertainty import ensemble

WEIGHTINGS = ("per_input_lse", "per_input_sum", "global", "global_lse")


class Decomposition(NamedTuple):
    """Disagreement of each example and where it comes from: total = between sub-ensembles + within them; nats, or squared units."""

    total: Float[Array, "*B"]
    between: Float[Array, "*B"]
    within: Float[Array, "*B"]


def decompose(log_probs: Float[ArrayLike, "G M *B K"]) -> Decomposition:
    """Knowledge uncertainty of an ensemble of ensembles by the chain rule I[Y; G, M] = I[Y; G] + I[Y; M | G], in nats.

    Each term is computed by itself, from sums of non-negative numbers, so that their sum is a check. O(G M K) per example.

    Args:
      log_probs: members' normalised log-probabilities, sub-ensembles first; -inf is probability zero. See `partition`. Half precision
        is normalised anew and computed in float32.

    Returns:
      `Decomposition` of arrays [*B]: `total`, the mutual information of the flat ensemble of G M members; `between`, that of the G
      sub-ensembles' mean predictions, in [0, ln min(G, K)]; `within`, the mean over sub-ensembles of their members' mutual information,
      in [0, ln M]. All >= 0; exactly 0 where the members they compare are identical: `between` for G = 1, `within` for M = 1.

    Raises:
      ValueError: wrong shape, no member, fewer than two classes, or (eagerly) rows whose exp does not sum to 1.
      TypeError: not real numbers.

    References:
      Kirsch 2024, "(Implicit) Ensembles of Ensembles: Epistemic Uncertainty Collapse in Large Models", eq. 4-10.

    Examples:
      >>> import jax.numpy as jnp
      >>> found = decompose(jnp.log(jnp.array([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.4, 0.6]]])))
      >>> [round(float(each), 5) for each in found]  # total, between, within
      [0.14524, 0.08228, 0.06295]
    """
    log_probs = checks.as_float(log_probs, "log_probs")
    if log_probs.ndim < 3 or 0 in log_probs.shape[:2]:
        raise ValueError(f"log_probs must be [G, M, *B, K] with sub-ensembles first and at least one member each, got {log_probs.shape}")
    if jnp.finfo(log_probs.dtype).bits == 16:  # whose rounding would make the means fail the check of float32
        checks.log_probs(log_probs, "log_probs")
        log_probs = jax.nn.log_softmax(log_probs.astype(jnp.float32))
    total = ensemble.mutual_information(log_probs.reshape(-1, *log_probs.shape[2:]))
    members_first = jnp.swapaxes(log_probs, 0, 1)
    between = ensemble.mutual_information(ensemble.log_mean_probs(members_first))
    within = ensemble.mutual_information(members_first).mean(0)
    return Decomposition(total, between, within)


def partition(members: ArrayLike, *, size: int | None = None, num_groups: int | None = None, key: Key | None = None) -> Array:
    """A flat ensemble [M, ...] as sub-ensembles [G, M / G, ...]: a reshape of axis 0, after a permutation if a key is given.

    Consecutive groups of sizes that divide one another are nested: then the `between` of `decompose` falls for every single input as
    the size grows. Between sizes that are not nested (2 and 3) it falls in the mean only.

    Args:
      members: anything with members first.
      size: members per sub-ensemble; or
      num_groups: number of sub-ensembles; exactly one of the two.
      key: random key of the permutation; None keeps the order.

    Raises:
      ValueError: both or neither of `size` and `num_groups`, or one that does not divide the number of members.

    References:
      Kirsch 2024, figure 4 (24 members as 24 x 1 to 2 x 12; how they were grouped is not stated).

    Examples:
      >>> import jax.numpy as jnp
      >>> partition(jnp.arange(6), size=2).tolist()
      [[0, 1], [2, 3], [4, 5]]
    """
    members = jnp.asarray(members)
    if members.ndim < 1 or members.shape[0] < 1:
        raise ValueError(f"members must hold at least one member on axis 0, got shape {members.shape}")
    if (size is None) == (num_groups is None):
        raise ValueError(f"give exactly one of size and num_groups, got size={size!r} and num_groups={num_groups!r}")
    name, count = ("size", size) if num_groups is None else ("num_groups", num_groups)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1 or members.shape[0] % count:
        known = [divisor for divisor in range(1, members.shape[0] + 1) if members.shape[0] % divisor == 0]
        raise ValueError(f"{name} must divide the {members.shape[0]} members, one of {known}, got {count!r}")
    if key is not None:
        members = jax.random.permutation(key, members, axis=0)
    groups = members.shape[0] // count if num_groups is None else count
    return members.reshape(groups, members.shape[0] // groups, *members.shape[1:])


def partitions(num_members: int) -> list[tuple[int, int]]:
    """Every way to divide an ensemble into two or more equal sub-ensembles: (number of groups, size), by ascending size.

    One group of all members is left out: nothing is between one.

    Args:
      num_members: at least 2.

    Returns:
      At least [(num_members, 1)], which is all of them for a prime number.

    Raises:
      ValueError: fewer than two members.

    References:
      Kirsch 2024, figure 4.

    Examples:
      >>> partitions(24)
      [(24, 1), (12, 2), (8, 3), (6, 4), (4, 6), (3, 8), (2, 12)]
    """
    if isinstance(num_members, bool) or not isinstance(num_members, int) or num_members < 2:
        raise ValueError(f"num_members must be an integer of at least 2, got {num_members!r}")
    return [(num_members // size, size) for size in range(1, num_members // 2 + 1) if num_members % size == 0]


def collapse_law(num_groups: int, group_size: int) -> float:
    """Share of an ensemble's disagreement that is left between its sub-ensembles: (G - 1) / (G M - 1), a fraction.

    For variances of exchangeable members it is exact in expectation: the population variance of G means over that of all G M members.
    For mutual information it is the limit of small disagreement, where I behaves as a variance. Members far apart lie above it: random
    logits over 10 classes with a standard deviation of 3 between members leave 0.62, not 0.48, of 24 members' information between
    12 pairs. About 1 / M for many groups.

    Args:
      num_groups: G >= 1.
      group_size: M >= 1, G M >= 2.

    Returns:
      In [0, 1]; 1 for groups of one member, 0 for one group.

    Raises:
      ValueError: a number below 1, or one member in all.

    References:
      Kirsch 2024, eq. 6-7 (that it goes to zero as M grows); the rate is that of the variance of means of exchangeable draws.

    Examples:
      >>> [round(collapse_law(groups, size), 4) for groups, size in partitions(24)]
      [1.0, 0.4783, 0.3043, 0.2174, 0.1304, 0.087, 0.0435]
    """
    for name, value in (("num_groups", num_groups), ("group_size", group_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    if num_groups * group_size < 2:
        raise ValueError("one member has no disagreement to divide: num_groups * group_size must be at least 2")
    return (num_groups - 1) / (num_groups * group_size - 1)


def variance_decompose(means: Float[ArrayLike, "G M *B"]) -> Decomposition:
    """Variance of the members' predictions by the law of total variance, the chain rule of regression, in squared units of the target.

    Var over all members = variance of the sub-ensembles' means + mean of the variances within them. Population variances (divided by
    the number of members). O(G M) per example.

    Args:
      means: members' predicted means, sub-ensembles first.

    Returns:
      `Decomposition` of arrays [*B], all >= 0, exactly 0 for identical members.

    Raises:
      ValueError: wrong shape or no member.
      TypeError: not real numbers.

    References:
      Kirsch 2024, figure 1 (the toy regression); law of total variance.

    Examples:
      >>> import jax.numpy as jnp
      >>> [float(each) for each in variance_decompose(jnp.array([[0.0, 2.0], [4.0, 6.0]]))]
      [5.0, 4.0, 1.0]
    """
    means = promote(means, "means")
    if means.ndim < 2 or 0 in means.shape[:2]:
        raise ValueError(f"means must be [G, M, *B] with sub-ensembles first and at least one member each, got shape {means.shape}")
    centred = means - means[:1, :1]  # exact zeros for identical members, and no digits lost to a common offset
    return Decomposition(centred.var((0, 1)), centred.mean(1).var(0), centred.var(1).mean(0))


def weighted_mutual_information(logits: Float[ArrayLike, "M *B K"], weighting: str = "per_input_lse") -> Float[Array, "*B"]:
    """Mutual information of prediction and member when members count by the size of their logits, in nats.

    I_w = H(sum_j w_j p_j) - sum_j w_j H(p_j) = sum_j w_j KL(p_j || sum_k w_k p_k), formed as the latter. O(M K) per example.

    The source's formula is ambiguous, w_j = sum_i exp(l_ij) / sum_ik exp(l_ik) with l_ij the "logit sum for the i-th input and j-th
    member". Its readings:

    - "per_input_lse": i runs over classes, w_j(x) = softmax_j(logsumexp_c z_jc): "for each input", and the mixture is the joint softmax
      over (member, class) summed over members. The likeliest.
    - "per_input_sum": w_j(x) = softmax_j(sum_c z_jc). A sum of logits carries almost no trained signal.
    - "global": the formula to the letter, one weight vector for the data set: i runs over inputs, l_ij = sum_c z_ijc,
      w_j = softmax_j(logsumexp_i l_ij). The largest sum of logits decides it.
    - "global_lse": the same with l_ij = logsumexp_c z_ijc.

    A constant added to one member's logits changes its weight, though not its probabilities, and so does a temperature: divide the
    logits by it first. Normalised log-probabilities have equal weights under the lse readings, and I_w is then the ordinary
    mutual information.

    The global readings see all of `logits` as the data set. A stream would need two passes: in the first, per member, a running
    logsumexp over inputs of l_ij (M numbers, mergeable by logaddexp); in the second, this sum with the weights that gave.

    Args:
      logits: finite, unnormalised, members first.
      weighting: one of `WEIGHTINGS`.

    Returns:
      [*B] in [0, H(w)], H(w) <= ln M; exactly 0 for members with identical probabilities.

    Raises:
      ValueError: wrong shape, an unknown weighting, or (eagerly) logits that are not finite.
      TypeError: not real numbers.

    References:
      Kirsch 2024, appendix E.1.

    Examples:
      >>> import jax.numpy as jnp
      >>> tiles = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
      >>> round(float(weighted_mutual_information(tiles)), 5)
      0.39354
    """
    logits = _as_logits(logits)
    log_weights = _log_weights(logits, weighting)
    log_probs = jax.nn.log_softmax(logits)
    mean = _weighted_log_mean(log_probs, log_weights)
    divergence = categorical.kl_divergence(log_probs, jnp.broadcast_to(mean[None], log_probs.shape))
    return (jnp.exp(log_weights) * divergence).sum(0)


def member_weights(logits: Float[ArrayLike, "M *B K"], weighting: str = "per_input_lse") -> Float[Array, "M *B"]:
    """The weights of the members in `weighted_mutual_information`, fractions that sum to 1 over members.

    Args:
      logits: finite, unnormalised, members first.
      weighting: as `weighted_mutual_information`; the global readings give every input the same weights.

    Raises:
      ValueError, TypeError: as `weighted_mutual_information`.

    References:
      Kirsch 2024, appendix E.1.

    Examples:
      >>> import jax.numpy as jnp
      >>> [round(float(w), 4) for w in member_weights(jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]]))]
      [0.2594, 0.1304, 0.6102]
    """
    return jnp.exp(_log_weights(_as_logits(logits), weighting))


def _as_logits(logits: ArrayLike) -> Array:
    array = promote(logits, "logits")
    checks.members(array, "logits")
    checks.finite(array, "logits")
    return array


def _log_weights(logits: Array, weighting: str) -> Array:
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}")
    sizes = jax.nn.logsumexp(logits, -1) if weighting.endswith("lse") else class_sum(logits)
    if weighting.startswith("global"):
        whole = jax.nn.logsumexp(sizes, tuple(range(1, sizes.ndim)), keepdims=True)
        sizes = jnp.broadcast_to(whole, sizes.shape)
    return jax.nn.log_softmax(sizes, 0)


def _weighted_log_mean(log_probs: Array, log_weights: Array) -> Array:
    """ln sum_j w_j p_j [*B, K]: from differences to the largest member, so that identical members give their own bit for bit, unless
    the largest hardly counts and those would cancel."""
    largest = log_probs.max(0)
    excess = (jnp.exp(log_weights)[..., None] * jnp.expm1(log_probs - largest[None])).sum(0)  # in (-1, 0]
    near = excess > -0.5
    plain = jax.nn.logsumexp(log_probs + log_weights[..., None], 0)
    return jnp.where(near, largest + jnp.log1p(jnp.where(near, excess, 0)), plain)
