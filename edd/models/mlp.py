"""Multi-layer perceptron: any number of hidden layers, dropout, optional BatchNorm, and LayerNorm before the output layer."""

import math

import flax.linen as nn
import jax.numpy as jnp

from edd.models.base import Model, Outputs
from edd.models.layers import linen
from edd.models.layers.dropout import dropout
from edd.models.layers.norm import batch_norm


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    widths: tuple[int, ...]
    dropout: float
    layer_norm: bool
    batch_norm: bool
    activation: str
    variance: float | None
    dtype: jnp.dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        x = x.reshape(x.shape[0], -1)
        given = None if self.variance is None else nn.initializers.normal(math.sqrt(self.variance))
        for index, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=given or nn.initializers.he_normal(), dtype=self.dtype)(x)
            if self.batch_norm:
                x = batch_norm(train=train, axis_name=self.axis_name, dtype=self.dtype)(x)
            x = linen.activation(self.activation)(x)
            x = dropout(keys, x, self.dropout, index, train=train)
        if self.layer_norm:
            x = nn.LayerNorm(epsilon=1e-5)(x)
        return linen.head(x, self.num_classes, kernel_init=given)


def make(
    num_classes: int,
    *,
    widths: tuple[int, ...] = (64, 64),
    dropout: float = 0.0,
    layer_norm: bool = False,
    batch_norm: bool = False,
    activation: str = "relu",
    variance: float | None = None,
    dtype=None,
    axis_name: str | None = None,
) -> Model:
    """A multi-layer perceptron on flattened inputs; logits are unitless.

    Hidden kernels start from He's normal distribution (variance 2 / fan-in, right for ReLU), the output layer from LeCun's
    (variance 1 / fan-in, so that initial logits have about unit scale), biases at zero. Cost: one matrix product per layer.

    Args:
      num_classes: outputs of the last layer, K >= 1.
      widths: hidden units per layer; () is a linear model.
      dropout: probability of dropping a hidden unit, in [0, 1).
      layer_norm: normalise the penultimate activations (over their features) before the output layer.
      batch_norm: BatchNorm (momentum 0.9, epsilon 1e-5) before every activation; the layers keep their biases.
      activation: "relu", "gelu" or "tanh".
      variance: of the Gaussian that every kernel starts from, the output layer's too, > 0; None: the defaults above.
      dtype: dtype of the hidden layers, for instance jnp.bfloat16; None for the inputs'. Parameters and logits stay float32.
      axis_name: mesh axis over which BatchNorm averages its statistics in training.

    Returns:
      `Model`; inputs are [B, *S], flattened to [B, prod(S)].

    Raises:
      ValueError: a width or `num_classes` below 1, a rate outside [0, 1), an unknown activation, a variance that is not positive.

    References:
      Ryabinin, Malinin & Gales 2021, section 5 (LayerNorm before the last layer). He et al. 2015, "Delving Deep into
      Rectifiers" (initialisation). Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", A.5 (variance 0.03).

    Examples:
      >>> import jax
      >>> model = make(3, widths=(16,))
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 2)))
      >>> outputs, _ = model.apply(variables, jnp.ones((5, 2)), train=False, rngs=None)
      >>> outputs.logits.shape, outputs.penultimate.shape
      ((5, 3), (5, 16))
    """
    linen.positive_integers("num_classes", (num_classes,))
    linen.activation(activation)
    linen.fraction("dropout", dropout)
    widths = linen.positive_integers("widths", widths)
    if variance is not None and not variance > 0:
        raise ValueError(f"variance must be positive, or None, got {variance}")
    network = Network(num_classes, widths, dropout, layer_norm, batch_norm, activation, variance, dtype, axis_name)
    return linen.as_model(network, input_rank=None)
