"""Masked sub-models are the networks with masked weights, their diversity is the mutual information, and training leaves the base alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import masks as method
from edd.ensembles import masks
from edd.losses import penalties
from edd.models import mlp

M, K, B, D = 3, 4, 5, 6
NETWORK = mlp.make(K, widths=(8, 7))
INPUTS = jax.random.normal(jax.random.key(0), (B, 2, 3))
BASE = NETWORK.init(jax.random.key(1), INPUTS)
BASE = {"params": jax.tree.map(lambda leaf: leaf + 0.1, BASE["params"])}  # biases that are not zero


def entropy(p):
    return -(p * np.log(p) + (1 - p) * np.log1p(-p))


@pytest.mark.parametrize("hard", [False, True])
def test_a_sub_model_is_the_network_with_masked_weights(hard):
    model = masks.make(BASE, M, hard=hard)
    variables = model.init(jax.random.key(2), INPUTS)
    outputs, state = model.apply(variables, INPUTS, train=False)
    assert state == {} and outputs.logits.shape == (B, M * K) and outputs.penultimate.shape == (B, M * 7)
    for member in range(M):
        params = {}
        for name, layer in BASE["params"].items():
            logits = {mask: np.asarray(leaf[member]) for mask, leaf in variables["params"][name].items()}
            opened = {mask: (leaf > 0) if hard else 1 / (1 + np.exp(-leaf)) for mask, leaf in logits.items()}
            row = opened.get("row", np.ones(layer["bias"].shape))
            params[name] = {"kernel": layer["kernel"] * np.outer(opened["column"], row), "bias": layer["bias"] * row}
        alone = NETWORK.apply({"params": params}, INPUTS, train=False)[0].logits
        np.testing.assert_allclose(outputs.logits.reshape(B, M, K)[:, member], alone, rtol=1e-4, atol=1e-5)


def test_open_masks_are_the_network_itself():
    model = masks.make(BASE, M, hard=True, mask_inputs=False)
    variables = jax.tree.map(jnp.ones_like, model.init(jax.random.key(2), INPUTS))
    assert "column" not in variables["params"]["Dense_0"] and "row" not in variables["params"]["output"]
    whole = NETWORK.apply(BASE, INPUTS, train=False)[0].logits
    np.testing.assert_allclose(model.apply(variables, INPUTS, train=False)[0].logits, jnp.tile(whole, (1, M)), rtol=1e-6, atol=1e-6)


def test_number_of_masks():
    shape = jax.eval_shape(lambda key: mlp.make(10, widths=(4096, 2048)).init(key, jnp.zeros((1, 784))), jax.random.key(0))
    count = lambda inputs: sum(  # noqa: E731
        leaf.size
        for leaf in jax.tree.leaves(
            jax.eval_shape(
                lambda key, base: masks.make(base, 10, mask_inputs=inputs).init(key, None, shared=base), jax.random.key(0), shape
            )
        )
    )
    assert count(True) == 130_820 - 10 * 10 and count(False) == 122_880


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [([1.0] * 5 + [0.0] * 5, np.log(2)), ([1.0] + [0.0] * 9, 0.325083), ([0.1] * 5 + [0.9] * 5, 0.368064), ([0.5] * 10, 0.0)],
)
def test_information_values(probabilities, expected):
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.log(probabilities) - np.log1p(-np.asarray(probabilities)), jnp.float32)
    assert float(penalties.bernoulli_information(logits)) == pytest.approx(expected, abs=2e-6)


def test_information_is_the_difference_of_entropies_and_its_gradient_the_formula():
    with jax.enable_x64(True):
        logits = jnp.asarray(np.random.default_rng(0).normal(size=(10, 4)) * 3)
        p = 1 / (1 + np.exp(-np.asarray(logits)))
        expected = entropy(p.mean(0)) - entropy(p).mean(0)
        np.testing.assert_allclose(penalties.bernoulli_information(logits), expected, rtol=1e-12)
        gradient = jax.grad(lambda x: penalties.bernoulli_information(x).sum())(logits)
        mean = np.log(p.mean(0)) - np.log1p(-p.mean(0))
        np.testing.assert_allclose(gradient, (np.asarray(logits) - mean) / 10 * p * (1 - p), rtol=1e-9)


def test_information_is_finite_at_any_logit_and_flat_where_members_agree():
    logits = jnp.array([[1e4, -1e4, 60.0, 3.0], [-1e4, -1e4, -60.0, 3.0]], jnp.float32)
    value, gradient = penalties.bernoulli_information(logits), jax.grad(lambda x: penalties.bernoulli_information(x).sum())(logits)
    np.testing.assert_allclose(value, [np.log(2), 0.0, np.log(2), 0.0], atol=1e-6)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[:, 3].any()


def test_regularisers():
    params = masks.make(BASE, M).init(jax.random.key(2), INPUTS)["params"]
    each = [np.asarray(penalties.bernoulli_information(leaf)) for leaf in jax.tree.leaves(params)]
    assert float(masks.diversity(params, "sum")) == pytest.approx(sum(e.sum() for e in each), rel=1e-5)
    assert float(masks.diversity(params)) == pytest.approx(np.concatenate(each).mean(), rel=1e-5)
    sigmoid = lambda leaf: 1 / (1 + np.exp(-np.asarray(leaf, np.float64)))  # noqa: E731
    by_layer = []
    for layer in params.values():
        p = [sigmoid(layer[name]) for name in ("column", "row") if name in layer]
        p = p[0][..., None] * p[1][:, None] if len(p) == 2 else p[0]
        by_layer.append((entropy(p.mean(0)) - entropy(p).mean(0)).mean())
    assert float(masks.diversity(params, "matrix")) == pytest.approx(np.mean(by_layer), rel=1e-4)
    with pytest.raises(ValueError, match="regulariser must be one of"):
        masks.diversity(params, "none")


def test_the_loss_is_the_mean_cross_entropy_less_the_weighted_diversity():
    model = masks.make(BASE, M)
    distiller = method.make(M, K, model, weight=2.0)
    variables = model.init(jax.random.key(2), INPUTS)
    outputs, _ = model.apply(variables, INPUTS, train=True)
    labels = jnp.arange(B) % K
    log_probs = np.asarray(jax.nn.log_softmax(outputs.logits.reshape(B, M, K)))
    expected = -log_probs[np.arange(B), :, np.asarray(labels)].mean(-1)
    np.testing.assert_allclose(distiller.loss(outputs, None, {}, {}, labels, None), expected, rtol=1e-5)
    assert float(distiller.penalty(variables, {}, {}, None)) == pytest.approx(-2 * float(masks.diversity(variables["params"])))
    whole = distiller.predict(outputs, {}, {}, None)
    np.testing.assert_allclose(np.exp(whole.log_probs), np.exp(log_probs).mean(1), rtol=1e-5)


def test_mistakes():
    for base, message in (
        (mlp.make(K, widths=(4,), layer_norm=True).init(jax.random.key(0), INPUTS), "masks need the parameters of models.mlp"),
        ({"params": {"output": {"kernel": jnp.ones((2, 2))}}}, "masks need"),
    ):
        with pytest.raises(ValueError, match=message):
            masks.make(base, M)
    with pytest.raises(ValueError, match="num_members must be at least 2"):
        masks.make(BASE, 1)
    with pytest.raises(ValueError, match="weight must be"):
        method.make(M, K, masks.make(BASE, M), weight=-1.0)
