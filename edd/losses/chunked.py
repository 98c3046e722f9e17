"""Losses and targets of long sequences over large vocabularies, a few time steps at a time.

Logits of M members, B sequences, L steps and V classes are M B L V numbers: 10 x 32 x 64 x 32,000 are 2.6 GB, and the temporaries of a
loss several times that. What produces them is small: hidden states [B, L, d] and an output matrix [d, V]. Here logits exist for
`chunk_size` steps at once, in the forward and in the backward pass:

- `member_targets` reduces the members' logits to targets [B, L, ...] chunk by chunk, by the exact functions of the other modules;
- `from_states` is any per-step loss of a student's hidden states and output matrix; its gradient makes each chunk's logits again;
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


def over_time(function: Callable[[PyTree], PyTree], arrays: PyTree, chunk_size: int, *, axis: int = 1) -> PyTree:
    """`function` of `chunk_size` time steps at a time, written into results [B, L, ...]; time is axis `axis` of `arrays` and 1 of results.

    The last chunk starts early enough to be whole, so steps in two chunks are computed twice; `function` must treat steps alike. Not for
    differentiation: it would keep every version of the results.

    Args:
      function: chunk of `arrays` -> pytree of [B, C, ...].
      arrays: pytree of arrays with L steps each.
      chunk_size: C >= 1; at most L is used.
      axis: of time in `arrays`.

    Raises:
      ValueError: no array, lengths that differ, no step, a chunk size below 1.

    Examples:
      >>> over_time(lambda x: 2 * x, jnp.arange(5.0)[None], 2).tolist()
      [[0.0, 2.0, 4.0, 6.0, 8.0]]
    """
    length = _length(arrays, axis)
    size = min(_chunk_size(chunk_size), length)

    def chunk(start):
        return function(jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis), arrays))

    shapes = jax.eval_shape(chunk, 0)
    empty = jax.tree.map(lambda x: jnp.zeros((x.shape[0], length, *x.shape[2:]), x.dtype), shapes)

    def write(index, whole):
        start = jnp.minimum(index * size, length - size)
        return jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 1), whole, chunk(start))

    return jax.lax.fori_loop(0, -(-length // size), write, empty)


def member_targets(
    targets: Targets,
    member_states: Float[Array, "M B L d"],
    kernels: Float[Array, "M d V"],
    biases: Float[Array, "M V"] | None = None,
    *,
    chunk_size: int = 1,
) -> PyTree:
    """Targets [B, L, ...] of members given by their last hidden states and output matrices; [M, B, L, V] is never held.

    O(M B L d V), the members' own output layers; memory: the targets and a few [M, B, chunk_size, V].

    Args:
      targets: logits [M, B, C, V] -> pytree of [B, C, ...]: a distiller's `targets`, or a target of `edd.losses` of their log_softmax.
      member_states: what the output layers multiply.
      kernels: their matrices.
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
      >>> states, kernels = jnp.ones((2, 1, 3, 4)), jnp.stack([jnp.zeros((4, 5)), jnp.eye(4, 5)])
      >>> found = member_targets(lambda logits: proxy.proxy_target(jax.nn.log_softmax(logits)), states, kernels)
      >>> found.log_mean_probs.shape, found.precision.shape
      ((1, 3, 5), (1, 3))
    """
    _check_members(member_states, kernels, biases)
    found = over_time(lambda states: targets(_member_logits(states, kernels, biases)), member_states, chunk_size, axis=2)
    return jax.lax.stop_gradient(found)


def from_states(
    loss: Loss,
    states: Float[Array, "B L d"],
    kernel: Float[Array, "d V"],
    targets: PyTree,
    bias: Float[Array, " V"] | None = None,
    *,
    mask: ArrayLike | None = None,
    chunk_size: int = 1,
) -> Float[Array, "B L"]:
    """A loss of each time step from a student's last hidden states and output matrix, in the loss's unit; [B, L, V] is never held.

    Value and gradient (in states, kernel and bias) are those of loss(states @ kernel + bias, targets). The backward pass makes each chunk's
    logits again: one matrix product more than the three of the plain form.

    Args:
      loss: (logits [B, C, V], targets of these steps) -> [B, C].
      states: [B, L, d].
      kernel: [d, V].
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
      >>> from_states(distillation.end_from_log_mean_probs, jnp.zeros((1, 3, 4)), jnp.ones((4, 2)), target).tolist()
      [[0.0, 0.0, 0.0]]
    """
    states, mask = _student(states, kernel, bias, mask)
    lengths = {leaf.shape[:2] for leaf in jax.tree.leaves(targets)}
    if lengths and lengths != {states.shape[:2]}:
        raise ValueError(f"targets must be [B, L, ...] over states {states.shape}, got leading shapes {sorted(lengths)}")

    def chunk(own, target):
        return loss(_logits(own, kernel, bias), target)

    return jnp.where(mask, _mapped(chunk, states, jax.lax.stop_gradient(targets), 1, chunk_size), 0)


def distillation_from_states(
    loss: Loss,
    targets: Targets,
    states: Float[Array, "B L d"],
    kernel: Float[Array, "d V"],
    member_states: Float[Array, "M B L d"],
    member_kernels: Float[Array, "M d V"],
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
      states, kernel, bias: the student's.
      member_states, member_kernels, member_biases: the members'; their d may differ from the student's.
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
      >>> states, kernel = jnp.zeros((1, 3, 4)), jnp.ones((4, 5))
      >>> distillation_from_states(loss_of_chunk, target_of_chunk, states, kernel, jnp.ones((2, 1, 3, 4)), jnp.ones((2, 4, 5))).shape
      (1, 3)
    """
    states, mask = _student(states, kernel, bias, mask)
    _check_members(member_states, member_kernels, member_biases)
    checks.shape(member_states, (None, *states.shape[:2], None), "member_states")
    member_states, member_kernels, member_biases = jax.lax.stop_gradient((member_states, member_kernels, member_biases))

    def chunk(own, members):
        target = targets(_member_logits(members, member_kernels, member_biases))
        return loss(_logits(own, kernel, bias), jax.lax.stop_gradient(target))

    return jnp.where(mask, _mapped(chunk, states, member_states, 2, chunk_size), 0)


def _logits(states: Array, kernel: Array, bias: Array | None) -> Array:
    logits = states @ kernel
    return logits if bias is None else logits + bias.reshape((1,) * (logits.ndim - 1) + (-1,))


def _member_logits(states: Array, kernels: Array, biases: Array | None) -> Array:
    logits = jnp.einsum("mbld,mdv->mblv", states, kernels)
    return logits if biases is None else logits + biases[:, None, None]


def _mapped(chunk: Callable[[Array, PyTree], Array], states: Array, constants: PyTree, axis: int, chunk_size: int) -> Array:
    """`chunk` of every `chunk_size` steps of states [B, L, d] and of `constants` (time on `axis`) -> [B, L].

    Differentiable in the states and in what `chunk` closes over; nothing of a chunk is kept for the backward pass. Constants are sliced
    where they lie, so that no second copy of the targets is made. The last chunk starts early enough to be whole.
    """
    length = states.shape[1]
    size = min(_chunk_size(chunk_size), _length(states, 1))
    starts = jnp.minimum(jnp.arange(-(-length // size)) * size, length - size)

    @jax.checkpoint
    def one(start, own):
        return chunk(own, jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis), constants))

    steps = starts[:, None] + jnp.arange(size)[None]
    values = jax.lax.map(lambda part: one(*part), (starts, jnp.moveaxis(states[:, steps], 1, 0)))
    done = (starts.shape[0] - 1) * size
    first = jnp.moveaxis(values[:-1], 0, 1).reshape(states.shape[0], done)
    return jnp.concatenate([first, values[-1][:, done + size - length :]], 1)


def _student(states: Array, kernel: Array, bias: Array | None, mask: ArrayLike | None) -> tuple[Array, Array]:
    """(`states` with zeros where nothing counts, the mask as booleans), shapes checked."""
    checks.shape(states, (None, None, None), "states")
    checks.shape(kernel, (states.shape[-1], None), "kernel")
    if bias is not None:
        checks.shape(bias, kernel.shape[-1:], "bias")
    mask = jnp.ones(states.shape[:2], bool) if mask is None else jnp.asarray(mask)
    checks.shape(mask, states.shape[:2], "mask")
    return jnp.where((mask > 0)[..., None], states, 0), mask > 0


def _check_members(states: Array, kernels: Array, biases: Array | None) -> None:
    checks.shape(states, (None, None, None, None), "member_states")
    checks.shape(kernels, (states.shape[0], states.shape[-1], None), "kernels")
    if biases is not None:
        checks.shape(biases, (kernels.shape[0], kernels.shape[-1]), "biases")


def _length(arrays: PyTree, axis: int) -> int:
    lengths = {leaf.shape[axis] for leaf in jax.tree.leaves(arrays)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"arrays must have one number of time steps, at least 1, on axis {axis}, got {sorted(lengths)}")
    return lengths.pop()


def _chunk_size(size: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"chunk_size must be an integer >= 1, got {size!r}")
    return size
