"""Flow matching against Gaussian closed forms and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.losses import flow_matching

MEAN, DEVIATION, NOISE = 1.5, 0.5, 2.0  # of the target and the noise, in one dimension


def best(points, times):
    """E[h_1 - h_0 | h_t] for independent Gaussian ends: a regression of one Gaussian on another."""
    t = times[..., None]
    covariance = t * DEVIATION**2 - (1 - t) * NOISE**2
    variance = t**2 * DEVIATION**2 + (1 - t) ** 2 * NOISE**2
    return MEAN + covariance / variance * (points - t * MEAN)


def draws(count=4000):
    rng = np.random.default_rng(0)
    noise, samples = NOISE * rng.normal(size=(count, 1)), MEAN + DEVIATION * rng.normal(size=(count, 1))
    return jnp.asarray(noise), jnp.asarray(samples), jnp.asarray(rng.uniform(size=count))


def test_the_ends_of_the_line_and_its_slope():
    noise, samples, times = draws(5)
    np.testing.assert_allclose(flow_matching.interpolate(noise, samples, jnp.zeros(5)), noise)
    np.testing.assert_allclose(flow_matching.interpolate(noise, samples, jnp.ones(5)), samples)
    _, slope = jax.jvp(lambda t: flow_matching.interpolate(noise, samples, t), (times,), (jnp.ones(5, times.dtype),))
    np.testing.assert_allclose(slope, samples - noise, rtol=1e-5, atol=1e-5)


def test_the_velocity_of_the_line_itself_costs_nothing_and_a_constant_error_its_square():
    noise, samples, times = draws(5)
    exact = lambda points, t: samples - noise  # noqa: E731
    np.testing.assert_array_equal(flow_matching.conditional_flow_matching(exact, noise, samples, times), 0.0)
    both = [jnp.concatenate([x, x], -1) for x in (noise, samples)]
    wrong = lambda points, t: both[1] - both[0] + jnp.array([[3.0, 4.0]])  # noqa: E731
    np.testing.assert_allclose(flow_matching.conditional_flow_matching(wrong, *both, times), 25.0, rtol=1e-5)


def test_the_mean_loss_of_a_linear_velocity_is_its_integral():
    """v(h, t) = a h + b: E (v - (h_1 - h_0))^2 in closed form given t, integrated over t by Gauss-Legendre."""
    a, b = 0.7, -0.3
    nodes, weights = np.polynomial.legendre.leggauss(20)
    t, weights = (nodes + 1) / 2, weights / 2
    variance = (a * t - 1) ** 2 * DEVIATION**2 + (a * (1 - t) + 1) ** 2 * NOISE**2
    expected = float(np.sum(weights * (variance + ((a * t - 1) * MEAN + b) ** 2)))
    found = np.asarray(flow_matching.conditional_flow_matching(lambda h, t: a * h + b, *draws(40000)))
    assert abs(found.mean() - expected) < 4 * found.std() / 200


def test_the_conditional_mean_is_the_best_velocity():
    least = float(flow_matching.conditional_flow_matching(best, *draws()).mean())
    for change in (0.2, -0.2):
        for other in (lambda h, t, c=change: best(h, t) + c, lambda h, t, c=change: best(h, t) + c * (h - 1.0)):
            assert float(flow_matching.conditional_flow_matching(other, *draws()).mean()) > least


def test_shapes_must_fit():
    noise, samples, times = draws(5)
    with pytest.raises(ValueError, match=r"noise and samples must be \[\*B, K\]"):
        flow_matching.interpolate(noise[:4], samples, times)
    with pytest.raises(ValueError, match=r"times \[\*B\]"):
        flow_matching.interpolate(noise, samples, times[:, None])
    with pytest.raises(ValueError, match=r"velocity\(h_t, t\)"):
        flow_matching.conditional_flow_matching(lambda h, t: h[..., 0], noise, samples, times)
