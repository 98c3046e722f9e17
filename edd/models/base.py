"""What a model is to the rest of the library: pure functions over variables, for one member."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from edd.typing import Array, PyTree

OUTPUT_LAYER = "output"  # the name of every backbone's last linear layer in the collection "params"


class Outputs(NamedTuple):
    """A model's outputs: `logits` [B, K], `penultimate` activations [B, d], `positions` [B, P, K] logits per tile or None.

    `auxiliary` are logits [B, K] of a second classifier inside the network, in training only, or None.
    """

    logits: Array
    penultimate: Array
    positions: Array | None = None
    auxiliary: Array | None = None


class Decoding(NamedTuple):
    """How a sequence model writes its outputs one after another, for `edd.decoding`; pure functions, one member.

    Attributes:
      encode: (variables, x, *, num_hypotheses, length) -> cache; `x` as `Model.apply` takes it, "target" is not read. The cache has
        room for `length` steps of N hypotheses for each source.
      decode_step: (variables, cache, tokens [B, N], parents [B, N], index) -> (logits [B, N, V], cache). Hypothesis n continues
        hypothesis parents[b, n] of the step before with its newest token; `index` counts the steps from 0 and may be traced.
    """

    encode: Callable
    decode_step: Callable


class Model(NamedTuple):
    """One network as pure functions.

    Attributes:
      init: (key, example) -> variables; `example` is a batch of inputs [B, *S], only its shape and dtype matter.
      apply: (variables, x [B, *S], *, train, rngs) -> (Outputs, new_state). `rngs` is None or {"dropout": keys [B]}, one
        typed key per example, so that no draw depends on how a batch is spread over devices. `new_state` is
        {"batch_stats": ...} after a training pass of a model with BatchNorm and {} otherwise; merge as `{**variables, **new_state}`.
      templates: variables -> (weights [K, d], bias [K]) of the last linear layer.
      merge: (variables, averaging) -> (plain Model, its variables) of a network whose members share weights (BatchEnsemble), else None.
      shared: arrays that every member reads and none trains (the frozen body under adapters), or None. `init` and `apply` then take
        them as the keyword `shared` too; a compiled program gets them as an argument through `bind`.
      decoding: step-by-step decoding of a sequence model, else None. A sequence model's `x` is a dict: "source" and "target", the
        decoder's inputs [B, L]; its logits are [B, L, K] and its penultimate activations [B, L, d].
    """

    init: Callable
    apply: Callable
    templates: Callable
    merge: Callable | None = None
    shared: PyTree = None
    decoding: Decoding | None = None


def bind(model: Model | None, shared: PyTree) -> Model | None:
    """`model` reading `shared` in place of the arrays it was made with; a model without shared arrays, or None, is returned as it is.

    Inside `jax.jit`, `shared` is an argument of the compiled program, one copy for all members; arrays that a traced function
    merely closes over would be written into the program as constants, every program again.
    """
    if model is None or model.shared is None:
        return model
    return model._replace(
        init=functools.partial(model.init, shared=shared), apply=functools.partial(model.apply, shared=shared), shared=shared
    )


def change_output_layer(variables: PyTree, change: Callable) -> PyTree:
    """`variables` with every leaf [..., num_outputs] of the last linear layer (kernel and bias) replaced by `change(leaf)`."""
    weights = variables["params"]
    layer = {name: change(leaf) for name, leaf in weights[OUTPUT_LAYER].items()}
    return {**variables, "params": {**weights, OUTPUT_LAYER: layer}}
