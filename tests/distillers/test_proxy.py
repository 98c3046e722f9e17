"""The proxy distiller: optimum, options, and the size of what it stores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import proxy
from edd.models.base import Outputs


@pytest.mark.parametrize("prior,extra", [("paper", 0.0), ("authors", 3.0)])
def test_reverse_gradient_vanishes_where_exp_z_is_precision_times_mean(prior, extra):
    member_logits = jnp.asarray(np.random.default_rng(1).normal(size=(4, 5, 3)), jnp.float32)
    distiller = proxy.make(4, 3, prior=prior)
    target = distiller.targets(member_logits)
    optimum = target.log_mean_probs + jnp.log(target.precision + extra)[:, None]
    gradient = jax.grad(lambda z: distiller.loss(Outputs(z, z), target, {}, {}, None, None).sum())(optimum)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
    prediction = distiller.predict(Outputs(optimum, optimum), {}, {}, None)
    np.testing.assert_allclose(prediction.precision, target.precision + extra, rtol=1e-5)


def test_targets_are_members_times_smaller_than_their_logits():
    member_logits = jnp.zeros((10, 7, 100)) + jnp.arange(10.0)[:, None, None]
    stored = sum(leaf.size for leaf in jax.tree.leaves(proxy.make(10, 100).targets(member_logits)))
    assert stored == 7 * 100 + 7


@pytest.mark.parametrize("logit", [-500.0, -80.0, 80.0, 500.0])
def test_predictions_stay_finite_at_extreme_logits(logit):
    logits = jnp.array([[logit, 0.0, -3.0], [logit, logit, logit]], jnp.float32)
    prediction = proxy.make(2, 3).predict(Outputs(logits, logits), {}, {}, None)
    for field in prediction:
        assert bool(jnp.isfinite(field).all())


@pytest.mark.parametrize("options", [{"direction": "up"}, {"estimator": "x"}, {"prior": "x"}, {"offset": -1.0}, {"predict_offset": -1.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        proxy.make(2, 3, **options)
