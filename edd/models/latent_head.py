"""The head of a distilled latent factor student that learns new labels: its latent as the only weights."""

import jax.numpy as jnp

from edd.models.base import Model, Outputs
from edd.typing import Array


def make(class_factor: Array) -> Model:
    """Logits mean + L W loading on inputs [mean | loading]; W [K, q] is trained from 0, the law's mean function.

    Args:
      class_factor: L [K, K].

    Returns:
      `Model` of inputs [B, K + q]; it has no linear output layer, so `templates` gives None.

    References:
      arXiv 2510.19290, section 4 (mean, loading and L as body, the latent as weights); specification 5.4.

    Examples:
      >>> import jax
      >>> model = make(jnp.eye(2))
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 5)))
      >>> model.apply(variables, jnp.ones((3, 5)), train=False)[0].logits.shape, variables["params"]["latent"].shape
      ((3, 2), (2, 3))
    """
    num_classes = class_factor.shape[0]

    def init(key, example):
        del key
        return {"params": {"latent": jnp.zeros((num_classes, example.shape[-1] - num_classes))}}

    def apply(variables, x, *, train=False, rngs=None):
        del train, rngs
        mean, loading = x[..., :num_classes], x[..., num_classes:]
        return Outputs(mean + loading @ (class_factor @ variables["params"]["latent"]).T, x), {}

    return Model(init, apply, lambda variables: None)
