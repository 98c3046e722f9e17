"""A distilled student learns online: given labels, its latent has a closed-form posterior, point by point or all at once.

With f(x) = mean(x) + loading(x)^T z, z ~ N(0, I) and y = f(x) + noise, the labels are linear in z. The belief is kept as a precision
matrix and an information vector, which add over labels: no order, no forgetting, no retraining, O(q^2) for each label.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from edd.distributions.latent_factor import Posterior
from edd.math import checks
from edd.math.polygamma import promote
from edd.typing import Array, ArrayLike, Float

__all__ = ["Belief", "moments", "observe", "predict", "prior"]


class Belief(NamedTuple):
    """N(precision^{-1} information, precision^{-1}) over the latent; beliefs from different labels differ from the prior by sums."""

    precision: Float[Array, "q q"]
    information: Float[Array, " q"]


def prior(latent_dim: int) -> Belief:
    """N(0, I): what the student says before any label.

    References:
      arXiv 2510.19290 (specification 1.1).

    Examples:
      >>> prior(2).precision.tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    return Belief(jnp.eye(latent_dim), jnp.zeros(latent_dim))


def observe(
    belief: Belief, residuals: Float[ArrayLike, " n"], loading: Float[ArrayLike, "n q"], noise_variance: Float[ArrayLike, "*n"]
) -> Belief:
    """The belief after n labels.

    Args:
      belief: before them.
      residuals: labels less the student's mean, [n].
      loading: of their inputs, [n, q].
      noise_variance: of the labels, positive, a scalar or [n].

    Raises:
      ValueError: shapes that do not fit, values that are not finite, a variance that is not positive.

    References:
      Bayesian linear regression in z; specification 1.1 and 5.4.

    Examples:
      >>> import jax.numpy as jnp
      >>> after = observe(prior(1), jnp.array([2.0]), jnp.array([[1.0]]), 1.0)
      >>> moments(after).mean.tolist(), moments(after).covariance.tolist()
      ([[1.0]], [[0.5]])
    """
    residuals, loading = promote(residuals, "residuals"), promote(loading, "loading")
    noise_variance = promote(noise_variance, "noise_variance")
    checks.shape(loading, (None, belief.information.shape[0]), "loading")
    checks.shape(residuals, loading.shape[:1], "residuals")
    if noise_variance.shape not in ((), residuals.shape):
        raise ValueError(f"noise_variance must be a scalar or [n] = {residuals.shape}, got shape {noise_variance.shape}")
    checks.finite(residuals, "residuals")
    checks.finite(loading, "loading")
    checks.positive(noise_variance, "noise_variance")
    weighted = loading / jnp.broadcast_to(noise_variance, residuals.shape)[:, None]
    return Belief(belief.precision + weighted.T @ loading, belief.information + weighted.T @ residuals)


def moments(belief: Belief) -> Posterior:
    """Mean [1, q] and covariance [q, q] of the latent.

    Examples:
      >>> moments(prior(1)).covariance.tolist()
      [[1.0]]
    """
    covariance = jnp.linalg.inv(belief.precision)
    mean = jnp.linalg.solve(belief.precision, belief.information)
    return Posterior(mean[None], (covariance + covariance.T) / 2)


def predict(
    belief: Belief, mean: Float[ArrayLike, "*B"], loading: Float[ArrayLike, "*B q"]
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Mean and variance [*B] of the function at inputs with the student's `mean` and `loading`; add the noise's variance for a label.

    References:
      Bayesian linear regression in z; specification 1.1.

    Examples:
      >>> import jax.numpy as jnp
      >>> [float(each) for each in predict(prior(1), jnp.array(3.0), jnp.array([2.0]))]
      [3.0, 4.0]
    """
    mean, loading = promote(mean, "mean"), promote(loading, "loading")
    checks.shape(mean, loading.shape[:-1], "mean")
    found = moments(belief)
    spread = jnp.einsum("...q,qp,...p->...", loading, found.covariance, loading)
    return mean + loading @ found.mean[0], spread
