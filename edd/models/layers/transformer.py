"""Stacks of pre-norm Transformer layers: an encoder, and a decoder that reads a whole target or writes one step at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from edd.models.layers.attention import EPSILON, Attention, FeedForward
from edd.models.layers.dropout import dropout
from edd.typing import Array, Bool, Float, Int, KeyArray

DRAWS = 8  # dropout layers of one Transformer layer, at most
DECODER = 1 << 16  # the first draw of a decoder; an encoder's start at 0


class Shape(NamedTuple):
    """Sizes of a stack: width d, layers, heads, width of the feed-forward layers."""

    width: int
    layers: int
    heads: int
    hidden: int


class Drops(NamedTuple):
    """Dropout of one pass: one key per example or None, whether it trains, rates after sublayers, on attention and on the ReLU."""

    keys: KeyArray[Array, "B"] | None = None
    train: bool = False
    residual: float = 0.0
    attention: float = 0.0
    relu: float = 0.0

    def at(self, rate: str, layer: int) -> Callable:
        """The dropout called `rate` as a function of activations [B, ...]; `layer` numbers its draw."""
        return lambda x: dropout(self.keys, x, getattr(self, rate), layer, train=self.train)


class Cache(NamedTuple):
    """What a decoder keeps between steps.

    The slots of self-attention are never moved: hypothesis n writes to slot (step, n), and `ancestors` says which slot of each earlier
    step lies on its path. Reordering the hypotheses reorders this small table alone.

    Attributes:
      memories: per layer (keys, values) [B, H, L N, d / H] of the tokens written so far, slot (step, n) at step * N + n.
      sources: per layer (keys, values) [B, H, S, d / H] of the encoded source, shared by the hypotheses.
      source_mask: [B, S], False at padding.
      ancestors: [B, N, L] int32.
    """

    memories: tuple
    sources: tuple
    source_mask: Array
    ancestors: Array


def norm(dtype: Any, name: str | None = None) -> nn.LayerNorm:
    """The layer norm used throughout, scale and bias, epsilon 1e-6."""
    return nn.LayerNorm(epsilon=EPSILON, dtype=dtype, name=name)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward layer, each on normed inputs and added to what came in."""

    shape: Shape
    dtype: Any
    first_draw: int

    @nn.compact
    def __call__(self, x: Float[Array, "B S d"], mask: Bool[Array, "B S"], drops: Drops) -> Float[Array, "B S d"]:
        at = lambda rate, draw: drops.at(rate, self.first_draw + draw)  # noqa: E731
        attention = Attention(self.shape.width, self.shape.heads, self.dtype, name="attention")
        normed = norm(self.dtype, "attention_norm")(x)
        x = x + at("residual", 0)(attention(normed, attention.memory(normed), mask[:, None], at("attention", 1)))
        feed = FeedForward(self.shape.width, self.shape.hidden, self.dtype, name="feed_forward")
        return x + at("residual", 2)(feed(norm(self.dtype, "feed_forward_norm")(x), at("relu", 3)))


class Encoder(nn.Module):
    """`shape.layers` encoder layers and a last norm."""

    shape: Shape
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B S d"], mask: Bool[Array, "B S"], drops: Drops) -> Float[Array, "B S d"]:
        x = drops.at("residual", 0)(x)
        for index in range(self.shape.layers):
            x = EncoderLayer(self.shape, self.dtype, (1 + index) * DRAWS, name=f"layer_{index}")(x, mask, drops)
        return norm(self.dtype, "norm")(x)


class DecoderLayer(nn.Module):
    """Self-attention over what was written, attention to the source, feed-forward layer; pre-norm."""

    shape: Shape
    dtype: Any
    first_draw: int

    def setup(self):
        width, heads = self.shape.width, self.shape.heads
        self.attention, self.source_attention = (Attention(width, heads, self.dtype) for _ in range(2))
        self.feed_forward = FeedForward(width, self.shape.hidden, self.dtype)
        self.attention_norm, self.source_attention_norm, self.feed_forward_norm = (norm(self.dtype) for _ in range(3))

    def __call__(self, x, mask, source, source_mask, drops: Drops, extend: Callable | None = None):
        """(outputs [B, L, d], memory): `extend` makes of the newest tokens' keys and values those that `mask` [B, L, *] speaks of."""
        at = lambda rate, draw: drops.at(rate, self.first_draw + draw)  # noqa: E731
        normed = self.attention_norm(x)
        memory = self.attention.memory(normed)
        kept = memory if extend is None else extend(memory)
        x = x + at("residual", 0)(self.attention(normed, kept, mask, at("attention", 1)))
        normed = self.source_attention_norm(x)
        x = x + at("residual", 2)(self.source_attention(normed, source, source_mask[:, None], at("attention", 3)))
        return x + at("residual", 4)(self.feed_forward(self.feed_forward_norm(x), at("relu", 5))), kept


class Decoder(nn.Module):
    """`shape.layers` decoder layers and a last norm; `start` and `step` are the same network one token at a time."""

    shape: Shape
    dtype: Any = None

    def setup(self):
        self.layers = [
            DecoderLayer(self.shape, self.dtype, DECODER + (1 + index) * DRAWS, name=f"layer_{index}") for index in range(self.shape.layers)
        ]
        self.norm = norm(self.dtype)

    def __call__(
        self, x: Float[Array, "B L d"], encoded: Float[Array, "B S d"], source_mask: Bool[Array, "B S"], drops: Drops
    ) -> Float[Array, "B L d"]:
        """Every position sees itself and those before it. Padding at the end of a target therefore needs no mask."""
        x = drops.at("residual", DECODER)(x)
        causal = jnp.tril(jnp.ones((1, x.shape[1], x.shape[1]), bool))
        for layer in self.layers:
            x, _ = layer(x, causal, layer.source_attention.memory(encoded), source_mask, drops)
        return self.norm(x)

    def start(self, encoded: Float[Array, "B S d"], source_mask: Bool[Array, "B S"], num_hypotheses: int, length: int) -> Cache:
        """An empty cache for `length` steps of `num_hypotheses` hypotheses per source."""
        batch, heads = encoded.shape[0], self.shape.heads
        empty = jnp.zeros((batch, heads, length * num_hypotheses, self.shape.width // heads), encoded.dtype)
        sources = tuple(layer.source_attention.memory(encoded) for layer in self.layers)
        memories = tuple((empty, empty) for _ in self.layers)
        return Cache(memories, sources, source_mask, jnp.zeros((batch, num_hypotheses, length), jnp.int32))

    def step(self, x: Float[Array, "B N d"], cache: Cache, parents: Int[Array, "B N"], index: Int[Array, ""]) -> tuple[Array, Cache]:
        """(outputs [B, N, d], cache) after hypothesis n took over the path of hypothesis parents[b, n] and got the input x[b, n]."""
        batch, count, length = cache.ancestors.shape
        own, steps = jnp.arange(count, dtype=jnp.int32), jnp.arange(length)
        paths = jnp.take_along_axis(cache.ancestors, parents[..., None], 1)
        paths = jnp.where((steps == index)[None, None], own[None, :, None], paths)
        seen = (paths[..., None] == own[None, None, None]) & (steps <= index)[None, None, :, None]
        mask = seen.reshape(batch, count, length * count)

        memories = []
        for layer, memory, source in zip(self.layers, cache.memories, cache.sources):
            x, kept = layer(x, mask, source, cache.source_mask, Drops(), lambda fresh, memory=memory: _write(memory, fresh, index))
            memories.append(kept)
        return self.norm(x), cache._replace(memories=tuple(memories), ancestors=paths)


def _write(memory: tuple[Array, Array], fresh: tuple[Array, Array], index: Array) -> tuple[Array, Array]:
    """`memory` [B, H, L N, D] with `fresh` [B, H, N, D] at step `index`; a reshape here would cost a copy of the whole cache."""
    return jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), index * new.shape[2], 2), memory, fresh
    )
