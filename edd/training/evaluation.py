"""Passes over data without gradients: network outputs and predictions, and the updates that need a design set."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from edd.distillers.base import Distiller
from edd.ensembles import members
from edd.models.base import Model, bind
from edd.training import mesh as meshes
from edd.training.state import TrainState
from edd.typing import Key, PyTree


def weights(state: TrainState) -> tuple[PyTree, PyTree, PyTree]:
    """(variables, params, distiller state) to evaluate: the moving average where there is one."""
    variables, params = (state.variables, state.params) if state.ema is None else state.ema
    return variables, params, state.state


def make_eval_step(
    model: Model,
    mesh: Mesh,
    *,
    num_replicas: int,
    preprocess: Callable | None = None,
    predict: Callable | None = None,
    strategy: str = "auto",
) -> Callable:
    """A jitted pass in evaluation mode: (variables, params, state, inputs [B, *S], key) -> pytree [R, B, ...].

    Every replica sees the same inputs. B must be a multiple of the mesh's data axis; nothing is communicated.

    Args:
      model: the network.
      mesh: axes ("member", "data").
      num_replicas: R, a multiple of the member axis.
      preprocess: raw inputs -> float inputs, or None.
      predict: (outputs, params, state, key) -> pytree with examples first (a distiller's `predict`); None returns the
        `Outputs`. The key is folded with the replica.
      strategy: see `members.map_members`.

    Raises:
      ValueError: the mesh does not divide R; at the call: not B.
    """
    meshes.check_divides(mesh, num_replicas)
    local = num_replicas // mesh.shape[meshes.MEMBER]

    def body(variables, params, state, inputs, key, shared):
        inputs = inputs if preprocess is None else preprocess(inputs)
        network = bind(model, shared)

        def one(variables, params, state, replica):
            outputs, _ = network.apply(variables, inputs, train=False, rngs=None)
            return outputs if predict is None else predict(outputs, params, state, jax.random.fold_in(key, replica))

        replicas = jax.lax.axis_index(meshes.MEMBER) * local + jnp.arange(local)
        return members.map_members(one, strategy, variables)(variables, params, state, replicas)

    per_member = meshes.REPLICAS
    specs = (per_member, per_member, per_member, P(meshes.DATA), meshes.REPLICATED, meshes.REPLICATED)
    shared = meshes.place(model.shared, mesh)
    mapped = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=meshes.BATCH))

    def evaluate(variables: PyTree, params: PyTree, state: PyTree, inputs, key: Key) -> PyTree:
        meshes.check_divides(mesh, num_replicas, inputs.shape[0])
        return mapped(variables, params, state, meshes.place(inputs, mesh, P(meshes.DATA)), meshes.place(key, mesh), shared)

    return evaluate


def collect(eval_step: Callable, state: TrainState, batches: Iterable[dict], mesh: Mesh, key: Key | None = None) -> PyTree:
    """Runs an eval step over padded, masked batches; numpy results [R, N, ...] without the padding, on every process.

    Args:
      eval_step: from `make_eval_step`.
      state: whose `weights` are evaluated.
      batches: dicts with "inputs" [B, *S] and "mask" [B] (`pipeline.evaluation_batches`), whole on every process.
      mesh: the step's mesh.
      key: for predictions that sample; batch i uses `fold_in(key, i)`.
    """
    key = jax.random.key(0) if key is None else key
    parts = []
    for index, batch in enumerate(batches):
        outputs = meshes.to_host(eval_step(*weights(state), batch["inputs"], jax.random.fold_in(key, index)), mesh)
        kept = np.flatnonzero(np.asarray(batch["mask"])) if "mask" in batch else slice(None)
        parts.append(jax.tree.map(lambda leaf, kept=kept: leaf[:, kept], outputs))
    if not parts:
        raise ValueError("batches must hold at least one batch, got none")
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, 1), *parts)


def make_design_update(
    model: Model,
    distiller: Distiller,
    mesh: Mesh,
    *,
    num_replicas: int,
    preprocess: Callable | None = None,
    online_targets: tuple[Model, PyTree] | None = None,
    strategy: str = "auto",
) -> Callable[[TrainState, Iterable[dict]], TrainState]:
    """(state, batches) -> state: sums the distiller's statistics over a design set in evaluation mode, then updates.

    For methods with `update_from="design_set"`. The batches (`pipeline.evaluation_batches`) are dicts of whole arrays "inputs"
    [B, *S], without online targets "targets" [B, ...], and where some rows are padding "mask" [B]; the replicas share them. A padded
    batch is summed example by example. Frozen replicas keep their state.

    Raises:
      ValueError: no `statistics` or `update`; at the call: no batch.
    """
    if distiller.statistics is None or distiller.update is None:
        raise ValueError("distiller must have statistics and update to be updated from a design set")
    meshes.check_divides(mesh, num_replicas)
    teacher_model, teacher = (None, {}) if online_targets is None else online_targets
    fixed = meshes.place(((teacher, getattr(teacher_model, "shared", None)), model.shared), mesh)

    def measure(state, inputs, targets, mask, fixed):
        (teacher, theirs), ours = fixed
        network = bind(model, ours)
        inputs = inputs if preprocess is None else preprocess(inputs)
        if teacher_model is not None:
            targets = members.targets(bind(teacher_model, theirs), teacher, inputs, distiller.targets, chunk_size=distiller.chunk_size)

        def one(state):
            outputs, _ = network.apply(state.variables, inputs, train=False, rngs=None)
            sums = lambda *examples: distiller.statistics(*examples, state.params, state.state)  # noqa: E731
            return jax.lax.psum(sums(outputs, targets) if mask is None else _masked(sums, mask, outputs, targets), meshes.DATA)

        return members.map_members(one, strategy, state.variables)(state)

    def apply(state, statistics):
        def one(state, statistics):
            kept = (state.variables, state.params, state.state)
            fresh = distiller.update(statistics, *kept, state.step)
            chosen = jax.tree.map(lambda new, old: jnp.where(state.alive, new, old).astype(old.dtype), fresh, kept)
            return state._replace(variables=chosen[0], params=chosen[1], state=chosen[2])

        return jax.vmap(one)(state, statistics)

    rows, whole, data = meshes.REPLICAS, meshes.REPLICATED, P(meshes.DATA)
    measure = jax.jit(jax.shard_map(measure, mesh=mesh, in_specs=(rows, data, data, data, whole), out_specs=rows))
    apply = jax.jit(jax.shard_map(apply, mesh=mesh, in_specs=(rows, rows), out_specs=rows))

    def update(state: TrainState, batches: Iterable[dict]) -> TrainState:
        total = None
        for batch in batches:
            mask = None if np.all(np.asarray(batch.get("mask", 1)) > 0) else batch["mask"]
            placed = meshes.place((batch["inputs"], batch.get("targets", {}), mask), mesh, data)
            sums = measure(state, *placed, fixed)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        if total is None:
            raise ValueError("the design set must hold at least one batch, got none")
        return apply(state, total)

    return update


def _masked(sums: Callable, mask, outputs, targets):
    """`sums` over the examples that `mask` [B] keeps, taken one by one."""
    each = jax.vmap(lambda *example: sums(*jax.tree.map(lambda leaf: leaf[None], example)))(outputs, targets)
    keep = lambda leaf: jnp.where(mask.reshape(-1, *[1] * (leaf.ndim - 1)) > 0, leaf, 0).sum(0)  # noqa: E731
    return jax.tree.map(keep, each)
