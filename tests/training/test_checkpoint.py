"""Checkpoints: what is kept, what is refused, and what survives faults."""

import os
import pathlib
import resource
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edd.training import checkpoint, state
from edd.training import mesh as meshes
from edd.training.checkpoint import Checkpointer, CorruptCheckpointWarning

KEY = jax.random.key(5)

# Orbax abandons its other reads when one fails on a damaged file; their event loop then complains from C code
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state_of(value, width=3, replicas=2, optimizer=None):
    """A training state with every kind of leaf, full of `value`."""
    optimizer = optax.chain(optax.clip(1.0), optax.adam(1e-3)) if optimizer is None else optimizer
    params = {"w": np.random.default_rng(value).normal(size=(replicas, width, 4)).astype(np.float32)}
    tree = state.TrainState(
        step=jnp.full((replicas,), value, jnp.int32),
        variables={"params": params, "batch_stats": {}},
        params={},
        state={"key": jax.random.split(jax.random.key(value), replicas)},
        opt_state=optimizer.init((params, {})),
        ema=None,
        alive=jnp.ones(replicas, bool),
        frozen_at=jnp.full((replicas,), -1, jnp.int32),
    )
    return meshes.place(tree, meshes.make(1, 1))


def plain(tree):
    raw = lambda leaf: jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf  # noqa: E731
    return [np.asarray(raw(leaf)) for leaf in jax.tree.leaves(tree)]


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(plain(a), plain(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_round_trip_keeps_every_bit_and_the_last_n(tmp_path):
    with Checkpointer(tmp_path, keep_last=2) as saver:
        assert saver.restore(state_of(0), KEY) is None
        for step in (1, 2, 3):
            saver.save(step, state_of(step), KEY)
        saver.wait()
        assert saver.steps == [2, 3]
    with Checkpointer(tmp_path) as saver:
        restored = saver.restore(state_of(0), jax.random.key(0))
    assert restored.step == 3
    assert_same(restored.state, state_of(3))
    assert_same(restored.key, KEY)
    assert isinstance(restored.state, state.TrainState)


def test_buffers_may_be_donated_while_the_save_is_running(tmp_path):
    clobber = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 7, tree), donate_argnums=0)
    current = state_of(1, width=20_000)._replace(state={})
    expected = jax.tree.map(np.array, jax.device_get(current))
    with Checkpointer(tmp_path) as saver:
        saver.save(1, current, KEY)
        for _ in range(3):
            current = current._replace(variables=clobber(current.variables))
        saver.wait()
        assert_same(saver.restore(current, KEY).state.variables, expected.variables)


@pytest.mark.parametrize("mode,best", [("min", 2), ("max", 3)])
def test_keep_best_survives_a_restart_and_later_saves(tmp_path, mode, best):
    scores = {1: 3.0, 2: 1.0, 3: 5.0, 4: 4.0}
    with Checkpointer(tmp_path, keep_last=1, keep_best=1, best_metric="nll", mode=mode) as saver:
        for step, score in scores.items():
            saver.save(step, state_of(step), KEY, {"nll": score, "other": np.nan})
        saver.wait()
        assert saver.steps == [best, 4]
    with Checkpointer(tmp_path, keep_last=1, keep_best=1, best_metric="nll", mode=mode) as saver:
        saver.save(5, state_of(5), KEY, {"nll": 2.0})
        saver.wait()
        assert saver.steps == [best, 5]
        assert saver.restore(state_of(0), KEY).step == 5
        assert saver.restore_best(state_of(0), KEY).step == best


def files_of(directory):
    return sorted(path for path in pathlib.Path(directory).rglob("*") if path.is_file())


def test_any_damaged_file_is_noticed_or_harmless(tmp_path):
    """Each file of the newest checkpoint is cut, emptied, flipped and removed in turn: never wrong numbers."""
    with Checkpointer(tmp_path, keep_last=2) as saver:
        for step in (1, 2):
            saver.save(step, state_of(step), KEY)
    fallbacks = 0
    for path in files_of(tmp_path / "2"):
        data = path.read_bytes()
        middle = len(data) // 2
        for damaged in (data[:middle], data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]):
            path.write_bytes(damaged)
            with warnings.catch_warnings(record=True) as caught, Checkpointer(tmp_path) as saver:
                warnings.simplefilter("always")
                restored = saver.restore(state_of(0), KEY)
            told = [str(w.message) for w in caught if issubclass(w.category, CorruptCheckpointWarning)]
            assert (restored.step == 1) == bool(told), path
            assert not told or f"{tmp_path / '2'} cannot be read" in told[0]
            assert_same(restored.state, state_of(restored.step))
            fallbacks += restored.step == 1
            path.write_bytes(data)
    assert fallbacks >= 6


def test_silently_changed_numbers_are_caught_by_the_checksum(tmp_path, monkeypatch):
    with Checkpointer(tmp_path) as saver:
        saver.save(1, state_of(1), KEY)
        saver.wait()
        load = saver._manager.load

        def changed(step, abstract):
            tree = load(step, abstract)
            return {**tree, "state": tree["state"]._replace(frozen_at=tree["state"].frozen_at + 1)}

        monkeypatch.setattr(type(saver._manager), "load", lambda self, *args: changed(*args))
        with (
            pytest.warns(CorruptCheckpointWarning, match="checksum differs in state/frozen_at"),
            pytest.raises(OSError, match="no readable"),
        ):
            saver.restore(state_of(0), KEY)


def test_after_a_fallback_the_damaged_step_can_be_saved_again(tmp_path):
    with Checkpointer(tmp_path) as saver:
        for step in (1, 2):
            saver.save(step, state_of(step), KEY)
    (tmp_path / "2" / "state" / "_METADATA").write_text("{")
    with Checkpointer(tmp_path) as saver:
        with pytest.warns(CorruptCheckpointWarning):
            assert saver.restore(state_of(0), KEY).step == 1
        saver.discard_after(1)
        saver.save(2, state_of(2), KEY)
        saver.wait()
        assert_same(saver.restore(state_of(0), KEY).state, state_of(2))


def test_a_checkpoint_of_another_model_lists_the_differences(tmp_path):
    with Checkpointer(tmp_path) as saver:
        saver.save(1, state_of(1), KEY)
        saver.wait()
        with pytest.raises(ValueError, match=r"another model.*variables/params/w is float32\[2, 3, 4\], expected float32\[2, 5, 4\]"):
            saver.restore(state_of(0, width=5), KEY)
        extra = state_of(0)._replace(ema={"slow": jnp.zeros(2)}, state={})
        with pytest.raises(ValueError, match=r"missing state/ema/slow \(float32\[2\]\).*unexpected state/state/key"):
            saver.restore(extra, KEY)
        assert saver.restore(state_of(0), KEY).step == 1


def test_a_full_disk_leaves_the_previous_checkpoint_and_raises_at_the_next_save(tmp_path):
    """A file-size limit makes the write fail in the background, as a full disk does."""
    wide = lambda value: state_of(value, width=30_000, optimizer=optax.sgd(0.1))  # noqa: E731
    saver = Checkpointer(tmp_path)
    saver.save(1, wide(1), KEY)
    saver.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"asynchronous save in .* failed .*checkpoints kept: \[1\]. Is the disk full"):
            saver.save(2, wide(2), KEY)
            saver.save(3, wide(3), KEY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert saver.steps == [1]
    assert_same(saver.restore(wide(0), KEY).state, wide(1))
    saver.save(4, wide(4), KEY)
    saver.close()
    with Checkpointer(tmp_path) as saver:
        assert saver.steps == [1, 4]
        assert_same(saver.restore(wide(0), KEY).state, wide(4))
    assert sorted(os.listdir(tmp_path)) == ["1", "4"]


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path):
    with Checkpointer(tmp_path) as saver:
        saver.save(1, state_of(1), KEY)
    leftover = tmp_path / "2.orbax-checkpoint-tmp"
    (leftover / "state").mkdir(parents=True)
    (leftover / "state" / "_METADATA").write_text("{")
    with Checkpointer(tmp_path) as saver:
        assert saver.steps == [1] and saver.restore(state_of(0), KEY).step == 1
    assert not leftover.exists()


def test_arguments():
    with pytest.raises(ValueError, match="keep_last"):
        Checkpointer("unused", keep_last=0)
    with pytest.raises(ValueError, match="mode"):
        Checkpointer("unused", mode="best")
    assert checkpoint.difference({"a": "x", "b": "y"}, {"b": "z", "c": "w"}) == "missing a (x); unexpected c (w); b is z, expected y"
