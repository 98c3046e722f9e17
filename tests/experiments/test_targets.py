"""The target cache: equal to direct evaluation, resumable, tied to what made it."""

import errno
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.experiments import targets

INPUTS = np.arange(46, dtype=np.float32).reshape(23, 2)


@jax.jit
def function(x):
    return {"double": 2.0 * x, "sum": x.sum(-1)}


def test_cached_targets_equal_direct_ones_whatever_the_batch(tmp_path):
    key = targets.fingerprint(INPUTS)
    for batch_size in (5, 23, 40):
        cached = targets.compute(function, INPUTS, batch_size=batch_size, directory=tmp_path / str(batch_size), key=key)
        np.testing.assert_array_equal(cached["double"], 2 * INPUTS)
        np.testing.assert_array_equal(cached["sum"], INPUTS.sum(-1))
    np.testing.assert_array_equal(targets.compute(function, INPUTS, batch_size=5)["sum"], INPUTS.sum(-1))


def test_an_interrupted_cache_continues_where_it_stopped(tmp_path):
    calls = []

    def counted(x):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return function(x)

    key = targets.fingerprint(INPUTS)
    options = {"batch_size": 5, "directory": tmp_path, "key": key, "flush_every": 1}
    counted_lower = jax.eval_shape(function, jax.ShapeDtypeStruct((5, 2), jnp.float32))
    assert counted_lower["sum"].shape == (5,)
    with pytest.raises(KeyboardInterrupt):
        targets.compute(counted, INPUTS, **options)  # eval_shape is the first call, two batches are done
    folder = next(tmp_path.glob("targets-*"))
    assert json.loads((folder / "progress.json").read_text())["done"] == 10
    calls.clear()
    resumed = targets.compute(lambda x: (calls.append(1), function(x))[1], INPUTS, **options)
    assert len(calls) == 1 + 3  # eval_shape, then batches 3 to 5 only
    np.testing.assert_array_equal(resumed["double"], 2 * INPUTS)


def test_other_teachers_or_another_order_make_another_cache(tmp_path):
    keys = {targets.fingerprint(*parts) for parts in ((INPUTS,), (INPUTS[::-1],), (INPUTS, "proxy"), (INPUTS + 1,), ({"w": INPUTS},))}
    assert len(keys) == 5
    for key in keys:
        targets.compute(function, INPUTS, batch_size=23, directory=tmp_path, key=key)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_damaged_cache_is_made_again(tmp_path):
    key = targets.fingerprint(INPUTS)
    targets.compute(function, INPUTS, batch_size=5, directory=tmp_path, key=key)
    folder = next(tmp_path.iterdir())
    (folder / "0.npy").write_bytes(b"half a file")
    again = targets.compute(function, INPUTS, batch_size=5, directory=tmp_path, key=key)
    np.testing.assert_array_equal(again["double"], 2 * INPUTS)


def test_nan_targets_name_the_example():
    bad = INPUTS.copy()
    bad[7] = np.nan
    with pytest.raises(ValueError, match="training example 7 is NaN"):
        targets.compute(function, bad, batch_size=5)


def test_a_truncated_cache_is_made_again(tmp_path):
    """A writable mapping would silently fill the missing end with zeros."""
    options = {"batch_size": 5, "directory": tmp_path, "key": targets.fingerprint(INPUTS)}
    first = targets.compute(function, INPUTS, **options)
    del first
    path = next(tmp_path.glob("targets-*/0.npy"))
    os.truncate(path, path.stat().st_size - 64)
    again = targets.compute(function, INPUTS, **options)
    np.testing.assert_array_equal(again["double"], 2 * INPUTS)
    np.testing.assert_array_equal(again["sum"], INPUTS.sum(-1))


def test_a_full_disk_is_an_error_not_a_bus_error(tmp_path, monkeypatch):
    def full(file, start, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(targets.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="cache cannot be written .*is the disk full"):
        targets.compute(function, INPUTS, batch_size=5, directory=tmp_path, key=targets.fingerprint(INPUTS))
    assert not list(tmp_path.glob("targets-*/progress.json"))


def test_every_process_keeps_a_cache_of_its_own(tmp_path, monkeypatch):
    for process in range(2):
        monkeypatch.setattr(targets.jax, "process_index", lambda process=process: process)
        targets.compute(function, INPUTS, batch_size=5, directory=tmp_path, key="k")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["targets-k", "targets-k-process1"]
