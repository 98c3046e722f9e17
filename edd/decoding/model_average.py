"""Bayesian model average of autoregressive members, token by token, in nats: two ways to score what may come next.

With P_m(y_l | y_<l) the members' next-token probabilities, the product of expectations averages them at every token and multiplies the
means; the expectation of products multiplies along each member and averages the products. Both are distributions over sequences.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from edd.math.reduce import log_mean_exp
from edd.models.base import Model
from edd.typing import Array, Float, Int, PyTree

COMBINATIONS = ("product_of_expectations", "expectation_of_products")


def check_combination(combination: str) -> None:
    """Raises ValueError unless `combination` is known."""
    if combination not in COMBINATIONS:
        raise ValueError(f"combination must be one of {', '.join(COMBINATIONS)}, got {combination!r}")


def next_scores(
    running: Float[Array, "*B"],
    cumulative: Float[Array, "M *B"],
    log_probs: Float[Array, "M *B V"],
    combination: str = "product_of_expectations",
) -> Float[Array, "*B V"]:
    """Log-probability of each prefix continued by each token, in nats.

    product_of_expectations: running + logsumexp_m lp_m - ln M; expectation_of_products: logsumexp_m (cumulative_m + lp_m) - ln M.
    One exp per entry.

    Args:
      running: the prefixes' log-probabilities under the same combination, <= 0, -inf for one that is impossible.
      cumulative: the members' own log-probabilities of the prefixes.
      log_probs: the members' next-token log-probabilities, may contain -inf.
      combination: one of `COMBINATIONS`.

    Returns:
      Scores, -inf where all members exclude a token. With one member both rules add its log-probability.

    Raises:
      ValueError: unknown combination, shapes that do not fit.

    References:
      Malinin & Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction" (the two combinations).

    Examples:
      >>> log_probs = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
      >>> prefix = jnp.log(jnp.array([0.8, 0.2]))
      >>> [round(float(p), 3) for p in jnp.exp(next_scores(jnp.log(0.5), prefix, log_probs))]
      [0.35, 0.15]
      >>> [round(float(p), 3) for p in jnp.exp(next_scores(jnp.log(0.5), prefix, log_probs, "expectation_of_products"))]
      [0.41, 0.09]
    """
    check_combination(combination)
    if log_probs.shape[:-1] != cumulative.shape or cumulative.shape[1:] != jnp.shape(running):
        raise ValueError(
            "running [*B], cumulative [M, *B] and log_probs [M, *B, V] must agree, got "
            f"{jnp.shape(running)}, {cumulative.shape} and {log_probs.shape}"
        )
    if log_probs.shape[0] == 1:
        return cumulative[0, ..., None] + log_probs[0]
    if combination == "product_of_expectations":
        return running[..., None] + log_mean_exp(log_probs)
    return log_mean_exp(cumulative[..., None] + log_probs)


def hypothesis_inputs(x: PyTree, tokens: Int[Array, "B N L"], start: int) -> PyTree:
    """The sequence model's inputs [B N, ...] under which it is taught each of the N hypotheses of every source.

    Args:
      x: inputs without "target", every leaf [B, ...].
      tokens: hypotheses, padding after their end, an id of the model's: it reads that too.
      start: the id that begins every decoder input.

    Returns:
      `x` with rows repeated N times and "target": the start id and all tokens but the last.

    Raises:
      ValueError: a different number of sources.

    Examples:
      >>> hypothesis_inputs({"source": jnp.array([[7, 8]])}, jnp.array([[[5, 2, 0], [6, 4, 2]]]), 1)["target"].tolist()
      [[1, 5, 2], [1, 6, 4]]
    """
    if tokens.ndim != 3 or any(leaf.shape[0] != tokens.shape[0] for leaf in jax.tree.leaves(x)):
        shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
        raise ValueError(f"tokens must be [B, N, L] with the {shapes} sources' B, got shape {tokens.shape}")
    count = tokens.shape[1]
    flat = tokens.reshape(-1, tokens.shape[2])
    repeated = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), count, axis=0), {k: v for k, v in x.items() if k != "target"})
    return {**repeated, "target": jnp.concatenate([jnp.full_like(flat[:, :1], start), flat[:, :-1]], 1)}


def member_log_probs(model: Model, variables: PyTree, x: PyTree) -> Float[Array, "M B L V"]:
    """Every member's next-token log-probabilities along given targets, in nats, by one teacher-forced pass each.

    This is what `edd.uncertainty.sequence.token_measures` takes. Beam search does not keep it, [M, B, N, L, V] being the largest array of
    all: ask for it here, for as many hypotheses at a time as fit.

    Args:
      model: a sequence model.
      variables: stacked, axis 0 the member.
      x: inputs, as from `hypothesis_inputs`.

    Returns:
      log_softmax of the logits.
    """
    logits = jax.vmap(lambda member: model.apply(member, x, train=False, rngs=None)[0].logits)(variables)
    return jax.nn.log_softmax(logits)
