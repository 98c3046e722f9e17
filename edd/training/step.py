"""The training step of every method: one fully manual `jax.shard_map` over ("member", "data").

`replica.ReplicaStep` is written for one replica and one shard of its batch; `members.map_members` adds the replicas of a device, the mesh
the rest. Nothing crosses "member". One large network may be spread over the devices instead (`sharded`).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from edd.distillers.base import Distiller
from edd.ensembles import members
from edd.models.base import Model, bind
from edd.training import mesh as meshes
from edd.training import sharded
from edd.training.replica import ReplicaStep
from edd.training.state import TrainState
from edd.typing import Array, Key, PyTree

UPDATES = ("nothing", "minibatch", "design_set")


@dataclass(frozen=True)
class TrainStep:
    """A compiled step: `step(state, batch, key) -> (state, metrics)`; `state` is donated. Static choices are its attributes."""

    mesh: Mesh
    num_replicas: int
    batch_size: int
    function: Callable
    fixed: PyTree  # ((the teacher's variables, its shared arrays), the network's shared arrays)

    def __call__(self, state: TrainState, batch: dict[str, PyTree], key: Key) -> tuple[TrainState, dict[str, Array]]:
        state, metrics = self.function(state, batch, key, self.fixed)
        return state, metrics._asdict()

    def lower(self, state: TrainState, batch: dict[str, PyTree], key: Key):
        """`jax.stages.Lowered` of the step, for reading the compiled program."""
        return self.function.lower(state, batch, key, self.fixed)


def make_train_step(
    model: Model,
    distiller: Distiller,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    num_replicas: int,
    batch_size: int,
    preprocess: Callable | None = None,
    augment: Callable | None = None,
    online_targets: tuple[Model, PyTree] | None = None,
    strategy: str = "auto",
    ema_decay: float | None = None,
    sharding: str = "replicated",
) -> TrainStep:
    """The jitted training step of `num_replicas` replicas on `mesh`.

    Cost: one forward and backward pass per replica (plus the teacher's forward passes when targets are online); one
    all-reduce of the gradients over "data"; nothing over "member".

    Args:
      model: the network; made with `axis_name="data"` if it has BatchNorm.
      distiller: the method; `targets` None trains on labels.
      optimizer: written for one replica (`optimizers.make`).
      mesh: axes ("member", "data").
      num_replicas: R, a multiple of the member axis.
      batch_size: examples per replica and step, a multiple of the data axis.
      preprocess: raw inputs [B, *S] -> float inputs, or None.
      augment: (keys [B], raw inputs) -> raw inputs, applied before `preprocess`, or None.
      online_targets: (teacher model, its stacked variables [M, ...], alive members only) evaluated in evaluation mode on the
        same augmented inputs; the distiller's `targets` makes of the logits what the loss needs. None: `batch["targets"]`.
      strategy: how the replicas of one device run, see `members.map_members`.
      ema_decay: in (0, 1), moving average of the weights with warm-up min(decay, (1 + t) / (10 + t)); None: none.
      sharding: "replicated" over "data", or "full": one network's state spread over "data" (`sharded`, born so by `state.init`).

    Returns:
      (state [R, ...], batch, key) -> (state, {"loss", "gradient_norm", "alive"} each [R]). `batch` holds global arrays [R, B, ...]:
      "inputs", "position" and, as the method needs, "labels", "targets", "mask" (weights >= 0). A replica whose loss,
      gradient or new weights are not finite keeps its state of before, `alive` becomes False and `frozen_at` the step; the
      others are not touched. The distiller's loss gets one key per example [B], its penalty one key per step.

    Raises:
      ValueError: the mesh divides neither replicas nor batch, `ema_decay` outside (0, 1), EMA with a method that rewrites weights,
        "full" with several replicas or a method that is updated from a design set.
    """
    meshes.check_divides(mesh, num_replicas, batch_size)
    _check(distiller, ema_decay, strategy)
    sharded.check(sharding, num_replicas, mesh)
    teacher_model, teacher = (None, {}) if online_targets is None else online_targets
    local, noisy = num_replicas // mesh.shape[meshes.MEMBER], optax.with_extra_args_support(optimizer)

    def run(first, state, batch, key, fixed):
        (teacher, theirs), ours = fixed
        networks = (bind(model, ours), bind(teacher_model, theirs))
        one = ReplicaStep(networks[0], distiller, noisy, preprocess, augment, networks[1], ema_decay, strategy)
        now = jnp.max(state.step)  # a frozen replica's own counter stands still
        fn = lambda state, batch, replica: one(state, batch, replica, now, key, teacher)  # noqa: E731
        chosen = members.choose_strategy(state.variables, collectives=mesh.shape[meshes.DATA] > 1) if strategy == "auto" else strategy
        return members.map_members(fn, chosen)(state, batch, first + jnp.arange(local))

    def manual(*arguments):
        return run(jax.lax.axis_index(meshes.MEMBER) * local, *arguments)

    def whole(*arguments):
        state, metrics = sharded.one_shard(functools.partial(run, 0))(*arguments)
        return sharded.constrain(state, mesh), metrics

    rows, everywhere = meshes.REPLICAS, meshes.REPLICATED
    if sharding == "full" and distiller.update is not None and distiller.update_from == "design_set":
        raise ValueError("sharding 'full' cannot update a method from a design set; let it update from minibatches, or take 'replicated'")
    if sharding == "replicated":
        whole = jax.shard_map(manual, mesh=mesh, in_specs=(rows, meshes.BATCH, everywhere, everywhere), out_specs=(rows, rows))
    fixed = meshes.place(((teacher, getattr(teacher_model, "shared", None)), model.shared), mesh)
    return TrainStep(mesh, num_replicas, batch_size, jax.jit(whole, donate_argnums=0), fixed)


def _check(distiller: Distiller, ema_decay: float | None, strategy: str) -> None:
    if strategy not in members.STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(members.STRATEGIES)}, got {strategy!r}")
    if distiller.update_from not in UPDATES:
        raise ValueError(f"distiller.update_from must be one of {', '.join(UPDATES)}, got {distiller.update_from!r}")
    if distiller.update_every < 1:
        raise ValueError(f"distiller.update_every must be at least 1, got {distiller.update_every}")
    if ema_decay is not None and not 0.0 < ema_decay < 1.0:
        raise ValueError(f"ema_decay must lie in (0, 1), got {ema_decay}")
    if ema_decay is not None and distiller.update is not None and distiller.update_from != "nothing":
        raise ValueError("ema_decay must be None for a method whose update rewrites weights: their average would mix two parametrisations")
