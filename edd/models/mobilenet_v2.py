"""MobileNetV2: inverted residual blocks with depthwise convolutions."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from edd.models.base import Model, Outputs
from edd.models.layers import linen
from edd.models.layers.depthwise import depthwise_convolution
from edd.models.layers.norm import batch_norm

STAGES = (  # expansion, channels, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
PADDINGS = ("symmetric", "same")


@dataclasses.dataclass(frozen=True)
class Layer:
    """What all convolutions have in common; call inside a compact method."""

    norm: dict | None  # BatchNorm's options, or None where it was folded into the convolutions, which then have a bias
    padding: str
    dtype: jnp.dtype | None

    def __call__(self, x, features: int, kernel: int, strides: int, name: str, norm_name: str, *, depthwise=False, active=True):
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        padding = "SAME" if self.padding == "same" else kernel // 2
        options = {"use_bias": self.norm is None, "kernel_init": init, "dtype": self.dtype, "name": name}
        if depthwise:
            options |= {"feature_group_count": x.shape[-1], "conv_general_dilated": depthwise_convolution}
        x = nn.Conv(features, (kernel, kernel), strides, padding=padding, **options)(x)
        x = x if self.norm is None else batch_norm(**self.norm, dtype=self.dtype, name=norm_name)(x)
        return nn.relu6(x) if active else x


class Block(nn.Module):
    """An inverted residual block; its layers bear torchvision's names."""

    channels: int
    expansion: int
    strides: int
    layer: Layer

    @nn.compact
    def __call__(self, x):
        y, inner, index = x, x.shape[-1] * self.expansion, 0
        if self.expansion != 1:
            y, index = self.layer(y, inner, 1, 1, "conv_0_0", "conv_0_1"), 1
        y = self.layer(y, inner, 3, self.strides, f"conv_{index}_0", f"conv_{index}_1", depthwise=True)
        y = self.layer(y, self.channels, 1, 1, f"conv_{index + 1}", f"conv_{index + 2}", active=False)
        return x + y if x.shape == y.shape else y


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    width: float
    stages: tuple[tuple[int, ...], ...]
    last: int
    batch_norm: bool
    padding: str
    momentum: float
    positions: bool
    dtype: jnp.dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        del keys
        norm = {"train": train, "axis_name": self.axis_name, "momentum": self.momentum} if self.batch_norm else None
        layer = Layer(norm, self.padding, self.dtype)
        x = layer(x, _rounded(32 * self.width), 3, 2, "features_0_0", "features_0_1")
        number = 1
        for expansion, channels, blocks, strides in self.stages:
            for index in range(blocks):
                block = Block(_rounded(channels * self.width), expansion, strides if index == 0 else 1, layer, name=f"features_{number}")
                x, number = block(x), number + 1
        x = layer(x, _rounded(self.last * max(1.0, self.width)), 1, 1, f"features_{number}_0", f"features_{number}_1")
        return linen.head(x.mean((1, 2)), self.num_classes, positions=x if self.positions else None)


def _rounded(channels: float) -> int:
    """The multiple of 8 nearest to a number of channels, at least 8 and at least nine tenths of it."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def make(
    num_classes: int,
    *,
    width: float = 1.0,
    stages: tuple[tuple[int, ...], ...] = STAGES,
    last: int = 1280,
    batch_norm: bool = True,
    padding: str = "symmetric",
    momentum: float = 0.9,
    positions: bool = False,
    dtype=None,
    axis_name: str | None = None,
) -> Model:
    """MobileNetV2; logits are unitless.

    A 3x3 convolution of stride 2 to 32 channels, inverted residual blocks (a 1x1 convolution that widens, a depthwise 3x3 one, a linear
    1x1 one), a 1x1 convolution to 1280 channels, global mean, linear layer. 3,504,872 trainable parameters with 1000 classes.

    `edd.models.imports.vision.load` reads torchvision's weights, and TensorFlow's with BatchNorm folded into the convolutions:
    `batch_norm=False, padding="same"`.

    Args:
      num_classes: outputs of the last layer, K >= 1.
      width: factor of all channels but the last convolution's where it is below 1, > 0; channels are multiples of 8.
      stages: rows (expansion, channels, blocks, stride of the first block).
      last: channels of the last convolution.
      batch_norm: False: convolutions have a bias and no BatchNorm, as once it is folded into them.
      padding: "symmetric", or "same": TensorFlow's, which pads an even image for stride 2 at its end alone.
      momentum: of BatchNorm's running statistics, in [0, 1).
      positions: also give the logits of every position, [B, P, K] with P = 7 * 7 for 224x224 images; their mean is the logits.
      dtype: dtype of all but the last layer, for instance jnp.bfloat16; None for the inputs'.
      axis_name: mesh axis over which BatchNorm averages its statistics in training.

    Returns:
      `Model`; inputs are [B, height, width, channels]; the penultimate dimension is 1280.

    Raises:
      ValueError: a size below 1, a width that is not positive, stages that are no rows of four, an unknown padding.

    References:
      Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.

    Examples:
      >>> import jax
      >>> variables = jax.eval_shape(make(1000).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      3504872
    """
    linen.positive_integers("num_classes", (num_classes,))
    linen.positive_integers("last", (last,))
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}")
    stages = tuple(linen.positive_integers("every row of stages", row) for row in stages)
    if not stages or any(len(row) != 4 for row in stages):
        raise ValueError(f"stages must be rows (expansion, channels, blocks, stride), got {stages}")
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
    linen.fraction("momentum", momentum)
    network = Network(num_classes, width, stages, last, batch_norm, padding, momentum, positions, dtype, axis_name)
    return linen.as_model(network, input_rank=4)
