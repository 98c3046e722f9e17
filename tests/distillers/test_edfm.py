"""EDFM: its loss is an unbiased estimate, its flow converges with the steps, and training recovers a known law of logits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import edfm
from edd.experiments import build, settings, stages
from edd.models.base import Outputs

K, F, VARIANCE = 2, 3, 4.0


def layers(widths=(8,), scale=1.0, seed=0):
    params, _ = edfm.make(1, K, num_features=F, widths=widths).init(jax.random.key(seed))
    return jax.tree.map(lambda leaf: scale * leaf, params["velocity"])


def quadrature(velocity, members, order=16):
    """E ||v(h_t, t) - (h_1 - h_0)||^2 over members, times (Gauss-Legendre) and noise in two dimensions (Gauss-Hermite)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    noise = np.sqrt(VARIANCE) * np.array(list(itertools.product(nodes, nodes)))
    noise_weights = np.array([a * b for a, b in itertools.product(weights, weights)]) / weights.sum() ** 2
    times, time_weights = np.polynomial.legendre.leggauss(order)
    t = np.repeat((times + 1) / 2, len(noise))
    noise, weights = np.tile(noise, (order, 1)), np.repeat(time_weights / 2, len(noise)) * np.tile(noise_weights, order)
    total = 0.0
    for member in members:
        points = t[:, None] * member + (1 - t[:, None]) * noise
        found = np.asarray(velocity(jnp.asarray(points, jnp.float32), jnp.asarray(t, jnp.float32)))
        total += np.sum(weights * ((found - (member - noise)) ** 2).sum(-1)) / len(members)
    return total


@pytest.mark.parametrize("widths,num_draws", [((), 1), ((8,), 1), ((8,), 4)])
def test_the_loss_is_unbiased(widths, num_draws):
    """With no hidden layer the velocity is linear in h; either way the mean over keys is the integral."""
    distiller = edfm.make(3, K, num_features=F, widths=widths, noise_variance=VARIANCE, num_draws=num_draws)
    members = np.array([[1.0, -2.0], [3.0, 0.5], [-1.0, 1.0]], np.float32)
    features, count = jnp.array([0.3, -0.2, 1.0]), 20000
    given = layers(widths)
    expected = quadrature(lambda h, t: edfm.velocity(given, jnp.broadcast_to(features, (len(h), F)), h, t), members)
    outputs = Outputs(jnp.broadcast_to(features, (count, F)), None)
    targets = distiller.targets(jnp.broadcast_to(members[:, None], (3, count, K)))
    losses = jax.jit(distiller.loss)(outputs, targets, {"velocity": given}, {}, None, jax.random.split(jax.random.key(3), count))
    losses = np.asarray(losses)
    assert abs(losses.mean() - expected) < 4 * losses.std() / count**0.5
    assert losses.std() / count**0.5 < 0.02 * expected


def test_more_draws_make_the_loss_less_noisy():
    spread = []
    for num_draws in (1, 16):
        distiller = edfm.make(1, K, num_features=F, widths=(8,), num_draws=num_draws)
        outputs, targets = Outputs(jnp.ones((500, F)), None), jnp.ones((500, 1, K))
        losses = distiller.loss(outputs, targets, {"velocity": layers()}, {}, None, jax.random.split(jax.random.key(0), 500))
        spread.append(float(losses.std()))
    assert spread[1] == pytest.approx(spread[0] / 4, rel=0.25)


def test_the_error_of_the_flow_falls_as_one_over_the_number_of_steps():
    given, features = layers(scale=1.5), jnp.array([[0.3, -0.2, 1.0]])
    noise = 2.0 * jax.random.normal(jax.random.key(1), (50, K))
    ends = {steps: edfm.sample(given, features, noise, steps) for steps in (6, 12, 24, 48, 96)}
    exact = 2 * ends[96] - ends[48]  # Richardson: second order
    errors = [float(jnp.abs(ends[steps] - exact).mean()) for steps in (6, 12, 24)]
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.25) and errors[1] / errors[2] == pytest.approx(2.0, rel=0.25)


def test_training_recovers_the_members_law():
    """Two inputs with Gaussian laws of logits of their own: means, deviations and correlation of the samples, within a tenth of a unit."""
    rng = np.random.default_rng(0)
    laws = [(np.array([2.0, -1.0]), np.array([[1.0, 0.6], [0.6, 0.5]])), (np.array([-1.0, 1.5]), np.array([[0.2, -0.1], [-0.1, 0.6]]))]
    members = np.stack([mean + rng.normal(size=(400, 2)) @ np.linalg.cholesky(cov).T for mean, cov in laws], 1)  # [M, 2, K]
    which = np.arange(251) % 2  # a prime number of rows runs on one device, which is faster here than eight pretended ones
    distiller = edfm.make(400, K, num_features=4, widths=(48, 48), num_draws=8, num_steps=24, num_samples=1000)
    optimizer = settings.Optimizer("adam", 4e-3, "cosine")
    training = settings.Training(settings.Model("mlp", {"widths": [8]}), optimizer, epochs=500.0, batch_size=251)
    arrays = {"inputs": which[:, None].astype(np.float32), "labels": which.astype(np.int32)}
    arrays["targets"] = np.asarray(distiller.targets(jnp.asarray(members[:, which], jnp.float32)))
    model = distiller.student(build.backbone(training.model))
    trained = stages.fit("edfm", training, model, distiller, arrays, lambda x: x, num_replicas=1, seed=0, progress=False)
    variables, params = jax.tree.map(lambda leaf: leaf[0], (trained.variables, trained.params))
    features = model.apply(variables, jnp.array([[0.0], [1.0]]), train=False)[0].logits
    noise = 2.0 * jax.random.normal(jax.random.key(9), (4000, K))
    found = np.asarray(edfm.sample(params["velocity"], features, noise, 24), np.float64)
    for index in range(2):
        samples, wanted = found[:, index], members[:, index]
        np.testing.assert_allclose(samples.mean(0), wanted.mean(0), atol=0.1)
        np.testing.assert_allclose(np.cov(samples.T), np.cov(wanted.T), atol=0.15)
    prediction = distiller.predict(Outputs(features, None), params, {}, jax.random.key(2))
    expected = jax.nn.softmax(jnp.asarray(members, jnp.float32)).mean(0)
    np.testing.assert_allclose(jnp.exp(prediction.log_probs), expected, atol=0.03)


def test_a_prediction_does_not_depend_on_the_other_inputs():
    distiller = edfm.make(1, K, num_features=F, widths=(8,))
    params, state = distiller.init(jax.random.key(0))
    features = jax.random.normal(jax.random.key(1), (6, F))
    whole = distiller.predict(Outputs(features, None), params, state, jax.random.key(2))
    part = distiller.predict(Outputs(features[4:], None), params, state, jax.random.key(2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[4:], b, rtol=1e-4, atol=1e-6), whole, part)
    assert float(whole.mutual_information.min()) > 0


def test_gradients_reach_the_features_and_every_layer():
    distiller = edfm.make(1, K, num_features=F, widths=(8, 8))
    params, _ = distiller.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 5)
    loss = lambda params, features: distiller.loss(Outputs(features, None), jnp.ones((5, 2, K)), params, {}, None, keys).sum()  # noqa: E731
    for leaf in jax.tree.leaves(jax.grad(loss, (0, 1))(params, jnp.ones((5, F)))):
        assert float(jnp.abs(leaf).max()) > 1e-3


@pytest.mark.parametrize(
    "options,message",
    [
        ({"noise_variance": 0.0}, "noise_variance must be above 0 and finite, got 0.0"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"num_samples": 1.5}, "num_samples must be at least 1, an integer, got 1.5"),
        ({"num_draws": 0}, "num_draws must be at least 1"),
        ({"num_features": 0}, "num_features must be at least 1"),
        ({"widths": (8, 0)}, "widths must be at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        edfm.make(2, K, **options)
