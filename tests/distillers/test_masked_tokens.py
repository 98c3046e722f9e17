"""The masked-token loss."""

import jax.numpy as jnp
import numpy as np

from edd.distillers import masked_tokens
from edd.models.base import Outputs


def test_loss_is_the_mean_over_the_tokens_to_restore():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.3, 0.5]], [[1.0, 1.0, 1.0]] * 3]))
    labels = jnp.array([[0, -1, 1], [-1, -1, -1]])
    found = masked_tokens.make().loss(Outputs(logits, logits), None, {}, {}, labels, None)
    np.testing.assert_allclose(found, [-(np.log(0.5) + np.log(0.3)) / 2, 0.0], atol=1e-6)
