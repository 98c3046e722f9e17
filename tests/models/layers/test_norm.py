"""Batch normalisation against its definition in float64 numpy."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from edd.models.layers.norm import batch_norm


class Layer(nn.Module):
    options: dict

    @nn.compact
    def __call__(self, x, train):
        return batch_norm(train=train, **self.options)(x)


@pytest.mark.parametrize(("momentum", "epsilon"), [(0.9, 1e-5), (0.5, 0.1)])
def test_matches_the_definition(momentum, epsilon):
    layer = Layer({"momentum": momentum, "epsilon": epsilon})
    x = np.random.default_rng(0).normal(3.0, 2.0, (7, 4, 4, 5)).astype(np.float32)
    variables = layer.init(jax.random.key(0), x, False)
    out, state = layer.apply(variables, x, True, mutable=["batch_stats"])
    wide = x.astype(np.float64)
    mean, variance = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    np.testing.assert_allclose(out, (wide - mean) / np.sqrt(variance + epsilon), rtol=1e-4, atol=1e-5)
    statistics = state["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(statistics["mean"], (1 - momentum) * mean, rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], momentum + (1 - momentum) * variance, rtol=1e-5)
    evaluated = layer.apply({**variables, **state}, x, False)
    expected = (wide - np.asarray(statistics["mean"])) / np.sqrt(np.asarray(statistics["var"], np.float64) + epsilon)
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("options", "message"), [({"momentum": 1.0}, "momentum"), ({"epsilon": 0.0}, "epsilon")])
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        batch_norm(train=True, **options)
