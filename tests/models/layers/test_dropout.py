"""Dropout: its rate, its expectation, and whose key each mask comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models.layers.dropout import dropout


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drops_at_its_rate_and_keeps_the_mean(rate):
    out = np.asarray(dropout(keys(500), jnp.ones((500, 200)), rate, layer=1, train=True))
    dropped = float((out == 0).mean())
    deviation = (rate * (1 - rate) / out.size) ** 0.5
    assert abs(dropped - rate) < 5 * deviation
    np.testing.assert_allclose(out[out > 0], 1 / (1 - rate), rtol=1e-6)


def test_mask_is_the_examples_own():
    x = jnp.ones((4, 3, 50))
    together = dropout(keys(4), x, 0.5, layer=0, train=True)
    for i in range(4):
        np.testing.assert_array_equal(dropout(keys(4)[i : i + 1], x[:1], 0.5, layer=0, train=True)[0], together[i])
    assert not np.array_equal(together[0], together[1])


def test_layers_draw_independently():
    x = jnp.ones((1, 1000))
    first, second = (np.asarray(dropout(keys(1), x, 0.5, layer=layer, train=True)) > 0 for layer in (0, 1))
    assert 0.4 < (first == second).mean() < 0.6


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero():
    x = jnp.arange(6.0).reshape(2, 3)
    assert dropout(None, x, 0.5, layer=0, train=False) is x
    assert dropout(None, x, 0.0, layer=0, train=True) is x


def test_bad_arguments_are_refused():
    x = jnp.ones((2, 3))
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"dropout rate must lie in \[0, 1\)"):
            dropout(keys(2), x, rate, layer=0, train=True)
    with pytest.raises(ValueError, match="got none"):
        dropout(None, x, 0.5, layer=0, train=True)
    with pytest.raises(ValueError, match=r"must have shape \(2,\)"):
        dropout(keys(3), x, 0.5, layer=0, train=True)
