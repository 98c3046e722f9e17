"""Inception-v4, as TensorFlow-Slim lays it out: branches of convolutions side by side, their outputs joined."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from edd.models.base import Model, Outputs
from edd.models.layers import linen
from edd.models.layers.dropout import dropout
from edd.models.layers.norm import batch_norm

# A branch is a list of layers in turn: (channels, (height, width) of the kernel, stride, padding), "max" or "avg" for a pooling, or a
# tuple of branches side by side. A block is a tuple of branches.
ONE, THREE, ROW, COLUMN = (1, 1), (3, 3), (1, 7), (7, 1)


def same(channels: int, *kernels: tuple[int, int]) -> list:
    """Convolutions of equal width that keep the image's size."""
    return [(channels, kernel, 1, "SAME") for kernel in kernels]


def valid(channels: int, strides: int = 1) -> list:
    """A 3x3 convolution without padding."""
    return [(channels, THREE, strides, "VALID")]


FORK = (same(256, (1, 3)), same(256, (3, 1)))
STEM = (
    ([*valid(32, 2), *valid(32), *same(64, THREE)],),
    (["max"], valid(96, 2)),
    ([*same(64, ONE), *valid(96)], [*same(64, ONE, ROW, COLUMN), *valid(96)]),
    (valid(192, 2), ["max"]),
)
BLOCK_A = (
    same(96, ONE),
    [*same(64, ONE), *same(96, THREE)],
    [*same(64, ONE), *same(96, THREE, THREE)],
    ["avg", *same(96, ONE)],
)
REDUCTION_A = (valid(384, 2), [*same(192, ONE), *same(224, THREE), *valid(256, 2)], ["max"])
BLOCK_B = (
    same(384, ONE),
    [*same(192, ONE), *same(224, ROW), *same(256, COLUMN)],
    [*same(192, ONE, COLUMN), *same(224, ROW, COLUMN), *same(256, ROW)],
    ["avg", *same(128, ONE)],
)
REDUCTION_B = (
    [*same(192, ONE), *valid(192, 2)],
    [*same(256, ONE, ROW), *same(320, COLUMN), *valid(320, 2)],
    ["max"],
)
BLOCK_C = (
    same(256, ONE),
    [*same(384, ONE), FORK],
    [*same(384, ONE), *same(448, (3, 1)), *same(512, (1, 3)), FORK],
    ["avg", *same(256, ONE)],
)


@dataclasses.dataclass(frozen=True)
class Builder:
    """Applies blocks; call inside a compact method."""

    conv: Callable  # (x, channels, kernel, strides, padding) -> x

    def block(self, x, branches: tuple):
        """The branches' outputs joined along the channels."""
        return jnp.concatenate([self.branch(x, layers) for layers in branches], -1)

    def branch(self, x, layers: list):
        """One branch's layers in turn."""
        for layer in layers:
            if layer == "max":
                x = nn.max_pool(x, THREE, (2, 2), "VALID")
            elif layer == "avg":  # the border's mean is over the pixels that are there
                x = nn.avg_pool(x, THREE, (1, 1), "SAME", count_include_pad=False)
            elif isinstance(layer[0], list):
                x = self.block(x, layer)
            else:
                x = self.conv(x, *layer)
        return x


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    blocks: tuple[int, int, int]
    width: float
    scale: bool
    auxiliary: bool
    dropout: float
    momentum: float
    dtype: jnp.dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        def conv(x, channels, kernel, strides, padding, name=None):
            init = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
            channels = max(1, round(channels * self.width))
            x = nn.Conv(channels, kernel, strides, padding=padding, use_bias=False, kernel_init=init, dtype=self.dtype, name=name)(x)
            norm = {"train": train, "axis_name": self.axis_name, "momentum": self.momentum, "epsilon": 1e-3, "dtype": self.dtype}
            return nn.relu(batch_norm(scale=self.scale, name=name and f"{name}_norm", **norm)(x))

        build = Builder(conv)
        for block in (*STEM, *[BLOCK_A] * self.blocks[0], REDUCTION_A, *[BLOCK_B] * self.blocks[1]):
            x = build.block(x, block)
        wanted = self.auxiliary and (train or self.is_initializing())
        auxiliary = self.auxiliary_head(x, conv) if wanted else None
        for block in (REDUCTION_B, *[BLOCK_C] * self.blocks[2]):
            x = build.block(x, block)
        x = dropout(keys, x.mean((1, 2)), self.dropout, 0, train=train)
        return linen.head(x, self.num_classes)._replace(auxiliary=auxiliary)

    def auxiliary_head(self, x, conv):
        """Logits from the middle of the network, whose loss helps the lower layers in training.

        Its layers have names of their own, so that the numbers of the others do not depend on whether it runs.
        """
        if min(x.shape[1:3]) < 5:
            raise ValueError(f"the auxiliary classifier needs images of 107 x 107 pixels at least: its pooling of 5 x 5 got {x.shape[1:3]}")
        x = conv(nn.avg_pool(x, (5, 5), (3, 3), "VALID"), 128, ONE, 1, "SAME", "auxiliary_1")
        x = conv(x, 768, x.shape[1:3], 1, "VALID", "auxiliary_2").reshape(x.shape[0], -1)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.truncated_normal(0.001), name="auxiliary")(x.astype(jnp.float32))


def make(
    num_classes: int,
    *,
    blocks: tuple[int, int, int] = (4, 7, 3),
    width: float = 1.0,
    scale: bool = True,
    auxiliary: bool = False,
    dropout: float = 0.2,
    momentum: float = 0.9997,
    dtype=None,
    axis_name: str | None = None,
) -> Model:
    """Inception-v4 for images of 299x299 (75x75 at least, 107x107 with the auxiliary classifier); logits are unitless.

    149 convolutions without bias, each with BatchNorm (epsilon 1e-3) and ReLU. 42,679,816 parameters with 1,000 classes, 42,648,232
    without BatchNorm's scale (TensorFlow-Slim's default; the label smoothing paper adds it).

    Args:
      num_classes: K >= 1 (TensorFlow-Slim's weights have 1,001, class 0 the background).
      blocks: how many of the blocks A, B and C.
      width: multiplies every layer's channels, > 0.
      scale: BatchNorm has a scale beside its bias.
      auxiliary: a second classifier after the blocks B, whose logits are in `Outputs.auxiliary` in training.
      dropout: probability of dropping a penultimate activation, in [0, 1).
      momentum: of BatchNorm's running statistics, in [0, 1).
      dtype: dtype of all but the last layer; None for the inputs'.
      axis_name: mesh axis over which BatchNorm averages its statistics in training.

    Returns:
      `Model`; inputs are [B, height, width, channels], the penultimate dimension is 1,536 at width 1.

    Raises:
      ValueError: a size below 1, a share outside [0, 1); images too small for the auxiliary classifier, when called.

    References:
      Szegedy et al. 2017, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", figures 3 to 9; Mueller,
      Kornblith & Hinton 2019, "When Does Label Smoothing Help?", A.3.

    Examples:
      >>> import jax
      >>> variables = jax.eval_shape(make(1000).init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      42679816
    """
    linen.positive_integers("num_classes", (num_classes,))
    blocks = linen.positive_integers("blocks", blocks, minimum=0)
    if len(blocks) != 3 or not width > 0:
        raise ValueError(f"blocks must be three numbers and width above 0, got {blocks} and {width}")
    linen.fraction("dropout", dropout)
    linen.fraction("momentum", momentum)
    return linen.as_model(Network(num_classes, blocks, width, scale, auxiliary, dropout, momentum, dtype, axis_name), input_rank=4)
