"""Hydra's heads against what they must learn, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from edd.distillers import hydra
from edd.models.base import Outputs

M, N = 3, 5


def drawn():
    rng = np.random.default_rng(0)
    members = np.stack([rng.normal(size=(M, N)), rng.uniform(0.1, 2, size=(M, N))], -1)
    return members, rng.normal(size=(N, M + 1))


def test_each_head_learns_its_own_member():
    members, outputs = drawn()
    distiller = hydra.make(M)
    targets = distiller.targets(jnp.asarray(members, jnp.float32))
    found = distiller.loss(Outputs(jnp.asarray(outputs, jnp.float32), None), targets, {}, {}, None, None)
    noise = 0.5 * (outputs[:, -1] - np.log(members[..., 1]).mean(0)) ** 2
    np.testing.assert_allclose(found, 0.5 * ((outputs[:, :M].T - members[..., 0]) ** 2).mean(0) + noise, rtol=1e-5)


def test_heads_equal_to_their_members_predict_the_members_functions():
    members, _ = drawn()
    distiller = hydra.make(M)
    perfect = np.concatenate([members[..., 0].T, np.log(members[..., 1]).mean(0)[:, None]], 1)
    outputs = Outputs(jnp.asarray(perfect, jnp.float32), None)
    assert float(distiller.loss(outputs, distiller.targets(jnp.asarray(members, jnp.float32)), {}, {}, None, None).max()) < 1e-10
    state = distiller.init(jax.random.key(0))[1]
    np.testing.assert_allclose(distiller.predict(outputs, {}, state, jax.random.key(1)).means, members[..., 0], rtol=1e-6)
