"""Depthwise convolutions that run fast where XLA's grouped convolution does not."""

import jax.numpy as jnp
from jax import lax


def depthwise_convolution(lhs, rhs, window_strides, padding, **others):
    """A convolution of every channel with its own filter, a sum over the filter's places: `conv_general_dilated` of `nn.Conv`.

    On a CPU XLA's grouped convolution took 4 to 50 times as long as this sum in MobileNetV2's layers at 224 pixels; the network's whole
    forward pass takes a fifth of the time with it. The values are the grouped convolution's up to rounding.

    Args:
      lhs: [B, H, W, C].
      rhs: [h, w, 1, C].
      window_strides: two integers >= 1.
      padding: "SAME", "VALID" or ((above, below), (left, right)).
      others: what `nn.Conv` passes besides; dilation must be 1 and the number of groups C, precision is that of a product.

    Returns:
      [B, H', W', C].

    Raises:
      ValueError: another number of groups, a filter that does not fit the channels, or dilation.

    References:
      Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", section 3.1.

    Examples:
      >>> depthwise_convolution(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2)), (2, 2), "SAME", feature_group_count=2)[0, :, :, 0].tolist()
      [[9.0, 6.0], [6.0, 4.0]]
    """
    channels, size, strides = lhs.shape[-1], rhs.shape[:2], tuple(window_strides)
    groups = others.get("feature_group_count", channels)  # absent where `nn.Conv` only asks for shapes
    if groups != channels or rhs.shape[2:] != (1, channels):
        raise ValueError(f"a depthwise convolution of {channels} channels needs a filter [h, w, 1, C], got {rhs.shape}, {groups} groups")
    if any(step != 1 for name in ("lhs_dilation", "rhs_dilation") for step in others.get(name) or ()):
        raise ValueError("dilation must be 1")
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], size, strides, padding)
    lhs = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
    rows, columns = ((length - place) // step for length, place, step in zip(lhs.shape[1:3], size, strides))
    total = 0
    for row in range(size[0]):
        for column in range(size[1]):
            end = (row + rows * strides[0] + 1, column + columns * strides[1] + 1)
            total += lhs[:, row : end[0] : strides[0], column : end[1] : strides[1]] * rhs[row, column][None, None]
    return total
