"""Labels one by one, in batches or in another order give one posterior, that of the dense Gaussian; bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from edd.distributions import latent_factor
from edd.distributions import latent_factor_online as online


def case(points=7, q=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=points), rng.normal(size=(points, q)), rng.uniform(0.2, 2, size=points)


def test_order_and_batches_do_not_matter(x64):
    residuals, loading, noise = case()
    whole = online.observe(online.prior(3), residuals, loading, noise)
    single = online.prior(3)
    for i in np.random.default_rng(1).permutation(7):
        single = online.observe(single, residuals[i : i + 1], loading[i : i + 1], noise[i])
    for one, other in zip(whole, single):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_equals_the_e_step_and_the_dense_gaussian(x64):
    residuals, loading, _ = case()
    found = online.moments(online.observe(online.prior(3), residuals, loading, 0.3))
    expected = latent_factor.posterior(residuals[None], loading, 0.3)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9, atol=1e-12)
    _, inputs, _ = case(points=2, seed=5)
    mean, variance = online.predict(online.observe(online.prior(3), residuals, loading, 0.3), np.ones(2), inputs)
    joint = np.concatenate([loading, inputs]) @ np.concatenate([loading, inputs]).T
    gain = joint[7:, :7] @ np.linalg.inv(joint[:7, :7] + 0.3 * np.eye(7))
    np.testing.assert_allclose(mean, 1 + gain @ residuals, rtol=1e-9)
    np.testing.assert_allclose(variance, np.diag(joint[7:, 7:] - gain @ joint[:7, 7:]), rtol=1e-8)


def test_labels_shrink_the_variance_and_none_leaves_the_prior():
    _, loading, _ = case()
    before = online.predict(online.prior(3), jnp.zeros(7), loading)[1]
    after = online.predict(online.observe(online.prior(3), np.zeros(7), loading, 0.1), jnp.zeros(7), loading)[1]
    np.testing.assert_allclose(before, np.square(loading).sum(1), rtol=1e-5)
    assert (after < 0.2 * before).all()
    empty = online.observe(online.prior(3), np.zeros(0), np.zeros((0, 3)), 1.0)
    np.testing.assert_array_equal(empty.precision, np.eye(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loading": np.zeros((4, 2))}, "loading must have shape"),
        ({"residuals": np.zeros(3)}, "residuals must have shape"),
        ({"residuals": np.full(4, np.nan)}, "residuals must be finite"),
        ({"noise_variance": np.ones(3)}, "noise_variance must be a scalar or"),
        ({"noise_variance": 0.0}, "noise_variance must be positive"),
    ],
)
def test_bad_input(change, message):
    given = {"residuals": np.zeros(4), "loading": np.ones((4, 3)), "noise_variance": 1.0} | change
    with pytest.raises(ValueError, match=message):
        online.observe(online.prior(3), **given)
