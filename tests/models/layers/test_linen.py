"""The last linear layer: at every position it gives logits whose averages are the logits of averaged features."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models import cifar_resnet, maxvit, mobilenet_v2, resnet
from edd.models.layers import linen

FEATURES = jax.random.normal(jax.random.key(0), (3, 7, 7, 5))


class Head(nn.Module):
    @nn.compact
    def __call__(self, x):
        return linen.head(x.mean((1, 2)), 4, positions=x)


def bins(count: int, positions: int = 7) -> np.ndarray:
    """Weights [count, positions] of torch's adaptive average pooling, whose bins overlap."""
    weights = np.zeros((count, positions), np.float32)
    for index in range(count):
        weights[index, index * positions // count : -(-(index + 1) * positions // count)] = 1
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("grid", [1, 2, 4, 7])
def test_pooled_logits_are_the_logits_of_pooled_features(grid):
    variables = Head().init(jax.random.key(1), FEATURES)
    outputs = Head().apply(variables, FEATURES)
    assert outputs.positions.shape == (3, 49, 4)
    pool = lambda x: jnp.einsum("ih,jw,bhwk->bijk", bins(grid), bins(grid), x)  # noqa: E731
    pooled_logits = pool(outputs.positions.reshape(3, 7, 7, 4))  # positions run row by row
    pooled_features = pool(FEATURES) @ variables["params"]["output"]["kernel"]
    np.testing.assert_allclose(pooled_logits, pooled_features + variables["params"]["output"]["bias"][None, None, None], atol=1e-4)
    if grid == 1:
        np.testing.assert_allclose(pooled_logits[:, 0, 0], outputs.logits, atol=1e-5)


def test_positions_are_exact_where_the_network_is_not():
    variables = Head().init(jax.random.key(1), FEATURES)
    outputs = Head().apply(variables, FEATURES.astype(jnp.bfloat16))
    assert {each.dtype for each in jax.tree.leaves(outputs)} == {jnp.dtype("float32")} and outputs.positions is not None


MODELS = {
    "cifar_resnet": lambda **options: cifar_resnet.make(3, depth=8, widths=(16, 16, 16), **options),
    "resnet": lambda **options: resnet.make(3, blocks=(1,), channels=8, stem="cifar", **options),
    "mobilenet_v2": lambda **options: mobilenet_v2.make(3, stages=((2, 8, 1, 2),), width=0.25, last=12, **options),
    "maxvit": lambda **options: maxvit.make(3, image_size=32, channels=(8,), depths=(1,), stem=4, head_dim=4, **options),
}


def random_weights(shapes):
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return rng.normal(scale=np.prod(leaf.shape[:-1]) ** -0.5, size=leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)


@pytest.mark.parametrize("name", MODELS)
def test_positions_change_nothing_else(name):
    image = jax.random.normal(jax.random.key(2), (2, 8, 16, 3))
    plain, tiles = MODELS[name](), MODELS[name](positions=True)
    shapes, again = (jax.eval_shape(model.init, jax.random.key(3), image) for model in (plain, tiles))
    assert jax.tree.structure(shapes) == jax.tree.structure(again)
    run = jax.jit(
        lambda v: [m.apply(v, image, train=False)[0] for m in (plain, tiles)], compiler_options={"xla_backend_optimization_level": 0}
    )
    alone, both = run(random_weights(shapes))
    assert alone.positions is None and both.positions.shape[::2] == (2, 3) and both.positions.shape[1] > 1
    np.testing.assert_allclose(alone.logits, both.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alone.penultimate, both.penultimate, rtol=1e-5, atol=1e-5)
    gap = float(jnp.abs(both.positions.mean(1) - both.logits).max())
    assert gap > 1e-3 if name == "maxvit" else gap < 1e-4, "the mean over positions is the logits where the head is linear, and only there"
