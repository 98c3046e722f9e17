"""Several inputs side by side: the channels of each input meet their own weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models import cnn, mimo, mlp

BACKBONES = {
    "mlp": (lambda: mlp.make(4, widths=(8,)), (5,)),
    "mlp on images": (lambda: mlp.make(4, widths=(8,)), (6, 6, 2)),
    "cnn": (lambda: cnn.make(4, channels=(3,), kernels=(3,), hidden=8, batch_norm=True), (6, 6, 2)),
}


@pytest.fixture(params=BACKBONES)
def network(request):
    make, shape = BACKBONES[request.param]
    model = mimo.make(make(), 3)
    return model, model.init(jax.random.key(0), jnp.zeros((1, *shape))), shape


def test_evaluation_is_the_same_input_everywhere(network):
    model, variables, shape = network
    x = jax.random.normal(jax.random.key(1), (4, *shape))
    outputs, state = model.apply(variables, x, train=False)
    assert outputs.logits.shape == (4, 4) and state == {}
    if "batch_stats" not in variables:
        np.testing.assert_allclose(outputs.logits, model.apply(variables, jnp.stack([x] * 3, 1), train=True)[0].logits, atol=1e-6)


def test_each_input_has_weights_of_its_own(network):
    model, variables, shape = network
    x = jax.random.normal(jax.random.key(1), (4, 3, *shape))
    plain = model.apply(variables, x, train=True)[0].logits
    swapped = model.apply(variables, x[:, ::-1], train=True)[0].logits
    assert float(jnp.abs(plain - swapped).max()) > 1e-3


def test_images_are_joined_on_channels():
    model = mimo.make(cnn.make(4, channels=(3,), kernels=(3,), hidden=8), 2)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)))
    assert variables["params"]["Conv_0"]["kernel"].shape == (3, 3, 2, 3)
    x = jax.random.normal(jax.random.key(1), (4, 2, 6, 6, 1))
    inner = cnn.make(4, channels=(3,), kernels=(3,), hidden=8)
    expected = inner.apply(variables, jnp.moveaxis(x[..., 0], 1, -1), train=False)[0].logits
    np.testing.assert_allclose(model.apply(variables, x, train=True)[0].logits, expected, atol=1e-6)


def test_wrong_inputs_are_refused(network):
    model, variables, shape = network
    with pytest.raises(ValueError, match=r"training inputs must be \[B, 3, \*S\]"):
        model.apply(variables, jnp.zeros((4, 2, *shape)), train=True)
    with pytest.raises(ValueError, match="at least 2 axes"):
        model.apply(variables, jnp.zeros((4,)), train=False)
