"""Devices: the mesh ("member", "data"), and moving host arrays onto it and back.

A mesh is made here and passed in, never global. Axis types are given explicitly. The first axis spreads replicas
(members of an ensemble, seeds of a student), the second one the examples of each replica's batch.
"""

from collections.abc import Mapping, Sequence
from math import gcd

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from edd.typing import PyTree

MEMBER, DATA = "member", "data"
REPLICAS, BATCH, REPLICATED = P(MEMBER), P(MEMBER, DATA), P()


def make(member: int | None = None, data: int | None = None, devices: Sequence | None = None) -> Mesh:
    """A mesh ("member", "data") of `member` x `data` devices.

    Args:
      member: devices along the replica axis; None: all that `data` leaves.
      data: devices along the example axis; None: all that `member` leaves. Both None: 1 x all devices.
      devices: the devices to use, default all; more than `member * data` are cut.

    Raises:
      ValueError: a count below 1, more devices asked for than there are, or a process without a device on the mesh.
    """
    devices = list(jax.devices() if devices is None else devices)
    if member is None:
        member = 1 if data is None else len(devices) // data if data > 0 else 0
    if data is None:
        data = len(devices) // member if member > 0 else 0
    if member < 1 or data < 1 or member * data > len(devices):
        raise ValueError(f"a mesh of {member} x {data} (member x data) needs {member * data} devices, there are {len(devices)}")
    used = devices[: member * data]
    if jax.process_count() > 1 and len({device.process_index for device in used}) < jax.process_count():
        raise ValueError(
            f"a mesh of {member} x {data} (member x data) leaves out some of the {jax.process_count()} processes: "
            f"the replicas or the batch size must share factors with the {len(devices)} devices"
        )
    return jax.make_mesh((member, data), (MEMBER, DATA), axis_types=(AxisType.Auto,) * 2, devices=used)


def for_replicas(num_replicas: int, devices: Sequence | None = None, batch_size: int | None = None) -> Mesh:
    """The mesh that spreads `num_replicas` over as many devices as divide them, and each batch over the rest.

    Args:
      num_replicas: R >= 1.
      devices: default all.
      batch_size: examples per replica and step; given, the data axis is cut to a divisor of it.
    """
    devices = list(jax.devices() if devices is None else devices)
    if num_replicas < 1:
        raise ValueError(f"num_replicas must be at least 1, got {num_replicas}")
    member = gcd(num_replicas, len(devices))
    data = len(devices) // member
    if batch_size is not None:
        data = gcd(data, batch_size)
    return make(member, data, devices)


def check_divides(mesh: Mesh, num_replicas: int, batch_size: int | None = None) -> None:
    """ValueError unless the mesh divides the replicas and the batch."""
    for axis, total, name in ((MEMBER, num_replicas, "num_replicas"), (DATA, batch_size, "batch_size")):
        if total is not None and (total < 1 or total % mesh.shape[axis]):
            raise ValueError(f"{name} must be a positive multiple of the mesh's {axis!r} axis ({mesh.shape[axis]}), got {total}")


def local_block(mesh: Mesh, num_replicas: int, batch_size: int) -> tuple[slice, slice]:
    """The (replicas, examples) rows of a global [R, B] batch that this process's devices hold; everything on one process."""
    indices = NamedSharding(mesh, BATCH).addressable_devices_indices_map((num_replicas, batch_size)).values()
    bounds = [[part.indices(size)[:2] for part, size in zip(index, (num_replicas, batch_size))] for index in indices]
    low, high = np.min([[b[0] for b in row] for row in bounds], 0), np.max([[b[1] for b in row] for row in bounds], 0)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def shard_batch(batch: PyTree, mesh: Mesh, num_replicas: int, batch_size: int) -> PyTree:
    """Global arrays [R, B, ...] from this process's block of each (what `local_block` names)."""
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    block = local_block(mesh, num_replicas, batch_size)

    def place(local):
        local = np.asarray(local)

        def rows(index):
            cut = [
                slice(part.indices(size)[0] - own.start, part.indices(size)[1] - own.start)
                for part, size, own in zip(index, (num_replicas, batch_size), block)
            ]
            return local[tuple(cut)]

        return jax.make_array_from_callback((num_replicas, batch_size, *local.shape[2:]), sharding, rows)

    return jax.tree.map(place, batch)


def place(tree: PyTree, mesh: Mesh, spec: P = REPLICATED) -> PyTree:
    """Host or device arrays, whole on every process, as global arrays with `spec` (typed keys too)."""
    sharding = NamedSharding(mesh, spec)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.jit(_identity, out_shardings=sharding)(leaf)
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf))
            return jax.jit(lambda x: jax.random.wrap_key_data(x, impl=jax.random.key_impl(leaf)))(data)
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree)


def to_host(tree: PyTree, mesh: Mesh) -> PyTree:
    """Numpy copies, whole on every process. Over several processes a small program gathers first: all must call it."""
    leaves = jax.tree.leaves(tree)
    if all(not isinstance(leaf, jax.Array) or leaf.is_fully_addressable for leaf in leaves):
        return jax.device_get(tree)
    return jax.device_get(jax.jit(_identity, out_shardings=NamedSharding(mesh, REPLICATED))(tree))


def _identity(tree: PyTree) -> PyTree:
    return tree


def describe(mesh: Mesh) -> Mapping[str, int | str]:
    """What a run records about its devices."""
    return {
        "member": mesh.shape[MEMBER],
        "data": mesh.shape[DATA],
        "platform": mesh.devices.flat[0].platform,
        "processes": jax.process_count(),
    }
