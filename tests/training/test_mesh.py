"""The mesh and the way of arrays onto it and back."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from edd.training import mesh as meshes


def test_make_fills_in_what_is_left():
    sizes = lambda **given: tuple(meshes.make(**given).shape.values())  # noqa: E731
    assert meshes.make(2, 4).axis_names == ("member", "data")
    assert meshes.make(2, 4).axis_types == (AxisType.Auto,) * 2
    assert [sizes(), sizes(member=2), sizes(data=2), sizes(member=3), sizes(member=1, data=2)] == [(1, 8), (2, 4), (4, 2), (3, 2), (1, 2)]
    assert sizes(devices=jax.devices()[:1]) == (1, 1)
    for bad in ({"member": 9}, {"member": 0}, {"data": 0}, {"member": 4, "data": 3}):
        with pytest.raises(ValueError, match="mesh"):
            meshes.make(**bad)


def test_for_replicas_uses_devices_that_divide():
    sizes = lambda *a, **k: tuple(meshes.for_replicas(*a, **k).shape.values())  # noqa: E731
    assert [sizes(8), sizes(10), sizes(3), sizes(3, batch_size=6), sizes(5, batch_size=7)] == [(8, 1), (2, 4), (1, 8), (1, 2), (1, 1)]
    assert sizes(4, jax.devices()[:2]) == (2, 1)
    with pytest.raises(ValueError, match="num_replicas"):
        meshes.for_replicas(0)


def test_round_trip():
    mesh = meshes.make(2, 4)
    batch = {"x": np.arange(4 * 8 * 3.0).reshape(4, 8, 3), "y": np.arange(32).reshape(4, 8)}
    assert meshes.local_block(mesh, 4, 8) == (slice(0, 4), slice(0, 8))
    placed = meshes.shard_batch(batch, mesh, 4, 8)
    assert {shard.data.shape for shard in placed["x"].addressable_shards} == {(2, 2, 3)}
    for name in batch:
        np.testing.assert_array_equal(meshes.to_host(placed, mesh)[name], batch[name])
    key = meshes.place(jax.random.key(3), mesh)
    assert key.sharding.is_fully_replicated and jax.random.key_data(key).tolist() == [0, 3]
    assert meshes.describe(mesh) == {"member": 2, "data": 4, "platform": "cpu", "processes": 1}


def test_check_divides():
    mesh = meshes.make(2, 4)
    meshes.check_divides(mesh, 6, 12)
    for replicas, batch, message in ((3, 8, "num_replicas"), (0, 8, "num_replicas"), (2, 6, "batch_size")):
        with pytest.raises(ValueError, match=message):
            meshes.check_divides(mesh, replicas, batch)
