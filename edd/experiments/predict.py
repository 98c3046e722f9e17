"""Predictions of trained networks and of the ensemble: streamed over batches, numpy out, and what they cost."""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd.data import pipeline
from edd.distillers.base import Distiller, Prediction
from edd.ensembles import members
from edd.losses import proxy
from edd.models.base import Model, bind
from edd.typing import PyTree
from edd.uncertainty import dirichlet


class Trained(NamedTuple):
    """Networks as shipped, stacked over replicas.

    Attributes:
      model, distiller: what they are and how they predict.
      variables, params, state: pytrees with a leading replica axis [R, ...].
      alive: bool [R], False for a replica frozen at its last finite state.
      frozen_at: int [R], the step at which that happened, -1 for the living.
      seeds: int [R], each replica's number among all that were trained.
    """

    model: Model
    distiller: Distiller
    variables: PyTree
    params: PyTree
    state: PyTree
    alive: np.ndarray
    frozen_at: np.ndarray
    seeds: np.ndarray


def survivors(trained: Trained, what: str) -> Trained:
    """`trained` without its diverged replicas; ValueError if none is left."""
    indices = np.flatnonzero(trained.alive)
    if indices.size == 0:
        raise ValueError(f"every one of the {len(trained.alive)} {what} diverged: lower the learning rate or clip the gradient")
    if indices.size == len(trained.alive):
        return trained
    return take(trained, indices)


def take(trained: Trained, indices: np.ndarray) -> Trained:
    """The replicas with these indices, in this order."""
    keep = lambda tree: members.take(tree, indices) if jax.tree.leaves(tree) else tree  # noqa: E731
    fields = ("variables", "params", "state", "alive", "frozen_at", "seeds")
    return trained._replace(**{field: keep(getattr(trained, field)) for field in fields})


def replica_function(trained: Trained, preprocess: Callable, key) -> Callable:
    """inputs [B, *S] -> Prediction with a leading replica axis [R, B, ...]; compiled once, the networks are arguments."""

    @jax.jit
    def predict(shared, variables, params, state, inputs):
        outputs = members.apply(bind(trained.model, shared), variables, preprocess(inputs))
        return jax.vmap(lambda *one: trained.distiller.predict(*one, key))(outputs, params, state)

    return functools.partial(predict, *_on_device(trained.model.shared, trained.variables, trained.params, trained.state))


def first_replica_function(trained: Trained, preprocess: Callable, key) -> Callable:
    """inputs [B, *S] -> Prediction [B, ...] of the first replica alone, without a member axis."""

    @jax.jit
    def predict(shared, variables, params, state, inputs):
        outputs, _ = bind(trained.model, shared).apply(variables, preprocess(inputs), train=False, rngs=None)
        return trained.distiller.predict(outputs, params, state, key)

    first = jax.tree.map(lambda leaf: leaf[0], (trained.variables, trained.params, trained.state))
    return functools.partial(predict, *_on_device(trained.model.shared, *first))


def member_logits_function(model: Model, variables: PyTree, preprocess: Callable, then: Callable = lambda logits: logits) -> Callable:
    """inputs [B, *S] -> `then` of the members' logits [M, B, K] (the logits themselves by default)."""
    function = jax.jit(lambda shared, variables, x: then(members.apply(bind(model, shared), variables, preprocess(x)).logits))
    return functools.partial(function, *_on_device(model.shared, variables))


def _on_device(*trees: PyTree) -> tuple:
    return jax.device_put(trees)


def proxy_prediction(member_logits) -> Prediction:
    """The proxy Dirichlet itself, precision times mean, scored with the Dirichlet measures (table 9's last row).

    Precision is capped at 1e30 (identical members have an infinite one) and concentrations are kept above 1e-30.
    """
    target = proxy.proxy_target(jax.nn.log_softmax(member_logits))
    precision = jnp.clip(target.precision, 1e-20, 1e30)
    concentration = jnp.maximum(jnp.exp(target.log_mean_probs) * precision[..., None], 1e-30)
    return Prediction(
        log_probs=target.log_mean_probs,
        total=dirichlet.total_uncertainty(concentration),
        data=dirichlet.data_uncertainty(concentration),
        mutual_information=dirichlet.mutual_information(concentration),
        expected_pairwise_kl=dirichlet.expected_pairwise_kl(concentration),
        reverse_mutual_information=dirichlet.reverse_mutual_information(concentration),
        precision=target.precision,
    )


def stream(function: Callable, inputs: np.ndarray, batch_size: int, axis: int) -> PyTree:
    """`function` over all inputs in padded batches of one size; outputs are joined along their example `axis`.

    Args:
      function: inputs [B, *S] -> pytree whose leaves have the example axis at `axis`; None leaves are kept.
      inputs: [N, *S], or a pytree of such arrays.
      batch_size: rows per call.
      axis: 0 for [B, ...] outputs, 1 for [R, B, ...].

    Returns:
      Pytree of numpy arrays.
    """
    pieces = []
    for batch in pipeline.evaluation_batches({"inputs": inputs}, min(batch_size, len(jax.tree.leaves(inputs)[0]))):
        count = int(batch["mask"].sum())
        outputs = jax.device_get(function(batch["inputs"]))
        pieces.append(jax.tree.map(lambda leaf, count=count: leaf[:count] if axis == 0 else leaf[:, :count], outputs))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *pieces)


def costs(functions: dict[str, Callable], inputs: np.ndarray, repeats: int = 7) -> dict[str, float]:
    """Milliseconds per 1,000 predictions of each function on the same batch: interleaved, medians, compilation left out."""
    samples = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function(inputs))
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(inputs))
            samples[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) * 1e6 / len(inputs) for name, values in samples.items()}


def shared_parameters(model: Model, variables: PyTree) -> int:
    """Numbers that the network reads and all networks of one kind have in common (a frozen body): those it does not hold itself."""
    own = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])}
    leaves = jax.tree_util.tree_leaves_with_path(model.shared)
    return sum(int(np.prod(leaf.shape)) for path, leaf in leaves if jax.tree_util.keystr(path) not in own)


def num_parameters(variables: PyTree, params: PyTree = ()) -> int:
    """Trained numbers of one network (running statistics are not counted); leaves without a replica axis."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves((variables["params"], params)))
