"""MobileNetV2's two ways of padding."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models import mobilenet_v2


@pytest.mark.parametrize(("padding", "expected"), [("same", [[9, 6], [6, 4]]), ("symmetric", [[4, 6], [6, 9]])])
def test_tensorflow_pads_an_even_image_at_its_end_and_torch_on_both_sides(padding, expected):
    class Convolution(nn.Module):
        @nn.compact
        def __call__(self, x):
            return mobilenet_v2.Layer(None, padding, None)(x, 1, 3, 2, "conv", "", active=False)

    image = jnp.ones((1, 4, 4, 1))
    ones = jax.tree.map(jnp.ones_like, Convolution().init(jax.random.key(0), image))
    np.testing.assert_array_equal(Convolution().apply(ones, image)[0, :, :, 0] - 1, expected)  # the bias is 1 too
