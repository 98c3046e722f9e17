"""Residual networks for 32x32 images: He's post-activation ones, and the wider pre-activation variant."""

import flax.linen as nn
import jax.numpy as jnp

from edd.models.base import Model, Outputs
from edd.models.layers import linen
from edd.models.layers.norm import batch_norm

HE_WIDTHS = (16, 32, 64)
WIDE_WIDTHS = (32, 64, 128)


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    blocks: int
    widths: tuple[int, ...]
    shortcut: str
    pre_activation: bool
    momentum: float
    positions: bool
    dtype: jnp.dtype | None
    axis_name: str | None

    def conv(self, channels: int, kernel: int, strides: int = 1):
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        return nn.Conv(channels, (kernel, kernel), strides, use_bias=False, padding=kernel // 2, kernel_init=init, dtype=self.dtype)

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        del keys

        def norm(y):
            return batch_norm(train=train, axis_name=self.axis_name, momentum=self.momentum, dtype=self.dtype)(y)

        x = nn.relu(norm(self.conv(16, 3)(x)))
        for group, channels in enumerate(self.widths):
            for block in range(self.blocks):
                strides = 2 if group > 0 and block == 0 else 1
                if self.pre_activation:
                    x = self.pre_activation_block(x, norm, channels, strides, first=block == 0)
                else:
                    x = self.post_activation_block(x, norm, channels, strides)
        return linen.head(x.mean((1, 2)), self.num_classes, positions=x if self.positions else None)

    def post_activation_block(self, x, norm, channels: int, strides: int):
        y = nn.relu(norm(self.conv(channels, 3, strides)(x)))
        y = norm(self.conv(channels, 3)(y))
        if strides != 1 or x.shape[-1] != channels:
            if self.shortcut == "B":
                x = norm(self.conv(channels, 1, strides)(x))
            else:  # no parameters: every other pixel, and zeros for the new channels, half on either side
                missing = channels - x.shape[-1]
                x = jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))
        return nn.relu(x + y)

    def pre_activation_block(self, x, norm, channels: int, strides: int, *, first: bool):
        y = nn.relu(norm(x))
        shortcut = norm(self.conv(channels, 1, strides)(y)) if first else x
        y = nn.relu(norm(self.conv(channels, 3, strides)(y)))
        return shortcut + self.conv(channels, 3)(y)


def make(
    num_classes: int,
    *,
    depth: int = 56,
    widths: tuple[int, ...] = HE_WIDTHS,
    shortcut: str = "A",
    pre_activation: bool = False,
    momentum: float = 0.9,
    positions: bool = False,
    dtype=None,
    axis_name: str | None = None,
) -> Model:
    """Residual network of 6 n + 2 layers for CIFAR; logits are unitless.

    A 3x3 convolution to 16 channels with BatchNorm and ReLU, three groups of n = (depth - 2) / 6 blocks of two 3x3
    convolutions (stride 2 at the start of the second and third group), global mean, linear layer. Two families:

    - He et al. (default): post-activation blocks, widths 16, 32, 64, shortcut "A" or "B". 853,018 trainable parameters at
      depth 56 and 10 classes with A, 855,770 with B.
    - Tensor2Tensor's (`pre_activation=True, widths=WIDE_WIDTHS`): pre-activation blocks, the first of every group with a
      1x1 convolution and BatchNorm as its shortcut, nothing after the last block. 3,407,674 parameters at depth 56.

    Args:
      num_classes: outputs of the last layer, K >= 1.
      depth: 6 n + 2 with n >= 1: 20, 32, 44, 56, 110, ...
      widths: channels of the three groups.
      shortcut: where a post-activation block changes shape: "A" subsamples and pads channels with zeros, "B" is a 1x1
        convolution with BatchNorm. Pre-activation blocks ignore it.
      pre_activation: which family.
      momentum: of BatchNorm's running statistics, in [0, 1).
      positions: also give the logits of every position, [B, P, K] with P = 8 * 8 for 32x32 images; their mean is the logits.
      dtype: dtype of all but the last layer, for instance jnp.bfloat16; None for the inputs'.
      axis_name: mesh axis over which BatchNorm averages its statistics in training.

    Returns:
      `Model`; inputs are [B, height, width, channels]; the penultimate dimension is the last width.

    Raises:
      ValueError: a depth that is not 6 n + 2, not three widths, widths that "A" cannot pad, an unknown shortcut.

    References:
      He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2. Mueller, Kornblith & Hinton 2019, "When
      Does Label Smoothing Help?" (the ResNet-56 of its CIFAR experiments, from Tensor2Tensor's resnet_cifar).

    Examples:
      >>> import jax
      >>> model = make(10, depth=56, widths=WIDE_WIDTHS, pre_activation=True)
      >>> variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      3407674
    """
    linen.positive_integers("num_classes", (num_classes,))
    widths = linen.positive_integers("widths", widths)
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth must be 6 n + 2 with n >= 1 (20, 32, 44, 56, ...), got {depth}")
    if len(widths) != 3:
        raise ValueError(f"widths must be three, one per group, got {widths}")
    if shortcut not in ("A", "B"):
        raise ValueError(f'shortcut must be "A" or "B", got {shortcut!r}')
    if not pre_activation and shortcut == "A" and any(wide < narrow for narrow, wide in zip((16, *widths), widths)):
        raise ValueError(f'shortcut "A" pads channels, so widths must not shrink from 16 on, got {widths}')
    linen.fraction("momentum", momentum)
    network = Network(num_classes, (depth - 2) // 6, widths, shortcut, pre_activation, momentum, positions, dtype, axis_name)
    return linen.as_model(network, input_rank=4)
