"""The latent as a head: zero weights give the mean function, and every function of the law is within reach."""

import jax
import jax.numpy as jnp
import numpy as np

from edd.distributions import latent_factor
from edd.models import latent_head


def test_weights_are_a_latent_of_the_model():
    factor = jnp.tril(jax.random.normal(jax.random.key(0), (3, 3)))
    mean, loading = jax.random.normal(jax.random.key(1), (5, 3)), jax.random.normal(jax.random.key(2), (5, 2))
    inputs = jnp.concatenate([mean, loading], -1)
    model = latent_head.make(factor)
    variables = model.init(jax.random.key(3), inputs)
    np.testing.assert_array_equal(model.apply(variables, inputs, train=False)[0].logits, mean)
    key = jax.random.key(4)
    drawn = latent_factor.sample(key, mean, loading, factor, num_samples=1)[0]
    latent = jax.random.normal(jax.random.split(key)[0], (1, 3, 2))[0]
    found = model.apply({"params": {"latent": latent}}, inputs, train=False)[0].logits
    np.testing.assert_allclose(found, drawn, rtol=1e-5, atol=1e-6)
