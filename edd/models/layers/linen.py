"""From a Linen module to `Model(init, apply, templates)`."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from edd.models.base import OUTPUT_LAYER, Model, Outputs
from edd.models.layers import batch_ensemble
from edd.typing import Array, Float, Int

ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu, "tanh": nn.tanh}


def activation(name: str) -> Callable:
    """The activation function called `name`; ValueError listing the known ones otherwise."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(sorted(ACTIVATIONS))}, got {name!r}")
    return ACTIVATIONS[name]


def positive_integers(name: str, values: tuple[int, ...], *, minimum: int = 1) -> tuple[int, ...]:
    """`values` as a tuple of integers; ValueError unless they are integers of at least `minimum`."""
    try:
        checked = tuple(int(value) for value in values)
    except (TypeError, ValueError):
        checked = None
    if checked is None or checked != tuple(values):
        raise ValueError(f"{name} must be a list of integers, got {values!r}")
    if any(value < minimum for value in checked):
        raise ValueError(f"{name} must be at least {minimum}, got {checked}")
    return checked


def fraction(name: str, value: float) -> None:
    """Raises ValueError unless `value` lies in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must lie in [0, 1), got {value}")


def rows(table: Float[Array, "V d"], ids: Int[Array, "*B"]) -> Float[Array, "*B d"]:
    """`table[ids]`; an id below 0 or beyond the table gives NaN, which training and evaluation report.

    Examples:
      >>> rows(jnp.array([[1.0], [2.0]]), jnp.array([1, -1, 2]))[:, 0].tolist()
      [2.0, nan, nan]
    """
    return jnp.asarray(table).at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def head(
    inputs, num_classes: int, num_members: int = 0, factor_init: str = "signs", kernel_init: Callable | None = None, positions=None
) -> Outputs:
    """The last linear layer, in float32 whatever the network computes in, from LeCun's normal by default; call inside a compact method.

    With members `num_classes` counts all their outputs, and the rows are those of `batch_ensemble.tile`. `positions` are the features
    [B, H, W, d] that the same layer reads at every position of an image, row by row, or None; a network with members has none.
    """
    exact = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))  # noqa: E731
    penultimate = exact(inputs)
    features = num_classes // (num_members or 1)
    init = kernel_init or nn.initializers.lecun_normal()
    layer = batch_ensemble.dense(features, num_members, factor_init, kernel_init=init, name=OUTPUT_LAYER)
    outputs = batch_ensemble.untile(Outputs(logits=layer(penultimate), penultimate=penultimate), num_members)
    if positions is None:
        return outputs
    return outputs._replace(positions=layer(exact(positions).reshape(positions.shape[0], -1, positions.shape[-1])))


def as_model(module: nn.Module, *, input_rank: int | None, merged: nn.Module | None = None) -> Model:
    """Wraps a Linen module called as `module(x, train=, keys=) -> Outputs` whose last layer is `head`.

    Args:
      module: the network; its variables are "params" and, with BatchNorm, "batch_stats".
      input_rank: number of axes of a batch, 4 for images [B, H, W, C]; None for any batch of at least two axes.
      merged: the plain network with the same names of layers that a BatchEnsemble's members merge into, or None.

    Returns:
      `Model`. No Linen random stream is used in `apply`: dropout takes explicit per-example keys.
    """

    def check(shape):
        if input_rank is None:
            if len(shape) < 2:
                raise ValueError(f"inputs must be a batch [B, *S] with at least 2 axes, got shape {tuple(shape)}")
        elif len(shape) != input_rank:
            layout = "[B, height, width, channels]" if input_rank == 4 else f"with {input_rank} axes"
            raise ValueError(f"inputs must be a batch {layout}, got shape {tuple(shape)}")

    def init(key, example):
        check(example.shape)
        return module.init(key, jnp.zeros(example.shape), train=False, keys=None)

    def apply(variables, x, *, train, rngs=None):
        check(x.shape)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"inputs must be floating point, got {x.dtype}; apply edd.data.augment.preprocess first")
        keys = None if rngs is None else rngs.get("dropout")
        if train and "batch_stats" in variables:
            return module.apply(variables, x, train=True, keys=keys, mutable=["batch_stats"])
        return module.apply(variables, x, train=train, keys=keys), {}

    def templates(variables):
        layer = variables["params"][OUTPUT_LAYER]
        return layer["kernel"].T, layer["bias"]

    if merged is None:
        return Model(init, apply, templates)
    plain = as_model(merged, input_rank=input_rank)
    return Model(init, apply, templates, lambda variables, averaging: (plain, batch_ensemble.merged(variables, averaging)))
