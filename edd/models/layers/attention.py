"""Parts of Transformers: attention with memory that may be cached, feed-forward layer, sinusoidal timing."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from edd.typing import Array, Bool, Float, Int

GLOROT = nn.initializers.glorot_uniform()
EPSILON = 1e-6
LONGEST_PERIOD = 1e4  # positions, over 2 pi


def timing(positions: Int[Array, "..."], width: int) -> Float[Array, "... d"]:
    """Sinusoidal signal of each position: sines in the first half of the channels, cosines in the second; in [-1, 1].

    Channel i of each half has the angular frequency 10^(-4 i / (d / 2 - 1)).

    Args:
      positions: integers >= 0, traced or not; there is no table to run out of.
      width: d, even and at least 4.

    Returns:
      float32 signal, one row per position.

    References:
      Vaswani et al. 2017, "Attention Is All You Need", section 3.5 (there sines and cosines alternate: a permutation of the channels).

    Examples:
      >>> timing(jnp.array([0, 1]), 4).round(4).tolist()
      [[0.0, 0.0, 1.0, 1.0], [0.8414999842643738, 9.999999747378752e-05, 0.5403000116348267, 1.0]]
    """
    half = width // 2
    rates = LONGEST_PERIOD ** (-jnp.arange(half) / (half - 1))
    angles = jnp.asarray(positions)[..., None].astype(jnp.float32) * rates.reshape((1,) * jnp.ndim(positions) + (-1,))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def identity(x: Array) -> Array:
    """`x`: what takes dropout's place in evaluation."""
    return x


class Attention(nn.Module):
    """Multi-head attention without biases. What is attended to is `memory`, (keys, values) each [B, H, K, d / H], computed once."""

    width: int
    heads: int
    dtype: Any = None

    def setup(self):
        dense = functools.partial(nn.Dense, self.width, use_bias=False, kernel_init=GLOROT, dtype=self.dtype)
        self.query, self.key, self.value, self.output = dense(), dense(), dense(), dense()

    def split(self, x: Array) -> Array:
        """[B, Q, d] -> [B, H, Q, d / H]."""
        return jnp.swapaxes(x.reshape(*x.shape[:-1], self.heads, self.width // self.heads), 1, 2)

    def memory(self, x: Float[Array, "B K d"]) -> tuple[Array, Array]:
        """Keys and values of `x`."""
        return self.split(self.key(x)), self.split(self.value(x))

    def __call__(
        self, x: Float[Array, "B Q d"], memory: tuple[Array, Array], mask: Bool[Array, "B #Q K"], drop: Callable = identity
    ) -> Float[Array, "B Q d"]:
        """The values mixed by softmax(query key / sqrt(d / H)) over the entries that `mask` allows; zero where it allows none."""
        keys, values = memory
        query = self.split(self.query(x)) * (self.width // self.heads) ** -0.5
        scores = jnp.einsum("bhqd,bhkd->bhqk", query, keys)
        scores = jnp.where(mask[:, None], scores, jnp.finfo(scores.dtype).min).astype(jnp.promote_types(scores.dtype, jnp.float32))
        weights = drop(jax.nn.softmax(scores)).astype(values.dtype)
        mixed = jnp.swapaxes(jnp.einsum("bhqk,bhkd->bhqd", weights, values), 1, 2)
        mixed = jnp.where(jnp.any(mask, -1)[..., None, None], mixed, 0)
        return self.output(mixed.reshape(x.shape))


class FeedForward(nn.Module):
    """Two linear layers with biases and a ReLU between."""

    width: int
    hidden: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B L d"], drop: Callable = identity) -> Float[Array, "B L d"]:
        dense = functools.partial(nn.Dense, kernel_init=GLOROT, dtype=self.dtype)
        return dense(self.width, name="outer")(drop(nn.relu(dense(self.hidden, name="inner")(x))))
