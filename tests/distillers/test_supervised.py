"""Training on labels needs no teachers."""

import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import supervised
from edd.models.base import Outputs


def test_loss_is_cross_entropy_and_smoothing_has_its_range():
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
    loss = supervised.make(0, 3).loss(Outputs(logits, logits), None, {}, {}, jnp.array([1]), None)
    np.testing.assert_allclose(loss, -np.log(0.2), rtol=1e-6)
    with pytest.raises(ValueError, match="smoothing must lie in"):
        supervised.make(0, 3, smoothing=1.5)
