"""MaxViT: convolutions, attention within windows and attention over a grid, in every block; timm's `maxvit_*_tf_*` family."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from edd.models.base import Model, Outputs
from edd.models.layers import linen
from edd.models.layers.depthwise import depthwise_convolution
from edd.models.layers.norm import batch_norm

REDUCTION = 32  # image size over window size, and over the size of the last feature map


class Size(NamedTuple):
    """Channels and blocks of each stage, channels of the stem."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    stem: int


SIZES = {
    "tiny": Size((64, 128, 256, 512), (2, 2, 5, 2), 64),
    "small": Size((96, 192, 384, 768), (2, 2, 5, 2), 64),
    "base": Size((96, 192, 384, 768), (2, 6, 14, 2), 64),
    "large": Size((128, 256, 512, 1024), (2, 6, 14, 2), 128),
    "xlarge": Size((192, 384, 768, 1536), (2, 6, 14, 2), 192),
}


def conv(features: int, kernel: int, name: str, dtype, *, strides: int = 1, groups: int = 1, bias: bool = True) -> nn.Conv:
    """A square convolution with TensorFlow's padding."""
    mode = "fan_in" if groups > 1 else "fan_out"  # of a depthwise convolution one channel's
    init = nn.initializers.variance_scaling(2.0, mode, "normal")
    options = {"feature_group_count": groups, "use_bias": bias, "kernel_init": init, "dtype": dtype, "name": name}
    if groups > 1:  # as many as channels
        options["conv_general_dilated"] = depthwise_convolution
    return nn.Conv(features, (kernel, kernel), strides, padding="SAME", **options)


class SqueezeExcite(nn.Module):
    """Scales every channel by a function of all channels' means."""

    features: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x):
        y = nn.silu(conv(self.features, 1, "fc1", self.dtype)(x.mean((1, 2), keepdims=True)))
        return x * nn.sigmoid(conv(x.shape[-1], 1, "fc2", self.dtype)(y))


class Shortcut(nn.Module):
    """The mean of 2x2 pixels, and a linear layer where the number of channels changes."""

    features: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x):
        x = nn.avg_pool(x, (2, 2), (2, 2), "SAME")
        return x if x.shape[-1] == self.features else conv(self.features, 1, "expand", self.dtype)(x)


class MBConv(nn.Module):
    """An inverted residual block with BatchNorm in front and squeeze-and-excitation."""

    features: int
    strides: int
    norm: dict
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x):
        def norm(y, name):
            return batch_norm(**self.norm, name=name)(y)

        inner = 4 * self.features
        y = conv(inner, 1, "conv1_1x1", self.dtype, bias=False)(norm(x, "pre_norm"))
        y = nn.gelu(norm(y, "norm1"))
        y = conv(inner, 3, "conv2_kxk", self.dtype, strides=self.strides, groups=inner, bias=False)(y)
        y = SqueezeExcite(self.features // 4, self.dtype, name="se")(nn.gelu(norm(y, "norm2")))
        y = conv(self.features, 1, "conv3_1x1", self.dtype)(y)
        return y + (x if self.strides == 1 else Shortcut(self.features, self.dtype, name="shortcut")(x))


class RelativePosition(nn.Module):
    """A learned score [heads, window^2, window^2] for every offset from query to key."""

    heads: int
    window: int

    @nn.compact
    def __call__(self):
        span = 2 * self.window - 1
        table = self.param("relative_position_bias_table", nn.initializers.normal(0.02), (self.heads, span, span))
        place = np.stack(np.divmod(np.arange(self.window**2), self.window))  # [2, window^2]: row and column
        offset = place[:, None, :] - place[:, :, None] + self.window - 1  # [2, query, key]
        return table[:, offset[0], offset[1]]


class Attention(nn.Module):
    """Self-attention among the positions of each group, [B, groups, window^2, C]."""

    head_dim: int
    window: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x):
        channels, heads = x.shape[-1], x.shape[-1] // self.head_dim
        init = nn.initializers.xavier_uniform()
        mixed = nn.Dense(3 * channels, kernel_init=init, dtype=self.dtype, name="qkv")(x)
        query, key, value = jnp.moveaxis(mixed.reshape(*x.shape[:-1], 3, heads, self.head_dim), -3, 0)
        scores = jnp.einsum("bgqhd,bgkhd->bghqk", query, key) * self.head_dim**-0.5
        scores += RelativePosition(heads, self.window, name="rel_pos")().astype(scores.dtype)[None, None]
        y = jnp.einsum("bghqk,bgkhd->bgqhd", jax.nn.softmax(scores), value).reshape(x.shape)
        return nn.Dense(channels, kernel_init=init, dtype=self.dtype, name="proj")(y)


class Mlp(nn.Module):
    """Two linear layers, four times as wide in between."""

    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x):
        init, channels = nn.initializers.xavier_uniform(), x.shape[-1]
        y = nn.gelu(nn.Dense(4 * channels, kernel_init=init, dtype=self.dtype, name="fc1")(x))
        return nn.Dense(channels, kernel_init=init, dtype=self.dtype, name="fc2")(y)


class PartitionAttention(nn.Module):
    """Attention among neighbours (`grid` False: windows) or among positions spread evenly over the image (`grid` True), then an MLP."""

    grid: bool
    head_dim: int
    window: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x):
        def norm(y, name):
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(y)

        attention = Attention(self.head_dim, self.window, self.dtype, name="attn")
        x = x + grouped(attention, norm(x, "norm1"), self.window, self.grid)
        return x + Mlp(self.dtype, name="mlp")(norm(x, "norm2"))


def grouped(function, x, window: int, grid: bool):
    """`function` of the groups [B, groups, window^2, C] of an image's positions [B, H, W, C], put back in their places."""
    batch, height, width, channels = x.shape
    if height % window or width % window:
        raise ValueError(
            f"feature maps must be multiples of the window {window}, got {height}x{width}: give the images' size as image_size"
        )
    if grid:
        split, order = (batch, window, height // window, window, width // window, channels), (0, 2, 4, 1, 3, 5)
    else:
        split, order = (batch, height // window, window, width // window, window, channels), (0, 1, 3, 2, 4, 5)
    groups = x.reshape(split).transpose(order)
    out = function(groups.reshape(batch, -1, window**2, channels)).reshape(groups.shape)
    return out.transpose(np.argsort(order)).reshape(x.shape)


class Block(nn.Module):
    """MBConv, attention within windows, attention over the grid; layers bear timm's names."""

    features: int
    strides: int
    head_dim: int
    window: int
    norm: dict
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x):
        x = MBConv(self.features, self.strides, self.norm, self.dtype, name="conv")(x)
        for name in ("attn_block", "attn_grid"):
            x = PartitionAttention(name == "attn_grid", self.head_dim, self.window, self.dtype, name=name)(x)
        return x


class Stage(nn.Module):
    """Blocks of one width, the first with stride 2; the arguments are the block's."""

    depth: int
    block: tuple

    @nn.compact
    def __call__(self, x):
        features, *rest = self.block
        for index in range(self.depth):
            x = Block(features, 2 if index == 0 else 1, *rest, name=f"blocks_{index}")(x)
        return x


class Stem(nn.Module):
    """Two 3x3 convolutions, the first of stride 2."""

    features: int
    norm: dict
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(batch_norm(**self.norm, name="norm1")(conv(self.features, 3, "conv1", self.dtype, strides=2)(x)))
        return conv(self.features, 3, "conv2", self.dtype)(x)


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    size: Size
    head_dim: int
    window: int
    momentum: float
    positions: bool
    dtype: jnp.dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        del keys
        norm = {"train": train, "axis_name": self.axis_name, "momentum": self.momentum, "epsilon": 1e-3, "dtype": self.dtype}
        x = Stem(self.size.stem, norm, self.dtype, name="stem")(x)
        for index, (channels, depth) in enumerate(zip(self.size.channels, self.size.depths)):
            block = (channels, self.head_dim, self.window, norm, self.dtype)
            x = Stage(depth, block, name=f"stages_{index}")(x)
        layer_norm = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="head_norm")
        linear = nn.Dense(x.shape[-1], kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype, name="head_hidden")
        hidden = lambda features: jnp.tanh(linear(layer_norm(features)))  # noqa: E731
        # this head is not linear: logits of the mean features, but at a position logits of its own features
        return linen.head(hidden(x.mean((1, 2))), self.num_classes, positions=hidden(x) if self.positions else None)


def make(
    num_classes: int,
    *,
    size: str = "tiny",
    image_size: int = 224,
    channels: tuple[int, ...] = (),
    depths: tuple[int, ...] = (),
    stem: int = 0,
    head_dim: int = 32,
    momentum: float = 0.9,
    positions: bool = False,
    dtype=None,
    axis_name: str | None = None,
) -> Model:
    """MaxViT as in timm's `maxvit_{size}_tf_{image_size}`; logits are unitless.

    A stem of two 3x3 convolutions and four stages, each of stride 2 at its start. A block is an inverted residual convolution with
    squeeze-and-excitation, attention within windows of image_size / 32 pixels, and attention over a grid of as many positions, with
    learned relative positions. The head is the mean over positions, layer norm, a linear layer with tanh, and the last linear layer.
    Trainable parameters with 1000 classes at 224 pixels: tiny 30,916,528, small 68,927,956, base 119,467,708, large 211,785,560, xlarge
    474,951,952. There is no stochastic depth.

    `edd.models.imports.vision.load` reads timm's weights. Those at 224 pixels trained on ImageNet-1k expect (x / 255 - mean) / std with
    mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225), all others mean and std 0.5.

    Args:
      num_classes: outputs of the last layer, K >= 1.
      size: "tiny", "small", "base", "large" or "xlarge".
      image_size: height and width of the images it is made for, a multiple of 32; other images fit if every stage's feature map is a
        multiple of the window.
      channels: of every stage in place of the size's, multiples of head_dim and 4.
      depths: blocks of every stage in place of the size's.
      stem: channels of the stem in place of the size's.
      head_dim: channels of an attention head.
      momentum: of BatchNorm's running statistics, in [0, 1).
      positions: also give the logits of every position, [B, P, K] with P = (image_size / 32)^2: the whole head at each position. Their mean
        is not the logits, because the head is not linear.
      dtype: dtype of all but the last layer, for instance jnp.bfloat16; None for the inputs'.
      axis_name: mesh axis over which BatchNorm averages its statistics in training.

    Returns:
      `Model`; inputs are [B, height, width, channels]; the penultimate dimension is the last stage's.

    Raises:
      ValueError: an unknown size, sizes that do not divide each other, as many depths as channels missing.

    References:
      Tu et al. 2022, "MaxViT: Multi-Axis Vision Transformer"; the per-position head is that of Kirsch 2024 (specification A4).

    Examples:
      >>> variables = jax.eval_shape(make(1000, size="tiny").init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      30916528
    """
    linen.positive_integers("num_classes", (num_classes,))
    linen.positive_integers("head_dim", (head_dim,))
    linen.positive_integers("stem", (stem,), minimum=0)
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    if image_size < REDUCTION or image_size % REDUCTION:
        raise ValueError(f"image_size must be a multiple of {REDUCTION}, got {image_size}")
    channels = linen.positive_integers("channels", channels) or SIZES[size].channels
    depths = linen.positive_integers("depths", depths) or SIZES[size].depths
    if len(channels) != len(depths):
        raise ValueError(f"channels and depths must be as many, one per stage, got {channels} and {depths}")
    if any(count % head_dim or count % 4 for count in channels):
        raise ValueError(f"channels must be multiples of head_dim {head_dim} and of 4, got {channels}")
    linen.fraction("momentum", momentum)
    shape = Size(channels, depths, stem or SIZES[size].stem)
    network = Network(num_classes, shape, head_dim, image_size // REDUCTION, momentum, positions, dtype, axis_name)
    return linen.as_model(network, input_rank=4)
