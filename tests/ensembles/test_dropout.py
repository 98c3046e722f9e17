"""Monte-Carlo dropout members are functions: one mask for all inputs, another for each member, the right share of units dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.ensembles import dropout, members
from edd.models import mlp, wide_resnet

MODEL = mlp.make(2, widths=(64,), dropout=0.25)
VARIABLES = MODEL.init(jax.random.key(0), jnp.zeros((1, 3)))
INPUTS = jax.random.normal(jax.random.key(1), (7, 3))


def outputs(num_members=5, inputs=INPUTS, key=2):
    model, variables = dropout.as_members(MODEL, VARIABLES, jax.random.key(key), num_members)
    return members.apply(model, variables, inputs)


def test_a_member_gives_the_same_output_for_the_same_input_wherever_it_stands():
    whole = outputs().logits
    turned = outputs(inputs=INPUTS[::-1]).logits[:, ::-1]
    alone = jnp.concatenate([outputs(inputs=INPUTS[i : i + 1]).logits for i in range(7)], 1)
    np.testing.assert_allclose(whole, turned, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs(num_members=2).logits, whole[:2])


def test_members_differ_and_drop_their_own_units_at_all_inputs():
    found = outputs(num_members=50)
    assert float(jnp.abs(found.logits[0] - found.logits[1]).max()) > 1e-3
    plain = MODEL.apply(VARIABLES, INPUTS, train=False, rngs=None)[0].penultimate
    active = plain > 0
    dropped = (found.penultimate == 0) & active[None]
    share = dropped.sum((0, 1)) / (50 * active.sum(0).clip(1))
    assert abs(float(dropped.sum() / (50 * active.sum())) - 0.25) < 0.03 and float(share.max()) < 0.6
    everywhere = (dropped == active[None]).all(1) | (~dropped).all(1)  # a unit is dropped at every input or at none
    assert bool(everywhere.all())
    np.testing.assert_allclose(found.penultimate.mean(0)[active].mean(), plain[active].mean(), rtol=0.05)


def test_networks_whose_training_pass_sees_the_batch_are_refused():
    model = wide_resnet.make(2, depth=10, widen=1)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    with pytest.raises(ValueError, match="without BatchNorm"):
        dropout.as_members(model, variables, jax.random.key(0), 2)
    with pytest.raises(ValueError, match="num_members"):
        dropout.as_members(MODEL, VARIABLES, jax.random.key(0), 0)
