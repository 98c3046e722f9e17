"""A small convolutional network for images of MNIST's size, made to be fast on a CPU."""

import flax.linen as nn
import jax.numpy as jnp

from edd.models.base import Model, Outputs
from edd.models.layers import batch_ensemble, linen
from edd.models.layers.dropout import dropout
from edd.models.layers.norm import batch_norm


def max_pool(x):
    """2x2 maxima of [B, H, W, C]; an odd side is padded below. By reshaping: XLA's windowed maximum has a slow gradient on CPU."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=-jnp.inf)
    return x.reshape(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, channels).max((2, 4))


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    hidden: int
    downsample: str
    batch_norm: bool
    dropout: float
    activation: str
    num_members: int
    factor_init: str
    dtype: jnp.dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        act = linen.activation(self.activation)

        def normalised(y):
            if not self.batch_norm:
                return act(y)
            return act(batch_norm(train=train, axis_name=self.axis_name, dtype=self.dtype)(y))

        strides = 2 if self.downsample == "stride" else 1
        init = nn.initializers.he_normal()
        common = {"use_bias": not self.batch_norm, "kernel_init": init, "dtype": self.dtype}
        members = (self.num_members, self.factor_init)
        x = batch_ensemble.tile(x, self.num_members)
        for index, (channels, kernel) in enumerate(zip(self.channels, self.kernels, strict=True)):
            x = normalised(batch_ensemble.conv(channels, kernel, strides, *members, name=f"Conv_{index}", **common)(x))
            if self.downsample == "max_pool":
                x = max_pool(x)
        x = x.reshape(x.shape[0], -1)
        x = dropout(keys, x, self.dropout, 0, train=train)
        x = normalised(batch_ensemble.dense(self.hidden, *members, name="Dense_0", **common)(x))
        x = dropout(keys, x, self.dropout, 1, train=train)
        return linen.head(x, self.num_classes, *members)


def make(
    num_classes: int,
    *,
    channels: tuple[int, ...] = (16, 32),
    kernels: tuple[int, ...] = (5, 3),
    hidden: int = 128,
    downsample: str = "stride",
    batch_norm: bool = False,
    dropout: float = 0.0,
    activation: str = "relu",
    num_members: int = 0,
    factor_init: str = "signs",
    dtype=None,
    axis_name: str | None = None,
) -> Model:
    """A few convolutions, each halving the image, then one hidden dense layer; logits are unitless.

    Kernels of layers followed by the activation start from He's normal distribution, the output layer from LeCun's. With
    BatchNorm those layers have no bias.

    Args:
      num_classes: outputs of the last layer, K >= 1.
      channels: output channels of each convolution, at least one.
      kernels: side of each convolution's kernel; as many as `channels`.
      hidden: units of the dense layer, the penultimate dimension.
      downsample: "stride" (strided convolutions) or "max_pool" (2x2 after each convolution's activation, about twice the cost).
      batch_norm: BatchNorm before every activation (momentum 0.9, epsilon 1e-5).
      dropout: probability of dropping an input of either dense layer, in [0, 1).
      activation: "relu", "gelu" or "tanh".
      num_members: M: every layer is a BatchEnsemble's (`layers.batch_ensemble`), BatchNorm is shared, `num_classes` counts the outputs of
        all members together; 0: a plain network.
      factor_init: of the members' factors: "signs", "normal" or "ones".
      dtype: dtype of all but the output layer, for instance jnp.bfloat16; None for the inputs'.
      axis_name: mesh axis over which BatchNorm averages its statistics in training.

    Returns:
      `Model`; inputs are [B, height, width, channels].

    Raises:
      ValueError: a size below 1, lists of different lengths, an unknown `downsample` or activation, a rate outside [0, 1).

    References:
      LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition" (the layout).

    Examples:
      >>> import jax
      >>> model = make(10, channels=(4, 8), hidden=16)
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
      >>> outputs, state = model.apply(variables, jnp.ones((2, 28, 28, 1)), train=False, rngs=None)
      >>> outputs.logits.shape, outputs.penultimate.shape, state
      ((2, 10), (2, 16), {})
    """
    linen.positive_integers("num_classes", (num_classes,))
    linen.positive_integers("hidden", (hidden,))
    linen.activation(activation)
    channels, kernels = linen.positive_integers("channels", channels), linen.positive_integers("kernels", kernels)
    if not channels or len(channels) != len(kernels):
        raise ValueError(f"channels and kernels must have the same length >= 1, got {channels} and {kernels}")
    if downsample not in ("stride", "max_pool"):
        raise ValueError(f'downsample must be "stride" or "max_pool", got {downsample!r}')
    linen.fraction("dropout", dropout)
    batch_ensemble.check(num_classes, num_members, factor_init, dropout)
    shape = (channels, kernels, hidden, downsample, batch_norm, dropout, activation)
    return linen.as_model(
        Network(num_classes, *shape, num_members, factor_init, dtype, axis_name),
        input_rank=4,
        merged=Network(num_classes // num_members, *shape, 0, factor_init, dtype, axis_name) if num_members else None,
    )
