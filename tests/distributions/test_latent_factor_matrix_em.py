"""EM of the matrix form from sums: equal to passes over the points, monotone, and the covariance of the members where it is identified."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distributions import latent_factor as model
from edd.distributions import latent_factor_em as em
from edd.distributions import latent_factor_matrix_em as matrix_em
from edd.losses import latent_factor as losses

M, N, K, Q = 6, 40, 3, 2


def drawn(members=M, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    loading, factor = rng.normal(size=(N, Q)), np.tril(rng.normal(size=(K, K))) + np.eye(K)
    latents = rng.normal(size=(members, K, Q))
    return np.einsum("nq,mkq->mnk", loading, factor @ latents) + noise * rng.normal(size=(members, N, K)), loading, factor


def test_sums_follow_a_change_of_the_student(x64):
    residuals, loading, _ = drawn()
    rng = np.random.default_rng(1)
    drift, factor = rng.normal(size=(K, Q)), rng.normal(size=(Q, Q))
    moved = matrix_em.matrix_move_statistics(model.statistics(residuals, loading), drift, factor)
    fresh = model.statistics(residuals - (loading @ drift.T)[None], loading @ factor)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), moved, fresh)


def test_squared_error_from_sums_is_that_of_the_points(x64):
    residuals, loading, factor = drawn()
    posterior = model.matrix_posterior(residuals, 0.7 * loading, factor, 0.3)
    points = losses.matrix_expected_squared_error(residuals, loading, factor, posterior).sum()
    sums = matrix_em.matrix_squared_error(model.statistics(residuals, loading), factor, posterior)
    np.testing.assert_allclose(sums, points, rtol=1e-10)


def test_every_iteration_raises_the_likelihood_and_the_student_changes_as_it_says(x64):
    residuals, loading, _ = drawn()
    sums, noise = model.statistics(residuals, loading), jnp.float64(1.0)
    factor, likelihoods = jnp.eye(K), []
    for steps in range(1, 15):
        found = matrix_em.matrix_fit_latents(sums, factor, noise, iterations=steps)
        changed, tuned = residuals - (loading @ found.drift.T)[None], loading @ found.factor
        likelihoods.append(float(model.matrix_marginal_log_likelihood(changed, tuned, found.class_factor, found.noise_variance)))
        again = model.matrix_posterior(changed, tuned, found.class_factor, found.noise_variance)
        np.testing.assert_allclose(found.posterior.mean, again.mean, rtol=1e-7, atol=1e-9)
    assert (np.diff(likelihoods) >= -1e-9 * np.abs(likelihoods[1:])).all() and likelihoods[-1] > likelihoods[0] + 1
    assert np.allclose(found.class_factor, np.tril(found.class_factor))
    np.testing.assert_allclose(jnp.square(found.class_factor).sum(), K, rtol=1e-10)


def test_recovers_the_covariance_from_a_wrong_scale(x64):
    residuals, loading, factor = drawn(members=4000, noise=0.05)
    found = matrix_em.matrix_fit_latents(model.statistics(residuals, 30 * loading), jnp.eye(K), 1.0, iterations=25)
    tuned = 30 * loading @ found.factor
    covariance = np.kron(tuned @ tuned.T, found.class_factor @ found.class_factor.T)
    truth = np.kron(loading @ loading.T, factor @ factor.T)
    assert np.linalg.norm(covariance - truth) < 0.06 * np.linalg.norm(truth)
    assert float(found.noise_variance) == pytest.approx(0.05**2, rel=0.01)


def test_one_class_is_the_univariate_fit(x64):
    residuals, loading, _ = drawn()
    one = matrix_em.matrix_fit_latents(model.statistics(residuals[..., :1], loading), jnp.ones((1, 1)), 1.0, iterations=60)
    plain = em.fit_latents(model.statistics(residuals[..., 0], loading), 1.0, iterations=60)
    np.testing.assert_allclose(one.noise_variance, plain.noise_variance, rtol=1e-6)
    covariances = [loading @ each @ each.T @ loading.T for each in (one.factor, plain.change.factor)]
    np.testing.assert_allclose(*covariances, rtol=1e-5, atol=1e-7)


def test_without_expansion_only_latents_and_noise_change():
    residuals, loading, factor = drawn()
    found = matrix_em.matrix_fit_latents(model.statistics(residuals, loading), factor, 1.0, iterations=3, expand=False)
    np.testing.assert_array_equal(found.class_factor, jnp.asarray(factor, jnp.float32))
    assert not found.drift.any() and (found.factor == jnp.eye(Q)).all() and found.noise_variance < 0.1


def test_fewer_members_than_factors_stay_at_the_floor():
    residuals, loading, _ = drawn(members=2, noise=0.0)
    sums = model.statistics(residuals, np.concatenate([loading, loading], 1))
    found = matrix_em.matrix_fit_latents(sums, jnp.eye(K), 1.0, iterations=100, floor=1e-4)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(found)) and found.noise_variance >= 1e-4


def test_a_class_factor_of_other_size_is_refused():
    residuals, loading, _ = drawn()
    with pytest.raises(ValueError, match="class_factor"):
        matrix_em.matrix_fit_latents(model.statistics(residuals, loading), jnp.eye(K + 1), 1.0)
