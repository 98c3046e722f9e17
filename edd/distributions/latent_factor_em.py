"""Closed-form EM updates of the latent factor model: exact M-steps, and the parameter expansion that keeps EM from stalling.

As the noise variance vanishes, every loading with the right column space is almost a fixed point of EM, so a wrong scale persists for
thousands of iterations. Parameter expansion (PX-EM) re-estimates the latents' law after every M-step and moves it into the loading:
monotone, and fast at any noise.

References: specification 2.4 and 2.9; Liu, Rubin and Wu 1998, "Parameter expansion to accelerate EM".
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from edd.distributions.latent_factor import MatrixPosterior, Posterior, Statistics, posterior_from_statistics
from edd.math import checks
from edd.math.polygamma import promote
from edd.typing import Array, ArrayLike, Float

__all__ = [
    "Expansion",
    "Fit",
    "MatrixExpansion",
    "expand_statistics",
    "expansion",
    "fit_latents",
    "linear_m_step",
    "matrix_expansion",
    "squared_error",
]


class Expansion(NamedTuple):
    """mean <- mean + loading shift, then loading <- loading factor."""

    shift: Float[Array, " q"]
    factor: Float[Array, "q q"]  # lower triangular


class MatrixExpansion(NamedTuple):
    """mean <- mean + class_factor shift loading, then loading <- loading factor."""

    shift: Float[Array, "K q"]
    factor: Float[Array, "q q"]  # lower triangular


def expansion(posterior: Posterior) -> Expansion:
    """Mean and Cholesky factor of the latents' law, estimated from the posterior: the parameter-expansion step.

    Args:
      posterior: the one the M-step before this used.

    References:
      Specification 2.9.

    Examples:
      >>> import jax.numpy as jnp
      >>> found = expansion(Posterior(jnp.array([[3.0], [1.0]]), jnp.array([[3.0]])))
      >>> found.shift.tolist(), found.factor.round(3).tolist()
      ([2.0], [[2.0]])
    """
    shift = posterior.mean.mean(0)
    centred = posterior.mean - shift[None]
    return Expansion(shift, root(centred.T @ centred / centred.shape[0] + posterior.covariance))


def matrix_expansion(posterior: MatrixPosterior) -> MatrixExpansion:
    """The parameter-expansion step of the matrix form, over the latent dimensions: rows of Z_m ~ N(shift, factor factor^T).

    With K = 1 this is `expansion`.

    References:
      Specification 1.4 and 2.9.
    """
    shift = posterior.mean.mean(0)
    centred = posterior.mean - shift[None]
    members, classes, _ = centred.shape
    between = jnp.einsum("mkq,mkp->qp", centred, centred) / members
    within = (posterior.latent_basis * posterior.variances.sum(0)[None]) @ posterior.latent_basis.T
    return MatrixExpansion(shift, root((between + within) / classes))


def root(covariance: Float[Array, "q q"]) -> Float[Array, "q q"]:
    """Lower Cholesky factor; some units of rounding on the diagonal, so that directions without variance give no NaN."""
    size = covariance.shape[0]
    rounding = 16 * jnp.finfo(covariance.dtype).eps * jnp.trace(covariance)
    return jnp.linalg.cholesky(covariance + rounding * jnp.eye(size, dtype=covariance.dtype))


def expand_statistics(statistics: Statistics, change: Expansion) -> Statistics:
    """The sums over the same design points after mean <- mean + loading shift and loading <- loading factor.

    References:
      Specification 2.9.
    """
    gram, cross, squares, count = statistics
    moved = cross - (gram @ change.shift)[None]
    length = change.shift @ gram @ change.shift
    return Statistics(
        change.factor.T @ gram @ change.factor, moved @ change.factor, jnp.maximum(squares - 2 * cross @ change.shift + length, 0), count
    )


def squared_error(statistics: Statistics, posterior: Posterior) -> Float[Array, ""]:
    """`losses.latent_factor.expected_squared_error` summed over the design points, from their sums.

    References:
      Specification 2.2 and 2.3.
    """
    fitted = jnp.einsum("mq,qp,mp->", posterior.mean, statistics.gram, posterior.mean)
    explained = 2 * (posterior.mean * statistics.cross).sum() - fitted
    spread = posterior.mean.shape[0] * (statistics.gram * posterior.covariance).sum()
    return jnp.maximum(statistics.squares.sum() - explained, 0) + spread


class Fit(NamedTuple):
    """Latents and noise fitted to fixed features, and how the output layer must change for it."""

    posterior: Posterior
    noise_variance: Float[Array, ""]
    change: Expansion  # identity without expansion


def fit_latents(
    statistics: Statistics, noise_variance: Float[ArrayLike, ""], *, iterations: int = 1, expand: bool = True, floor: ArrayLike = 0.0
) -> Fit:
    """Iterates E-step, parameter expansion and noise update on the sums alone: no pass over the data, O(q^3 + M q^2) each.

    For a student whose last layer is linear, [mean, loading] = features W: multiply W's columns as `change` says.

    Args:
      statistics: sums over the design points.
      noise_variance: the current one.
      iterations: how often, at least 1.
      expand: parameter expansion (PX-EM); False: plain EM, which leaves the loading alone.
      floor: least noise variance.

    References:
      Specification 2.1, 2.3, 2.8 and 2.9.

    Examples:
      >>> import jax.numpy as jnp
      >>> from edd.distributions.latent_factor import statistics
      >>> members = jnp.array([[2.0, 2.1], [-2.0, -1.9], [0.1, 0.0]])
      >>> found = fit_latents(statistics(members, jnp.full((2, 1), 9.0)), 1.0, iterations=20)
      >>> print((9.0 * found.change.factor[0, 0]).round(1))  # the members' standard deviation
      1.6
    """
    noise_variance = promote(noise_variance, "noise_variance")
    q = statistics.gram.shape[0]
    total = Expansion(jnp.zeros(q, statistics.gram.dtype), jnp.eye(q, dtype=statistics.gram.dtype))
    values = statistics.cross.shape[0] * statistics.count
    for _ in range(iterations):
        posterior = posterior_from_statistics(statistics, noise_variance)
        if expand:
            change = expansion(posterior)
            statistics = expand_statistics(statistics, change)
            total = Expansion(total.shift + total.factor @ change.shift, total.factor @ change.factor)
            posterior = posterior_from_statistics(statistics, noise_variance)
        noise_variance = jnp.maximum(squared_error(statistics, posterior) / values, floor)
    return Fit(posterior_from_statistics(statistics, noise_variance), noise_variance, total)


def linear_m_step(
    outputs: Float[ArrayLike, "M n"], posterior: Posterior, basis: Float[ArrayLike, "n p"] | None = None
) -> Float[Array, "p q+1"]:
    """The weights W that maximise Q where [mean, loading] = basis W: exact, for a student whose last layer is linear.

    Args:
      outputs: member outputs, [M, n].
      posterior: of the E-step.
      basis: features [n, p] of full column rank. None: the identity, that is a mean and a loading free at every design point, where W is
        [mean, loading] itself.

    Returns:
      [p, q + 1], the mean's weights first.

    Raises:
      ValueError: shapes that do not fit, values that are not finite, or features that are linearly dependent.

    References:
      Specification 2.4.

    Examples:
      >>> import jax.numpy as jnp
      >>> known = Posterior(jnp.array([[1.0], [-1.0]]), jnp.zeros((1, 1)))
      >>> linear_m_step(jnp.array([[5.0], [1.0]]), known).tolist()
      [[3.0, 2.0]]
    """
    outputs = promote(outputs, "outputs")
    members, q = posterior.mean.shape
    checks.shape(outputs, (members, None), "outputs")
    checks.finite(outputs, "outputs")
    extended = jnp.concatenate([jnp.ones((members, 1), posterior.mean.dtype), posterior.mean], axis=1)
    moments = extended.T @ extended + members * jnp.zeros((q + 1, q + 1)).at[1:, 1:].set(posterior.covariance)
    target = outputs.T @ extended
    if basis is not None:
        basis = promote(basis, "basis")
        checks.shape(basis, (outputs.shape[1], None), "basis")
        checks.finite(basis, "basis")
        if checks.is_concrete(basis) and int(jnp.linalg.matrix_rank(basis)) < basis.shape[1]:
            raise ValueError(
                f"basis must have linearly independent columns, got rank {int(jnp.linalg.matrix_rank(basis))} of {basis.shape[1]}: "
                "use at least as many design points as features, and drop features that repeat"
            )
        target = jnp.linalg.lstsq(basis, target)[0]
    return jnp.linalg.solve(moments, target.T).T
