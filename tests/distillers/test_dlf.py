"""The latent factor student's loss and predictions in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import dlf
from edd.distributions.latent_factor import Posterior
from edd.losses import latent_factor as losses
from edd.models.base import Outputs

M, N, Q = 3, 4, 2


def drawn():
    rng = np.random.default_rng(0)
    members = np.stack([rng.normal(size=(M, N)), rng.uniform(0.1, 2, size=(M, N))], -1)
    posterior = Posterior(jnp.asarray(rng.normal(size=(M, Q)), jnp.float32), jnp.array([[0.5, 0.1], [0.1, 0.3]]))
    return jnp.asarray(members, jnp.float32), jnp.asarray(rng.normal(size=(N, Q + 2)), jnp.float32), posterior


def test_the_loss_is_q_for_each_member_and_the_noises():
    members, outputs, posterior = drawn()
    distiller = dlf.make(M, latent_dim=Q)
    state = distiller.init(jax.random.key(0))[1] | {"posterior": posterior, "noise_variance": jnp.float32(0.4)}
    found = distiller.loss(Outputs(outputs, None), distiller.targets(members), {}, state, None, None)
    wanted = losses.negative_q(members[..., 0] - outputs[None, :, 0], outputs[:, 1 : 1 + Q], posterior, 0.4) / M
    np.testing.assert_allclose(found, wanted + 0.5 * (outputs[:, -1] - jnp.log(members[..., 1]).mean(0)) ** 2, rtol=1e-5)


@pytest.mark.parametrize("include_noise", [False, True])
def test_draws_have_the_students_mean_and_covariance_and_one_latent_for_all_inputs(include_noise):
    _, outputs, _ = drawn()
    distiller = dlf.make(M, latent_dim=Q, num_samples=20_000, include_noise=include_noise)
    state = distiller.init(jax.random.key(0))[1] | {"noise_variance": jnp.float32(5.0)}
    found = distiller.predict(Outputs(outputs, None), {}, state, jax.random.key(1))
    np.testing.assert_allclose(found.means.mean(0), outputs[:, 0], atol=1e-4)  # exactly: draws come in pairs
    loading = np.asarray(outputs[:, 1 : 1 + Q])
    wanted = loading @ loading.T
    np.testing.assert_allclose(np.cov(np.asarray(found.means).T), wanted, atol=0.05 * np.abs(wanted).max())
    extra = 5.0 if include_noise else 0.0
    np.testing.assert_allclose(found.variances.mean(0) - extra, np.exp(outputs[:, -1]), rtol=0.02)
