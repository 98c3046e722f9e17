"""Inverse gamma: scipy's maximum likelihood and density, recovery, the limit of equal variances, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from edd.distributions import inverse_gamma


@pytest.mark.parametrize("shape", [0.4, 3.0, 80.0])
def test_fit_equals_scipys(shape, x64):
    draws = stats.invgamma.rvs(shape, scale=2.0, size=300, random_state=0)
    found = inverse_gamma.fit(draws)
    expected = stats.invgamma.fit(draws, floc=0)
    np.testing.assert_allclose([found.shape, found.scale], [expected[0], expected[2]], rtol=1e-3)
    total = inverse_gamma.log_prob(found, draws).sum()
    np.testing.assert_allclose(total, stats.invgamma.logpdf(draws, found.shape, scale=found.scale).sum(), rtol=1e-10)
    slope = jax.grad(lambda at: inverse_gamma.log_prob(at, draws).sum())(found)
    assert max(abs(float(leaf)) for leaf in slope) < 1e-6


def test_float32_and_samples():
    found = inverse_gamma.InverseGamma(jnp.array([2.5, 50.0]), jnp.array([1.0, 10.0]))
    draws = inverse_gamma.sample(jax.random.key(0), found, 100_000)
    again = jax.jit(inverse_gamma.fit)(draws)
    np.testing.assert_allclose(again.shape, found.shape, rtol=0.02)
    np.testing.assert_allclose(again.scale, found.scale, rtol=0.02)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_float32_fits_variances_that_nearly_agree(unit):
    draws = np.float32(unit * stats.invgamma.rvs(1e4, scale=1e4, size=400, random_state=1))
    found = inverse_gamma.fit(draws)
    with jax.enable_x64(True):
        expected = inverse_gamma.fit(np.float64(draws))
    np.testing.assert_allclose([found.shape, found.scale], [expected.shape, expected.scale], rtol=1e-3)


def test_equal_variances_have_the_largest_shape():
    found = inverse_gamma.fit(jnp.full((4, 2), 0.3))
    assert (found.shape == inverse_gamma.LARGEST_SHAPE).all()
    np.testing.assert_allclose(inverse_gamma.sample(jax.random.key(0), found, 9), 0.3, rtol=0.01)


@pytest.mark.parametrize("bad", [jnp.zeros(3), jnp.array([1.0, jnp.inf]), jnp.zeros((0, 2)), jnp.array(1.0)])
def test_bad_input(bad):
    with pytest.raises(ValueError, match="variances must be"):
        inverse_gamma.fit(bad)
