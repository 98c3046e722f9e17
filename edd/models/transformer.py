"""Encoder-decoder Transformer: pre-norm, one matrix for the embeddings of both languages and the output layer."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from edd.models.base import Decoding, Model, Outputs
from edd.models.layers import linen
from edd.models.layers.attention import timing
from edd.models.layers.transformer import Decoder, Drops, Encoder, Shape
from edd.typing import Array, Int

SIZES = {
    "tiny": Shape(128, 2, 4, 512),
    "small": Shape(256, 3, 4, 1024),
    "base": Shape(512, 6, 8, 2048),
    "big": Shape(1024, 6, 16, 4096),
}
PADDING = 0  # the id that counts for nothing in a source


class TiedOutputs(nn.Module):
    """The table of words: embeddings times sqrt(d) plus timing on the way in, the output layer (without bias) on the way out."""

    vocabulary: int
    width: int
    dtype: Any = None

    def setup(self):
        self.table = self.param("embedding", nn.initializers.normal(self.width**-0.5), (self.vocabulary, self.width))

    def embed(self, ids: Int[Array, "B L"], positions: Int[Array, " L"]) -> Array:
        """[B, L, d]; an id below 0 or beyond the table gives NaN, which training and evaluation report."""
        words = linen.rows(self.table, ids) * self.width**0.5
        return (words + timing(positions, self.width)[None].astype(words.dtype)).astype(self.dtype or words.dtype)

    def outputs(self, hidden: Array) -> Outputs:
        """Logits over the table, in float32 or better."""
        penultimate = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
        return Outputs(penultimate @ self.table.T, penultimate)


class Translator(nn.Module):
    """The Linen module behind `make`."""

    vocabulary: int
    shape: Shape
    dtype: Any = None

    def setup(self):
        self.words = TiedOutputs(self.vocabulary, self.shape.width, self.dtype)
        self.encoder = Encoder(self.shape, self.dtype)
        self.decoder = Decoder(self.shape, self.dtype)

    def encoded(self, x: dict, drops: Drops) -> tuple[Array, Array]:
        """(hidden [B, S, d], mask [B, S])."""
        source = x["source"]
        mask = source != PADDING
        return self.encoder(self.words.embed(source, jnp.arange(source.shape[1])), mask, drops), mask

    def __call__(self, x: dict, drops: Drops) -> Outputs:
        target = x["target"]
        inputs = self.words.embed(target, jnp.arange(target.shape[1]))
        return self.words.outputs(self.decoder(inputs, *self.encoded(x, drops), drops))

    def start(self, x: dict, num_hypotheses: int, length: int):
        """The decoder's cache for the sources of `x`."""
        return self.decoder.start(*self.encoded(x, Drops()), num_hypotheses, length)

    def step(self, cache, tokens: Array, parents: Array, index: Array):
        """(logits [B, N, V], cache)."""
        hidden, cache = self.decoder.step(self.words.embed(tokens, index[None]), cache, parents, index)
        return self.words.outputs(hidden).logits, cache


def make(
    num_classes: int,
    *,
    size: str = "base",
    width: int = 0,
    num_layers: int = 0,
    num_heads: int = 0,
    hidden: int = 0,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    relu_dropout: float = 0.1,
    max_length: int = 1024,
    dtype: Any = None,
    axis_name: str | None = None,
) -> Model:
    """Transformer from token ids to the next token's logits, for translation.

    Norms come before each sublayer and at the end of both stacks; attention has no biases, the feed-forward layers have; one matrix
    [V, d] embeds source and target (times sqrt(d), plus sinusoidal timing) and is the output layer, which has no bias.
    "base" has 44,103,680 + 512 V parameters.

    Args:
      num_classes: V, words of the vocabulary that both languages share, V >= 2; id 0 is padding.
      size: "tiny" (2 layers of width 128), "small" (3, 256), "base" (6, 512) or "big" (6, 1024).
      width, num_layers, num_heads, hidden: replace those of `size` where not 0; `num_heads` divides `width`, which is even, >= 4.
      dropout: after embeddings and every sublayer, in [0, 1).
      attention_dropout: on the attention weights, in [0, 1).
      relu_dropout: inside the feed-forward layers, in [0, 1).
      max_length: longest source and target, >= 1. Timing is computed, so this bounds memory, not a table.
      dtype: computation type of both stacks (parameters, logits and penultimate activations stay float32); None: float32.
      axis_name: accepted for uniformity.

    Returns:
      `Model` with `decoding`; inputs are {"source": ids [B, S], "target": ids [B, L]}, the target being what the decoder reads: a start
      id and all tokens but the last. Padding of the source is masked; a source of padding alone has nothing to attend to and the
      decoder goes on without it. `templates` are the table and zeros.

    Raises:
      ValueError: sizes or rates out of range; inputs of wrong shape, of no tokens or longer than `max_length`. TypeError: inputs
        that are not integers.

    References:
      Vaswani et al. 2017, "Attention Is All You Need" (sizes); Vaswani et al. 2018, "Tensor2Tensor" (layout: pre-norm, no biases).

    Examples:
      >>> model = make(50, size="tiny", num_layers=1)
      >>> x = {"source": jnp.array([[5, 6, 2, 0]]), "target": jnp.array([[1, 7, 8]])}
      >>> variables = model.init(jax.random.key(0), x)
      >>> model.apply(variables, x, train=False, rngs=None)[0].logits.shape
      (1, 3, 50)
    """
    del axis_name
    shape = resolve(num_classes, size, width, num_layers, num_heads, hidden)
    rates = dropouts(dropout, attention_dropout, relu_dropout)
    linen.positive_integers("max_length", (max_length,))
    return as_model(Translator(num_classes, shape, dtype), rates, functools.partial(check_tokens, max_length=max_length), max_length)


def resolve(num_classes: int, size: str, width: int, num_layers: int, num_heads: int, hidden: int) -> Shape:
    """The `Shape` that the options of `make` name; ValueError for values out of range."""
    linen.positive_integers("num_classes", (num_classes,), minimum=2)
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    given = linen.positive_integers("width, num_layers, num_heads and hidden", (width, num_layers, num_heads, hidden), minimum=0)
    shape = Shape(*(own or preset for own, preset in zip(given, SIZES[size])))
    if shape.width % 2 or shape.width < 4:
        raise ValueError(f"width must be even and at least 4, got {shape.width}")
    if shape.width % shape.heads:
        raise ValueError(f"num_heads must divide width {shape.width}, got {shape.heads}")
    return shape


def dropouts(dropout: float, attention_dropout: float, relu_dropout: float) -> Drops:
    """The three rates, checked."""
    rates = {"dropout": dropout, "attention_dropout": attention_dropout, "relu_dropout": relu_dropout}
    for name, rate in rates.items():
        linen.fraction(name, rate)
    return Drops(residual=dropout, attention=attention_dropout, relu=relu_dropout)


def entry(x: Any, name: str) -> Array:
    """`x[name]`; ValueError unless `x` is a dict that has it."""
    if not isinstance(x, dict) or name not in x:
        raise ValueError(f'inputs must be a dict with "source" and "target", got {sorted(x) if isinstance(x, dict) else type(x).__name__}')
    return x[name]


def check_ids(x: Any, name: str, max_length: int) -> None:
    """Raises unless `x[name]` holds token ids [B, L] with 1 <= L <= `max_length`."""
    ids = entry(x, name)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers (token ids), got {ids.dtype}")
    if ids.ndim != 2 or ids.shape[1] < 1:
        raise ValueError(f"{name} must be [B, L] with at least one position, got shape {ids.shape}")
    if ids.shape[1] > max_length:
        raise ValueError(f"{name} must have at most {max_length} positions (max_length), got {ids.shape[1]}")


def check_tokens(x: Any, target: bool, *, max_length: int) -> None:
    """Raises unless `x` holds sources and, where `target`, as many targets."""
    check_ids(x, "source", max_length)
    if target:
        check_ids(x, "target", max_length)
        if x["source"].shape[0] != x["target"].shape[0]:
            raise ValueError(f"source {x['source'].shape} and target {x['target'].shape} must have the same batch size")


def as_model(module: nn.Module, rates: Drops, check, max_length: int) -> Model:
    """`Model` of a module with `__call__(x, drops)`, `start`, `step` and a submodule `words`; `check(x, target)` looks at the inputs."""

    def init(key, example):
        check(example, True)
        return module.init(key, jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), example), Drops())

    def apply(variables, x, *, train, rngs=None):
        check(x, True)
        drops = rates._replace(keys=None if rngs is None else rngs.get("dropout"), train=train)
        return module.apply(variables, x, drops), {}

    def templates(variables):
        table = variables["params"]["words"]["embedding"]
        return table, jnp.zeros(table.shape[0], table.dtype)

    def encode(variables, x, *, num_hypotheses: int, length: int):
        check(x, False)
        linen.positive_integers("num_hypotheses and length", (num_hypotheses, length))
        if length > max_length:
            raise ValueError(f"length must be at most {max_length} (max_length), got {length}")
        return module.apply(variables, x, num_hypotheses, length, method="start")

    def decode_step(variables, cache, tokens, parents, index):
        return module.apply(variables, cache, tokens, parents, jnp.asarray(index), method="step")

    return Model(init, apply, templates, decoding=Decoding(encode, decode_step))
