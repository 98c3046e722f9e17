"""EM: monotone, equal to closed-form probabilistic PCA in the saturated limit, fast with parameter expansion where plain EM stalls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distributions import latent_factor as model
from edd.distributions import latent_factor_em as em
from edd.losses import latent_factor as losses


def members_of(members=200, points=25, q=3, noise=0.2, seed=0):
    rng = np.random.default_rng(seed)
    loading = rng.normal(size=(points, q))
    return loading, rng.normal(size=(members, q)) @ loading.T + noise * rng.normal(size=(members, points)) + rng.normal(size=points)


def probabilistic_pca(outputs, q):
    """Maximum-likelihood loading loading^T and noise variance (Tipping and Bishop 1999)."""
    values, basis = np.linalg.eigh(np.cov(outputs.T, bias=True))
    noise = values[:-q].mean()
    return (basis[:, -q:] * (values[-q:] - noise)) @ basis[:, -q:].T, noise


def iterate(outputs, loading, noise, steps, expand):
    @jax.jit
    def step(state):
        mean, loading, noise = state
        residuals = outputs - mean[None]
        likelihood = model.marginal_log_likelihood(residuals, loading, noise)
        posterior = model.posterior(residuals, loading, noise)
        weights = em.linear_m_step(outputs, posterior)
        mean, loading = weights[:, 0], weights[:, 1:]
        error = losses.expected_squared_error(outputs - mean[None], loading, posterior).sum()
        noise = losses.noise_variance(error, outputs.size, 1e-10)
        if expand:
            shift, factor = em.expansion(posterior)
            mean, loading = mean + loading @ shift, loading @ factor
        return (mean, loading, noise), likelihood

    state = (jnp.asarray(outputs.mean(0)), jnp.asarray(loading), jnp.asarray(noise))
    likelihoods = []
    for _ in range(steps):
        state, likelihood = step(state)
        likelihoods.append(float(likelihood))
    return state, np.array(likelihoods)


@pytest.mark.parametrize("expand", [False, True])
def test_never_decreases_the_likelihood(expand, x64):
    _, outputs = members_of(members=12, points=9)
    start = np.random.default_rng(1).normal(size=(9, 3))
    _, likelihoods = iterate(outputs, start, 1.0, 40, expand)
    assert (np.diff(likelihoods) >= -1e-9 * np.abs(likelihoods[1:])).all() and likelihoods[-1] > likelihoods[0] + 1


def test_expansion_reaches_probabilistic_pca_where_plain_em_stalls(x64):
    _, outputs = members_of()
    covariance, noise = probabilistic_pca(outputs, 3)
    start = np.random.default_rng(1).normal(size=(25, 3))
    errors = {}
    for expand, steps in ((True, 30), (False, 500)):
        (_, loading, found), _ = iterate(outputs, start, 1.0, steps, expand)
        errors[expand] = np.linalg.norm(loading @ loading.T - covariance) / np.linalg.norm(covariance)
        if expand:
            assert found == pytest.approx(noise, rel=1e-9)
    assert errors[True] < 1e-8 and errors[False] > 0.01


def test_few_members_stay_at_the_noise_floor(x64):
    _, outputs = members_of(members=4, points=9)
    (mean, loading, noise), likelihoods = iterate(outputs, np.random.default_rng(1).normal(size=(9, 3)), 1.0, 200, True)
    assert np.isfinite(likelihoods).all() and np.isfinite(loading).all() and np.isfinite(mean).all()
    assert 1e-10 <= noise < 1e-6


def test_linear_basis_equals_regression_on_it(x64):
    _, outputs = members_of(members=6, points=9)
    basis = np.random.default_rng(2).normal(size=(9, 4))
    residuals, loading = outputs - outputs.mean(0), np.random.default_rng(3).normal(size=(9, 2))
    posterior = model.posterior(residuals, loading, 0.5)
    weights = em.linear_m_step(outputs, posterior, basis)

    def q(weights):
        fitted = basis @ weights
        return losses.negative_q(outputs - fitted[None, :, 0], fitted[:, 1:], posterior, 0.5).sum()

    assert np.abs(jax.grad(q)(weights)).max() < 1e-9


@pytest.mark.parametrize("which", ["expand", "loading", "mean"])
def test_matrix_ecm_is_monotone(which, x64):
    """One coordinate exactly maximised (gradient zero at a quadratic's minimum) and the expansion never lower the likelihood."""
    rng = np.random.default_rng(4)
    outputs, mean = rng.normal(size=(5, 6, 3)), rng.normal(size=(6, 3))
    loading, factor, noise = rng.normal(size=(6, 2)), np.tril(rng.normal(size=(3, 3))), 0.3
    before = model.matrix_marginal_log_likelihood(outputs - mean, loading, factor, noise)
    posterior = model.matrix_posterior(outputs - mean, loading, factor, noise)
    if which == "mean":
        mean = np.asarray(outputs - jnp.einsum("nq,mkq->mnk", loading, factor @ posterior.mean)).mean(0)
    if which == "loading":

        def q(loading):
            return losses.matrix_negative_q(outputs - mean, loading.reshape(6, 2), factor, posterior, noise).sum()

        flat = loading.ravel()
        loading = (flat - jnp.linalg.solve(jax.hessian(q)(flat), jax.grad(q)(flat))).reshape(6, 2)
    if which == "expand":
        mean = np.asarray(outputs - jnp.einsum("nq,mkq->mnk", loading, factor @ posterior.mean)).mean(0)
        shift, change = em.matrix_expansion(posterior)
        mean, loading = mean + loading @ np.asarray(factor @ shift).T, loading @ change
    after = model.matrix_marginal_log_likelihood(outputs - mean, loading, factor, noise)
    assert after > before


def test_one_class_expands_as_the_univariate_form(x64):
    _, outputs = members_of(members=6, points=9)
    loading = np.random.default_rng(3).normal(size=(9, 2))
    flat = em.expansion(model.posterior(outputs, loading, 0.5))
    matrix = em.matrix_expansion(model.matrix_posterior(outputs[..., None], loading, np.ones((1, 1)), 0.5))
    np.testing.assert_allclose(matrix.shift[0], flat.shift, rtol=1e-10)
    np.testing.assert_allclose(matrix.factor, flat.factor, rtol=1e-10)


def test_bad_input():
    posterior = model.Posterior(jnp.zeros((2, 1)), jnp.eye(1))
    with pytest.raises(ValueError, match="linearly independent columns, got rank 1 of 2"):
        em.linear_m_step(jnp.zeros((2, 4)), posterior, jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="outputs must have shape"):
        em.linear_m_step(jnp.zeros((3, 4)), posterior)
    with pytest.raises(ValueError, match="outputs must be finite"):
        em.linear_m_step(jnp.full((2, 4), jnp.nan), posterior)


@pytest.mark.parametrize("expand", [False, True])
def test_fitting_from_sums_equals_passes_over_the_points(expand, x64):
    loading, outputs = members_of(members=8, points=9)
    mean, loading, noise = outputs.mean(0) + 0.3, loading * 0.4, 0.5
    found = em.fit_latents(model.statistics(outputs - mean, loading), noise, iterations=3, expand=expand)
    start = model.marginal_log_likelihood(outputs - mean, loading, noise)
    moved = (mean + loading @ np.asarray(found.change.shift), loading @ np.asarray(found.change.factor))
    for _ in range(3):
        if expand:
            change = em.expansion(model.posterior(outputs - mean, loading, noise))
            mean, loading = mean + loading @ np.asarray(change.shift), loading @ np.asarray(change.factor)
        posterior = model.posterior(outputs - mean, loading, noise)
        noise = losses.expected_squared_error(outputs - mean, loading, posterior).sum() / outputs.size
    np.testing.assert_allclose(moved[0], mean, rtol=1e-9)
    np.testing.assert_allclose(moved[1], loading, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.noise_variance, noise, rtol=1e-9)
    np.testing.assert_allclose(found.posterior.mean, model.posterior(outputs - mean, loading, noise).mean, rtol=1e-8, atol=1e-10)
    assert model.marginal_log_likelihood(outputs - mean, loading, noise) > start
