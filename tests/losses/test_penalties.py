"""Maximum mean discrepancy: a loop, the sampled form's limit, the specification's scale figures, and bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from edd.losses import penalties


def test_sampled_form_equals_a_loop(x64):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))

    def mean_kernel(a, b, square):
        return np.mean([np.exp(-np.square(x - y).sum() / (2 * square)) for x in a for y in b])

    expected = sum(
        mean_kernel(first, first, h) + mean_kernel(second, second, h) - 2 * mean_kernel(first, second, h) for h in (1.5, 3.0, 6.0)
    )
    np.testing.assert_allclose(penalties.mmd(first, second, "multiscale"), expected, rtol=1e-12)


def test_analytic_form_is_the_limit_of_the_sampled_one(x64):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(20, 2)) * 0.7 + 0.3
    sampled = penalties.mmd(latents, rng.normal(size=(6000, 2)), 2.0)
    np.testing.assert_allclose(penalties.mmd_to_normal(latents, 2.0), sampled, atol=3e-3)


@pytest.mark.parametrize(("square", "figures"), [(10.0, (0.011, 0.081, 0.160)), (1.0, (0.020, 0.120, 0.94))])
def test_scale_of_the_specification(square, figures, x64):
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(40, 50, 10))
    for scale, figure in zip((1.0, 0.5, 0.0), figures):
        got = np.mean([penalties.mmd_to_normal(scale * each, square) for each in draws])
        assert got == pytest.approx(figure, rel=0.12)


def test_bad_input():
    points = jnp.zeros((3, 2))
    with pytest.raises(ValueError, match="bandwidth must be one of dimension, multiscale"):
        penalties.mmd_to_normal(points, "median")
    with pytest.raises(ValueError, match="positive and finite"):
        penalties.mmd_to_normal(points, 0.0)
    with pytest.raises(ValueError, match="same dimension"):
        penalties.mmd(points, jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match="at least one point"):
        penalties.mmd(jnp.zeros((0, 2)), points)
