"""Inception-v4 at a small width: shapes, templates, the second classifier in training alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import supervised
from edd.models import inception_v4


@pytest.fixture(scope="module")
def network():
    model = inception_v4.make(5, blocks=(1, 1, 0), width=0.04, auxiliary=True, momentum=0.5)
    images = jax.random.normal(jax.random.key(1), (2, 139, 139, 3))
    fast = {"compiler_options": {"xla_backend_optimization_level": 0}}
    variables = jax.jit(model.init, **fast)(jax.random.key(0), images)
    return model, variables, images, jax.jit(model.apply, static_argnames="train", **fast)


def test_evaluation_and_training(network):
    model, variables, images, apply = network
    outputs, state = apply(variables, images, train=False, rngs=None)
    weights, bias = model.templates(variables)
    assert outputs.auxiliary is None and state == {} and outputs.penultimate.shape == (2, weights.shape[1])
    np.testing.assert_allclose(outputs.logits, outputs.penultimate @ weights.T + bias[None], atol=1e-5)
    keys = {"dropout": jax.random.split(jax.random.key(2), 2)}
    trained, state = apply(variables, images, train=True, rngs=keys)
    assert trained.auxiliary.shape == (2, 5)
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), variables["batch_stats"], state["batch_stats"])
    assert all(jax.tree.leaves(moved))


def test_the_second_classifier_is_weighted_into_the_loss(network):
    _, variables, images, apply = network
    outputs, _ = apply(variables, images, train=True, rngs={"dropout": jax.random.split(jax.random.key(2), 2)})
    labels = jnp.array([0, 3])
    loss = lambda weight, given: supervised.make(0, 5, smoothing=0.1, auxiliary_weight=weight).loss(given, None, {}, {}, labels, None)  # noqa: E731
    alone, second = loss(0.0, outputs), loss(0.0, outputs._replace(logits=outputs.auxiliary))
    np.testing.assert_allclose(loss(0.4, outputs), alone + 0.4 * second, rtol=1e-6)
    np.testing.assert_allclose(loss(0.4, outputs._replace(auxiliary=None)), alone, rtol=1e-6)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="blocks"):
        inception_v4.make(5, blocks=(1, 1))
    with pytest.raises(ValueError, match="width"):
        inception_v4.make(5, width=0.0)
    small = jax.ShapeDtypeStruct((1, 106, 106, 3), jnp.float32)
    with pytest.raises(ValueError, match="107 x 107 pixels at least"):
        jax.eval_shape(inception_v4.make(5, blocks=(0, 0, 0), auxiliary=True).init, jax.random.key(0), small)
    large = jax.ShapeDtypeStruct((1, 107, 107, 3), jnp.float32)
    jax.eval_shape(inception_v4.make(5, blocks=(0, 0, 0), auxiliary=True).init, jax.random.key(0), large)
