"""The M-step objective of Gaussian distillation: the expected complete negative log-likelihood (Q function) of the latent factor model.

Per design point and additive over points, so a minibatch mean times the number of points estimates the whole without bias. The
posterior comes from the E-step (`edd.distributions.latent_factor`) and is held fixed: no gradient flows into it. The term with its
covariance is what makes this EM; without it the members' latents would be fixed effects, as in Hydra.

References: arXiv 2510.19290; specification 2.2, 2.3 and 2.8.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from edd.distributions.latent_factor import MatrixPosterior, Posterior
from edd.math import checks
from edd.math.polygamma import promote
from edd.typing import Array, ArrayLike, Float

__all__ = ["expected_squared_error", "matrix_expected_squared_error", "negative_q", "matrix_negative_q", "noise_variance"]

_LOG_2_PI = 1.8378770664093453


def expected_squared_error(
    residuals: Float[ArrayLike, "M *B"], loading: Float[ArrayLike, "*B q"], posterior: Posterior
) -> Float[Array, "*B"]:
    """E[sum_m (residual_m - loading^T z_m)^2] over the members' latents: sum_m (r_m - loading^T mean_m)^2 + M loading^T S loading.

    Args:
      residuals: member outputs less the student's mean, [M, *B].
      loading: [*B, q].
      posterior: of the E-step; a constant here.

    Returns:
      Non-negative; zero only if the members are fitted exactly and the latents known exactly.

    Raises:
      ValueError: shapes that do not fit.

    References:
      Specification 2.2.

    Examples:
      >>> import jax.numpy as jnp
      >>> known = Posterior(jnp.array([[1.0], [-1.0]]), jnp.array([[0.5]]))
      >>> expected_squared_error(jnp.array([[2.0], [-2.0]]), jnp.array([[2.0]]), known).tolist()
      [4.0]
    """
    residuals, loading = promote(residuals, "residuals"), promote(loading, "loading")
    mean, covariance = (lax.stop_gradient(each) for each in posterior)
    _check(residuals, loading, mean.shape, (mean.shape[0], *loading.shape[:-1]))
    error = residuals - jnp.einsum("...q,mq->m...", loading, mean)
    spread = jnp.einsum("...q,qp,...p->...", loading, covariance, loading)
    return jnp.square(error).sum(0) + mean.shape[0] * spread


def negative_q(
    residuals: Float[ArrayLike, "M *B"],
    loading: Float[ArrayLike, "*B q"],
    posterior: Posterior,
    noise_variance: Float[ArrayLike, ""],
) -> Float[Array, "*B"]:
    """The part of -Q that a design point adds: M/2 ln(2 pi noise_variance) + expected squared error / (2 noise_variance), in nats.

    Its gradient at the E-step's own parameters is the gradient of the negative marginal log-likelihood (Fisher's identity).

    Args and Raises as `expected_squared_error`; `noise_variance` is a positive scalar.

    References:
      Specification 2.2.

    Examples:
      >>> import jax.numpy as jnp
      >>> known = Posterior(jnp.array([[1.0]]), jnp.array([[0.0]]))
      >>> round(float(negative_q(jnp.array([[3.0]]), jnp.array([[2.0]]), known, 0.5)[0]), 4)  # ln(pi) / 2 + 1
      1.5724
    """
    noise_variance = _noise(noise_variance)
    error = expected_squared_error(residuals, loading, posterior)
    return _gaussian(error, posterior.mean.shape[0], noise_variance)


def matrix_expected_squared_error(
    residuals: Float[ArrayLike, "M *B K"],
    loading: Float[ArrayLike, "*B q"],
    class_factor: Float[ArrayLike, "K K"],
    posterior: MatrixPosterior,
) -> Float[Array, "*B"]:
    """E[sum_m |residual_m - class_factor Z_m loading|^2] over the members' latents Z_m.

    Args:
      residuals: member logits less the student's mean, [M, *B, K].
      loading: [*B, q].
      class_factor: [K, K].
      posterior: of the matrix E-step; a constant here.

    Raises:
      ValueError: shapes that do not fit.

    References:
      Specification 2.2 (multivariate inner term).

    Examples:
      >>> import jax.numpy as jnp
      >>> from edd.distributions import latent_factor
      >>> residuals, loading = jnp.ones((1, 2, 2)), jnp.ones((2, 1))
      >>> known = latent_factor.matrix_posterior(residuals, loading, jnp.eye(2), 2.0)
      >>> matrix_expected_squared_error(residuals, loading, jnp.eye(2), known).tolist()  # 2 (1 - 0.5)^2 + 2 * 0.5
      [1.5, 1.5]
    """
    residuals, loading, class_factor = (
        promote(each, name) for each, name in ((residuals, "residuals"), (loading, "loading"), (class_factor, "class_factor"))
    )
    mean, variances, class_basis, latent_basis = (lax.stop_gradient(each) for each in posterior)
    members, classes, q = mean.shape
    _check(residuals, loading, (members, q), (members, *loading.shape[:-1], classes))
    checks.shape(class_factor, (classes, classes), "class_factor")
    error = residuals - jnp.einsum("...q,mkq->m...k", loading, class_factor @ mean)
    class_lengths = jnp.square(class_factor @ class_basis).sum(0)  # v_b^T L^T L v_b
    spread = jnp.square(loading @ latent_basis) @ (class_lengths @ variances)
    return jnp.square(error).sum((0, -1)) + members * spread


def matrix_negative_q(
    residuals: Float[ArrayLike, "M *B K"],
    loading: Float[ArrayLike, "*B q"],
    class_factor: Float[ArrayLike, "K K"],
    posterior: MatrixPosterior,
    noise_variance: Float[ArrayLike, ""],
) -> Float[Array, "*B"]:
    """The part of -Q that a design point adds in the matrix-normal form, in nats; see `negative_q`."""
    noise_variance = _noise(noise_variance)
    error = matrix_expected_squared_error(residuals, loading, class_factor, posterior)
    return _gaussian(error, posterior.mean.shape[0] * posterior.mean.shape[1], noise_variance)


def noise_variance(
    squared_error: Float[ArrayLike, ""], num_values: Float[ArrayLike, ""], floor: Float[ArrayLike, ""] = 0.0
) -> Float[Array, ""]:
    """The noise variance that maximises Q: summed expected squared error per value, not below `floor`.

    With M - 1 <= q the likelihood of a flexible student grows without bound as the noise vanishes: give a floor, for example 1e-6 of the
    members' mean variance.

    Args:
      squared_error: sum of the expected squared errors over the design points.
      num_values: M n, or M n K.
      floor: least value, non-negative.

    Raises:
      ValueError: `num_values` or `floor` out of range.

    References:
      Specification 2.3 and 2.8.

    Examples:
      >>> float(noise_variance(6.0, 3)), float(noise_variance(0.0, 3, 1e-6)) == float(jnp.float32(1e-6))
      (2.0, True)
    """
    squared_error, num_values, floor = promote(squared_error), promote(num_values), promote(floor)
    checks.positive(num_values, "num_values")
    if checks.is_concrete(floor) and not float(floor) >= 0:
        raise ValueError(f"floor must be at least 0, got {float(floor)}")
    return jnp.maximum(squared_error / num_values, floor)


def _gaussian(error: Array, num_values: int, noise_variance: Array) -> Array:
    return 0.5 * (num_values * (_LOG_2_PI + jnp.log(noise_variance)) + error / noise_variance)


def _noise(value: ArrayLike) -> Array:
    value = promote(value, "noise_variance")
    checks.shape(value, (), "noise_variance")
    checks.positive(value, "noise_variance")
    return value


def _check(residuals: Array, loading: Array, latents: tuple, expected: tuple) -> None:
    if loading.ndim < 1 or loading.shape[-1] != latents[-1]:
        raise ValueError(f"loading must be [*B, q] with q = {latents[-1]} as in the posterior, got shape {loading.shape}")
    checks.shape(residuals, expected, "residuals")
