"""Gaussian networks and the student of moments against scipy and quadrature."""

import jax.numpy as jnp
import numpy as np
from scipy import integrate, stats

from edd.distillers import gaussian
from edd.distillers.regression import mean_and_variance
from edd.models.base import Outputs


def test_a_teachers_loss_is_the_gaussians():
    raw, labels = np.array([[0.3, -1.0], [2.0, 4.0]], np.float32), np.array([1.0, -1.0], np.float32)
    found = gaussian.make_teacher().loss(Outputs(jnp.asarray(raw), None), None, {}, {}, jnp.asarray(labels), None)
    mean, variance = np.asarray(mean_and_variance(jnp.asarray(raw))).T
    np.testing.assert_allclose(found, -stats.norm.logpdf(labels, mean, np.sqrt(variance)), rtol=1e-5)


def test_moments_are_the_mixtures_and_the_loss_is_a_divergence():
    members = np.array([[[1.0, 0.5]], [[-1.0, 1.5]], [[3.0, 1.0]]])  # means and variances of three members at one input
    distiller = gaussian.make_moments(3)
    targets = distiller.targets(jnp.asarray(members, jnp.float32))
    second = (members[..., 1] + members[..., 0] ** 2).mean()
    np.testing.assert_allclose([targets["mean"][0], targets["variance"][0]], [1, second - 1], rtol=1e-6)
    raw = jnp.array([[0.2, 0.7]])
    found = float(distiller.loss(Outputs(raw, None), targets, {}, {}, None, None)[0])
    mean, variance = np.asarray(mean_and_variance(raw), np.float64)[0]
    ours, theirs = stats.norm(mean, variance**0.5), stats.norm(1, (second - 1) ** 0.5)
    wanted = integrate.quad(lambda y: theirs.pdf(y) * (theirs.logpdf(y) - ours.logpdf(y)), -25, 27)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
