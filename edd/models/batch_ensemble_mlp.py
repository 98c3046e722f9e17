"""BatchEnsemble perceptron: members share every weight matrix and own a rank-one factor on it."""

import flax.linen as nn
import jax.numpy as jnp

from edd.models import mlp
from edd.models.base import OUTPUT_LAYER, Model, Outputs
from edd.models.layers import batch_ensemble, linen
from edd.models.layers.batch_ensemble import BatchEnsembleDense


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_classes: int
    num_members: int
    widths: tuple[int, ...]
    activation: str
    factor_init: str

    @nn.compact
    def __call__(self, x, *, train: bool, keys) -> Outputs:
        del train, keys
        x = x.reshape(x.shape[0], -1)
        x = jnp.broadcast_to(x[:, None], (x.shape[0], self.num_members, x.shape[1]))
        common = {"num_members": self.num_members, "factor_init": self.factor_init}
        for index, width in enumerate(self.widths):
            x = BatchEnsembleDense(width, kernel_init=nn.initializers.he_normal(), name=f"hidden_{index}", **common)(x)
            x = linen.activation(self.activation)(x)
        logits = BatchEnsembleDense(self.num_classes // self.num_members, name=OUTPUT_LAYER, **common)(x)
        return Outputs(logits.reshape(logits.shape[0], -1), x.reshape(x.shape[0], -1))


def make(
    num_classes: int,
    *,
    num_members: int = 4,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    factor_init: str = "signs",
    axis_name: str | None = None,
) -> Model:
    """A perceptron of M members in one: layer y = ((x o r_m) W) o s_m + b_m; every member sees every input.

    Args:
      num_classes: outputs of all members together, a multiple of M; the logits are [B, M * outputs], members first.
      num_members: M >= 1.
      widths: hidden units per layer.
      activation: "relu", "gelu" or "tanh".
      factor_init: "signs" (+1 or -1 at random, Wen et al.), "normal" (mean 1, deviation 0.5) or "ones" (the latent variant).
      axis_name: accepted for uniformity.

    Returns:
      `Model`; its `templates` has no meaning (each member has its own).

    Raises:
      ValueError: sizes below 1, or outputs that M does not divide.

    References:
      Wen, Tran & Ba 2020, "BatchEnsemble", section 3 (r on the inputs, s on the outputs, a bias for each member).

    Examples:
      >>> import jax
      >>> model = make(6, num_members=3, widths=(8,))
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 2)))
      >>> model.apply(variables, jnp.ones((5, 2)), train=False, rngs=None)[0].logits.shape
      (5, 6)
    """
    del axis_name
    linen.positive_integers("num_classes and num_members", (num_classes, num_members))
    linen.activation(activation)
    if num_classes % num_members:
        raise ValueError(f"num_classes must be a multiple of num_members {num_members}, got {num_classes}")
    widths = linen.positive_integers("widths", widths)
    network = Network(num_classes, num_members, widths, activation, factor_init)

    def merge(variables, averaging):
        layers = batch_ensemble.merged(variables, averaging)["params"]
        plain = {f"Dense_{index}": layers[f"hidden_{index}"] for index in range(len(widths))} | {OUTPUT_LAYER: layers[OUTPUT_LAYER]}
        return mlp.make(num_classes // num_members, widths=widths, activation=activation), {**variables, "params": plain}

    return linen.as_model(network, input_rank=None)._replace(merge=merge)
