"""One network spread over the devices: the same numbers as whole on each, a part of the memory, checkpoints, clear refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import dlf_logits, supervised
from edd.models import mlp
from edd.training import checkpoint, optimizers, sharded, state, step
from edd.training import mesh as meshes

K, B = 4, 16
SHAPE = (64,)


def setting(sharding: str, devices: int, name: str = "adam", **options):
    model = mlp.make(K, widths=(512,), dropout=0.2, batch_norm=True, axis_name="data")
    distiller, mesh = supervised.make(0, K), meshes.make(1, devices)
    optimizer, ema = optimizers.make(name, 0.01, total_steps=5), "ema_decay" in options
    example = jnp.zeros((1, *SHAPE))
    first = state.init(model, distiller, optimizer, mesh, jax.random.key(0), example, num_replicas=1, ema=ema, sharding=sharding)
    options = {"num_replicas": 1, "batch_size": B, "sharding": sharding, **options}
    return mesh, first, step.make_train_step(model, distiller, optimizer, mesh, **options)


def batch(mesh, seed: int):
    rng = np.random.default_rng(seed)
    host = {
        "inputs": rng.normal(size=(1, B, *SHAPE)).astype(np.float32),
        "labels": rng.integers(0, K, (1, B)).astype(np.int32),
        "position": np.arange(B, dtype=np.int32)[None],
    }
    return meshes.shard_batch(host, mesh, 1, B)


def train(sharding: str, devices: int, **options):
    mesh, current, run = setting(sharding, devices, **options)
    for seed in range(2):
        current, metrics = run(current, batch(mesh, seed), meshes.place(jax.random.key(1), mesh))
    return current, jax.device_get(metrics)


def bytes_on_one_device(tree) -> int:
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_spread_over_devices_equals_whole_on_one():
    options = {"ema_decay": 0.9, "name": "sgd"}  # Adam would magnify the rounding of gradients near zero
    one, expected = train("replicated", 1, **options)
    spread, found = train("full", 4, **options)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    for left, right in zip(jax.tree.leaves(jax.device_get(one)), jax.tree.leaves(jax.device_get(spread)), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_each_device_holds_its_part_from_birth_on():
    mesh, born, run = setting("full", 4)
    whole = setting("replicated", 4)[1]
    parts = [leaf.nbytes // (4 if "data" in sharded.spec(leaf.shape, 4) else 1) for leaf in jax.tree.leaves(born)]
    assert bytes_on_one_device(born) == sum(parts) < bytes_on_one_device(whole) / 3  # small leaves stay whole
    placed = [leaf.sharding for leaf in jax.tree.leaves(born)]
    inputs = batch(mesh, 0)
    compiled = run.lower(born, inputs, meshes.place(jax.random.key(1), mesh)).compile()
    assert compiled.memory_analysis().argument_size_in_bytes <= sum(parts) + bytes_on_one_device(inputs) + 200
    after, _ = run(born, batch(mesh, 0), meshes.place(jax.random.key(1), mesh))
    assert all(leaf.sharding.is_equivalent_to(old, leaf.ndim) for leaf, old in zip(jax.tree.leaves(after), placed, strict=True))


def test_a_checkpoint_of_one_layout_is_read_into_the_other(tmp_path):
    spread, _ = train("full", 4)
    mesh, whole, _ = setting("replicated", 2)
    with checkpoint.Checkpointer(tmp_path / "run") as saver:
        saver.save(2, spread, meshes.place(jax.random.key(1), meshes.make(1, 4)))
        saver.wait()
        restored = saver.restore(state.abstract(whole), meshes.place(jax.random.key(0), mesh))
    for left, right in zip(jax.tree.leaves(jax.device_get(spread)), jax.tree.leaves(jax.device_get(restored.state)), strict=True):
        np.testing.assert_array_equal(left, right)
    wanted = [leaf.sharding for leaf in jax.tree.leaves(whole)]
    assert all(leaf.sharding.is_equivalent_to(old, leaf.ndim) for leaf, old in zip(jax.tree.leaves(restored.state), wanted, strict=True))


def test_the_largest_axis_that_divides_is_cut():
    assert sharded.spec((1, 64, 256), 8) == jax.P(None, None, "data")
    assert sharded.spec((1, 256, 64), 8) == jax.P(None, "data")
    assert sharded.spec((1, 100, 64), 8) == jax.P(None, None, "data")  # 100 does not divide
    assert sharded.spec((1, 99, 101), 8) == jax.P()
    assert sharded.spec((1, 4095), 1) == jax.P()
    assert sharded.spec((), 4) == jax.P()


def test_what_does_not_fit_is_refused():
    model, optimizer, mesh = mlp.make(K, widths=(8,)), optimizers.make("sgd", 0.1, total_steps=1), meshes.make(1, 2)
    common = dict(batch_size=B, sharding="full")
    with pytest.raises(ValueError, match="one network"):
        step.make_train_step(model, supervised.make(0, K), optimizer, mesh, num_replicas=2, **common)
    with pytest.raises(ValueError, match="sharding must be one of replicated, full"):
        step.make_train_step(model, supervised.make(0, K), optimizer, mesh, num_replicas=1, batch_size=B, sharding="ful")
    with pytest.raises(ValueError, match="design set"):
        step.make_train_step(model, dlf_logits.make(4, K, latent_dim=2), optimizer, mesh, num_replicas=1, **common)
