"""Gradients smoothed over steps, single layers' rates and decay, alone and inside the optimisers by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.training import optimizers, transforms

WEIGHTS = ({"params": {"hidden": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "output": {"kernel": jnp.full((2, 1), 2.0)}}}, {})


def steps(optimizer, gradients, weights=WEIGHTS):
    state = optimizer.init(weights)
    for gradient in gradients:
        updates, state = optimizer.update(jax.tree.map(lambda leaf, g=gradient: jnp.full_like(leaf, g), weights), state, weights)
        yield updates


def test_smoothed_gradients_at_rate_one_are_momentum_at_a_tenth():
    gradients = [1.0, -2.0, 0.5, 3.0]
    smooth = optimizers.make("sgd", 1.0, total_steps=4, momentum=0.0, gradient_smoothing=0.9)
    momentum = optimizers.make("sgd", 0.1, total_steps=4, momentum=0.9)
    expected = 0.0
    for gradient, left, right in zip(gradients, steps(smooth, gradients), steps(momentum, gradients)):
        expected = 0.9 * expected + 0.1 * gradient
        for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
            np.testing.assert_allclose(one, -expected, rtol=1e-5)
            np.testing.assert_allclose(other, -expected, rtol=1e-5)


def test_a_layer_has_its_own_rate():
    (updates,) = steps(optimizers.make("adam", 0.5, total_steps=4, layer_rates={"output": 0.1}), [1.0])
    np.testing.assert_allclose(updates[0]["params"]["hidden"]["kernel"], -0.5, rtol=1e-5)
    np.testing.assert_allclose(updates[0]["params"]["output"]["kernel"], -0.05, rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_touches_the_named_layers_kernels_alone(name):
    (updates,) = steps(optimizers.make(name, 0.5, total_steps=4, weight_decay=0.1, decay_layers=("output",)), [0.0])
    layers = updates[0]["params"]
    np.testing.assert_array_equal(layers["hidden"]["kernel"], 0)
    np.testing.assert_array_equal(layers["hidden"]["bias"], 0)
    np.testing.assert_allclose(layers["output"]["kernel"], -0.5 * 0.1 * 2.0, rtol=1e-6)


def test_linear_to_zero_ends_at_zero():
    schedule = optimizers.make_schedule("linear", 1.0, total_steps=100)
    np.testing.assert_allclose([schedule(step) for step in (0, 50, 99, 100)], [1.0, 0.5, 0.01, 0.0], atol=1e-6)


def test_what_no_layer_has_is_refused():
    with pytest.raises(ValueError, match="unknown layer 'last': known: hidden, output"):
        optimizers.make("sgd", 1.0, total_steps=1, layer_rates={"last": 0.1}).init(WEIGHTS)
    decayed = optimizers.make("sgd", 1.0, total_steps=1, weight_decay=0.1, decay_layers=("local5",))
    with pytest.raises(ValueError, match="unknown layer 'local5': known: hidden, output"):
        list(steps(decayed, [0.0]))
    with pytest.raises(ValueError, match="at least 0"):
        transforms.scale_layers({"output": -1.0})
    with pytest.raises(ValueError, match="decay of the gradients"):
        optimizers.make("sgd", 1.0, total_steps=1, gradient_smoothing=1.0)
