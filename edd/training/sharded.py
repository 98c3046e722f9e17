"""Fully sharded training of one large network: its weights, gradients and optimiser state are spread over the "data" axis.

The step is one program over global arrays, `jax.jit` with `NamedSharding` in place of the manual `shard_map` of replicas: XLA gathers a
layer's weights where it needs them and scatters its gradients. Every leaf is cut along its largest axis that the devices divide; small
leaves, where a message costs more than the memory, stay whole.
"""

from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from edd.training import mesh as meshes
from edd.typing import PyTree

SHARDINGS = ("replicated", "full")
SMALLEST = 4096  # elements below which a leaf stays whole on every device


def check(sharding: str, num_replicas: int, mesh: Mesh) -> None:
    """ValueError for an unknown sharding, or one that does not fit the replicas."""
    if sharding not in SHARDINGS:
        raise ValueError(f"sharding must be one of {', '.join(SHARDINGS)}, got {sharding!r}")
    if sharding == "full" and (num_replicas != 1 or mesh.shape[meshes.MEMBER] != 1):
        raise ValueError(
            f"sharding 'full' is for one network on a mesh of 1 x devices, got {num_replicas} replicas on {mesh.shape[meshes.MEMBER]} x "
            f"{mesh.shape[meshes.DATA]}; several networks are spread over the member axis by 'replicated'"
        )


def spec(shape: tuple[int, ...], num_devices: int) -> P:
    """How a state's leaf [R, *shape] is cut: its largest axis after the replicas that `num_devices` divides, the first of equals.

    Examples:
      >>> tuple(spec((1, 512, 2048), 8))
      (None, None, 'data')
      >>> tuple(spec((1, 10), 8))
      ()
    """
    size = 1
    for length in shape:
        size *= length
    axes = [axis for axis in range(1, len(shape)) if shape[axis] % num_devices == 0]
    if size < SMALLEST or not axes:
        return P()
    chosen = max(axes, key=lambda axis: (shape[axis], -axis))
    return P(*[None] * chosen, meshes.DATA)


def constrain(tree: PyTree, mesh: Mesh) -> PyTree:
    """Inside a compiled program: every leaf of a state cut as `spec` says."""
    parts = mesh.shape[meshes.DATA]

    def cut(leaf):
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec(leaf.shape, parts)))

    return jax.tree.map(cut, tree)


def one_shard(function: Callable) -> Callable:
    """`function`, written for one shard of the batch with collectives over "data", as a function of the whole batch.

    The axis is there with length one, so that a mean over it is the mean over the whole batch: models and losses stay as they are.
    """
    return jax.vmap(function, in_axes=None, out_axes=None, axis_name=meshes.DATA, axis_size=1)
