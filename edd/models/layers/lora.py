"""Low-rank adapters (LoRA) on a dense layer whose own weights stay as they are."""

import flax.linen as nn

from edd.models.layers import batch_ensemble
from edd.models.layers.dropout import dropout
from edd.typing import Array, PyTree

ADAPTER = "lora_"  # what the names of an adapter's two layers start with


class LoRADense(nn.Module):
    """y = x W + b + (alpha / rank) x A B, with A [inputs, rank] and B [rank, features].

    B starts at zero, so that the layer starts as the plain one; A starts from a normal of variance 1 / inputs. Rank 0 is the plain
    layer. Dropout acts on the adapter's inputs alone. With members A and B are a BatchEnsemble's layers, W is everybody's.

    Attributes:
      features: outputs.
      rank: r >= 0.
      alpha: the adapter's scale times its rank.
      dropout: rate in [0, 1).
      kernel_init: of W.
      num_members: M of a BatchEnsemble, over rows [B * M, ..., inputs], the member fastest; 0: none.
      factor_init: of the members' factors.

    References:
      Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1; Wen, Tran & Ba 2020, equation 5 (members).
    """

    features: int
    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    num_members: int = 0
    factor_init: str = "signs"

    @nn.compact
    def __call__(self, x, *, train: bool = False, keys=None, layer: int = 0):
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = x @ kernel + bias.reshape((1,) * (x.ndim - 1) + (-1,))
        if not self.rank:
            return y
        parts = (("a", self.rank, nn.initializers.lecun_normal()), ("b", self.features, nn.initializers.zeros))
        x = dropout(keys, x, self.dropout, layer, train=train)
        for name, features, init in parts:
            options = {"use_bias": False, "kernel_init": init, "name": ADAPTER + name}
            x = batch_ensemble.dense(features, self.num_members, self.factor_init, **options)(x)
        return y + (self.alpha / self.rank) * x


def merge(layer: dict, alpha: float) -> dict:
    """The plain layer {"kernel", "bias"} that computes the same: W + (alpha / rank) A B; a layer without adapter is returned as it is.

    Of a BatchEnsemble's adapter the members must have been merged (`batch_ensemble.merged`).

    Examples:
      >>> import jax.numpy as jnp
      >>> adapter = {"lora_a": {"kernel": jnp.ones((1, 2))}, "lora_b": {"kernel": jnp.ones((2, 1))}}
      >>> merge({"kernel": jnp.zeros((1, 1)), "bias": jnp.zeros(1), **adapter}, 4.0)["kernel"].tolist()
      [[4.0]]
    """
    if ADAPTER + "a" not in layer:
        return layer
    a, b = (layer[ADAPTER + name]["kernel"] for name in "ab")
    return {"kernel": layer["kernel"] + (alpha / a.shape[1]) * (a @ b), "bias": layer["bias"]}


def split(params: PyTree, trained: tuple[str, ...]) -> tuple[PyTree, PyTree]:
    """(trained, body) parts of nested `params`: adapters and everything below the names in `trained`; and the rest.

    Examples:
      >>> split({"output": {"kernel": 1}, "layer": {"query": {"kernel": 2, "lora_a": 3}}}, ("output",))
      ({'output': {'kernel': 1}, 'layer': {'query': {'lora_a': 3}}}, {'layer': {'query': {'kernel': 2}}})
    """
    mine, body = {}, {}
    for name, value in params.items():
        if name in trained or name.startswith(ADAPTER):
            mine[name] = value
        elif isinstance(value, dict):
            below = split(value, ())
            mine.update({name: below[0]} if below[0] else {})
            body.update({name: below[1]} if below[1] else {})
        else:
            body[name] = value
    return mine, body


def combine(body: PyTree, mine: PyTree) -> PyTree:
    """The nested dictionaries of `split` put together again; where both have a leaf, `mine` counts.

    Examples:
      >>> combine({"layer": {"kernel": 2}}, {"layer": {"lora_a": 3}})
      {'layer': {'kernel': 2, 'lora_a': 3}}
    """
    if not (isinstance(body, dict) and isinstance(mine, dict)):
        return mine
    return {**body, **{name: combine(body[name], value) if name in body else value for name, value in mine.items()}}


def size(tree: PyTree) -> int:
    """Bytes of all leaves of nested dictionaries."""
    if isinstance(tree, dict):
        return sum(size(value) for value in tree.values())
    leaf: Array = tree
    return leaf.size * leaf.dtype.itemsize
