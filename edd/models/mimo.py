"""A backbone that looks at several examples at once (MIMO): their last axes (channels, features) are concatenated."""

import jax.numpy as jnp

from edd.models.base import Model


def make(backbone: Model, num_inputs: int) -> Model:
    """`backbone` on M inputs side by side: [B, M, *S, C] -> [B, *S, M * C]. In evaluation the same input M times.

    Cost: that of the backbone; only its first layer grows.

    Args:
      backbone: any model; its first layer takes M times the channels of one example.
      num_inputs: M >= 1.

    Returns:
      `Model`. `apply` takes [B, M, *S] in training and [B, *S] in evaluation; `init` takes an example [B, *S] of one input.

    Raises:
      ValueError: when called, training inputs whose axis 1 is not M, or inputs without a channel or feature axis.

    References:
      Havasi et al. 2021, "Training Independent Subnetworks for Robust Prediction", figure 1.

    Examples:
      >>> import jax
      >>> from edd.models import mlp
      >>> model = make(mlp.make(6, widths=(8,)), 3)
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 2)))
      >>> model.apply(variables, jnp.ones((5, 3, 2)), train=True)[0].logits.shape
      (5, 6)
      >>> model.apply(variables, jnp.ones((5, 2)), train=False)[0].logits.shape
      (5, 6)
    """

    def repeated(x):
        if x.ndim < 2:
            raise ValueError(f"inputs must be a batch [B, *S] with at least 2 axes, got shape {tuple(x.shape)}")
        return jnp.concatenate([x] * num_inputs, -1)

    def side_by_side(x):
        if x.ndim < 3 or x.shape[1] != num_inputs:
            raise ValueError(f"training inputs must be [B, {num_inputs}, *S], one example per network input, got shape {tuple(x.shape)}")
        return jnp.concatenate([x[:, index] for index in range(num_inputs)], -1)

    def apply(variables, x, *, train, rngs=None):
        return backbone.apply(variables, side_by_side(x) if train else repeated(x), train=train, rngs=rngs)

    return Model(lambda key, example: backbone.init(key, repeated(jnp.zeros(example.shape))), apply, backbone.templates)
