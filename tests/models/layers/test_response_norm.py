"""Local response normalisation against a loop over channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from edd.models.layers.response_norm import local_response_norm


@pytest.mark.parametrize("options", [{}, {"radius": 2, "bias": 2.0, "alpha": 0.3, "beta": 0.5}, {"radius": 0, "alpha": 1.0}])
def test_equals_a_loop(options):
    radius, bias, alpha, beta = ({"radius": 4, "bias": 1.0, "alpha": 0.001 / 9, "beta": 0.75} | options).values()
    x = 20 * np.random.default_rng(0).normal(size=(2, 3, 12))
    expected = np.empty_like(x)
    for c in range(12):
        near = sum(x[..., j] ** 2 for j in range(max(0, c - radius), min(12, c + radius + 1)))
        expected[..., c] = x[..., c] / (bias + alpha * near) ** beta
    with jax.enable_x64(True):
        np.testing.assert_allclose(local_response_norm(jnp.asarray(x), **options), expected, rtol=1e-12)
    np.testing.assert_allclose(local_response_norm(jnp.asarray(x, jnp.float32), **options), expected, rtol=1e-5)


def test_has_a_gradient():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)))
        loss = lambda x: jnp.sum(jnp.sin(local_response_norm(x, radius=2, alpha=0.5)))  # noqa: E731
        check_grads(loss, (x,), order=1, modes=("rev",), rtol=1e-6)


def test_no_alpha_scales_by_the_bias():
    np.testing.assert_allclose(local_response_norm(jnp.ones((2, 5)), alpha=0.0, bias=16.0, beta=0.5), 0.25, rtol=1e-6)


@pytest.mark.parametrize("options", [{"radius": -1}, {"bias": 0.0}, {"alpha": -1.0}, {"beta": -0.1}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must be >= 0 and bias above 0"):
        local_response_norm(jnp.ones((1, 3)), **options)
