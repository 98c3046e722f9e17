"""Batches: one order per (seed, replica, epoch), the same from either backend, resumable at any step, sliceable by process."""

import itertools
import sys
from typing import NamedTuple

import jax
import numpy as np
import pytest

from edd.data import pipeline

N, B, R = 23, 5, 3


class Target(NamedTuple):
    probs: np.ndarray
    precision: np.ndarray


def arrays():
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (N, 4, 4, 1)).astype(np.uint8)
    return {"inputs": inputs, "labels": np.arange(N, dtype=np.int32), "targets": Target(rng.random((N, 3)), rng.random(N))}


def make(**options):
    return pipeline.Batches(arrays(), **{"batch_size": B, "seed": 7, "num_replicas": R, **options})


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_a_batch_gathers_every_array_in_its_own_dtype():
    batches, data = make(), arrays()
    batch = batches.batch(6)
    assert batch["inputs"].shape == (R, B, 4, 4, 1) and batch["inputs"].dtype == np.uint8
    assert batch["index"].dtype == batch["position"].dtype == np.int32
    np.testing.assert_array_equal(batch["position"], np.tile(np.arange(B), (R, 1)))
    for replica, position in itertools.product(range(R), range(B)):
        example = batch["index"][replica, position]
        np.testing.assert_array_equal(batch["inputs"][replica, position], data["inputs"][example])
        assert batch["labels"][replica, position] == example
        np.testing.assert_array_equal(batch["targets"].probs[replica, position], data["targets"].probs[example])
        assert batch["targets"].precision[replica, position] == data["targets"].precision[example]


def test_an_epoch_is_a_permutation_and_drops_the_remainder():
    batches = make()
    assert batches.steps_per_epoch == N // B == 4
    for epoch in range(3):
        seen = np.concatenate([batches.batch(epoch * 4 + step)["index"] for step in range(4)], 1)
        for replica in range(R):
            order = batches.order(replica, epoch)
            assert sorted(order.tolist()) == list(range(N))
            np.testing.assert_array_equal(seen[replica], order[: 4 * B])


def test_replicas_epochs_and_seeds_have_their_own_orders():
    orders = [make(seed=seed).order(r, e).tolist() for seed in (7, 8) for r in range(R) for e in range(2)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_order_does_not_depend_on_how_many_replicas_there_are_or_on_history():
    fresh, used = make(num_replicas=1), make()
    for step in (0, 17, 3, 40, 9):
        used.batch(step)
    np.testing.assert_array_equal(fresh.batch(11)["index"][0], used.batch(11)["index"][0])


def test_order_is_the_sort_of_philox_output():
    raw = np.random.Philox(np.random.SeedSequence((7, 2, 1))).random_raw(N)
    np.testing.assert_array_equal(make().order(2, 1), sorted(range(N), key=lambda i: raw[i]))
    np.testing.assert_array_equal(pipeline.permutation(8, 0), [0, 3, 7, 5, 1, 2, 6, 4])  # fixed across versions and machines


def test_without_shuffling_the_order_is_the_examples_own():
    np.testing.assert_array_equal(make(shuffle=False).batch(5)["index"], np.tile(np.arange(5, 10), (R, 1)))


@pytest.mark.parametrize("backend", ["grain", "numpy", "auto"])
def test_backends_yield_the_batches_in_order(backend):
    batches = make()
    found = list(pipeline.iterate(batches, start_step=2, num_steps=9, backend=backend, prefetch=3))
    assert len(found) == 9
    for step, batch in enumerate(found, 2):
        equal(batch, batches.batch(step))


@pytest.mark.parametrize("backend", ["grain", "numpy"])
def test_resuming_in_the_middle_of_an_epoch_equals_going_on(backend):
    whole = list(pipeline.iterate(make(), num_steps=11, backend=backend))
    first = pipeline.iterate(make(), num_steps=11, backend=backend)
    for _ in range(6):
        next(first)
    state = first.get_state()
    assert state == {"step": 6}
    for resumed in (
        pipeline.iterate(make(), start_step=6, num_steps=5, backend=backend),
        pipeline.iterate(make(), num_steps=11, backend=backend),
    ):
        resumed.set_state(state)
        rest = list(resumed)
        assert len(rest) == 5
        for a, b in zip(rest, whole[6:], strict=True):
            equal(a, b)


@pytest.mark.parametrize("backend", ["grain", "numpy"])
def test_endless_iteration_goes_past_an_epoch(backend):
    batches = make()
    iterator = pipeline.iterate(batches, backend=backend)
    for step in range(3 * batches.steps_per_epoch):
        np.testing.assert_array_equal(next(iterator)["index"], batches.batch(step)["index"])
    assert iterator.get_state() == {"step": 12}


@pytest.mark.parametrize("backend", ["grain", "numpy"])
def test_slices_of_the_processes_assemble_to_the_whole(backend):
    batches, step = make(), 6
    whole = batches.batch(step)
    rows = []
    for replicas in (slice(0, 1), slice(1, 3)):
        parts = []
        for examples in (slice(0, 2), slice(2, 5)):
            local = next(pipeline.iterate(make(), start_step=step, replicas=replicas, examples=examples, backend=backend))
            equal(local, batches.batch(step, replicas, examples))
            parts.append(local)
        rows.append(jax.tree.map(lambda *leaves: np.concatenate(leaves, 1), *parts))
    equal(jax.tree.map(lambda *leaves: np.concatenate(leaves, 0), *rows), whole)


def test_memory_mapped_arrays_are_gathered_into_memory(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20.0).reshape(10, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    batch = pipeline.Batches({"x": mapped}, batch_size=4, seed=0).batch(1)
    assert type(batch["x"]) is np.ndarray
    np.testing.assert_array_equal(batch["x"][0, :, 0], 2.0 * batch["index"][0])


def test_a_missing_grain_leaves_the_numpy_backend(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    equal(next(pipeline.iterate(make(), start_step=3, backend="auto")), make().batch(3))
    with pytest.raises(ImportError):
        pipeline.iterate(make(), backend="grain")


@pytest.mark.parametrize("batch_size", [1, 5, 23, 40])
def test_evaluation_covers_every_example_once_and_masks_the_padding(batch_size):
    data = arrays()
    found = list(pipeline.evaluation_batches(data, batch_size))
    assert len(found) == -(-N // batch_size)
    assert all(batch["inputs"].shape == (batch_size, 4, 4, 1) and batch["inputs"].dtype == np.uint8 for batch in found)
    assert all(batch["mask"].dtype == np.float32 and set(batch["mask"]) <= {0.0, 1.0} for batch in found)
    keep = np.concatenate([batch["mask"] for batch in found]) > 0
    np.testing.assert_array_equal(keep, np.arange(len(keep)) < N)
    for name in ("inputs", "labels"):
        together = np.concatenate([batch[name] for batch in found])
        np.testing.assert_array_equal(together[keep], data[name])
        np.testing.assert_array_equal(together[~keep], np.repeat(data[name][-1:], len(keep) - N, 0))
    np.testing.assert_array_equal(np.concatenate([batch["targets"].precision for batch in found])[keep], data["targets"].precision)


def test_weights_are_a_training_array_and_no_evaluation_array():
    weighted = {"inputs": np.arange(4.0), "mask": np.arange(4)}
    batch = pipeline.Batches(weighted, batch_size=3, seed=0).batch(0)
    np.testing.assert_array_equal(batch["mask"], batch["inputs"])
    with pytest.raises(ValueError, match="reserved names index, position, mask, got mask"):
        list(pipeline.evaluation_batches(weighted, 2))


def test_evaluation_slices_assemble_to_the_whole():
    whole = list(pipeline.evaluation_batches(arrays(), 6))
    left, right = (list(pipeline.evaluation_batches(arrays(), 6, examples)) for examples in (slice(0, 4), slice(4, 6)))
    for one, a, b in zip(whole, left, right, strict=True):
        equal(jax.tree.map(lambda x, y: np.concatenate([x, y]), a, b), one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": N + 1}, r"batch_size must lie in \[1, 23\], the number of examples, got 24"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_replicas": 0}, "num_replicas must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"x": np.zeros(3), "y": np.zeros(4)}, "same number of examples"),
        ({"x": np.float32(3)}, "same number of examples"),
        ({}, "same number of examples"),
        ({"x": np.zeros((0, 2))}, "at least one example"),
        ({"index": np.zeros(3)}, "reserved names"),
    ],
)
def test_bad_arrays_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        pipeline.Batches(bad, batch_size=1, seed=0)
    with pytest.raises(ValueError, match=message):
        pipeline.evaluation_batches(bad, 1)


def test_bad_iteration_is_refused():
    for options in ({"backend": "torch"}, {"start_step": -1}, {"num_steps": -1}, {"prefetch": 0}):
        with pytest.raises(ValueError, match="must be"):
            pipeline.iterate(make(), **options)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        pipeline.evaluation_batches(arrays(), 0)
    with pytest.raises(ValueError, match="step must be at least 0"):
        make().batch(-1)
    with pytest.raises(ValueError, match=r"must lie in \[0, 4\]"):
        pipeline.iterate(make(), num_steps=4).set_state({"step": 5})


def test_each_replica_meets_its_own_subset_once_an_epoch():
    subsets = np.array([[0, 2, 4, 6], [9, 8, 1, 3]])
    batches = pipeline.Batches({"x": np.arange(10)}, batch_size=2, seed=0, num_replicas=2, subsets=subsets)
    assert batches.steps_per_epoch == 2
    for epoch in range(3):
        met = np.concatenate([batches.batch(2 * epoch + step)["x"] for step in range(2)], 1)
        np.testing.assert_array_equal(np.sort(met, 1), np.sort(subsets, 1))
    plain = pipeline.Batches({"x": np.arange(10)}, batch_size=2, seed=0, num_replicas=2, subsets=subsets, shuffle=False)
    np.testing.assert_array_equal(plain.batch(1)["x"], subsets[:, 2:])
    for bad, message in ((subsets[:1], "R = 2"), (subsets + 1, r"\[0, 10\)"), (subsets / 2, "integers")):
        with pytest.raises(ValueError, match=message):
            pipeline.Batches({"x": np.arange(10)}, batch_size=2, seed=0, num_replicas=2, subsets=bad)
    with pytest.raises(ValueError, match=r"\[1, 4\]"):
        pipeline.Batches({"x": np.arange(10)}, batch_size=5, seed=0, num_replicas=2, subsets=subsets)
