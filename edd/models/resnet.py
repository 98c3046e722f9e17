"""Residual networks for ImageNet, torchvision's family: ResNet, Wide ResNet and ResNeXt."""

import flax.linen as nn
import jax.numpy as jnp

from edd.models.base import Model, Outputs
from edd.models.layers import linen
from edd.models.layers.norm import batch_norm

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASIC = (18, 34)  # depths whose blocks are two 3x3 convolutions; the others' are bottlenecks
STEMS = ("imagenet", "cifar")


class Block(nn.Module):
    """One residual block; its layers bear torchvision's names."""

    channels: int
    inner: int
    strides: int
    groups: int
    basic: bool
    norm: dict
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x):
        def conv_norm(y, features, kernel, strides, groups, names):
            return batch_norm(**self.norm, name=names[1])(conv(features, kernel, strides, names[0], self.dtype, groups)(y))

        if self.basic:
            layers = ((self.channels, 3, self.strides, 1), (self.channels, 3, 1, 1))
        else:  # the stride is in the 3x3 convolution (version 1.5)
            layers = ((self.inner, 1, 1, 1), (self.inner, 3, self.strides, self.groups), (4 * self.channels, 1, 1, 1))
        y = x
        for index, layer in enumerate(layers, 1):
            y = conv_norm(y, *layer, (f"conv{index}", f"bn{index}"))
            y = nn.relu(y) if index < len(layers) else y
        if x.shape != y.shape:
            x = conv_norm(x, y.shape[-1], 1, self.strides, 1, ("downsample_0", "downsample_1"))
        return nn.relu(x + y)


def conv(features: int, kernel: int, strides: int, name: str, dtype, groups: int = 1) -> nn.Conv:
    """A square convolution without bias, padded alike on both sides."""
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return nn.Conv(
        features, (kernel, kernel), strides, padding=kernel // 2, feature_group_count=groups, use_bias=False, kernel_init=init,
        dtype=dtype, name=name,
    )  # fmt: skip


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    blocks: tuple[int, ...]
    basic: bool
    width: int
    groups: int
    channels: int
    stem: str
    momentum: float
    positions: bool
    dtype: jnp.dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        del keys
        norm = {"train": train, "axis_name": self.axis_name, "momentum": self.momentum, "dtype": self.dtype}
        kernel, strides = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = nn.relu(batch_norm(**norm, name="bn1")(conv(self.channels, kernel, strides, "conv1", self.dtype)(x)))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for stage, count in enumerate(self.blocks):
            channels = self.channels * 2**stage
            inner = channels * self.width // 64 * self.groups
            for index in range(count):
                strides = 2 if stage > 0 and index == 0 else 1
                block = Block(channels, inner, strides, self.groups, self.basic, norm, self.dtype, name=f"layer{stage + 1}_{index}")
                x = block(x)
        return linen.head(x.mean((1, 2)), self.num_classes, positions=x if self.positions else None)


def make(
    num_classes: int,
    *,
    depth: int = 50,
    width: int = 64,
    groups: int = 1,
    blocks: tuple[int, ...] = (),
    channels: int = 64,
    stem: str = "imagenet",
    momentum: float = 0.9,
    positions: bool = False,
    dtype=None,
    axis_name: str | None = None,
) -> Model:
    """Residual network of torchvision's family; logits are unitless.

    A 7x7 convolution of stride 2 and a 3x3 max pooling of stride 2, four stages of blocks (stride 2 at the start of all but the first, in
    the 3x3 convolution), global mean, linear layer. Trainable parameters with 1000 classes:

    | network | depth | width | groups | parameters |
    |---|---|---|---|---|
    | ResNet-50, ResNet-152 | 50, 152 | 64 | 1 | 25,557,032, 60,192,808 |
    | Wide ResNet-101-2 | 101 | 128 | 1 | 126,886,696 |
    | ResNeXt-101-64x4d | 101 | 4 | 64 | 83,455,272 |

    `edd.models.imports.vision.load` reads their published weights, which expect (x / 255 - mean) / std with mean (0.485, 0.456, 0.406) and
    std (0.229, 0.224, 0.225).

    Args:
      num_classes: outputs of the last layer, K >= 1.
      depth: 18 or 34 (blocks of two 3x3 convolutions), 50, 101 or 152 (bottlenecks).
      width: channels of a group in the bottlenecks' 3x3 convolutions of the first stage; they double with every stage.
      groups: of the bottlenecks' 3x3 convolutions.
      blocks: blocks of every stage in place of the depth's.
      channels: of the stem; the stages give 4 times as many (bottlenecks) or as many, doubling from stage to stage.
      stem: "imagenet", or "cifar": a 3x3 convolution of stride 1 and no pooling.
      momentum: of BatchNorm's running statistics, in [0, 1).
      positions: also give the logits of every position, [B, P, K] with P = 7 * 7 for 224x224 images; their mean is the logits.
      dtype: dtype of all but the last layer, for instance jnp.bfloat16; None for the inputs'.
      axis_name: mesh axis over which BatchNorm averages its statistics in training.

    Returns:
      `Model`; inputs are [B, height, width, channels]; the penultimate dimension is 2048 (512 at depths 18 and 34).

    Raises:
      ValueError: an unknown depth or stem, a size below 1, a width or groups where blocks have no bottleneck.

    References:
      He et al. 2016, "Deep Residual Learning for Image Recognition"; Zagoruyko & Komodakis 2016; Xie et al. 2017, "Aggregated Residual
      Transformations for Deep Neural Networks".

    Examples:
      >>> import jax
      >>> variables = jax.eval_shape(make(1000, depth=50).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      25557032
    """
    linen.positive_integers("num_classes", (num_classes,))
    linen.positive_integers("width, groups and channels", (width, groups, channels))
    if depth not in BLOCKS:
        raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS))}, got {depth!r}")
    if depth in BASIC and (width, groups) != (64, 1):
        raise ValueError(f"width and groups must be 64 and 1 at depth {depth}, whose blocks have no bottleneck, got {width} and {groups}")
    if not channels * width // 64:
        raise ValueError(f"channels * width must be at least 64, got {channels} * {width}")
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
    linen.fraction("momentum", momentum)
    blocks = linen.positive_integers("blocks", blocks) or BLOCKS[depth]
    shape = (blocks, depth in BASIC, width, groups, channels, stem)
    return linen.as_model(Network(num_classes, *shape, momentum, positions, dtype, axis_name), input_rank=4)
