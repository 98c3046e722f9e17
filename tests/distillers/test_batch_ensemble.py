"""BatchEnsemble in regression: what its members learn, and what is special to the factors."""

import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import batch_ensemble
from edd.models.base import Outputs

VARIABLES = {"params": {"layer": {"kernel": jnp.full((2, 2), 7.0), "r": jnp.array([1.5, 1.0]), "s": jnp.array([[0.0, 1.0]])}}}


def test_each_member_learns_its_own_and_their_noise_is_shared():
    rng = np.random.default_rng(0)
    members = np.stack([rng.normal(size=(3, 5)), rng.uniform(0.1, 2, size=(3, 5))], -1)
    outputs = rng.normal(size=(5, 3, 2))  # of each member a mean and a log-variance
    distiller = batch_ensemble.make(3)
    targets = distiller.targets(jnp.asarray(members, jnp.float32))
    found = distiller.loss(Outputs(jnp.asarray(outputs.reshape(5, 6), jnp.float32), None), targets, {}, {}, None, None)
    noise = 0.5 * (outputs[..., 1].mean(1) - np.log(members[..., 1]).mean(0)) ** 2
    np.testing.assert_allclose(found, 0.5 * ((outputs[..., 0].T - members[..., 0]) ** 2).mean(0) + noise, rtol=1e-5)


@pytest.mark.parametrize(("options", "weight"), [({}, 0), ({"averaging": "mask"}, 1e-4 / 3), ({"averaging": "mask", "decay": 2.0}, 2)])
def test_factors_are_pulled_to_one_where_members_are_merged(options, weight):
    penalty = batch_ensemble.make(3, **options).penalty
    if not weight:
        assert penalty is None
        return
    np.testing.assert_allclose(penalty(VARIABLES, {}, {}, None), weight * 1.25, rtol=1e-6)  # 0.5^2 + 1; the kernel is free


def test_gradients_of_factors_alone_are_scaled_where_members_are_merged():
    assert batch_ensemble.make(3).gradient_transform is None
    found = batch_ensemble.make(3, averaging="factors").gradient_transform(VARIABLES)["params"]["layer"]
    assert found["r"].tolist() == [4.5, 3.0] and found["s"].tolist() == [[0.0, 3.0]] and float(found["kernel"].max()) == 7
