"""EM of the matrix-normal latent factor model (logits) on sums alone: both parameter expansions, noise, and how the student changes.

As `latent_factor_em.fit_latents`, with the class factor as a second unknown: the latents' law is re-estimated over the latent
dimensions, which moves into the loading, and over the classes, which moves into the class factor and keeps it lower triangular.

References: specification 1.4, 1.5, 2.2, 2.3 and 2.9.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from edd.distributions.latent_factor import MatrixPosterior, Statistics, matrix_posterior_from_statistics
from edd.distributions.latent_factor_em import matrix_expansion, root
from edd.math import checks
from edd.math.polygamma import promote
from edd.typing import Array, ArrayLike, Float

__all__ = ["MatrixFit", "class_expansion", "matrix_fit_latents", "matrix_move_statistics", "matrix_squared_error"]


class MatrixFit(NamedTuple):
    """Latents, noise and class factor fitted to fixed features, and how the output layer must change for it."""

    posterior: MatrixPosterior
    noise_variance: Float[Array, ""]
    class_factor: Float[Array, "K K"]  # lower triangular where the first one was; squared length K
    drift: Float[Array, "K q"]  # mean <- mean + drift loading, first
    factor: Float[Array, "q q"]  # loading <- loading factor, then


def class_expansion(posterior: MatrixPosterior) -> Float[Array, "K K"]:
    """Cholesky factor C of the latents' covariance over classes: class_factor <- class_factor C, the other side of `matrix_expansion`.

    Args:
      posterior: of the matrix E-step.

    Returns:
      Lower triangular, positive diagonal.

    References:
      Specification 1.5 and 2.9, for rows instead of columns of the latents.

    Examples:
      >>> found = class_expansion(MatrixPosterior(jnp.zeros((1, 2, 1)), jnp.full((2, 1), 4.0), jnp.eye(2), jnp.eye(1)))
      >>> found.round(3).tolist()
      [[2.0, 0.0], [0.0, 2.0]]
    """
    members, _, q = posterior.mean.shape
    between = jnp.einsum("mkq,mlq->kl", posterior.mean, posterior.mean) / members
    within = (posterior.class_basis * posterior.variances.sum(1)[None]) @ posterior.class_basis.T
    return root((between + within) / q)


def matrix_move_statistics(statistics: Statistics, drift: Float[ArrayLike, "K q"], factor: Float[ArrayLike, "q q"]) -> Statistics:
    """The sums over the same points after mean <- mean + drift loading, then loading <- loading factor.

    References:
      Specification 2.9.

    Examples:
      >>> from edd.distributions.latent_factor import statistics
      >>> before = statistics(jnp.ones((1, 1, 2)), jnp.ones((1, 1)))
      >>> after = matrix_move_statistics(before, jnp.ones((2, 1)), 2 * jnp.eye(1))
      >>> float(after.gram[0, 0]), after.cross.tolist(), float(after.squares[0])
      (4.0, [[[0.0], [0.0]]], 0.0)
    """
    gram, cross, squares, count = statistics
    drift, factor = promote(drift, "drift"), promote(factor, "factor")
    moved = cross - (drift @ gram)[None]
    length = jnp.einsum("kq,qp,kp->", drift, gram, drift)
    squares = jnp.maximum(squares - 2 * jnp.einsum("mkq,kq->m", cross, drift) + length, 0)
    return Statistics(factor.T @ gram @ factor, moved @ factor, squares, count)


def matrix_squared_error(statistics: Statistics, class_factor: Float[ArrayLike, "K K"], posterior: MatrixPosterior) -> Float[Array, ""]:
    """`losses.latent_factor.matrix_expected_squared_error` summed over the design points, from their sums.

    References:
      Specification 2.2 and 2.3.

    Examples:
      >>> from edd.distributions.latent_factor import statistics
      >>> sums = statistics(jnp.ones((1, 2, 2)), jnp.ones((2, 1)))
      >>> known = matrix_posterior_from_statistics(sums, jnp.eye(2), 2.0)
      >>> float(matrix_squared_error(sums, jnp.eye(2), known))
      3.0
    """
    class_factor = promote(class_factor, "class_factor")
    fitted = class_factor @ posterior.mean
    explained = 2 * (fitted * statistics.cross).sum() - jnp.einsum("mkq,qp,mkp->", fitted, statistics.gram, fitted)
    lengths = jnp.square(class_factor @ posterior.class_basis).sum(0)
    scales = jnp.einsum("qa,qp,pa->a", posterior.latent_basis, statistics.gram, posterior.latent_basis)
    spread = posterior.mean.shape[0] * (lengths @ posterior.variances @ scales)
    return jnp.maximum(statistics.squares.sum() - explained, 0) + spread


def matrix_fit_latents(
    statistics: Statistics,
    class_factor: Float[ArrayLike, "K K"],
    noise_variance: Float[ArrayLike, ""],
    *,
    iterations: int = 1,
    expand: bool = True,
    floor: ArrayLike = 0.0,
) -> MatrixFit:
    """Iterates E-step, both expansions and noise update on the sums: no pass over the data, O(K^3 + q^3 + M K q (K + q)) each.

    Args:
      statistics: sums over the design points, of residuals [M, n, K].
      class_factor: the current one.
      noise_variance: the current one, positive.
      iterations: how often, at least 1.
      expand: parameter expansion (PX-EM); False: E-step and noise alone, nothing of the student changes.
      floor: least noise variance.

    Returns:
      With expansion the class factor is scaled to squared length K and the loading inversely.

    Raises:
      ValueError: a class factor that does not fit the sums.

    References:
      Specification 1.4, 1.5, 2.3 and 2.9.

    Examples:
      >>> from edd.distributions.latent_factor import statistics
      >>> members = jnp.array([[[2.0, 0.0], [2.1, 0.0]], [[-2.0, 0.1], [-1.9, 0.0]], [[0.1, -0.1], [0.0, 0.0]]])
      >>> found = matrix_fit_latents(statistics(members, jnp.full((2, 1), 9.0)), jnp.eye(2), 1.0, iterations=40)
      >>> covariance = found.class_factor @ found.class_factor.T * (9.0 * found.factor[0, 0]) ** 2
      >>> print(jnp.sqrt(covariance[0, 0]).round(1))  # the members' standard deviation in the first class
      1.6
    """
    noise_variance, class_factor = promote(noise_variance, "noise_variance"), promote(class_factor, "class_factor")
    members, classes, q = statistics.cross.shape
    checks.shape(class_factor, (classes, classes), "class_factor")
    drift, factor = jnp.zeros((classes, q), statistics.gram.dtype), jnp.eye(q, dtype=statistics.gram.dtype)
    first, values = statistics, members * classes * statistics.count
    for _ in range(iterations):
        if expand:
            posterior = matrix_posterior_from_statistics(statistics, class_factor, noise_variance)
            change = matrix_expansion(posterior)
            step = class_factor @ change.shift
            drift, factor = drift + step @ factor.T, factor @ change.factor
            statistics = matrix_move_statistics(first, drift, factor)  # from the first sums: rounding does not pile up
            posterior = matrix_posterior_from_statistics(statistics, class_factor, noise_variance)
            class_factor = class_factor @ class_expansion(posterior)
            scale = jnp.sqrt(jnp.square(class_factor).sum() / classes)
            class_factor, factor = class_factor / scale, factor * scale
            statistics = matrix_move_statistics(first, drift, factor)
        posterior = matrix_posterior_from_statistics(statistics, class_factor, noise_variance)
        error = matrix_squared_error(statistics, class_factor, posterior)
        noise_variance = jnp.maximum(lax.stop_gradient(error) / values, floor)
    posterior = matrix_posterior_from_statistics(statistics, class_factor, noise_variance)
    return MatrixFit(posterior, noise_variance, class_factor, drift, factor)
