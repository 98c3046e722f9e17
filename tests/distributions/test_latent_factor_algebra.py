"""Loadings that leave directions of the latent unknown: float32 against float64 singular values, derivatives, batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distributions import latent_factor, latent_factor_em
from edd.distributions import latent_factor_algebra as algebra

NOISE = 1e-6


def singular(kind, points=50, q=3, members=4):
    """Residuals [M, n] of the model and a loading in float32 that does not reach every direction."""
    rng = np.random.default_rng(0)
    loading = rng.normal(size=(points, q))
    if kind == "repeated":
        loading[:, -1] = loading[:, 0]
    elif kind == "zero column":
        loading[:, -1] = 0
    elif kind == "zero":
        loading[:] = 0
    elif kind == "rank two":
        loading = loading[:, :2] @ rng.normal(size=(2, q))
    drawn = rng.normal(size=(members, q)) @ loading.T + NOISE**0.5 * rng.normal(size=(members, points))
    return np.float32(drawn), np.float32(loading)


def exact(residuals, loading, noise):
    """Means [M, q] and covariance [q, q] from the singular values of the loading in float64."""
    left, values, right = np.linalg.svd(np.float64(loading), full_matrices=False)
    values[values < 1e-5 * max(values.max(), 1)] = 0
    mean = np.float64(residuals) @ left * (values / (values**2 + noise)) @ right
    return mean, np.eye(loading.shape[1]) - right.T * (values**2 / (values**2 + noise)) @ right


CASES = [("repeated", 50, 3, 4), ("repeated", 50, 3, 1), ("zero column", 50, 3, 4), ("zero", 50, 3, 4)]
CASES += [("few points", 3, 6, 4), ("rank two", 50, 6, 4)]


@pytest.mark.parametrize(("kind", "points", "q", "members"), CASES)
def test_float32_knows_nothing_of_directions_that_no_point_reaches(kind, points, q, members):
    residuals, loading = singular(kind, points, q, members)
    mean, covariance = exact(residuals, loading, float(np.float32(NOISE)))
    found = latent_factor.posterior(residuals, loading, np.float32(NOISE))
    np.testing.assert_allclose(found.mean, mean, atol=1e-4 * max(np.abs(mean).max(), 1e-3))
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-5)
    one = latent_factor.matrix_posterior(residuals[..., None], loading, np.ones((1, 1), np.float32), np.float32(NOISE))
    np.testing.assert_allclose(one.mean[:, 0], found.mean, atol=1e-5)
    np.testing.assert_allclose(one.variances[0], np.sort(np.linalg.eigvalsh(covariance))[::-1], atol=1e-5)


def test_a_small_column_is_kept():
    loading = np.float32(np.random.default_rng(0).normal(size=(200, 4)) * 10.0 ** -np.arange(0, 12, 3))
    values = algebra.spectrum(algebra.gram(loading))[0]
    np.testing.assert_allclose(values, np.linalg.svd(np.float64(loading))[1][::-1] ** 2, rtol=1e-4)


@pytest.mark.parametrize("kind", ["repeated", "zero"])
def test_derivatives_at_a_singular_loading_equal_differences(kind, x64):
    _, loading = singular(kind, points=5, q=2)
    residuals = np.random.default_rng(1).normal(size=(2, 5, 2))
    arguments = (residuals, np.float64(loading), np.array([[1.0, 0.0], [0.3, 0.7]]), 0.3)
    jax.test_util.check_grads(jax.jit(latent_factor.matrix_marginal_log_likelihood), arguments, order=1, rtol=1e-5)
    jax.test_util.check_grads(jax.jit(lambda *each: latent_factor.matrix_posterior(*each).mean), arguments, order=1, rtol=1e-5)


def test_batches_of_loadings_equal_one_by_one(x64):
    loadings = jnp.stack([jnp.asarray(singular(kind, points=5)[1], float) for kind in ("repeated", "zero", "regular")])
    residuals = np.random.default_rng(1).normal(size=(2, 5))
    gradient = jax.grad(lambda loading: latent_factor.marginal_log_likelihood(residuals, loading, 0.3))
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(loadings), [gradient(each) for each in loadings], rtol=1e-9, atol=1e-12)


def test_float32_likelihood_and_a_singular_class_factor_equal_float64():
    residuals, loading = singular("repeated")
    factor = np.float32(np.tril(np.random.default_rng(2).normal(size=(3, 3))) * [1, 0, 1])
    logits = np.float32(np.einsum("mn,k->mnk", residuals, factor @ [1.0, 2.0, -1.0]))
    found = [latent_factor.marginal_log_likelihood(residuals, loading, NOISE)]
    found += [latent_factor.matrix_marginal_log_likelihood(logits, loading, factor, NOISE)]
    with jax.enable_x64(True):
        wanted = [latent_factor.marginal_log_likelihood(*map(np.float64, (residuals, loading, NOISE)))]
        wanted += [latent_factor.matrix_marginal_log_likelihood(*map(np.float64, (logits, loading, factor, NOISE)))]
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_sums_of_several_networks_on_a_mesh_equal_one_by_one():
    residuals, loading = singular("repeated", points=5)
    given = latent_factor.statistics(residuals, loading), jnp.float32(0.3)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), given)
    mesh = jax.make_mesh((1,), ("member",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("member")
    fit = jax.vmap(lambda sums, noise: latent_factor_em.fit_latents(sums, noise, iterations=2))
    found = jax.jit(jax.shard_map(fit, mesh=mesh, in_specs=(rows, rows), out_specs=rows))(*stacked)
    np.testing.assert_allclose(found.posterior.mean, fit(*stacked).posterior.mean, rtol=1e-4, atol=1e-4)
