"""Losses and targets of long sequences over large vocabularies, a few time steps at a time.

Logits of M members, B sequences, L steps and V classes are M B L V numbers: 10 x 32 x 64 x 32,000 are 2.6 GB, and the temporaries of a
loss several times that. What produces them is small: hidden states [B, L, d] and an output layer's weights [V, d] (`Model.templates`). Here
logits exist for `chunk_size` steps at once, in the forward and in the backward pass:

- `member_targets` reduces the members' logits to targets [B, L, ...] chunk by chunk, by the exact functions of the other modules;
- `from_states` is any per-step loss of a student's hidden states and output layer; its gradient makes each chunk's logits again;
- `distillation_from_states` does both in one pass, so that not even the targets [B, L, V] are held.

Members are kept together and time is cut, not the other way round: sums over members in turn would have to subtract what the exact
measures never form.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from edd.math import checks
from edd.typing import Array, ArrayLike, Float, PyTree

Loss = Callable[[Array, PyTree], Array]
Targets = Callable[[Array], PyTree]


def over_time(function: Callable[[PyTree], PyTree], arrays: PyTree, chunk_size: int, *, axes: PyTree = 1) -> PyTree:
    """`function` of `chunk_size` time steps at a time, written into results [B, L, ...] whose axis 1 is time.

    Differentiable in `arrays` and in what `function` closes over; the backward pass makes every chunk again, nothing of one is kept. Arrays
    are sliced where they lie, so that no second copy of them is made. The last chunk starts early enough to be whole, so steps in two
    chunks are computed twice; `function` must treat steps alike.

    Args:
      function: chunk of `arrays` -> pytree of [B, C, ...].
      arrays: pytree of arrays with L steps each.
      chunk_size: C >= 1; at most L is used.
      axes: of time in `arrays`: an integer, or a pytree of them of which `arrays` is an extension, as `in_axes` of `jax.vmap`.

    Raises:
      ValueError: no array, lengths that differ, no step, a chunk size below 1.

    Examples:
      >>> over_time(lambda x: 2 * x, jnp.arange(5.0)[None], 2).tolist()
      [[0.0, 2.0, 4.0, 6.0, 8.0]]
      >>> over_time(lambda pair: pair[0] + pair[1][0], (jnp.ones((1, 3)), jnp.arange(3.0)[None, None]), 2, axes=(1, 2)).tolist()
      [[1.0, 2.0, 3.0]]
    """
    axes = jax.tree.map(lambda axis, part: jax.tree.map(lambda _: axis, part), axes, arrays)
    length = _length(arrays, axes)
    size = min(_chunk_size(chunk_size), length)

    @jax.checkpoint
    def chunk(start):
        return function(jax.tree.map(lambda x, axis: jax.lax.dynamic_slice_in_dim(x, start, size, axis), arrays, axes))

    def write(index, whole):
        start = jnp.minimum(index * size, length - size)
        return jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 1), whole, chunk(start))

    def empty(x):
        zeros = 0 * x[:, :1].astype(jnp.int32)
        return jnp.broadcast_to(zeros.astype(x.dtype), (x.shape[0], length, *x.shape[2:]))

    # zeros made from a chunk, which the compiler leaves out: the loop's state must vary over the same mesh axes before and after a step
    return jax.lax.fori_loop(0, -(-length // size), write, jax.tree.map(empty, chunk(0)))


def member_targets(
    targets: Targets,
    member_states: Float[Array, "M B L d"],
    weights: Float[Array, "M V d"],
    biases: Float[Array, "M V"] | None = None,
    *,
    chunk_size: int = 1,
) -> PyTree:
    """Targets [B, L, ...] of members given by their last hidden states and output layers; [M, B, L, V] is never held.

    O(M B L d V), the members' own output layers; memory: the targets and a few [M, B, chunk_size, V].

    Args:
      targets: logits [M, B, C, V] -> pytree of [B, C, ...]: a distiller's `targets`, or a target of `edd.losses` of their log_softmax.
      member_states: what the output layers multiply.
      weights: of the output layers.
      biases: their biases, or None.
      chunk_size: time steps at once, >= 1.

    Returns:
      What `targets` returns, over all steps; no gradient flows through it.

    Raises:
      ValueError: shapes that do not match, a chunk size below 1.

    References:
      Ryabinin, Malinin & Gales 2021, appendix D (targets are computed on the fly, without gradients).

    Examples:
      >>> from edd.losses import proxy
      >>> states, weights = jnp.ones((2, 1, 3, 4)), jnp.stack([jnp.zeros((5, 4)), jnp.eye(5, 4)])
      >>> found = member_targets(lambda logits: proxy.proxy_target(jax.nn.log_softmax(logits)), states, weights)
      >>> found.log_mean_probs.shape, found.precision.shape
      ((1, 3, 5), (1, 3))
    """
    _check_members(member_states, weights, biases)
    found = over_time(lambda states: targets(member_logits(states, weights, biases)), member_states, chunk_size, axes=2)
    return jax.lax.stop_gradient(found)


def from_states(
    loss: Loss,
    states: Float[Array, "B L d"],
    weights: Float[Array, "V d"],
    targets: PyTree,
    bias: Float[Array, " V"] | None = None,
    *,
    mask: ArrayLike | None = None,
    chunk_size: int = 1,
) -> Float[Array, "B L"]:
    """A loss of each time step from a student's last hidden states and output layer, in the loss's unit; [B, L, V] is never held.

    Value and gradient (in states, weights and bias) are those of loss(states @ weights.T + bias, targets). The backward pass makes each
    chunk's logits again: one matrix product more than the three of the plain form.

    Args:
      loss: (logits [B, C, V], targets of these steps) -> [B, C].
      states: [B, L, d].
      weights: [V, d].
      targets: pytree of [B, L, ...], constants for differentiation.
      bias: [V] or None.
      mask: [B, L], 1 where a step counts, or None: all do.
      chunk_size: time steps at once, >= 1.

    Returns:
      [B, L]; 0 and without gradient where the mask is 0.

    Raises:
      ValueError: shapes that do not match, a chunk size below 1.

    References:
      Ryabinin, Malinin & Gales 2021, appendix C (the loss of each time step).

    Examples:
      >>> from edd.losses import distillation
      >>> target = jnp.log(jnp.full((1, 3, 2), 0.5))
      >>> from_states(distillation.end_from_log_mean_probs, jnp.zeros((1, 3, 4)), jnp.ones((2, 4)), target).tolist()
      [[0.0, 0.0, 0.0]]
    """
    states, mask = _student(states, weights, bias, mask)
    lengths = {leaf.shape[:2] for leaf in jax.tree.leaves(targets)}
    if lengths and lengths != {states.shape[:2]}:
        raise ValueError(f"targets must be [B, L, ...] over states {states.shape}, got leading shapes {sorted(lengths)}")

    def chunk(parts):
        own, target = parts
        return loss(_logits(own, weights, bias), target)

    return jnp.where(mask, over_time(chunk, (states, jax.lax.stop_gradient(targets)), chunk_size), 0)


def distillation_from_states(
    loss: Loss,
    targets: Targets,
    states: Float[Array, "B L d"],
    weights: Float[Array, "V d"],
    member_states: Float[Array, "M B L d"],
    member_weights: Float[Array, "M V d"],
    bias: Float[Array, " V"] | None = None,
    member_biases: Float[Array, "M V"] | None = None,
    *,
    mask: ArrayLike | None = None,
    chunk_size: int = 1,
) -> Float[Array, "B L"]:
    """`from_states` of `member_targets` in one pass: neither the students' logits nor the targets [B, L, V] are ever held.

    The members' output layers run twice, once in each pass.

    Args:
      loss: (logits [B, C, V], targets of these steps) -> [B, C].
      targets: members' logits [M, B, C, V] -> targets of these steps; constants for differentiation.
      states, weights, bias: the student's.
      member_states, member_weights, member_biases: the members'; their d may differ from the student's.
      mask: [B, L], 1 where a step counts, or None: all do.
      chunk_size: time steps at once, >= 1.

    Returns:
      [B, L]; 0 and without gradient where the mask is 0.

    Raises:
      ValueError: shapes that do not match, a chunk size below 1.

    References:
      Ryabinin, Malinin & Gales 2021, appendices C and D.

    Examples:
      >>> from edd.losses import proxy
      >>> def loss_of_chunk(logits, target):
      ...     return proxy.reverse_kl(logits, target)
      >>> def target_of_chunk(logits):
      ...     return proxy.proxy_target(jax.nn.log_softmax(logits))
      >>> states, weights = jnp.zeros((1, 3, 4)), jnp.ones((5, 4))
      >>> distillation_from_states(loss_of_chunk, target_of_chunk, states, weights, jnp.ones((2, 1, 3, 4)), jnp.ones((2, 5, 4))).shape
      (1, 3)
    """
    states, mask = _student(states, weights, bias, mask)
    _check_members(member_states, member_weights, member_biases)
    checks.shape(member_states, (None, *states.shape[:2], None), "member_states")
    member_states, member_weights, member_biases = jax.lax.stop_gradient((member_states, member_weights, member_biases))

    def chunk(parts):
        own, members = parts
        target = targets(member_logits(members, member_weights, member_biases))
        return loss(_logits(own, weights, bias), jax.lax.stop_gradient(target))

    return jnp.where(mask, over_time(chunk, (states, member_states), chunk_size, axes=(1, 2)), 0)


def member_logits(states: Float[Array, "M B C d"], weights: Float[Array, "M V d"], biases: Float[Array, "M V"] | None) -> Array:
    """[M, B, C, V]; for what `over_time` calls."""
    logits = jnp.einsum("mbld,mvd->mblv", states, weights)
    return logits if biases is None else logits + biases[:, None, None]


def _logits(states: Array, weights: Array, bias: Array | None) -> Array:
    logits = jnp.einsum("...d,vd->...v", states, weights)  # no transposed copy of the weights, which XLA may make of `weights.T`
    return logits if bias is None else logits + bias.reshape((1,) * (logits.ndim - 1) + (-1,))


def _student(states: Array, weights: Array, bias: Array | None, mask: ArrayLike | None) -> tuple[Array, Array]:
    """(`states` with zeros where nothing counts, the mask as booleans), shapes checked."""
    checks.shape(states, (None, None, None), "states")
    checks.shape(weights, (None, states.shape[-1]), "weights")
    if bias is not None:
        checks.shape(bias, weights.shape[:1], "bias")
    mask = jnp.ones(states.shape[:2], bool) if mask is None else jnp.asarray(mask)
    checks.shape(mask, states.shape[:2], "mask")
    return jnp.where((mask > 0)[..., None], states, 0), mask > 0


def _check_members(states: Array, weights: Array, biases: Array | None) -> None:
    checks.shape(states, (None, None, None, None), "member_states")
    checks.shape(weights, (states.shape[0], None, states.shape[-1]), "member_weights")
    if biases is not None:
        checks.shape(biases, weights.shape[:2], "member_biases")


def _length(arrays: PyTree, axes: PyTree) -> int:
    lengths = set(jax.tree.leaves(jax.tree.map(lambda leaf, axis: leaf.shape[axis], arrays, axes)))
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"arrays must have one number of time steps, at least 1, got {sorted(lengths)}")
    return lengths.pop()


def _chunk_size(size: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"chunk_size must be an integer >= 1, got {size!r}")
    return size
