"""BatchEnsemble layers: member m is the plain layer with its own rank-one weights, and merging gives the plain network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models import batch_ensemble_mlp, bert, cnn, mlp, wide_resnet
from edd.models.layers import batch_ensemble

M, K = 3, 2
NETWORKS = {
    "cnn": (cnn.make, {"channels": (4, 5), "hidden": 6, "batch_norm": True}, (8, 8, 1)),
    "cnn_bias": (cnn.make, {"channels": (4, 5), "hidden": 6}, (8, 8, 1)),
    "wide_resnet": (wide_resnet.make, {"depth": 10, "widen": 1}, (8, 8, 3)),
    "bert": (
        bert.make,
        {
            "rank": 2,
            "architecture": {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16},
        },
        (7, 2),
    ),
}


def example(name, shape):
    if name == "bert":
        return jax.random.randint(jax.random.key(0), (4, *shape), 0, 2).at[..., 0].add(1 + jnp.arange(7)[None])
    return jax.random.normal(jax.random.key(0), (4, *shape))


def initialised(model, inputs):
    """Variables with adapters that do something: their second matrix starts at zero."""
    variables = model.init(jax.random.key(1), inputs)
    shift = lambda path, leaf: leaf + (jax.random.normal(jax.random.key(2), leaf.shape) if path[-2].key == "lora_b" else 0)  # noqa: E731
    return {**variables, "params": jax.tree_util.tree_map_with_path(shift, variables["params"])}


def one_member(tree, member):
    """Plain parameters of one member of a tree with factors."""
    if not isinstance(tree, dict):
        return tree
    if "r" not in tree:
        return {name: one_member(each, member) for name, each in tree.items()}
    kernel = np.asarray(tree["kernel"]) * np.multiply.outer(np.asarray(tree["r"][member]), np.asarray(tree["s"][member]))
    return {"kernel": kernel} | ({"bias": tree["bias"][member]} if "bias" in tree else {})


@pytest.mark.parametrize("name", NETWORKS)
def test_each_member_is_a_plain_network(name):
    make, options, shape = NETWORKS[name]
    model, plain = make(M * K, num_members=M, factor_init="normal", **options), make(K, **options)
    inputs = example(name, shape)
    variables = initialised(model, inputs)
    outputs, _ = model.apply(variables, inputs, train=False, rngs=None)
    assert outputs.logits.shape == (4, M * K)
    shapes = jax.tree.map(jnp.shape, plain.init(jax.random.key(0), inputs))
    for member in range(M):
        alone = {**variables, "params": one_member(variables["params"], member)}
        assert jax.tree.map(jnp.shape, alone) == shapes
        found = plain.apply(alone, inputs, train=False, rngs=None)[0].logits
        np.testing.assert_allclose(outputs.logits.reshape(4, M, K)[:, member], found, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_members_merge_into_their_network(name):
    make, options, shape = NETWORKS[name]
    model = make(M * K, num_members=M, factor_init="ones", **options)
    inputs = example(name, shape)
    variables = model.init(jax.random.key(1), inputs)
    before = model.apply(variables, inputs, train=False, rngs=None)[0].logits.reshape(4, M, K)
    for averaging in ("mask", "factors"):
        plain, merged = model.merge(variables, averaging)
        after = plain.apply(merged, inputs, train=False, rngs=None)[0].logits
        np.testing.assert_allclose(before, jnp.broadcast_to(after[:, None], before.shape), rtol=1e-4, atol=1e-5)


def test_training_updates_the_shared_batch_statistics():
    model = cnn.make(M * K, num_members=M, batch_norm=True, channels=(4,), kernels=(3,), hidden=5)
    inputs = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
    variables = model.init(jax.random.key(1), inputs)
    _, state = model.apply(variables, inputs, train=True, rngs=None)
    assert float(jnp.abs(state["batch_stats"]["BatchNorm_0"]["mean"]).max()) > 0


def test_perceptrons_merge_too_and_plain_networks_do_not():
    model = batch_ensemble_mlp.make(M * K, num_members=M, widths=(5,), factor_init="ones", activation="tanh")
    inputs = jax.random.normal(jax.random.key(0), (4, 3))
    variables = model.init(jax.random.key(1), inputs)
    plain, merged = model.merge(variables, "mask")
    before = model.apply(variables, inputs, train=False, rngs=None)[0].logits
    np.testing.assert_allclose(before[:, :K], plain.apply(merged, inputs, train=False, rngs=None)[0].logits, rtol=1e-5)
    assert mlp.make(2).merge is None and cnn.make(2).merge is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cnn.make(5, num_members=2), "multiple of num_members"),
        (lambda: cnn.make(4, num_members=-1), "multiple of num_members"),
        (lambda: cnn.make(4, num_members=2, factor_init="x"), "factor_init must be one of"),
        (lambda: wide_resnet.make(4, depth=10, num_members=2, dropout=0.1), "dropout must be 0"),
        (lambda: batch_ensemble.merge({"kernel": None, "r": None, "s": None}, "x"), "averaging must be one of"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
