"""The annealing of EnD2, and what its targets store."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import end2
from edd.losses import distribution
from edd.models.base import Outputs


def test_temperature_holds_then_falls_linearly_to_one():
    distiller = end2.make(2, 3, initial_temperature=10.0, hold_steps=30, decay_steps=30)
    at = lambda step: float(distiller.update(None, {}, {}, {}, jnp.int32(step))[2]["temperature"])  # noqa: E731
    assert [at(step) for step in (0, 30, 45, 60, 500)] == pytest.approx([10.0, 10.0, 5.5, 1.0, 1.0])


def test_annealed_at_temperature_one_equals_the_plain_loss():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)), jnp.float32)
    plain, annealed = end2.make(4, 3), end2.make(4, 3, initial_temperature=10.0, decay_steps=1)
    assert plain.update is None and annealed.targets(logits).shape == (5, 4, 3) and plain.targets(logits).shape == (5, 3)
    outputs, key = Outputs(logits[0], logits[0]), jax.random.key(0)
    expected = distribution.end2(logits[0], jax.nn.log_softmax(logits), target_smoothing=1e-3)
    np.testing.assert_allclose(plain.loss(outputs, plain.targets(logits), {}, {}, None, key), expected, rtol=1e-5, atol=1e-6)
    state = {"temperature": jnp.float32(1.0)}
    np.testing.assert_allclose(annealed.loss(outputs, annealed.targets(logits), {}, state, None, key), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"initial_temperature": 0.5}, {"target_smoothing": 2.0}, {"variant": "sideways"}, {"hold_steps": -1}, {"offset": -1.0}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        end2.make(2, 3, **options)
