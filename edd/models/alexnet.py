"""The small AlexNet of TensorFlow's CIFAR-10 tutorial."""

import flax.linen as nn
import jax.numpy as jnp

from edd.models.base import Model, Outputs
from edd.models.layers import linen
from edd.models.layers.response_norm import local_response_norm


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    channels: tuple[int, int]
    hidden: tuple[int, int]
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        del train, keys
        start = nn.initializers.truncated_normal

        def conv(channels, bias, name):
            biases = nn.initializers.constant(bias)
            return nn.Conv(channels, (5, 5), kernel_init=start(0.05), bias_init=biases, dtype=self.dtype, name=name)

        def dense(width, name):
            return nn.Dense(width, kernel_init=start(0.04), bias_init=nn.initializers.constant(0.1), dtype=self.dtype, name=name)

        def pool(y):
            return nn.max_pool(y, (3, 3), (2, 2), "SAME")

        x = local_response_norm(pool(nn.relu(conv(self.channels[0], 0.0, "conv1")(x))))
        x = pool(local_response_norm(nn.relu(conv(self.channels[1], 0.1, "conv2")(x))))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(dense(self.hidden[0], "local3")(x))
        x = nn.relu(dense(self.hidden[1], "local4")(x))
        return linen.head(x, self.num_classes, kernel_init=start(1 / self.hidden[1]))


def make(
    num_classes: int,
    *,
    channels: tuple[int, int] = (64, 64),
    hidden: tuple[int, int] = (384, 192),
    dtype=None,
    axis_name: str | None = None,
) -> Model:
    """Two 5x5 convolutions with 3x3 max pooling and local response normalisation, then two dense layers; logits are unitless.

    1,068,298 parameters at 24x24x3 inputs, 1,756,426 at 32x32x3, for 10 classes; the penultimate dimension is 192. Normalisation comes
    after the first pooling and before the second, as in the tutorial.

    Args:
      num_classes: outputs of the last layer, K >= 1.
      channels: of the two convolutions.
      hidden: units of the two dense layers.
      dtype: dtype of all but the last layer, for instance jnp.bfloat16; None for the inputs'.
      axis_name: not used (no BatchNorm); present because every backbone is made alike.

    Returns:
      `Model`; inputs are [B, height, width, channels].

    Raises:
      ValueError: a size below 1, or not two of each.

    References:
      Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", A.1 and A.2 (the student on CIFAR-10).

    Examples:
      >>> import jax
      >>> variables = jax.eval_shape(make(10).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      1756426
    """
    del axis_name
    linen.positive_integers("num_classes", (num_classes,))
    channels, hidden = linen.positive_integers("channels", channels), linen.positive_integers("hidden", hidden)
    if len(channels) != 2 or len(hidden) != 2:
        raise ValueError(f"channels and hidden must be two numbers each, got {channels} and {hidden}")
    return linen.as_model(Network(num_classes, channels, hidden, dtype), input_rank=4)
