"""The sum over a filter's places against XLA's grouped convolution, values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models.layers.depthwise import depthwise_convolution


def inputs(height=7, width=6, channels=3, kernel=(3, 3)):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(2, height, width, channels)), jnp.float32), jnp.asarray(
        rng.normal(size=(*kernel, 1, channels)), jnp.float32
    )


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 1), (1, 1)), ((0, 2), (3, 1))])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 2)])
def test_equals_the_grouped_convolution(strides, padding, kernel):
    x, filters = inputs(kernel=kernel)

    def total(function, x, filters):
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 3, "precision": "highest"}
        y = function(x, filters, strides, padding, **options)
        return (y**2).sum(), y

    gradient = jax.value_and_grad(total, (1, 2), has_aux=True)
    own, theirs = (gradient(function, x, filters) for function in (depthwise_convolution, jax.lax.conv_general_dilated))
    assert own[0][1].shape == theirs[0][1].shape
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), own, theirs)


@pytest.mark.parametrize("padding", ["SAME", 1])
def test_as_a_layer(padding):
    x = inputs()[0].astype(jnp.float32)
    layer = nn.Conv(3, (3, 3), 2, padding=padding, feature_group_count=3)
    variables = layer.init(jax.random.key(0), x)
    own = layer.clone(conv_general_dilated=depthwise_convolution)
    assert jax.tree.map(jnp.shape, own.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
    np.testing.assert_allclose(own.apply(variables, x), layer.apply(variables, x), atol=1e-6)
    half = nn.Conv(3, (3, 3), padding=padding, feature_group_count=3, dtype=jnp.bfloat16, conv_general_dilated=depthwise_convolution)
    assert half.apply(variables, x).dtype == jnp.bfloat16


def test_errors():
    x, filters = inputs()
    with pytest.raises(ValueError, match="3 channels needs a filter"):
        depthwise_convolution(x, filters[..., :2], (1, 1), "SAME")
    with pytest.raises(ValueError, match="1 groups"):
        depthwise_convolution(x, filters, (1, 1), "SAME", feature_group_count=1)
    with pytest.raises(ValueError, match="dilation must be 1"):
        depthwise_convolution(x, filters, (1, 1), "SAME", rhs_dilation=(1, 2))
