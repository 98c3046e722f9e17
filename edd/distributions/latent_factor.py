"""The latent factor model behind Gaussian distillation: member m is `mean + loading z_m + noise`, with z_m ~ N(0, I).

Univariate (regression): residuals [M, n] at n design points, loading [n, q], one latent z_m in R^q per member, shared by all points.
Matrix-normal (logits): residuals [M, n, K], F_m = mean + loading Z_m^T class_factor^T + noise with Z_m in R^{K x q}; the univariate
form is the matrix form at K = 1. With G = loading^T loading = U diag(d) U^T and class_factor^T class_factor = V diag(e) V^T every
quantity is diagonal in (V, U): cost O(q^3 + K^3 + n M K (q + K)), never an n x n or (K q) x (K q) matrix, and never a NaN, however
small the noise or singular the loading. Everything depends on the data through `Statistics`, sums that add across minibatches.

Loadings are identified up to a rotation (and, with a class factor, a scale that moves between the two): compare covariances.

References: Gaussian distillation with a deep latent factor model, arXiv 2510.19290; numbers of equations are those of this package's
specification (1.1 to 1.5, 2.1).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from edd.distributions import latent_factor_algebra as algebra
from edd.math import checks
from edd.math.polygamma import promote
from edd.typing import Array, ArrayLike, Float, Key

__all__ = [
    "MatrixPosterior",
    "Posterior",
    "Statistics",
    "log_likelihood_from_statistics",
    "marginal_log_likelihood",
    "matrix_marginal_log_likelihood",
    "matrix_posterior",
    "matrix_posterior_from_statistics",
    "posterior",
    "posterior_from_statistics",
    "sample",
    "statistics",
]

_LOG_2_PI = 1.8378770664093453


class Posterior(NamedTuple):
    """N(mean[m], covariance) of each member's latent; the covariance is the same for every member."""

    mean: Float[Array, "M q"]
    covariance: Float[Array, "q q"]


class MatrixPosterior(NamedTuple):
    """Normal law of each member's latent Z_m [K, q]: Cov(vec Z_m) = (U (x) V) diag(vec variances) (U (x) V)^T, vec stacking columns."""

    mean: Float[Array, "M K q"]
    variances: Float[Array, "K q"]  # in the basis below, in (0, 1]
    class_basis: Float[Array, "K K"]  # V
    latent_basis: Float[Array, "q q"]  # U


class Statistics(NamedTuple):
    """Sums over design points; those of two sets of points add field by field."""

    gram: Float[Array, "q q"]  # loading^T loading
    cross: Float[Array, "M *K q"]  # residuals^T loading, per member
    squares: Float[Array, " M"]  # squared length of each member's residuals
    count: Float[Array, ""]  # number of design points


def statistics(residuals: Float[ArrayLike, "M n *K"], loading: Float[ArrayLike, "n q"]) -> Statistics:
    """What the posterior and the likelihood need from n design points: O(q^2 + M K q) numbers, additive over points.

    Args:
      residuals: member outputs less the model's mean, [M, n] or [M, n, K].
      loading: [n, q].

    Returns:
      Sums; add those of further minibatches with `jax.tree.map(jnp.add, first, second)`.

    Raises:
      ValueError: shapes that do not fit, no member, no point, or concrete values that are not finite.

    References:
      Specification 1.2 (streaming).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> residuals, loading = jnp.arange(8.0).reshape(2, 4), jnp.ones((4, 1))
      >>> halves = [statistics(residuals[:, part], loading[part]) for part in (slice(0, 2), slice(2, 4))]
      >>> whole = jax.tree.map(jnp.add, *halves)
      >>> whole.cross.tolist(), whole.gram.tolist(), float(whole.count)
      ([[6.0], [22.0]], [[4.0]], 4.0)
    """
    residuals, loading = _checked(residuals, loading, None)
    axes = tuple(range(1, residuals.ndim))
    count = jnp.asarray(loading.shape[0], loading.dtype)
    return Statistics(algebra.gram(loading), algebra.cross(residuals, loading), jnp.square(residuals).sum(axes), count)


def posterior(residuals: Float[ArrayLike, "M n"], loading: Float[ArrayLike, "n q"], noise_variance: Float[ArrayLike, ""]) -> Posterior:
    """E-step: what the members' outputs at n points say about their latents.

    Covariance (I + loading^T loading / noise_variance)^{-1}, mean covariance loading^T residual / noise_variance.

    Args:
      residuals: member outputs less the model's mean, [M, n].
      loading: [n, q].
      noise_variance: positive scalar.

    Returns:
      Means [M, q] and one covariance [q, q], positive definite. Differentiable to any order.

    Raises:
      ValueError: shapes that do not fit, no member, values that are not finite, or a noise variance that is not positive.

    References:
      Specification 2.1.

    Examples:
      >>> import jax.numpy as jnp
      >>> found = posterior(jnp.array([[1.0, 1.0], [-1.0, 1.0]]), jnp.ones((2, 1)), 2.0)
      >>> found.mean.tolist(), found.covariance.tolist()
      ([[0.5], [0.0]], [[0.5]])
    """
    residuals, loading = _checked(residuals, loading, 2)
    return _univariate(algebra.gram(loading), algebra.cross(residuals, loading), _checked_noise(noise_variance))


def posterior_from_statistics(statistics: Statistics, noise_variance: Float[ArrayLike, ""]) -> Posterior:
    """`posterior` from sums over design points: the exact E-step over a set that never was in memory at once."""
    return _univariate(statistics.gram, statistics.cross, _checked_noise(noise_variance))


def matrix_posterior(
    residuals: Float[ArrayLike, "M n K"],
    loading: Float[ArrayLike, "n q"],
    class_factor: Float[ArrayLike, "K K"],
    noise_variance: Float[ArrayLike, ""],
) -> MatrixPosterior:
    """E-step of the matrix-normal form: the members' latents Z_m [K, q] given their logits at n points.

    Args:
      residuals: member logits less the model's mean, [M, n, K].
      loading: [n, q], shared by all classes.
      class_factor: [K, K] (lower triangular in the paper; any matrix here).
      noise_variance: positive scalar.

    Raises:
      ValueError: shapes that do not fit, no member, values that are not finite, or a noise variance that is not positive.

    References:
      Specification 1.4.

    Examples:
      >>> import jax.numpy as jnp
      >>> found = matrix_posterior(jnp.ones((1, 2, 2)), jnp.ones((2, 1)), jnp.eye(2), 2.0)
      >>> found.mean.tolist(), found.variances.tolist()
      ([[[0.5], [0.5]]], [[0.5], [0.5]])
    """
    residuals, loading = _checked(residuals, loading, 3)
    class_factor = _checked_factor(class_factor, residuals.shape[-1])
    return _matrix(algebra.gram(loading), algebra.cross(residuals, loading), class_factor, _checked_noise(noise_variance))


def matrix_posterior_from_statistics(
    statistics: Statistics, class_factor: Float[ArrayLike, "K K"], noise_variance: Float[ArrayLike, ""]
) -> MatrixPosterior:
    """`matrix_posterior` from sums over design points."""
    class_factor = _checked_factor(class_factor, statistics.cross.shape[1])
    return _matrix(statistics.gram, statistics.cross, class_factor, _checked_noise(noise_variance))


def marginal_log_likelihood(
    residuals: Float[ArrayLike, "M n"], loading: Float[ArrayLike, "n q"], noise_variance: Float[ArrayLike, ""]
) -> Float[Array, ""]:
    """ln N(residuals[m]; 0, loading loading^T + noise_variance I_n) summed over members, in nats.

    The quadratic form is |r - loading z|^2 / noise_variance + |z|^2 at the posterior mean z, in which nothing cancels.

    Args:
      residuals: member outputs less the model's mean, [M, n].
      loading: [n, q].
      noise_variance: positive scalar.

    Raises:
      ValueError: as `posterior`.

    References:
      Specification 1.2.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(float(marginal_log_likelihood(jnp.zeros((1, 2)), jnp.zeros((2, 1)), 1.0)), 4)  # -ln(2 pi)
      -1.8379
    """
    residuals, loading = _checked(residuals, loading, 2)
    return _log_likelihood(residuals[..., None], loading, jnp.ones((1, 1), loading.dtype), _checked_noise(noise_variance))


def matrix_marginal_log_likelihood(
    residuals: Float[ArrayLike, "M n K"],
    loading: Float[ArrayLike, "n q"],
    class_factor: Float[ArrayLike, "K K"],
    noise_variance: Float[ArrayLike, ""],
) -> Float[Array, ""]:
    """ln N(vec F_m; 0, loading loading^T (x) class_factor class_factor^T + noise_variance I) summed over members, in nats.

    Args and Raises as `matrix_posterior`; K = 1 with class factor 1 is `marginal_log_likelihood`.

    References:
      Specification 1.4.

    Examples:
      >>> import jax.numpy as jnp
      >>> residuals, loading = jnp.arange(6.0).reshape(2, 3) / 6, jnp.ones((3, 1))
      >>> one = matrix_marginal_log_likelihood(residuals[..., None], loading, jnp.ones((1, 1)), 0.5)
      >>> bool(jnp.allclose(one, marginal_log_likelihood(residuals, loading, 0.5)))
      True
    """
    residuals, loading = _checked(residuals, loading, 3)
    class_factor = _checked_factor(class_factor, residuals.shape[-1])
    return _log_likelihood(residuals, loading, class_factor, _checked_noise(noise_variance))


def log_likelihood_from_statistics(
    statistics: Statistics, noise_variance: Float[ArrayLike, ""], class_factor: Float[ArrayLike, "K K"] | None = None
) -> Float[Array, ""]:
    """The marginal log-likelihood of points of which only the sums are left; univariate without a class factor.

    Here the quadratic form is a difference of sums: relative to them it is as accurate as the arithmetic, so where the noise explains
    only a small part of the residuals prefer float64 or the forms that see the residuals.
    """
    noise_variance = _checked_noise(noise_variance)
    cross = statistics.cross[:, None, :] if statistics.cross.ndim == 2 else statistics.cross
    factor = jnp.ones((1, 1), cross.dtype) if class_factor is None else _checked_factor(class_factor, cross.shape[1])
    latent = algebra.latents(statistics.gram, factor, noise_variance, cross)
    explained = ((factor.T @ cross) * latent).sum()
    quadratic = (statistics.squares.sum() - explained) / noise_variance
    return _gaussian(quadratic, statistics.gram, factor, noise_variance, statistics.squares.shape[0], statistics.count)


def sample(
    key: Key,
    mean: Float[ArrayLike, "*B *K"],
    loading: Float[ArrayLike, "*B q"],
    class_factor: Float[ArrayLike, "K K"] | None = None,
    *,
    num_samples: int,
    noise_variance: Float[ArrayLike, ""] | None = None,
) -> Float[Array, "S *B *K"]:
    """Functions drawn from the model: one latent per draw, shared by all inputs.

    Args:
      key: typed key. The latents depend on it, q and K alone: calls on parts of the inputs see the same functions.
      mean: [*B] (univariate) or [*B, K].
      loading: [*B, q].
      class_factor: [K, K]; None: the identity.
      num_samples: S >= 1.
      noise_variance: adds N(0, noise_variance) to every value. None: none, as in the paper, where the noise is only a numerical aid.

    Returns:
      [S, *B] or [S, *B, K].

    Raises:
      ValueError: shapes that do not fit, a class factor for a univariate mean, `num_samples` below 1.

    References:
      Specification 1.1, 1.3 and 4.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> sample(jax.random.key(0), jnp.zeros((5, 3)), jnp.ones((5, 2)), jnp.eye(3), num_samples=7).shape
      (7, 5, 3)
    """
    mean, loading = promote(mean, "mean"), promote(loading, "loading")
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"num_samples must be an integer of at least 1, got {num_samples!r}")
    univariate = mean.ndim == loading.ndim - 1
    if loading.ndim < 1 or mean.shape[: loading.ndim - 1] != loading.shape[:-1] or mean.ndim not in (loading.ndim - 1, loading.ndim):
        raise ValueError(f"mean must be [*B] or [*B, K] for a loading [*B, q] of shape {loading.shape}, got shape {mean.shape}")
    if univariate and class_factor is not None:
        raise ValueError(f"class_factor must be None for a univariate mean of shape {mean.shape}")
    latent_key, noise_key = jax.random.split(key)
    q, dtype = loading.shape[-1], jnp.result_type(mean, loading)
    if univariate:
        drawn = jnp.einsum("...q,sq->s...", loading, jax.random.normal(latent_key, (num_samples, q), dtype))
    else:
        latents = jax.random.normal(latent_key, (num_samples, mean.shape[-1], q), dtype)
        if class_factor is not None:
            latents = _checked_factor(class_factor, mean.shape[-1]) @ latents
        drawn = jnp.einsum("...q,skq->s...k", loading, latents)
    functions = mean[None] + drawn
    if noise_variance is None:
        return functions
    return functions + jnp.sqrt(_checked_noise(noise_variance)) * jax.random.normal(noise_key, functions.shape, dtype)


# --- the algebra ------------------------------------------------------------------------------------------------------


def _univariate(gram: Array, cross: Array, noise_variance: Array) -> Posterior:
    mean = algebra.latents(gram, None, noise_variance, cross[:, None, :])[:, 0]
    scaled = noise_variance * jnp.eye(gram.shape[0], dtype=gram.dtype)
    return Posterior(mean, algebra.solve(gram, None, noise_variance, scaled[:, None, :])[:, 0])


def _matrix(gram: Array, cross: Array, class_factor: Array, noise_variance: Array) -> MatrixPosterior:
    latent_values, latent_basis = algebra.spectrum(gram)
    class_values, class_basis = algebra.spectrum(class_factor.T @ class_factor)
    variances = noise_variance / (noise_variance + jnp.outer(class_values, latent_values))
    return MatrixPosterior(algebra.latents(gram, class_factor, noise_variance, cross), variances, class_basis, latent_basis)


def _log_likelihood(residuals: Array, loading: Array, class_factor: Array, noise_variance: Array) -> Array:
    gram = algebra.gram(loading)
    latents = algebra.latents(gram, class_factor, noise_variance, algebra.cross(residuals, loading))
    fitted = jnp.einsum("nq,mkq->mnk", loading, class_factor @ latents, precision=lax.Precision.HIGHEST)
    quadratic = jnp.square(residuals - fitted).sum() / noise_variance + jnp.square(latents).sum()
    return _gaussian(quadratic, gram, class_factor, noise_variance, residuals.shape[0], residuals.shape[1])


def _gaussian(quadratic: Array, gram: Array, class_factor: Array, noise_variance: Array, num_members: int, count) -> Array:
    strengths = jnp.outer(algebra.spectrum(class_factor.T @ class_factor)[0], algebra.spectrum(gram)[0])
    size = count * class_factor.shape[0]
    log_determinant = size * (_LOG_2_PI + jnp.log(noise_variance)) + jnp.log1p(strengths / noise_variance).sum()
    return -0.5 * (num_members * log_determinant + quadratic)


# --- borders ----------------------------------------------------------------------------------------------------------


def _checked(residuals: ArrayLike, loading: ArrayLike, ndim: int | None) -> tuple[Array, Array]:
    residuals, loading = promote(residuals, "residuals"), promote(loading, "loading")
    checks.shape(loading, (None, None), "loading")
    if residuals.ndim != ndim if ndim else residuals.ndim not in (2, 3):
        wanted = {2: "[M, n]", 3: "[M, n, K]"}.get(ndim, "[M, n] or [M, n, K]")
        raise ValueError(f"residuals must be {wanted}, members first, got shape {residuals.shape}")
    if min(residuals.shape) < 1 or min(loading.shape) < 1 or residuals.shape[1] != loading.shape[0]:
        raise ValueError(
            f"residuals [M, n, ...] and loading [n, q] must hold at least one member and the same n >= 1 design points, "
            f"got shapes {residuals.shape} and {loading.shape}"
        )
    checks.finite(residuals, "residuals")
    checks.finite(loading, "loading")
    dtype = jnp.result_type(residuals, loading)
    return residuals.astype(dtype), loading.astype(dtype)


def _checked_factor(class_factor: ArrayLike, num_classes: int) -> Array:
    class_factor = promote(class_factor, "class_factor")
    checks.shape(class_factor, (num_classes, num_classes), "class_factor")
    checks.finite(class_factor, "class_factor")
    return class_factor


def _checked_noise(noise_variance: ArrayLike) -> Array:
    noise_variance = promote(noise_variance, "noise_variance")
    checks.shape(noise_variance, (), "noise_variance")
    checks.positive(noise_variance, "noise_variance")
    checks.finite(noise_variance, "noise_variance")
    return noise_variance
