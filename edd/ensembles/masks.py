"""Implicit ensembles by masks: sub-models of one trained multi-layer perceptron, each with its own rows and columns of every layer.

Sub-model m computes z_i = r_i (sum_j W_ij c_j x_j + b_i) in each layer, with masks r over its outputs and c over its inputs: the matrix
mask r c^T is never formed. A hidden unit survives if the row of its layer and the column of the next are both on. The outputs of the last
layer are not masked. What is trained are the masks' logits; the network's weights stay as they are.
"""

import jax
import jax.numpy as jnp

from edd.losses import penalties
from edd.models.base import OUTPUT_LAYER, Model, Outputs
from edd.models.layers import linen
from edd.typing import Array, PyTree

ROW, COLUMN = "row", "column"
REGULARISERS = ("mean", "sum", "matrix")


def layers(params: PyTree) -> list[str]:
    """Names of a multi-layer perceptron's layers, first to last.

    Raises:
      ValueError: another network.
    """
    names = [f"Dense_{index}" for index in range(len(params) - 1)] + [OUTPUT_LAYER]
    if set(names) != set(params) or any(set(layer) != {"kernel", "bias"} for layer in params.values()):
        raise ValueError(f"masks need the parameters of models.mlp without normalisation, got layers {sorted(params)}")
    return names


def make(
    base: PyTree, num_members: int, *, activation: str = "relu", hard: bool = False, mask_inputs: bool = True, mean: float = 0.0
) -> Model:
    """The network of `num_members` sub-models; its variables are the masks' logits, `base` is shared by all and never trained.

    Args:
      base: variables {"params": ...} of one `models.mlp` (without BatchNorm or LayerNorm).
      num_members: M >= 2 sub-models.
      activation: the network's: "relu", "gelu" or "tanh".
      hard: masks are 1 where the logit is above 0 and 0 elsewhere; False: the probabilities sigmoid(logit).
      mask_inputs: mask the first layer's columns too, the network's inputs.
      mean: of the logits' normal initialisation (standard deviation 1): where all sub-models are alike the diversity has no gradient.

    Returns:
      `Model`: logits [B, M * K] and penultimate [B, M * d], members first; `params` are {layer: {"row": [M, out], "column": [M, in]}}.

    Raises:
      ValueError: another network than a plain multi-layer perceptron, fewer than two sub-models, an unknown activation.

    References:
      Kirsch 2024, "(Implicit) Ensembles of Ensembles", appendix B and D.4; specification A3.

    Examples:
      >>> from edd.models import mlp
      >>> network = mlp.make(3, widths=(8,))
      >>> masked = make(network.init(jax.random.key(0), jnp.zeros((1, 2))), 5)
      >>> variables = masked.init(jax.random.key(1), jnp.zeros((1, 2)))
      >>> {name: {mask: leaf.shape for mask, leaf in layer.items()} for name, layer in variables["params"].items()}
      {'Dense_0': {'column': (5, 2), 'row': (5, 8)}, 'output': {'column': (5, 8)}}
      >>> masked.apply(variables, jnp.ones((4, 2)), train=False, rngs=None)[0].logits.shape
      (4, 15)
    """
    if num_members < 2:
        raise ValueError(f"num_members must be at least 2, got {num_members}")
    act, names = linen.activation(activation), layers(base["params"])

    def masked(name: str) -> list[str]:
        found = [] if name == names[0] and not mask_inputs else [COLUMN]
        return found if name == OUTPUT_LAYER else [*found, ROW]

    def init(key, example, shared=base):
        del example
        params = {}
        for index, name in enumerate(names):
            sizes = dict(zip((COLUMN, ROW), shared["params"][name]["kernel"].shape))
            own = jax.random.fold_in(key, index)
            draw = {
                mask: jax.random.normal(jax.random.fold_in(own, at), (num_members, sizes[mask])) for at, mask in enumerate(masked(name))
            }
            params[name] = {mask: mean + leaf for mask, leaf in draw.items()}
        return {"params": params}

    def apply(variables, x, *, train, rngs=None, shared=base):
        del train, rngs
        logits = variables["params"]
        open_ = lambda leaf: (leaf > 0).astype(leaf.dtype) if hard else jax.nn.sigmoid(leaf)  # noqa: E731
        hidden = jnp.broadcast_to(x.reshape(1, x.shape[0], -1), (num_members, x.shape[0], x[0].size))
        for name in names:
            layer, masks = shared["params"][name], logits[name]
            if name == OUTPUT_LAYER:
                penultimate = hidden
            if COLUMN in masks:
                hidden = hidden * open_(masks[COLUMN])[:, None]
            hidden = hidden @ layer["kernel"] + layer["bias"][None, None]
            if name != OUTPUT_LAYER:
                hidden = act(hidden * open_(masks[ROW])[:, None])
        return Outputs(*(jnp.moveaxis(each, 0, 1).reshape(x.shape[0], -1) for each in (hidden, penultimate))), {}

    def templates(variables):
        del variables
        layer = base["params"][OUTPUT_LAYER]
        return layer["kernel"].T, layer["bias"]

    return Model(init, apply, templates, shared=base)


def diversity(params: PyTree, regulariser: str = "mean") -> Array:
    """Mutual information between masks and sub-models, nats, with independent entries.

    Args:
      params: as the masked network's: {layer: {"row", "column"}}, logits [M, n].
      regulariser: "mean" over all rows' and columns' entries; "sum" over them (of the order of their number: drowns a cross-entropy);
        "matrix": mean over the entries of a layer's matrix mask r c^T, then over layers (O(M in out) memory).

    Returns:
      Scalar; in [0, ln 2] but for "sum".

    Raises:
      ValueError: an unknown regulariser.

    References:
      Specification A3; the joint information of all entries, at most ln M, has no closed form.
    """
    check_regulariser(regulariser)
    if regulariser == "matrix":
        return jnp.stack([penalties.bernoulli_information(_matrix_logits(layer)).mean() for layer in params.values()]).mean()
    entries = jnp.concatenate([penalties.bernoulli_information(leaf) for leaf in jax.tree.leaves(params)])
    return entries.mean() if regulariser == "mean" else entries.sum()


def diversity_by_mask(params: PyTree) -> dict[str, float]:
    """ "layer row" or "layer column" -> mean mutual information of its entries with the sub-model, nats in [0, ln 2]."""
    return {
        f"{name} {mask}": float(penalties.bernoulli_information(leaf).mean())
        for name, layer in params.items()
        for mask, leaf in layer.items()
    }


def check_regulariser(name: str) -> None:
    """ValueError unless `diversity` knows the regulariser."""
    if name not in REGULARISERS:
        raise ValueError(f"regulariser must be one of {', '.join(REGULARISERS)}, got {name!r}")


def _matrix_logits(layer: dict) -> Array:
    """Logits of the products of independent probabilities, [M, in, out], or [M, n] where a layer has one mask."""
    logs = {name: jax.nn.log_sigmoid(leaf) for name, leaf in layer.items()}
    if len(logs) == 1:
        return next(iter(layer.values()))
    both = logs[COLUMN][..., None] + logs[ROW][:, None]
    return both - jnp.log(-jnp.expm1(both))
