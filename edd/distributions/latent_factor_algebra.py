"""The linear system behind the latent factor model's E-step, solved in eigenbases, accurate where the loading is singular.

noise_variance Z + class_factor^T class_factor Z gram = class_factor^T cross has the posterior means Z [K, q] as its solution. A
direction that no design point reaches, because columns of the loading repeat or there are fewer points than columns, has an eigenvalue
of zero that rounding replaces by anything up to a unit of it: against a small noise variance that would pass for knowledge.

References: arXiv 2510.19290; specification 1.2 and 1.4.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from edd.typing import Array, Float

__all__ = ["cross", "gram", "latents", "solve", "spectrum"]

_ROUNDING = 16  # units in which a zero eigenvalue may be off


def gram(loading: Float[Array, "n q"]) -> Float[Array, "q q"]:
    """loading^T loading."""
    return jnp.matmul(loading.T, loading, precision=lax.Precision.HIGHEST)


def cross(residuals: Float[Array, "M n *K"], loading: Float[Array, "n q"]) -> Float[Array, "M *K q"]:
    """residuals^T loading, for each member."""
    return jnp.einsum("mn...,nq->m...q", residuals, loading, precision=lax.Precision.HIGHEST)


def spectrum(gram: Float[Array, "q q"]) -> tuple[Float[Array, " q"], Float[Array, "q q"]]:
    """Eigenvalues and eigenvectors of a Gram matrix; eigenvalues that rounding alone may have made are zero.

    Rounding moves the eigenvalue of u by some eps (sum_i |u_i| length_i)^2, with the lengths of the columns: small columns that are no
    combination of large ones are kept, however small.

    Examples:
      >>> column = jnp.array([[0.1], [0.2], [0.3]])
      >>> spectrum(gram(jnp.concatenate([column, column], 1)))[0].round(2).tolist()
      [0.0, 0.2800000011920929]
    """
    values, basis = jnp.linalg.eigh(gram)
    turned = jnp.einsum("ia,ij,jb->ab", basis, gram, basis, precision=lax.Precision.HIGHEST)
    own = jnp.diagonal(turned)
    larger = own[None] > 4 * jnp.maximum(own[:, None], 0)
    better = own - jnp.where(larger, jnp.square(turned) / jnp.where(larger, own[None], 1), 0).sum(1)  # eigh is off by eps of the largest
    values = values + lax.stop_gradient(better - values)
    lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))
    return jnp.where(values > _ROUNDING * jnp.finfo(values.dtype).eps * jnp.square(lengths @ jnp.abs(basis)), values, 0), basis


def solve(
    gram: Float[Array, "q q"],
    class_factor: Float[Array, "K K"] | None,
    noise_variance: Float[Array, ""],
    right: Float[Array, "M K q"],
    operator=None,
) -> Float[Array, "M K q"]:
    """Z with noise_variance Z + class_factor^T class_factor Z gram = right; no class factor: K = 1, factor 1.

    Differentiated as a linear system (of `operator`, by default that one), so equal eigenvalues do no harm.
    """
    inverse = lambda _, target: _invert(gram, class_factor, noise_variance, target, reached_only=False)  # noqa: E731
    return lax.custom_linear_solve(operator or _operator(gram, class_factor, noise_variance), right, inverse, symmetric=True)


def latents(
    gram: Float[Array, "q q"], class_factor: Float[Array, "K K"] | None, noise_variance: Float[Array, ""], cross: Float[Array, "M K q"]
) -> Float[Array, "M K q"]:
    """Posterior means: `solve` for class_factor^T cross, which has no part in directions that no design point reaches.

    What rounding leaves there is dropped: it would be divided by the noise alone. A derivative may have such a part, and keeps it.
    """
    right, operator = cross if class_factor is None else class_factor.T @ cross, _operator(gram, class_factor, noise_variance)
    found = _invert(gram, class_factor, noise_variance, lax.stop_gradient(right), reached_only=True)
    tangents = lambda linear, target: solve(gram, class_factor, noise_variance, target, linear)  # noqa: E731
    return lax.custom_root(lambda latents: operator(latents) - right, found, lambda _, start: start, tangents)


def _operator(gram: Array, class_factor: Array | None, noise_variance: Array):
    if class_factor is None:
        return lambda latents: noise_variance * latents + latents @ gram
    class_gram = class_factor.T @ class_factor
    return lambda latents: noise_variance * latents + class_gram @ latents @ gram


def _invert(gram: Array, class_factor: Array | None, noise_variance: Array, target: Array, *, reached_only: bool) -> Array:
    gram, noise_variance = lax.stop_gradient(gram), lax.stop_gradient(noise_variance)
    latent_values, latent_basis = spectrum(gram)
    if class_factor is None:
        return _divided(target @ latent_basis, noise_variance, latent_values[None, None], reached_only) @ latent_basis.T
    class_factor = lax.stop_gradient(class_factor)
    class_values, class_basis = spectrum(class_factor.T @ class_factor)
    turned = class_basis.T @ target @ latent_basis
    strength = jnp.outer(class_values, latent_values)[None]
    return class_basis @ _divided(turned, noise_variance, strength, reached_only) @ latent_basis.T


def _divided(turned: Array, noise_variance: Array, strength: Array, reached_only: bool) -> Array:
    found = turned / (noise_variance + strength)
    return jnp.where(strength > 0, found, 0) if reached_only else found
