"""The host's foundation: tie groups, prefix sums, statistics of counted rows, blocks, argument checks."""

import ml_dtypes
import numpy as np
import pytest

from edd.metrics import host


def test_tie_groups_by_hand():
    groups = host.tie_groups(np.array([2.0, -np.inf, 2.0, 0.0, -0.0, np.inf, np.inf]))
    assert groups.order.tolist() == [1, 3, 4, 0, 2, 5, 6]
    assert groups.first.tolist() == [0, 1, 1, 3, 3, 5, 5]
    assert groups.last.tolist() == [1, 3, 3, 5, 5, 7, 7]


def test_prefix_sums_keep_their_kind():
    assert host.prefix_sum(np.array([2, 0, 3], np.int32)).tolist() == [0, 2, 2, 5]
    assert host.prefix_sum(np.array([2, 0, 3], np.int32)).dtype == np.int64
    assert host.prefix_sum(np.array([True, False])).dtype == np.int64
    assert host.prefix_sum(np.array([0.5, 0.25])).tolist() == [0.0, 0.5, 0.75]


def test_mean_leaves_out_infinities_that_do_not_count():
    mean = host.mean_of(np.array([1.0, np.inf, 3.0]))
    assert mean(np.array([1, 0, 3])) == 2.5
    assert mean(np.array([0, 2, 1])) == np.inf
    assert np.isnan(host.mean_of(np.array([np.inf, -np.inf]))(np.array([1, 1])))
    assert host.mean_of(np.array([1.0, 3.0]))(np.array([1, 3])) == 2.5


def test_evaluate_by_shape_of_counts():
    def statistic(counts):
        assert counts.dtype == np.int64
        return counts @ [1, 10, 100]

    assert host.evaluate(statistic, None, 3) == 111.0
    assert host.evaluate(statistic, [0, 2, 1], 3) == 120.0
    assert host.evaluate(statistic, [[1, 0, 0], [0, 0, 3]], 3).tolist() == [1.0, 300.0]


@pytest.mark.parametrize("elements", [1, 7, 1000])
def test_blocks_cover_every_row_once(elements, monkeypatch):
    monkeypatch.setattr(host, "_BLOCK_ELEMENTS", elements)
    array = np.arange(33, dtype=np.float32).reshape(11, 3)
    rebuilt = np.full((11, 3), np.nan)
    for rows, block in host.blocks(array):
        assert block.dtype == np.float64 and np.isnan(rebuilt[rows]).all()
        rebuilt[rows] = block
    np.testing.assert_array_equal(rebuilt, array)


def test_tolerance_follows_the_precision():
    off = np.array([[0.5, 0.51]])
    assert host.probabilities(off.astype(ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16
    with pytest.raises(ValueError, match="probs must sum to 1"):
        host.probabilities(off.astype(np.float32))
    assert host.log_probabilities(np.log(off).astype(np.float16)).dtype == np.float16
    with pytest.raises(ValueError, match="log_probs must be log-probabilities"):
        host.log_probabilities(np.log(off))


def test_row_numbers_in_messages_count_from_the_array(monkeypatch):
    monkeypatch.setattr(host, "_BLOCK_ELEMENTS", 4)
    probs = np.full((9, 2), 0.5)
    probs[7] = [0.5, 0.75]
    with pytest.raises(ValueError, match="got 1.25 in row 7"):
        host.probabilities(probs)
    probs[7] = [1.25, -0.25]
    with pytest.raises(ValueError, match=r"got -0.25 at index \(7, 1\)"):
        host.probabilities(probs)


@pytest.mark.parametrize("value", [None, "text", [[1, 2], [3]], [1j], object()])
def test_not_numeric(value):
    with pytest.raises(TypeError, match="scores must be"):
        host.vector(value, "scores")
