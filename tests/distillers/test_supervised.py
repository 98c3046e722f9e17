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


def test_scale_variant_and_prior_reach_the_loss():
    logits, labels = jnp.array([[2.0, 0.0, -1.0]]), jnp.array([1])
    loss = lambda **options: supervised.make(0, 3, **options).loss(Outputs(logits, logits), None, {}, {}, labels, None)  # noqa: E731
    np.testing.assert_allclose(loss(scale=3.0, smoothing=0.1), 3 * loss(smoothing=0.1), rtol=1e-6)
    np.testing.assert_allclose(loss(smoothing=0.1, variant="others"), loss(smoothing=0.15), rtol=1e-6)
    np.testing.assert_allclose(loss(smoothing=0.3, prior=(0.0, 1.0, 0.0)), loss(), rtol=1e-6)
    for options, message in (
        ({"scale": 0.0}, "scale must be above 0"),
        ({"auxiliary_weight": -0.1}, "auxiliary_weight at least 0"),
        ({"variant": "t2t"}, "variant must be one of"),
        ({"prior": (0.5, 0.5)}, "prior must have shape"),
        ({"smoothing": -0.1}, "smoothing must lie in"),
    ):
        with pytest.raises(ValueError, match=message):
            supervised.make(0, 3, **options)
