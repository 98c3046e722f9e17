"""EnD's optimum is the members' mean, at the temperature it was trained at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import end
from edd.losses import distillation
from edd.models.base import Outputs


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_equals_the_loss_on_members_and_vanishes_at_the_mean(temperature):
    rng = np.random.default_rng(0)
    member_logits = jnp.asarray(rng.normal(size=(4, 5, 3)), jnp.float32)
    logits = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    distiller = end.make(4, 3, temperature=temperature)
    targets = distiller.targets(member_logits)
    loss = lambda z: distiller.loss(Outputs(z, z), targets, {}, {}, None, None)  # noqa: E731
    expected = distillation.end(logits, jax.nn.log_softmax(member_logits), temperature)
    np.testing.assert_allclose(loss(logits), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(temperature * targets), 0.0, atol=1e-6)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        end.make(2, 3, temperature=0.0)
