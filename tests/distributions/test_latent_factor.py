"""The latent factor model against dense conditioning in float64, its streaming sums, gradients, limits and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from edd.distributions import latent_factor


def case(members=4, points=7, q=3, classes=None, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (members, points) if classes is None else (members, points, classes)
    factor = None if classes is None else np.tril(rng.normal(size=(classes, classes)))
    return rng.normal(size=shape), rng.normal(size=(points, q)), factor, noise


def dense(residuals, loading, factor, noise):
    """Log-likelihood, latent means [M, K, q] and covariance of vec Z (columns stacked) from the full Gaussian."""
    members, points, classes = residuals.shape
    design = np.kron(loading, factor)  # row (point, class), column (latent, class): vec of Z stacks its columns
    covariance = design @ design.T + noise * np.eye(points * classes)
    flat = residuals.reshape(members, -1)
    likelihood = stats.multivariate_normal(np.zeros(points * classes), covariance).logpdf(flat).sum()
    gain = design.T @ np.linalg.inv(covariance)
    mean = (flat @ gain.T).reshape(members, loading.shape[1], classes).transpose(0, 2, 1)
    return likelihood, mean, np.eye(design.shape[1]) - gain @ design


@pytest.mark.parametrize(("points", "q"), [(7, 3), (3, 6), (1, 1)])
@pytest.mark.parametrize("noise", [2.0, 1e-2])
def test_univariate_equals_the_dense_gaussian(points, q, noise, x64):
    residuals, loading, _, _ = case(points=points, q=q)
    likelihood, mean, covariance = dense(residuals[..., None], loading, np.eye(1), noise)
    found = latent_factor.posterior(residuals, loading, noise)
    np.testing.assert_allclose(found.mean, mean[:, 0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(latent_factor.marginal_log_likelihood(residuals, loading, noise), likelihood, rtol=1e-11)


@pytest.mark.parametrize(("points", "q", "classes"), [(6, 2, 3), (2, 4, 3), (3, 1, 1)])
def test_matrix_equals_the_dense_gaussian(points, q, classes, x64):
    residuals, loading, factor, noise = case(points=points, q=q, classes=classes)
    likelihood, mean, covariance = dense(residuals, loading, factor, noise)
    found = latent_factor.matrix_posterior(residuals, loading, factor, noise)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-10, atol=1e-12)
    basis = np.kron(found.latent_basis, found.class_basis)
    np.testing.assert_allclose(basis @ np.diag(np.asarray(found.variances).T.ravel()) @ basis.T, covariance, atol=1e-11)
    got = latent_factor.matrix_marginal_log_likelihood(residuals, loading, factor, noise)
    np.testing.assert_allclose(got, likelihood, rtol=1e-11)


def test_one_class_is_the_univariate_form(x64):
    residuals, loading, _, noise = case()
    one = latent_factor.matrix_posterior(residuals[..., None], loading, np.ones((1, 1)), noise)
    flat = latent_factor.posterior(residuals, loading, noise)
    np.testing.assert_allclose(one.mean[:, 0], flat.mean, rtol=1e-13)
    rebuilt = one.latent_basis @ jnp.diag(one.variances[0]) @ one.latent_basis.T
    np.testing.assert_allclose(rebuilt, flat.covariance, atol=1e-13)


@pytest.mark.parametrize("classes", [None, 3])
def test_sums_over_minibatches_are_the_whole_set(classes, x64):
    residuals, loading, factor, noise = case(points=9, classes=classes)
    parts = [latent_factor.statistics(residuals[:, part], loading[part]) for part in (slice(0, 4), slice(4, 5), slice(5, 9))]
    sums = jax.tree.map(lambda *each: sum(each), *parts)
    if classes is None:
        found = latent_factor.posterior_from_statistics(sums, noise)
        whole = latent_factor.posterior(residuals, loading, noise)
        likelihood = latent_factor.marginal_log_likelihood(residuals, loading, noise)
    else:
        found = latent_factor.matrix_posterior_from_statistics(sums, factor, noise)
        whole = latent_factor.matrix_posterior(residuals, loading, factor, noise)
        likelihood = latent_factor.matrix_marginal_log_likelihood(residuals, loading, factor, noise)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-10)
    np.testing.assert_allclose(latent_factor.log_likelihood_from_statistics(sums, noise, factor), likelihood, rtol=1e-11)


def test_rotating_the_loading_or_moving_scale_changes_nothing(x64):
    residuals, loading, factor, noise = case(classes=3)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    first = latent_factor.matrix_marginal_log_likelihood(residuals, loading, factor, noise)
    for other, scaled in ((loading @ turn, factor), (2 * loading, factor / 2), (loading, factor @ turn)):
        np.testing.assert_allclose(latent_factor.matrix_marginal_log_likelihood(residuals, other, scaled, noise), first, rtol=1e-12)


@pytest.mark.parametrize("equal_eigenvalues", [False, True])
def test_gradients_equal_differences(equal_eigenvalues, x64):
    residuals, loading, factor, noise = case(points=4, classes=2, q=2)
    if equal_eigenvalues:
        factor, loading = np.eye(2), np.concatenate([np.eye(2), np.eye(2)])
    jax.test_util.check_grads(latent_factor.matrix_marginal_log_likelihood, (residuals, loading, factor, noise), order=1, rtol=1e-6)

    def mean(*arguments):
        return latent_factor.matrix_posterior(*arguments).mean

    jax.test_util.check_grads(mean, (residuals, loading, factor, noise), order=2, rtol=1e-5)


def test_float32_carries_a_singular_loading_and_almost_no_noise():
    residuals, loading, _, _ = case(points=50, q=3)
    loading[:, 2] = loading[:, 1]
    posterior = jax.jit(latent_factor.posterior)
    assert all(np.isfinite(each).all() for each in posterior(residuals, loading, 1e-12))
    spread = np.linalg.eigvalsh(np.asarray(posterior(residuals, loading, 1e-2).covariance, np.float64))
    assert spread.min() > 0 and spread.max() == pytest.approx(1, rel=1e-2)  # the direction the data say nothing about
    assert np.isfinite(jax.grad(latent_factor.marginal_log_likelihood, argnums=1)(residuals, loading, 1e-6)).all()


def test_samples_have_the_covariance_and_share_their_latents():
    _, loading, factor, _ = case(points=3, q=2, classes=2)
    key = jax.random.key(0)
    drawn = latent_factor.sample(key, np.zeros((3, 2)), loading, factor, num_samples=40_000)
    got = np.cov(np.asarray(drawn).reshape(40_000, -1).T)
    np.testing.assert_allclose(got, np.kron(loading @ loading.T, factor @ factor.T), atol=0.05 * np.abs(got).max())
    part = latent_factor.sample(key, np.zeros((1, 2)), loading[1:2], factor, num_samples=40_000)
    np.testing.assert_allclose(part[:, 0], drawn[:, 1], rtol=1e-5, atol=1e-5)
    noisy = latent_factor.sample(key, np.zeros(3), 0 * loading, num_samples=40_000, noise_variance=4.0)
    assert np.var(noisy) == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residuals": np.zeros((2, 3))}, r"same n >= 1 design points, got shapes \(2, 3\) and \(4, 2\)"),
        ({"residuals": np.zeros((0, 4))}, "at least one member"),
        ({"residuals": np.zeros(4)}, r"residuals must be \[M, n\]"),
        ({"residuals": np.full((2, 4), np.nan)}, "residuals must be finite"),
        ({"loading": np.full((4, 2), np.inf)}, "loading must be finite"),
        ({"loading": np.zeros((4,))}, "loading must have shape"),
        ({"noise_variance": 0.0}, "noise_variance must be positive"),
        ({"noise_variance": np.ones(2)}, "noise_variance must have shape"),
    ],
)
def test_bad_input(change, message):
    given = {"residuals": np.zeros((2, 4)), "loading": np.ones((4, 2)), "noise_variance": 1.0} | change
    with pytest.raises(ValueError, match=message):
        latent_factor.posterior(**given)


def test_bad_input_of_the_matrix_form_and_samples():
    with pytest.raises(ValueError, match="class_factor must have shape"):
        latent_factor.matrix_posterior(np.zeros((2, 4, 3)), np.ones((4, 2)), np.eye(2), 1.0)
    with pytest.raises(ValueError, match="num_samples must be an integer"):
        latent_factor.sample(jax.random.key(0), np.zeros(4), np.ones((4, 2)), num_samples=0)
    with pytest.raises(ValueError, match="mean must be"):
        latent_factor.sample(jax.random.key(0), np.zeros(3), np.ones((4, 2)), num_samples=1)
    with pytest.raises(ValueError, match="class_factor must be None"):
        latent_factor.sample(jax.random.key(0), np.zeros(4), np.ones((4, 2)), np.eye(1), num_samples=1)
