"""Speech recognition: log-mel features through two strided convolutions and a Transformer encoder, and the translator's decoder."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from edd.models import transformer
from edd.models.base import Model, Outputs
from edd.models.layers import linen
from edd.models.layers.attention import GLOROT, timing
from edd.models.layers.transformer import Decoder, Drops, Encoder, Shape
from edd.typing import Array, Bool, Float, Int

STRIDE, KERNEL = 2, 3


class StridedConvolution(nn.Module):
    """Convolution over time, kernel 3, stride 2, one frame of zeros at either end, then a GELU.

    Written as one matrix product on three neighbouring frames side by side, which under vmap stays one: a convolution would become
    a grouped one, slow on CPU.
    """

    width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], mask: Bool[Array, "B T"]) -> tuple[Array, Array]:
        """(outputs [B, ceil(T / 2), d], their mask); what is masked counts as zeros."""
        x = jnp.where(mask[..., None], x, 0)
        steps = -(-x.shape[1] // STRIDE)
        padded = jnp.pad(x, ((0, 0), (1, STRIDE * steps + 1 - x.shape[1]), (0, 0)))
        patches = jnp.concatenate([padded[:, shift : shift + STRIDE * steps : STRIDE] for shift in range(KERNEL)], -1)
        return nn.gelu(nn.Dense(self.width, kernel_init=GLOROT, dtype=self.dtype)(patches)), mask[:, ::STRIDE]


class Recogniser(nn.Module):
    """The Linen module behind `make`."""

    vocabulary: int
    shape: Shape
    dtype: Any = None

    def setup(self):
        self.words = transformer.TiedOutputs(self.vocabulary, self.shape.width, self.dtype)
        self.convolutions = [StridedConvolution(self.shape.width, self.dtype) for _ in range(2)]
        self.encoder = Encoder(self.shape, self.dtype)
        self.decoder = Decoder(self.shape, self.dtype)

    def encoded(self, x: dict, drops: Drops) -> tuple[Array, Array]:
        """(hidden [B, ceil(T / 4), d], mask)."""
        hidden = x["source"]
        mask = frame_mask(x.get("length"), *hidden.shape[:2])
        for convolution in self.convolutions:
            hidden, mask = convolution(hidden, mask)
        signal = timing(jnp.arange(hidden.shape[1]), self.shape.width)
        return self.encoder(hidden + signal[None].astype(hidden.dtype), mask, drops), mask

    def __call__(self, x: dict, drops: Drops) -> Outputs:
        target = x["target"]
        inputs = self.words.embed(target, jnp.arange(target.shape[1]))
        return self.words.outputs(self.decoder(inputs, *self.encoded(x, drops), drops))

    def start(self, x: dict, num_hypotheses: int, length: int):
        """The decoder's cache for the utterances of `x`."""
        return self.decoder.start(*self.encoded(x, Drops()), num_hypotheses, length)

    def step(self, cache, tokens: Array, parents: Array, index: Array):
        """(logits [B, N, V], cache)."""
        hidden, cache = self.decoder.step(self.words.embed(tokens, index[None]), cache, parents, index)
        return self.words.outputs(hidden).logits, cache


def frame_mask(length: Int[Array, " B"] | None, batch: int, frames: int) -> Bool[Array, "B T"]:
    """True for the first `length` frames of each utterance; all of them where no length is given.

    Examples:
      >>> frame_mask(jnp.array([1, 3]), 2, 3).tolist()
      [[True, False, False], [True, True, True]]
    """
    if length is None:
        return jnp.ones((batch, frames), bool)
    return jnp.arange(frames)[None] < jnp.asarray(length)[:, None]


def make(
    num_classes: int,
    *,
    size: str = "small",
    width: int = 0,
    num_layers: int = 0,
    num_heads: int = 0,
    hidden: int = 0,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    relu_dropout: float = 0.1,
    max_frames: int = 4096,
    max_length: int = 1024,
    dtype: Any = None,
    axis_name: str | None = None,
) -> Model:
    """Attention encoder-decoder from log-mel features to tokens.

    Two convolutions over time (kernel 3, stride 2, GELU) bring F features at the frame rate to d at a quarter of it; timing, the
    Transformer's encoder and decoder follow (`transformer.make`). The table of tokens is embedding and output layer.

    Args:
      num_classes: V >= 2, tokens; id 0 is padding.
      size: "tiny", "small", "base" or "big", see `transformer.SIZES`.
      width, num_layers, num_heads, hidden: replace those of `size` where not 0.
      dropout, attention_dropout, relu_dropout: rates in [0, 1), as in `transformer.make`.
      max_frames: longest source, >= 1.
      max_length: longest target, >= 1.
      dtype: computation type of both stacks; None: float32.
      axis_name: accepted for uniformity.

    Returns:
      `Model` with `decoding`; inputs are {"source": features [B, T, F], "length": frames that count [B] (all where it is missing),
      "target": ids [B, L]}. An utterance of length 0 has nothing to attend to and the decoder goes on without it.

    Raises:
      ValueError: sizes or rates out of range; inputs of wrong shape, without frames or longer than allowed. TypeError: features that
        are not floating point, ids or lengths that are not integers.

    References:
      Vaswani et al. 2017, "Attention Is All You Need"; Mohamed et al. 2019, "Transformers with convolutional context for ASR".

    Examples:
      >>> model = make(12, size="tiny", num_layers=1)
      >>> x = {"source": jnp.zeros((1, 9, 40)), "length": jnp.array([7]), "target": jnp.array([[1, 7, 8]])}
      >>> import jax
      >>> variables = model.init(jax.random.key(0), x)
      >>> model.apply(variables, x, train=False, rngs=None)[0].logits.shape
      (1, 3, 12)
    """
    del axis_name
    shape = transformer.resolve(num_classes, size, width, num_layers, num_heads, hidden)
    rates = transformer.dropouts(dropout, attention_dropout, relu_dropout)
    linen.positive_integers("max_frames and max_length", (max_frames, max_length))

    def check(x, target: bool):
        source = transformer.entry(x, "source")
        if target:
            transformer.check_ids(x, "target", max_length)
        if not jnp.issubdtype(source.dtype, jnp.floating):
            raise TypeError(f"source must be floating point (log-mel features), got {source.dtype}")
        if source.ndim != 3 or min(source.shape[1:]) < 1:
            raise ValueError(f"source must be features [B, T, F] of at least one frame, got shape {source.shape}")
        if source.shape[1] > max_frames:
            raise ValueError(f"source must have at most {max_frames} frames (max_frames), got {source.shape[1]}")
        others = {name: x[name] for name in ("length", "target") if name in x}
        if any(leaf.shape[0] != source.shape[0] for leaf in others.values()):
            raise ValueError(f"source {source.shape} and { ({k: v.shape for k, v in others.items()}) } must have the same batch size")
        if "length" in x and (x["length"].ndim != 1 or not jnp.issubdtype(x["length"].dtype, jnp.integer)):
            raise TypeError(f"length must be integers [B], got {x['length'].dtype} {x['length'].shape}")

    return transformer.as_model(Recogniser(num_classes, shape, dtype), rates, check, max_length)
