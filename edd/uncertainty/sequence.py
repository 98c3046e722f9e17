"""Uncertainty of sequences: measures of each token, their rates, joint scores of whole hypotheses, sums over an n-best.

Tokens y_1..y_L of S hypotheses, members' next-token log-probabilities [M, S, L, K] given the tokens before, `mask` 1 at the tokens that
count (the end-of-sequence token among them) and 0 at padding. Two ways to average members:

- product of expectations (PoE): P(y) = prod_l mean_m P_m(y_l | y_<l), the token-level Bayesian model average;
- expectation of products (EoP): P(y) = mean_m prod_l P_m(y_l | y_<l), whose next token weights members by the prefix's likelihood.

By the chain rule `over_hypotheses(rate(measure, mask, normalize=False), log_probs, "importance")` estimates the measure of the
distribution over sequences. Summed over all sequences it is exact for total uncertainty and reverse mutual information; data
uncertainty, mutual information and EPKL would need hypotheses of each member, so that under the average's own they stay inexact however
many there are.

An autoregressive Prior Network has a Dirichlet for each token: `dirichlet_token_measures` and `dirichlet_joint_scores`. All in nats.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edd.distributions import dirichlet as dirichlet_distribution
from edd.math import checks
from edd.math.reduce import masked_mean
from edd.typing import Array, ArrayLike, Float, Int
from edd.uncertainty import dirichlet, ensemble, joint_terms, weighted_members
from edd.uncertainty.ensemble import Measures

COMBINATIONS = ("product_of_expectations", "expectation_of_products")
WEIGHTINGS = ("uniform", "importance")


class JointScores(NamedTuple):
    """Scores of each hypothesis as a whole, nats per token [S], by both averages; data = total + reverse mutual information for each."""

    total_poe: Float[Array, " S"]
    total_eop: Float[Array, " S"]
    data: Float[Array, " S"]
    reverse_mi_poe: Float[Array, " S"]
    reverse_mi_eop: Float[Array, " S"]


class DirichletJointScores(NamedTuple):
    """Scores of each hypothesis under an autoregressive Prior Network, nats per token [S]; data = total + reverse mutual information."""

    total: Float[Array, " S"]
    data: Float[Array, " S"]
    reverse_mutual_information: Float[Array, " S"]


def token_measures(
    member_log_probs: Float[ArrayLike, "M S L K"],
    tokens: Int[ArrayLike, "S L"],
    mask: ArrayLike,
    combination: str = "product_of_expectations",
) -> Measures:
    """The five uncertainty measures of each next token, in nats, under either average of the members.

    Product of expectations: the measures of `edd.uncertainty.ensemble` at each step. Expectation of products: members weigh
    w_m ~ prod_{l' < l} P_m(y_l'), q = sum_m w_m pi^m predicts, and

        total  H[q]        data  EH = mean_m H[pi^m]        mutual information  I = H[q] - EH
        reverse  M = -sum_k q_k mean_m ln pi^m_k - H[q] = mean_m KL(q || pi^m)           EPKL  K = I + M

    with uniform means of H[pi^m] and ln pi^m, as published: **I, and with it K, may be negative**. The two agree at the first token.
    O(M K) per token; the weighted form holds one hypothesis's [M, L, K] in temporaries at a time.

    Args:
      member_log_probs: members' normalised log-probabilities given the tokens before; -inf is probability zero. Anything at padding.
      tokens: in [0, K) where the mask is 1; anything at padding.
      mask: [S, L], 1 (or True) where a token counts.
      combination: "product_of_expectations" or "expectation_of_products".

    Returns:
      `Measures` of arrays [S, L], 0 at padding. Identical members give exactly 0 for the last three; EPKL and reverse mutual
      information are +inf where one member excludes a class that the average allows. A prefix that every member excludes leaves the
      weights as they were.

    Raises:
      ValueError: shapes that do not match, unknown combination, (eagerly) tokens outside [0, K), rows that are not normalised.
      TypeError: tokens that are not integers.

    References:
      Malinin & Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction", section 3; Ryabinin, Malinin &
      Gales 2021, appendix C.

    Examples:
      >>> import jax.numpy as jnp
      >>> members = jnp.log(jnp.array([[[[0.9, 0.1], [0.9, 0.1]]], [[[0.5, 0.5], [0.5, 0.5]]]]))  # two members, one hypothesis, two tokens
      >>> tokens, mask = jnp.array([[0, 0]]), jnp.array([[1, 1]])
      >>> def totals(how):
      ...     return [round(float(value), 4) for value in token_measures(members, tokens, mask, how).total[0]]
      >>> totals("product_of_expectations"), totals("expectation_of_products")  # the first member is the likelier after a 0
      ([0.6109, 0.6109], [0.6109, 0.5544])
    """
    if combination not in COMBINATIONS:
        raise ValueError(f"combination must be one of {COMBINATIONS}, got {combination!r}")
    log_probs = checks.as_float(member_log_probs, "member_log_probs")
    checks.members(log_probs, "member_log_probs")
    if log_probs.ndim != 4:
        raise ValueError(f"member_log_probs must be [M, S, L, K], got shape {log_probs.shape}")
    keep, tokens = _mask(mask, log_probs.shape[1:3]), _tokens(tokens, mask, log_probs.shape[1:])
    # at padding a uniform distribution stands in, whatever is there
    log_probs = jnp.where(keep[None, ..., None], log_probs, -math.log(log_probs.shape[-1]))
    if jnp.finfo(log_probs.dtype).bits == 16:  # whose rounding would fail the check of float32
        checks.log_probs(log_probs, "member_log_probs")
        log_probs = jax.nn.log_softmax(log_probs.astype(jnp.float32))
    if combination == "product_of_expectations":
        found = ensemble.measures(log_probs)
    else:
        checks.log_probs(log_probs, "member_log_probs")
        found = _expectation_of_products(log_probs, tokens, keep)
    return Measures(*(jnp.where(keep, value, 0) for value in found))


def prefix_weights(member_token_log_probs: Float[ArrayLike, "M S L"], mask: ArrayLike) -> Float[Array, "M S L"]:
    """Weight of each member at each step, w_m ~ exp(sum of its log-probabilities of the tokens before); sums to 1 over members.

    Uniform at the first token, and no token that all members exclude changes it. Only differences between members are summed.

    Args:
      member_token_log_probs: ln P_m(y_l | y_<l), <= 0, may be -inf.
      mask: [S, L], 1 where a token counts.

    Raises:
      ValueError: shapes that do not match.

    References:
      Malinin & Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction", appendix (expectation of products).

    Examples:
      >>> import jax.numpy as jnp
      >>> weights = prefix_weights(jnp.log(jnp.array([[[0.9, 0.5]], [[0.3, 0.5]]])), jnp.ones((1, 2)))
      >>> [round(float(weight), 4) for weight in weights[0, 0]]
      [0.5, 0.75]
    """
    return joint_terms.prefix_weights(*_of_tokens(member_token_log_probs, mask))


def dirichlet_token_measures(concentration: Float[ArrayLike, "S L K"], mask: ArrayLike) -> Measures:
    """The five uncertainty measures of each next token of an autoregressive Prior Network, in closed form, in nats. O(K) per token.

    Args:
      concentration: of each token's Dirichlet, positive and finite where the mask is 1; anything at padding.
      mask: [S, L], 1 (or True) where a token counts.

    Returns:
      `Measures` of arrays [S, L], 0 at padding, those of `edd.uncertainty.dirichlet` elsewhere.

    Raises:
      ValueError: shapes that do not match, (eagerly) a concentration that is not positive and finite.

    References:
      Ryabinin, Malinin & Gales 2021, appendix C.

    Examples:
      >>> import jax.numpy as jnp
      >>> found = dirichlet_token_measures(jnp.array([[[1.0, 1.0], [0.0, 0.0]]]), jnp.array([[1, 0]]))
      >>> print(found.expected_pairwise_kl)
      [[0.5 0. ]]
    """
    return _dirichlet_measures(*_concentration(concentration, mask))


def dirichlet_joint_scores(
    concentration: Float[ArrayLike, "S L K"],
    tokens: Int[ArrayLike, "S L"],
    mask: ArrayLike,
    log_probs: Float[ArrayLike, "S L K"] | None = None,
) -> DirichletJointScores:
    """Total, data and reverse mutual information of each hypothesis under an autoregressive Prior Network, nats per token.

        data = mean_l psi(alpha_0) - psi(alpha_y)        reverse = mean_l psi(alpha_0) - psi(alpha_y) + ln p_y        total = -mean_l ln p_y

    over the tokens y = y_l that count, with p = alpha / alpha_0. The difference of the digammas and the logarithm is taken as one.

    Args:
      concentration: of each token's Dirichlet, positive and finite where the mask is 1.
      tokens: in [0, K) where the mask is 1.
      mask: [S, L], 1 (or True) where a token counts.
      log_probs: ln p, where the prediction is not the concentration's mean. The authors take softmax(z) beside alpha = exp(z) + 1:
        then reverse may be negative.

    Returns:
      `DirichletJointScores` of arrays [S], >= 0 for the concentration's own mean; 0 where nothing counts.

    Raises:
      ValueError: shapes that do not match, (eagerly) values out of range.
      TypeError: tokens that are not integers.

    References:
      Ryabinin, Malinin & Gales 2021, appendix C; the authors' code for `log_probs`.

    Examples:
      >>> import jax.numpy as jnp
      >>> found = dirichlet_joint_scores(jnp.ones((1, 3, 2)), jnp.array([[0, 1, 0]]), jnp.array([[1, 1, 0]]))
      >>> [round(float(each[0]), 5) for each in found]  # ln 2, 1 and 1 - ln 2
      [0.69315, 1.0, 0.30685]
    """
    concentration, keep = _concentration(concentration, mask)
    if log_probs is not None:
        log_probs = checks.as_float(log_probs, "log_probs").astype(concentration.dtype)
        checks.shape(log_probs, concentration.shape, "log_probs")
    scores = joint_terms.dirichlet_scores(concentration, _tokens(tokens, mask, concentration.shape), keep, log_probs)
    return DirichletJointScores(*scores)


def rate(measure: Float[ArrayLike, "S L"], mask: ArrayLike, normalize: bool = True) -> Float[Array, " S"]:
    """A measure of each hypothesis from its tokens': their mean, in nats per token, or their sum (the chain rule), in nats.

    Args:
      measure: any numbers; what is masked out may even be NaN.
      mask: [S, L], 1 (or True) where a token counts, the end-of-sequence token included.
      normalize: divide by the number of tokens that count.

    Returns:
      [S]; 0 where nothing counts.

    Raises:
      ValueError: shapes that differ.

    References:
      Malinin & Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction", section 3.

    Examples:
      >>> import jax.numpy as jnp
      >>> measure, mask = jnp.array([[1.0, 3.0, 9.0]]), jnp.array([[1, 1, 0]])
      >>> float(rate(measure, mask)[0]), float(rate(measure, mask, normalize=False)[0])
      (2.0, 4.0)
    """
    measure = checks.as_float(measure, "measure")
    if measure.ndim < 1:
        raise ValueError(f"measure must be [S, L], got shape {measure.shape}")
    keep = _mask(mask, measure.shape)
    return masked_mean(measure, keep, -1) if normalize else jnp.where(keep, measure, 0).sum(-1)


def joint_scores(member_token_log_probs: Float[ArrayLike, "M S L"], mask: ArrayLike) -> JointScores:
    """Total, data and reverse mutual information of each hypothesis as a whole, nats per token, under both averages.

    With P_m(y_l) the members' probabilities of the hypothesis's tokens and L how many of them count:

        total_poe = -(1/L) sum_l ln mean_m P_m(y_l)         total_eop = -(1/L) ln mean_m prod_l P_m(y_l)
        data = -(1/L) mean_m sum_l ln P_m(y_l)              reverse_mi = data - total, for each total

    The reverse mutual informations are not formed by that difference. O(M L) per hypothesis.

    Args:
      member_token_log_probs: ln P_m(y_l | y_<l), <= 0, may be -inf; anything at padding.
      mask: [S, L], 1 (or True) where a token counts, the end-of-sequence token included.

    Returns:
      `JointScores` of arrays [S], >= 0 and 0 where nothing counts. Reverse mutual information is exactly 0 for identical members and +inf
      where some but not all of them exclude a token (poe) or the hypothesis (eop); where all do, total and data are +inf and it is 0.

    Raises:
      ValueError: shapes that do not match, (eagerly) a positive or NaN log-probability that counts.

    References:
      Malinin & Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction", appendix; Ryabinin, Malinin & Gales 2021,
      appendix C.

    Examples:
      >>> import jax.numpy as jnp
      >>> found = joint_scores(jnp.log(jnp.array([[[0.9, 0.5]], [[0.5, 0.5]]])), jnp.ones((1, 2)))
      >>> [round(float(each[0]), 4) for each in found]
      [0.5249, 0.5249, 0.5462, 0.0213, 0.0213]
    """
    return JointScores(*joint_terms.joint_scores(*_of_tokens(member_token_log_probs, mask)))


def over_hypotheses(
    rates: Float[ArrayLike, " S"], sequence_log_probs: Float[ArrayLike, " S"], weighting: str = "uniform", temperature: ArrayLike = 1.0
) -> Float[Array, ""]:
    """Mean of a measure over the hypotheses of one input, in its own unit: uniform, or weighted by their probability.

    importance: sum_s w_s rate_s with w = softmax(ln P(y^s) / T) over the n-best, P the probability of the whole sequence (not
    normalised by its length). T = 1 is the chain rule's estimate; larger T flatten it, and infinite T is the uniform mean.

    Args:
      rates: from `rate` or `joint_scores`, one for each hypothesis.
      sequence_log_probs: ln P(y^s), not length-normalised; -inf marks an empty place of an n-best list and counts for nothing.
      weighting: "uniform" or "importance".
      temperature: T > 0.

    Returns:
      A scalar; NaN where no hypothesis counts.

    Raises:
      ValueError: shapes that differ, unknown weighting, a temperature that is not positive, (eagerly) a positive or NaN log-probability.

    References:
      Malinin & Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction", eq. for the importance-weighted chain rule;
      Ryabinin, Malinin & Gales 2021, appendix C.

    Examples:
      >>> import jax.numpy as jnp
      >>> rates, log_probs = jnp.array([1.0, 2.0]), jnp.log(jnp.array([0.3, 0.1]))
      >>> float(over_hypotheses(rates, log_probs)), round(float(over_hypotheses(rates, log_probs, "importance")), 4)
      (1.5, 1.25)
    """
    check_weighting(weighting)
    rates = checks.as_float(rates, "rates")
    log_probs = checks.as_float(sequence_log_probs, "sequence_log_probs").astype(rates.dtype)
    checks.shape(rates, (None,), "rates")
    checks.same_shape(rates, log_probs, "rates", "sequence_log_probs")
    _check_log_probs(log_probs, "sequence_log_probs")
    temperature = checks.as_float(temperature, "temperature").astype(rates.dtype)
    checks.shape(temperature, (), "temperature")
    checks.positive(temperature, "temperature")
    return _weighted_mean(rates, log_probs, temperature, weighting == "importance")


def check_weighting(weighting: str) -> None:
    """Raises ValueError unless `weighting` is known."""
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {WEIGHTINGS}, got {weighting!r}")


def _mask(mask: ArrayLike, shape: tuple[int, ...]) -> Array:
    mask = jnp.asarray(mask)
    checks.shape(mask, tuple(shape), "mask")
    return mask > 0


def _tokens(tokens: ArrayLike, mask: ArrayLike, shape: tuple[int, ...]) -> Array:
    """`tokens` [S, L] with 0 at padding, checked against log-probabilities or concentrations of `shape` [S, L, K]."""
    tokens = jnp.asarray(tokens)
    checks.shape(tokens, tuple(shape[:-1]), "tokens")
    tokens = jnp.where(_mask(mask, shape[:-1]), tokens, 0)
    checks.labels(tokens, shape[-1], "tokens")
    return tokens


def _concentration(concentration: ArrayLike, mask: ArrayLike) -> tuple[Array, Array]:
    """(`concentration` [S, L, K] with 1 at padding, the mask as booleans)."""
    concentration = checks.as_float(concentration, "concentration")
    checks.shape(concentration, (None, None, None), "concentration")
    keep = _mask(mask, concentration.shape[:-1])
    concentration = jnp.where(keep[..., None], concentration, 1).astype(jnp.promote_types(concentration.dtype, jnp.float32))
    return dirichlet_distribution.as_concentration(concentration), keep


def _of_tokens(member_token_log_probs: ArrayLike, mask: ArrayLike) -> tuple[Array, Array]:
    """(`member_token_log_probs` [M, S, L] with 0 at padding, the mask as booleans)."""
    log_probs = checks.as_float(member_token_log_probs, "member_token_log_probs")
    checks.shape(log_probs, (None, None, None), "member_token_log_probs")
    if log_probs.shape[0] < 1:
        raise ValueError(f"member_token_log_probs must hold at least one member on axis 0, got shape {log_probs.shape}")
    keep = _mask(mask, log_probs.shape[1:])
    log_probs = jnp.where(keep[None], log_probs, 0).astype(jnp.promote_types(log_probs.dtype, jnp.float32))
    _check_log_probs(log_probs, "member_token_log_probs", ", where the mask is 1")
    return log_probs, keep


def _check_log_probs(log_probs: Array, name: str, where: str = "") -> None:
    if checks.is_concrete(log_probs) and not bool((log_probs <= checks.NORMALISATION_TOLERANCE).all()):
        raise ValueError(f"{name} must be log-probabilities, <= 0{where}, got a larger one or NaN")


@jax.jit
def _expectation_of_products(log_probs: Array, tokens: Array, keep: Array) -> Measures:
    chosen = jnp.take_along_axis(log_probs, tokens[None, ..., None], -1)[..., 0]
    weights = joint_terms.prefix_weights(chosen, keep)

    def one(index):
        return weighted_members.measures(jnp.take(log_probs, index, 1), jnp.take(weights, index, 1))

    return jax.lax.map(one, jnp.arange(log_probs.shape[1]))


@jax.jit
def _dirichlet_measures(concentration: Array, keep: Array) -> Measures:
    mutual, reverse = dirichlet.mutual_information(concentration), dirichlet.reverse_mutual_information(concentration)
    total, data = dirichlet.total_uncertainty(concentration), dirichlet.data_uncertainty(concentration)
    found = (total, data, mutual, dirichlet.expected_pairwise_kl(concentration), reverse)
    return Measures(*(jnp.where(keep, value, 0) for value in found))


@functools.partial(jax.jit, static_argnums=3)
def _weighted_mean(rates: Array, log_probs: Array, temperature: Array, importance: bool) -> Array:
    there = ~jnp.isneginf(log_probs)
    top = jnp.max(log_probs)
    scaled = jnp.where(there, log_probs - jnp.where(jnp.isneginf(top), 0, top), 0) / temperature
    weights = jnp.where(there, jnp.exp(scaled) if importance else 1, 0)
    return jnp.where(weights > 0, weights * rates, 0).sum() / weights.sum()
