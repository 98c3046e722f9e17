"""Wide ResNet for 32x32 images."""

import itertools

import flax.linen as nn
import jax.numpy as jnp

from edd.models.base import Model, Outputs
from edd.models.layers import batch_ensemble, linen
from edd.models.layers.dropout import dropout
from edd.models.layers.norm import batch_norm


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    blocks: int
    widen: int
    dropout: float
    momentum: float
    num_members: int
    factor_init: str
    dtype: jnp.dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        members, numbers = (self.num_members, self.factor_init), itertools.count()

        def conv(channels, kernel, strides=1):
            init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
            common = {"use_bias": False, "padding": kernel // 2, "kernel_init": init, "dtype": self.dtype}
            return batch_ensemble.conv(channels, kernel, strides, *members, name=f"Conv_{next(numbers)}", **common)

        def norm_relu(y):
            return nn.relu(batch_norm(train=train, axis_name=self.axis_name, momentum=self.momentum, dtype=self.dtype)(y))

        layer = 0
        x = conv(16, 3)(batch_ensemble.tile(x, self.num_members))
        for group, base in enumerate((16, 32, 64)):
            channels = base * self.widen
            for block in range(self.blocks):
                strides = 2 if group > 0 and block == 0 else 1
                y = norm_relu(x)
                # where the shape changes the shortcut is a convolution of the activated input, else the input itself
                shortcut = x if strides == 1 and x.shape[-1] == channels else conv(channels, 1, strides)(y)
                y = norm_relu(conv(channels, 3, strides)(y))
                y = dropout(keys, y, self.dropout, layer, train=train)
                x = shortcut + conv(channels, 3)(y)
                layer += 1
        return linen.head(norm_relu(x).mean((1, 2)), self.num_classes, *members)


def make(
    num_classes: int,
    *,
    depth: int = 28,
    widen: int = 10,
    dropout: float = 0.0,
    momentum: float = 0.9,
    num_members: int = 0,
    factor_init: str = "signs",
    dtype=None,
    axis_name: str | None = None,
) -> Model:
    """Wide ResNet with pre-activation blocks; logits are unitless.

    A 3x3 convolution to 16 channels, three groups of (depth - 4) / 6 blocks with 16, 32, 64 times `widen` channels, BatchNorm,
    ReLU, global mean, linear layer. 369,498 trainable parameters at 28-1 and 36,479,194 at 28-10 (10 classes).

    Args:
      num_classes: outputs of the last layer, K >= 1.
      depth: 6 n + 4 with n >= 1 blocks per group.
      widen: width factor >= 1.
      dropout: probability of dropping an entry between a block's two convolutions, in [0, 1).
      momentum: of BatchNorm's running statistics, in [0, 1).
      num_members: M: every layer is a BatchEnsemble's (`layers.batch_ensemble`), BatchNorm is shared, `num_classes` counts the outputs of
        all members together; 0: a plain network.
      factor_init: of the members' factors: "signs", "normal" or "ones".
      dtype: dtype of all but the last layer, for instance jnp.bfloat16; None for the inputs'.
      axis_name: mesh axis over which BatchNorm averages its statistics in training.

    Returns:
      `Model`; inputs are [B, height, width, channels]; the penultimate dimension is 64 widen.

    Raises:
      ValueError: a depth that is not 6 n + 4, a size below 1, a rate or momentum outside [0, 1).

    References:
      Zagoruyko & Komodakis 2016, "Wide Residual Networks".

    Examples:
      >>> import jax
      >>> variables = jax.eval_shape(make(10, depth=28, widen=1).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
      369498
    """
    linen.positive_integers("num_classes", (num_classes,))
    linen.positive_integers("widen", (widen,))
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth must be 6 n + 4 with n >= 1 (10, 16, 22, 28, ...), got {depth}")
    linen.fraction("dropout", dropout)
    linen.fraction("momentum", momentum)
    batch_ensemble.check(num_classes, num_members, factor_init, dropout)
    shape = ((depth - 4) // 6, widen, dropout, momentum)
    return linen.as_model(
        Network(num_classes, *shape, num_members, factor_init, dtype, axis_name),
        input_rank=4,
        merged=Network(num_classes // num_members, *shape, 0, factor_init, dtype, axis_name) if num_members else None,
    )
