"""Low-rank adapters: the layer, its merge, and splitting parameters into trained and frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models.layers import lora


def layer(rank=2, alpha=5.0, **options):
    module = lora.LoRADense(4, rank=rank, alpha=alpha, **options)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)), jnp.float32)
    return module, module.init(jax.random.key(0), x)["params"], x


def test_output_is_the_formula():
    module, params, x = layer()
    b = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4)), jnp.float32)
    params = {**params, "bias": params["bias"] + 1.0, "lora_b": {"kernel": b}}
    expected = np.asarray(x) @ params["kernel"] + 1.0 + 5.0 / 2 * np.asarray(x) @ params["lora_a"]["kernel"] @ params["lora_b"]["kernel"]
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, atol=1e-5)
    merged = lora.merge(params, 5.0)
    np.testing.assert_allclose(x @ merged["kernel"] + merged["bias"][None], expected, atol=1e-5)


def test_only_b_starts_at_zero():
    _, params, _ = layer()
    assert not params["lora_b"]["kernel"].any() and params["lora_a"]["kernel"].all()


def test_rank_zero_is_a_plain_layer():
    _, params, _ = layer(rank=0)
    assert set(params) == {"kernel", "bias"}
    assert lora.merge(params, 5.0) is params


def test_dropout_acts_on_the_adapter_alone():
    module, params, x = layer(dropout=0.5)
    keys = jax.random.split(jax.random.key(1), 3)
    np.testing.assert_allclose(
        module.apply({"params": params}, x, train=True, keys=keys), module.apply({"params": params}, x), atol=1e-6
    )  # B is zero
    params = {**params, "lora_b": {"kernel": jnp.ones((2, 4))}}
    assert not np.allclose(module.apply({"params": params}, x, train=True, keys=keys), module.apply({"params": params}, x), atol=1e-3)


def test_split_and_combine_are_inverse():
    params = {"output": {"kernel": 1}, "encoder": {"a": {"kernel": 2, "lora_a": 3}, "norm": {"scale": 4}}}
    mine, body = lora.split(params, ("output",))
    assert mine == {"output": {"kernel": 1}, "encoder": {"a": {"lora_a": 3}}}
    assert lora.combine(body, mine) == params
    assert lora.combine({"w": 1}, {"w": 2}) == {"w": 2}


@pytest.mark.parametrize("count", [1, 3])
def test_size_counts_bytes(count):
    assert lora.size({"a": {"w": jnp.zeros((count, 2))}}) == 8 * count
