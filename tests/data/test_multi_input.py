"""Layouts of several examples per row: counts, repetition, independence of blocks and history."""

import numpy as np
import pytest

from edd.data import multi_input, pipeline
from edd.data.multi_input import MultiInput, MultiInputBatches

N, D, R = 23, 4, 3


def make(layout, num_replicas=2):
    arrays = {"inputs": np.arange(N * 2, dtype=np.float32).reshape(N, 2), "labels": np.arange(N, dtype=np.int32)}
    return MultiInputBatches(pipeline.Batches(arrays, batch_size=D, seed=5, num_replicas=num_replicas), layout)


@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("num_inputs", [1, 3])
@pytest.mark.parametrize("repetition", [1, 3])
def test_every_example_of_a_step_stands_at_every_input_as_often_as_asked(num_inputs, repetition, rho):
    layout = MultiInput(num_inputs, repetition, rho)
    rows = layout.rows(10, 1, 2, 3)
    assert rows.shape == (10 * repetition, num_inputs) and rows.dtype == np.int32
    for head in range(num_inputs):
        np.testing.assert_array_equal(np.bincount(rows[:, head], minlength=10), repetition)
    equal = (rows == rows[:, :1]).all(1).sum()
    assert equal >= round(10 * repetition * rho)
    if rho == 1.0:
        assert equal == len(rows)


def test_the_share_of_equal_rows_is_input_repetition_plus_chance():
    rows = MultiInput(2, 1, 0.6).rows(1000, 7)
    equal = (rows[:, 0] == rows[:, 1]).sum()
    assert 600 <= equal < 610  # 600 asked for, and of the 400 shuffled rows one by chance on average
    rows = MultiInput(2, 1, 0.0).rows(1000, 7)
    assert (rows[:, 0] == rows[:, 1]).sum() < 10
    assert not np.array_equal(rows[:, 1], np.arange(1000))


def test_a_batch_gathers_the_layout_and_keeps_the_examples_of_the_step():
    layout = MultiInput(3, R, 0.25)
    batches = make(layout)
    assert batches.steps_per_epoch == N // D
    batch, plain = batches.batch(7), batches.batches.batch(7)
    assert batch["inputs"].shape == (2, D * R, 3, 2) and batch["labels"].shape == batch["index"].shape == (2, D * R, 3)
    np.testing.assert_array_equal(batch["position"], np.tile(np.arange(D * R), (2, 1)))
    np.testing.assert_array_equal(batch["labels"], batch["index"])
    np.testing.assert_array_equal(batch["inputs"][..., 0], 2.0 * batch["index"])
    for replica in range(2):
        assert set(batch["index"][replica].ravel()) == set(plain["index"][replica])
    assert not np.array_equal(*(np.searchsorted(np.sort(plain["index"][r]), batch["index"][r]) for r in range(2)))
    assert not np.array_equal(batches.layout.rows(D, 5, 0, 7), batches.layout.rows(D, 5, 0, 8))


def test_blocks_of_a_batch_are_the_batch_and_steps_need_no_history():
    batches = make(MultiInput(2, R, 0.5))
    whole = batches.batch(11)
    for replicas in (slice(0, 1), slice(1, 2)):
        for examples in (slice(0, 6), slice(6, 12)):
            block = make(MultiInput(2, R, 0.5)).batch(11, replicas, examples)
            for name, array in whole.items():
                np.testing.assert_array_equal(block[name], array[replicas, examples], name)
    first = [b["index"] for b in pipeline.iterate(batches, num_steps=6, backend="numpy")]
    rest = [b["index"] for b in pipeline.iterate(batches, start_step=3, num_steps=3)]
    np.testing.assert_array_equal(first[3:], rest)


def test_one_input_without_repetition_is_the_plain_batch_in_another_order():
    batches = make(MultiInput(1))
    for step in (0, 6):
        np.testing.assert_array_equal(np.sort(batches.batch(step)["index"][..., 0]), np.sort(batches.batches.batch(step)["index"]))


@pytest.mark.parametrize(
    "options,message",
    [
        ((0,), "num_inputs must be an integer of at least 1, got 0"),
        ((2.0,), "num_inputs must be an integer"),
        ((2, 0), "batch_repetition must be an integer of at least 1, got 0"),
        ((2, True), "batch_repetition must be an integer"),
        ((2, 1, 1.5), r"input_repetition must lie in \[0, 1\], got 1.5"),
        ((2, 1, float("nan")), "input_repetition must lie in"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        multi_input.MultiInput(*options)


def test_a_batch_size_that_the_repetition_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch_size must be a multiple of batch_repetition 3, got 16"):
        MultiInput(2, 3).num_examples(16)
