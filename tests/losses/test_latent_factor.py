"""The Q function: Fisher's identity, its relation to the marginal likelihood, minibatches, and the covariance term."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distributions import latent_factor as model
from edd.losses import latent_factor as losses


def case(members=5, points=8, q=3, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(members, points, classes))
    mean = rng.normal(size=(points, classes))
    return outputs, mean, rng.normal(size=(points, q)), np.tril(rng.normal(size=(classes, classes))), 0.4


def test_gradient_is_the_marginal_likelihoods_gradient(x64):
    outputs, mean, loading, _, noise = case()
    outputs, mean = outputs[..., 0], mean[:, 0]
    posterior = model.posterior(outputs - mean, loading, noise)

    def marginal(mean, loading, noise):
        return -model.marginal_log_likelihood(outputs - mean[None], loading, noise)

    def q(mean, loading, noise):
        return losses.negative_q(outputs - mean[None], loading, posterior, noise).sum()

    for got, expected in zip(jax.grad(q, (0, 1, 2))(mean, loading, noise), jax.grad(marginal, (0, 1, 2))(mean, loading, noise)):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)


def test_matrix_gradient_is_the_marginal_likelihoods_gradient(x64):
    outputs, mean, loading, factor, noise = case()
    posterior = model.matrix_posterior(outputs - mean, loading, factor, noise)

    def marginal(mean, loading, factor, noise):
        return -model.matrix_marginal_log_likelihood(outputs - mean[None], loading, factor, noise)

    def q(mean, loading, factor, noise):
        return losses.matrix_negative_q(outputs - mean[None], loading, factor, posterior, noise).sum()

    wrt, at = (0, 1, 2, 3), (mean, loading, factor, noise)
    for got, expected in zip(jax.grad(q, wrt)(*at), jax.grad(marginal, wrt)(*at)):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)


def test_q_and_the_posteriors_entropy_make_the_likelihood(x64):
    outputs, mean, loading, _, noise = case()
    residuals = (outputs - mean)[..., 0]
    members, q = residuals.shape[0], loading.shape[1]
    mean_z, covariance = model.posterior(residuals, loading, noise)
    prior = -0.5 * (members * (q * np.log(2 * np.pi) + np.trace(covariance)) + np.square(mean_z).sum())
    entropy = 0.5 * members * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    total = -losses.negative_q(residuals, loading, model.Posterior(mean_z, covariance), noise).sum() + prior + entropy
    np.testing.assert_allclose(total, model.marginal_log_likelihood(residuals, loading, noise), rtol=1e-12)


def test_expected_error_is_the_expectation_over_latents(x64):
    outputs, mean, loading, factor, noise = case(members=2, points=3)
    residuals = outputs - mean
    posterior = model.matrix_posterior(residuals, loading, factor, noise)
    rng = np.random.default_rng(0)
    mean_z, variances, class_basis, latent_basis = map(np.asarray, posterior)
    draws = rng.normal(size=(40_000, 2, 3, 3)) * np.sqrt(variances)
    latents = mean_z + class_basis @ draws @ latent_basis.T
    fitted = np.einsum("nq,smkq->smnk", loading, factor @ latents)
    sampled = np.square(residuals - fitted).sum((1, 3)).mean(0)
    got = losses.matrix_expected_squared_error(residuals, loading, factor, posterior)
    np.testing.assert_allclose(got, sampled, rtol=0.02)
    one = model.posterior(residuals[..., 0], loading, noise)
    as_matrix = model.matrix_posterior(residuals[..., :1], loading, np.ones((1, 1)), noise)
    np.testing.assert_allclose(
        losses.expected_squared_error(residuals[..., 0], loading, one),
        losses.matrix_expected_squared_error(residuals[..., :1], loading, np.ones((1, 1)), as_matrix),
        rtol=1e-10,
    )


def test_leading_axes_are_examples_and_add_up(x64):
    outputs, mean, loading, factor, noise = case()
    residuals = outputs - mean
    posterior = model.matrix_posterior(residuals, loading, factor, noise)
    flat = losses.matrix_negative_q(residuals, loading, factor, posterior, noise)
    folded = losses.matrix_negative_q(residuals.reshape(5, 2, 4, 3), loading.reshape(2, 4, 3), factor, posterior, noise)
    np.testing.assert_allclose(folded, flat.reshape(2, 4), rtol=1e-12)


def test_the_posterior_is_a_constant():
    outputs, mean, loading, _, noise = case()
    residuals = (outputs - mean)[..., 0]

    def loss(posterior):
        return losses.negative_q(residuals, loading, posterior, noise).sum()

    gradient = jax.grad(loss)(model.posterior(residuals, loading, noise))
    assert all((np.asarray(leaf) == 0).all() for leaf in gradient)


def test_noise_variance_maximises_q(x64):
    outputs, mean, loading, _, noise = case()
    residuals = (outputs - mean)[..., 0]
    posterior = model.posterior(residuals, loading, noise)
    best = losses.noise_variance(losses.expected_squared_error(residuals, loading, posterior).sum(), residuals.size)
    slope = jax.grad(lambda value: losses.negative_q(residuals, loading, posterior, value).sum())(best)
    assert abs(slope) < 1e-10
    assert losses.noise_variance(0.0, 8, floor=1e-6) == pytest.approx(1e-6)


def test_bad_input():
    posterior = model.Posterior(jnp.zeros((2, 3)), jnp.eye(3))
    with pytest.raises(ValueError, match="q = 3 as in the posterior"):
        losses.negative_q(jnp.zeros((2, 4)), jnp.zeros((4, 2)), posterior, 1.0)
    with pytest.raises(ValueError, match="residuals must have shape"):
        losses.negative_q(jnp.zeros((3, 4)), jnp.zeros((4, 3)), posterior, 1.0)
    with pytest.raises(ValueError, match="noise_variance must be positive"):
        losses.negative_q(jnp.zeros((2, 4)), jnp.zeros((4, 3)), posterior, 0.0)
    with pytest.raises(ValueError, match="floor must be at least 0"):
        losses.noise_variance(1.0, 1, -1.0)
