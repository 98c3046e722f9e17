"""One training step of one replica on one device's shard of its batch; `step` adds replicas and devices.

The loss is averaged over "data" *inside* the differentiated function, so that `check_vma` inserts the one gradient all-reduce (averaging
gradients afterwards would be wrong by the size of the data axis).

Randomness: `key -> fold_in(step) -> fold_in(replica) -> fold_in(position in the batch)`: no draw depends on the mesh.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from edd.distillers.base import Distiller
from edd.ensembles import members
from edd.models.base import Model
from edd.training import mesh as meshes
from edd.training.optimizers import global_norm
from edd.training.state import TrainState, trained
from edd.typing import Array, Key, PyTree

AUGMENT, DROPOUT, LOSS, PENALTY, NOISE = range(5)  # what a folded key is for


class Metrics(NamedTuple):
    """Per replica [R]: mean loss (nats, penalty included), global gradient norm before clipping, whether it still trains."""

    loss: Array
    gradient_norm: Array
    alive: Array


@dataclass(frozen=True)
class ReplicaStep:
    """One step of one replica on this device's shard of its batch."""

    model: Model
    distiller: Distiller
    optimizer: optax.GradientTransformation
    preprocess: Callable | None
    augment: Callable | None
    teacher_model: Model | None
    ema_decay: float | None
    strategy: str

    def __call__(self, state: TrainState, batch: dict, replica: Array, now: Array, key: Key, teacher: PyTree) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(key, now), replica)
        example_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["position"])
        places = batch["position" if self.distiller.multi_input is None else "index"]  # an example looks the same at every network input
        inputs, targets = self.examples(batch, augmentation_keys(key, places), teacher)
        if "mask" in batch and self.distiller.update_from == "minibatch":
            raise ValueError("a batch with a mask cannot update a method from a minibatch: its sums would count the padding")
        old, state = state, self.update(state, inputs, targets, now)
        (_, (loss, new_state)), gradients = jax.value_and_grad(self.objective, has_aux=True)(
            trained(state.variables, state.params), state, inputs, targets, batch, example_keys, jax.random.fold_in(key, PENALTY)
        )
        if self.distiller.gradient_transform is not None:
            gradients = self.distiller.gradient_transform(gradients)
        norm, noise = global_norm(gradients), jax.random.fold_in(jax.random.fold_in(key, NOISE), NOISE)  # no example's key
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, trained(state.variables, state.params), key=noise)
        weights, params = optax.apply_updates(trained(state.variables, state.params), updates)
        variables = {**state.variables, **new_state, **weights}
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & _finite((variables, params)) & _no_nan(state.state)
        new = state._replace(
            step=now + 1, variables=variables, params=params, opt_state=opt_state, ema=self.average(state.ema, (variables, params), now)
        )
        alive = old.alive & finite
        new = jax.tree.map(lambda fresh, kept: fresh if fresh is kept else jnp.where(alive, fresh, kept), new, old)
        frozen_at = jnp.where(old.alive & ~finite, now, old.frozen_at)
        return new._replace(alive=alive, frozen_at=frozen_at), Metrics(loss, norm, alive)

    def examples(self, batch: dict, keys: Key, teacher: PyTree) -> tuple[Array, PyTree]:
        """The inputs as the network sees them, and the loss's targets."""
        inputs = batch["inputs"] if self.augment is None else self.augment(keys, batch["inputs"])
        if self.preprocess is not None:
            inputs = self.preprocess(inputs)
        if self.distiller.targets is None:
            return inputs, None
        if self.teacher_model is None:
            if "targets" not in batch:
                raise ValueError('the method needs targets: give online_targets, or a batch with "targets"')
            return inputs, batch["targets"]
        method = self.distiller
        return inputs, members.targets(
            self.teacher_model, teacher, inputs, method.targets, chunk_size=method.chunk_size, strategy=self.strategy
        )

    def update(self, state: TrainState, inputs: Array, targets: PyTree, now: Array) -> TrainState:
        """The distiller's own update before the loss: E-step, annealing. Every `update_every` steps."""
        method = self.distiller
        if method.update is None or method.update_from == "design_set":
            return state
        due, anchor = now % method.update_every == 0, now * 0
        statistics = None
        if method.update_from == "minibatch":

            def measure():
                outputs, _ = self.model.apply(state.variables, inputs, train=False, rngs=None)
                return jax.lax.psum(method.statistics(outputs, targets, state.params, state.state), meshes.DATA)

            shapes = jax.eval_shape(measure)
            tie = lambda leaf: leaf + anchor.astype(leaf.dtype)  # noqa: E731  both branches vary over the same mesh axes
            statistics = jax.lax.cond(
                due,
                lambda: jax.tree.map(tie, measure()),
                lambda: jax.tree.map(lambda leaf: tie(jnp.zeros(leaf.shape, leaf.dtype)), shapes),
            )
        kept = (state.variables, state.params, state.state)
        fresh = method.update(statistics, *kept, now)
        chosen = jax.tree.map(lambda new, old: old if new is old else jnp.where(due, new, old).astype(old.dtype), fresh, kept)
        return state._replace(variables=chosen[0], params=chosen[1], state=chosen[2])

    def objective(self, weights: PyTree, state: TrainState, inputs, targets, batch: dict, keys: Key, penalty_key: Key) -> tuple[Array, Any]:
        """Mean loss over the whole batch plus penalty; the mean over "data" is taken here, inside the differentiated function."""
        variables, params = {**state.variables, **weights[0]}, weights[1]
        outputs, new_state = self.model.apply(variables, inputs, train=True, rngs={"dropout": _purpose(keys, DROPOUT)})
        losses = self.distiller.loss(outputs, targets, params, state.state, batch.get("labels"), _purpose(keys, LOSS))
        if "mask" in batch:
            mask = batch["mask"].astype(losses.dtype)
            total, count = jax.lax.psum((jnp.sum(jnp.where(mask > 0, losses * mask, 0.0)), jnp.sum(mask)), meshes.DATA)
            loss = total / jnp.maximum(count, 1e-9)
        else:
            loss = jax.lax.pmean(jnp.mean(losses), meshes.DATA)
        penalty = self.distiller.penalty
        objective = loss if penalty is None else loss + penalty(variables, params, state.state, penalty_key)
        return objective, (objective, new_state)

    def average(self, ema: PyTree, fresh: PyTree, now: Array) -> PyTree:
        """Exponential moving average with warm-up."""
        if self.ema_decay is None:
            return ema
        decay = jnp.minimum(self.ema_decay, (1.0 + now) / (10.0 + now))
        return jax.tree.map(lambda slow, new: slow + ((1.0 - decay) * (new - slow)).astype(slow.dtype), ema, fresh)


def _purpose(keys: Key, purpose: int) -> Key:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, purpose)


def augmentation_keys(key: Key, places: Array) -> Key:
    """One key per place (of any shape): what an example's augmentation draws from."""
    return jax.vmap(lambda place: jax.random.fold_in(jax.random.fold_in(key, place), AUGMENT))(places.reshape(-1)).reshape(places.shape)


def _finite(tree: PyTree) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _no_nan(tree: PyTree) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return ~jnp.any(jnp.stack([jnp.any(jnp.isnan(leaf)) for leaf in leaves])) if leaves else jnp.ones((), bool)
