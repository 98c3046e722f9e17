"""Everything one replica's training carries from step to step, and how it is born on the mesh."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from edd.distillers.base import Distiller
from edd.ensembles import members
from edd.models.base import Model, bind
from edd.training import mesh as meshes
from edd.training import sharded
from edd.typing import Array, Key, PyTree


class TrainState(NamedTuple):
    """One replica's state; the engine holds it with a leading replica axis R on every leaf.

    Attributes:
      step: int32, optimiser steps done.
      variables: the network's variables; the collection "params" is trained, the rest ("batch_stats") is carried.
      params: what the distiller trains beside the network.
      state: what the distiller carries without training it.
      opt_state: optax's state for ({"params": ...}, params).
      ema: (variables, params) averaged over steps, or None.
      alive: bool, False once a loss, gradient or new weight was not finite; then nothing above changes any more.
      frozen_at: int32, the step (0-based) that was not finite, -1 while alive.
    """

    step: Array
    variables: PyTree
    params: PyTree
    state: PyTree
    opt_state: PyTree
    ema: PyTree
    alive: Array
    frozen_at: Array


def trained(variables: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
    """The part that gradients and the optimiser see: ({"params": network weights}, distiller's params)."""
    return {"params": variables["params"]}, params


def create(
    model: Model, distiller: Distiller, optimizer: optax.GradientTransformation, key: Key, example: PyTree, *, ema: bool
) -> TrainState:
    """The first state of one replica (no replica axis)."""
    model_key, distiller_key = jax.random.split(key)
    variables = model.init(model_key, example)
    params, state = distiller.init(distiller_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        params=params,
        state=state,
        opt_state=optimizer.init(trained(variables, params)),
        ema=jax.tree.map(jnp.copy, (variables, params)) if ema else None,
        alive=jnp.ones((), bool),
        frozen_at=jnp.full((), -1, jnp.int32),
    )


def init(
    model: Model,
    distiller: Distiller,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Key,
    example: PyTree,
    *,
    num_replicas: int,
    ema: bool = False,
    sharding: str = "replicated",
) -> TrainState:
    """The first state of all replicas [R, ...], born sharded over "member"; replica r uses `fold_in(key, r)`.

    Args:
      model, distiller, optimizer: as for `step.make_train_step`.
      mesh: axes ("member", "data").
      key: typed key.
      example: one batch of preprocessed inputs [B, *S], or a pytree of such (arrays or ShapeDtypeStruct); only shape and dtype matter.
      num_replicas: R >= 1, a multiple of the mesh's member axis.
      ema: carry an exponential moving average (give the same to the step through `ema_decay`).
      sharding: "replicated", or "full": one network's leaves are born spread over "data" (give the same to the step).

    Raises:
      ValueError: the mesh does not divide `num_replicas`, or "full" with several of them.
    """
    members.check_count(num_replicas, "num_replicas")
    meshes.check_divides(mesh, num_replicas)
    sharded.check(sharding, num_replicas, mesh)
    local = num_replicas // mesh.shape[meshes.MEMBER]
    shape = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), example)

    def build(key, shared, first):
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
        one = lambda replica: create(bind(model, shared), distiller, optimizer, jax.random.fold_in(key, replica), blank, ema=ema)  # noqa: E731
        return jax.vmap(one)(first + jnp.arange(local))

    def manual(key, shared):
        return build(key, shared, jax.lax.axis_index(meshes.MEMBER) * local)

    def whole(key, shared):
        return sharded.constrain(build(key, shared, 0), mesh)

    if sharding == "replicated":
        whole = jax.shard_map(manual, mesh=mesh, in_specs=(meshes.REPLICATED, meshes.REPLICATED), out_specs=meshes.REPLICAS)
    return jax.jit(whole)(meshes.place(key, mesh), meshes.place(model.shared, mesh))


def begin_from(first: TrainState, variables: PyTree) -> TrainState:
    """The first state with `variables` of one network (no replica axis) in place of every replica's random ones.

    Raises:
      ValueError: they are of another network.

    Examples:
      >>> state = TrainState(*[jnp.zeros(1)] * 8)._replace(variables={"params": jnp.zeros((2, 3))}, ema=None)
      >>> begin_from(state, {"params": jnp.ones(3)}).variables["params"].tolist()
      [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    shapes = lambda tree, skip: jax.tree.map(lambda leaf: jnp.shape(leaf)[skip:], tree)  # noqa: E731
    if shapes(first.variables, 1) != shapes(variables, 0):
        raise ValueError(
            "the weights to begin from are of another network: take the student's backbone as the teachers', or random weights"
        )

    def put(old, new):
        return jax.device_put(jnp.broadcast_to(jnp.asarray(new, old.dtype), old.shape), old.sharding)

    begun = jax.tree.map(put, first.variables, variables)
    ema = None if first.ema is None else (jax.tree.map(jnp.copy, begun), first.ema[1])
    return first._replace(variables=begun, ema=ema)


def abstract(state: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of a state: what a checkpoint is restored into."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
