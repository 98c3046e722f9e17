"""Penalties: scalars that a method adds to its loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from edd.math import checks
from edd.math.polygamma import promote
from edd.typing import Array, ArrayLike, Float

__all__ = ["bernoulli_information", "mmd", "mmd_to_normal", "squared_bandwidths"]


def squared_bandwidths(choice: str | float | Sequence[float], dimension: int) -> tuple[float, ...]:
    """Squared bandwidths h^2 of the Gaussian kernel: "dimension" is q, "multiscale" q/2, q and 2q; numbers are taken as they are.

    Raises:
      ValueError: another name, no number, or one that is not positive and finite.

    References:
      Specification 3 (the paper gives none; with h^2 of the order of q the kernel sees the latents' scale).

    Examples:
      >>> squared_bandwidths("multiscale", 10), squared_bandwidths(2.0, 10)
      ((5.0, 10.0, 20.0), (2.0,))
    """
    named = {"dimension": (dimension,), "multiscale": (dimension / 2, dimension, 2 * dimension)}
    if isinstance(choice, str):
        if choice not in named:
            raise ValueError(f"bandwidth must be one of {', '.join(named)} or squared bandwidths, got {choice!r}")
        values = named[choice]
    else:
        values = tuple(choice) if isinstance(choice, Sequence) else (choice,)
    if not values or not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"squared bandwidths must be positive and finite, got {values}")
    return tuple(float(value) for value in values)


def mmd(
    latents: Float[ArrayLike, "M q"], samples: Float[ArrayLike, "N q"], bandwidth: str | float | Sequence[float] = "dimension"
) -> Float[Array, ""]:
    """Squared maximum mean discrepancy between two sets of points, kernel exp(-|a - b|^2 / (2 h^2)), V-statistic.

    Args:
      latents: [M, q].
      samples: [N, q], usually standard normal draws.
      bandwidth: as `squared_bandwidths`; several are summed.

    Returns:
      In [0, 2] per bandwidth; 0 for equal sets.

    Raises:
      ValueError: shapes that do not fit or a wrong bandwidth.

    References:
      Gretton et al. 2012, equation 5; specification 3.

    Examples:
      >>> import jax.numpy as jnp
      >>> points = jnp.array([[0.0], [2.0]])
      >>> float(mmd(points, points)), round(float(mmd(points, points + 9.0)), 3)
      (0.0, 1.135)
    """
    latents, samples = _points(latents, "latents"), _points(samples, "samples")
    if latents.shape[1] != samples.shape[1]:
        raise ValueError(f"latents and samples must have the same dimension, got shapes {latents.shape} and {samples.shape}")
    pairs = [_squared_distances(*pair) for pair in ((latents, latents), (samples, samples), (latents, samples))]
    total = jnp.zeros((), latents.dtype)
    for square in squared_bandwidths(bandwidth, latents.shape[1]):
        within, other, across = (jnp.exp(-distances / (2 * square)).mean() for distances in pairs)
        total += within + other - 2 * across
    return total


def mmd_to_normal(latents: Float[ArrayLike, "M q"], bandwidth: str | float | Sequence[float] = "dimension") -> Float[Array, ""]:
    """Squared maximum mean discrepancy between points and the standard normal law itself: nothing is drawn.

    Args and Raises as `mmd`.

    Returns:
      The expectation of `mmd` as the number of standard normal samples grows.

    References:
      Specification 3 (analytic form).

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(mmd_to_normal(jnp.zeros((50, 10)))), 2)
      0.16
    """
    latents = _points(latents, "latents")
    dimension = latents.shape[1]
    lengths, distances = jnp.square(latents).sum(1), _squared_distances(latents, latents)
    total = jnp.zeros((), latents.dtype)
    for square in squared_bandwidths(bandwidth, dimension):
        across = (square / (square + 1)) ** (dimension / 2) * jnp.exp(-lengths / (2 * (square + 1))).mean()
        total += jnp.exp(-distances / (2 * square)).mean() + (square / (square + 2)) ** (dimension / 2) - 2 * across
    return total


def bernoulli_information(logits: Float[ArrayLike, "M *B"]) -> Float[Array, "*B"]:
    """Mutual information, in nats, between each of many Bernoulli variables and the member that its probability is of.

    I = h(mean p) - mean h(p) of p = sigmoid(logits) for members equally likely, h the binary entropy, as a mean of KL divergences
    from logarithms of p and 1 - p: no difference of entropies, finite at any logit. O(M) per variable.

    Args:
      logits: [M, *B], real; infinite ones are probabilities 0 and 1.

    Returns:
      [*B], in [0, ln 2]; 0 where all members have one probability, with gradient 0 there.

    Raises:
      ValueError: no member axis. TypeError: not real numbers.

    References:
      Kirsch 2024, "(Implicit) Ensembles of Ensembles", appendix B (diversity of masks); specification A3.

    Examples:
      >>> import jax.numpy as jnp
      >>> logit = jnp.log(9.0) * jnp.array([-1.0] * 5 + [1.0] * 5)  # probabilities 0.1 and 0.9
      >>> round(float(bernoulli_information(logit)), 6), round(float(bernoulli_information(100.0 * logit)), 6)
      (0.368064, 0.693147)
    """
    logits = promote(logits, "logits")
    if logits.ndim < 1 or logits.shape[0] < 1:
        raise ValueError(f"logits must be [M, *B] with at least one member, got shape {logits.shape}")
    total = jnp.zeros(logits.shape[1:], logits.dtype)
    for signed in (logits, -logits):
        logs = jax.nn.log_sigmoid(signed)
        mean = jax.nn.logsumexp(logs, 0) - math.log(logits.shape[0])
        total += jnp.where(jnp.isneginf(logs), 0.0, jnp.exp(logs) * (jnp.where(jnp.isneginf(logs), 0.0, logs) - mean[None])).mean(0)
    return jnp.maximum(total, 0.0)


def _points(value: ArrayLike, name: str) -> Array:
    value = promote(value, name)
    checks.shape(value, (None, None), name)
    if min(value.shape) < 1:
        raise ValueError(f"{name} must hold at least one point of at least one dimension, got shape {value.shape}")
    return value


def _squared_distances(first: Array, second: Array) -> Array:
    return jnp.square(first[:, None] - second[None]).sum(-1)
