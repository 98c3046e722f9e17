"""Dropout whose draw depends on the example's own key alone."""

import jax
import jax.numpy as jnp

from edd.typing import Array, Float, KeyArray


def dropout(
    keys: KeyArray[Array, "B"] | None, inputs: Float[Array, "B *S"], rate: float, layer: int, *, train: bool
) -> Float[Array, "B *S"]:
    """Zeroes each entry with probability `rate` and divides the others by `1 - rate`; unitless.

    Example b draws its mask from `fold_in(keys[b], layer)`, so the mask does not depend on the batch it is in, nor on how a
    batch is spread over devices.

    Args:
      keys: one typed key per example, [B]; may be None when nothing is dropped.
      inputs: activations, [B, *S].
      rate: probability of dropping an entry, in [0, 1).
      layer: static index of this dropout layer in the network; two layers must not share one.
      train: False returns `inputs` unchanged.

    Returns:
      Array of `inputs`' shape; `inputs` itself when `train` is False or `rate` is 0.

    Raises:
      ValueError: `rate` outside [0, 1), or no keys where some are needed, or not one key per example.

    References:
      Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> dropped = dropout(keys, jnp.ones((3, 8)), 0.5, layer=0, train=True)
      >>> sorted(set(dropped.ravel().tolist()))
      [0.0, 2.0]
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"dropout rate must lie in [0, 1), got {rate}")
    if not train or rate == 0.0:
        return inputs
    if keys is None:
        raise ValueError('a training pass with dropout needs rngs={"dropout": keys [B]}, one typed key per example; got none')
    if keys.shape != inputs.shape[:1]:
        raise ValueError(f"dropout keys must have shape {inputs.shape[:1]}, one typed key per example, got {keys.shape}")

    def kept(key):
        return jax.random.bernoulli(jax.random.fold_in(key, layer), 1.0 - rate, inputs.shape[1:])

    return jnp.where(jax.vmap(kept)(keys), inputs / (1.0 - rate), jnp.zeros_like(inputs))
