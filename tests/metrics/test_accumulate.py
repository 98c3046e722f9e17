"""Mergeable sums equal the host metrics, in parts, under jit, masked, and over a mesh axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from edd.metrics import accumulate, calibration, classification

NUM_EXAMPLES, NUM_CLASSES = 64, 5


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(NUM_EXAMPLES, NUM_CLASSES)).astype(np.float32) * 2
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    return log_probs, np.asarray(jax.nn.softmax(logits)), rng.integers(0, NUM_CLASSES, NUM_EXAMPLES).astype(np.int32)


def check_classification(sums, log_probs, labels, rel=2e-6):
    scores = accumulate.classification_scores(sums)
    assert scores.accuracy == classification.accuracy(np.exp(log_probs), labels)
    assert scores.nll == pytest.approx(classification.nll(log_probs, labels), rel=rel)
    assert scores.brier_score == pytest.approx(classification.brier_score(np.exp(log_probs), labels), rel=rel)


def check_calibration(sums, probs, labels, num_bins=15):
    curve = calibration.reliability_curve(probs, labels, num_bins)
    np.testing.assert_array_equal(sums.count, curve.count)
    np.testing.assert_array_equal(sums.correct, np.nan_to_num(curve.accuracy * curve.count).round())
    errors = accumulate.calibration_errors(sums)
    assert errors.expected == pytest.approx(calibration.expected_calibration_error(probs, labels, num_bins), abs=1e-6)
    assert errors.maximum == pytest.approx(calibration.maximum_calibration_error(probs, labels, num_bins), abs=1e-6)
    assert errors.root_mean_square == pytest.approx(calibration.root_mean_square_calibration_error(probs, labels, num_bins), abs=1e-6)
    assert errors.confidence_gap == pytest.approx(calibration.confidence_gap(probs, labels), abs=1e-6)


def test_whole_set(data):
    log_probs, probs, labels = data
    sums = accumulate.classification(log_probs, labels)
    assert sums.count.dtype == sums.correct.dtype == jnp.int32
    check_classification(sums, log_probs, labels)
    for num_bins in (1, 15):
        check_calibration(accumulate.calibration(probs, labels, num_bins=num_bins), probs, labels, num_bins)


def test_masked_batches_under_jit_add_up(data):
    """Batches of 24 with the last one padded by NaN and a label out of range."""
    log_probs, probs, labels = data
    classify, calibrate = jax.jit(accumulate.classification), jax.jit(accumulate.calibration)
    total = None
    for start in (0, 24, 48):
        rows = slice(start, start + 24)
        missing = 24 - labels[rows].size
        mask = jnp.asarray(np.arange(24) < 24 - missing, jnp.float32)
        padded = [np.pad(a[rows], ((0, missing), (0, 0)), constant_values=np.nan) for a in (log_probs, probs)]
        classes = np.pad(labels[rows], (0, missing), constant_values=-1)
        part = (
            accumulate.to_host(classify(padded[0], classes, mask)),
            accumulate.to_host(calibrate(padded[1], classes, mask)),
            accumulate.to_host(accumulate.mean(padded[1][:, 0], mask)),
        )
        total = part if total is None else tuple(map(accumulate.add, total, part))
    assert total[0].nll.dtype == np.float64 and total[0].count.dtype == np.int64
    check_classification(total[0], log_probs, labels)
    check_calibration(total[1], probs, labels)
    assert total[0].count == total[1].count.sum() == total[2].count == NUM_EXAMPLES
    assert accumulate.mean_value(total[2]) == pytest.approx(probs[:, 0].mean(), rel=1e-6)


def test_padding_outside_jit(data):
    log_probs, _, labels = data
    padded = np.concatenate([log_probs, np.full((3, NUM_CLASSES), np.nan, np.float32)])
    sums = accumulate.classification(padded, np.concatenate([labels, [99, -1, 0]]), np.arange(NUM_EXAMPLES + 3) < NUM_EXAMPLES)
    check_classification(sums, log_probs, labels)


def test_sum_over_a_mesh_axis(data):
    log_probs, probs, labels = data
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(log_probs, probs, labels):
        sums = accumulate.classification(log_probs, labels), accumulate.calibration(probs, labels)
        return jax.tree.map(lambda leaf: jax.lax.psum(leaf, "data"), sums)

    split = PartitionSpec("data")
    mapped = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(split, split, split), out_specs=PartitionSpec()))
    sums = mapped(log_probs, probs, labels)
    check_classification(sums[0], log_probs, labels)
    check_calibration(sums[1], probs, labels)


def test_any_example_axes(data):
    log_probs, probs, labels = data
    shape = (4, NUM_EXAMPLES // 4)
    square = log_probs.reshape(*shape, -1), probs.reshape(*shape, -1), labels.reshape(shape)
    check_classification(accumulate.classification(square[0], square[2]), log_probs, labels)
    check_calibration(accumulate.calibration(square[1], square[2]), probs, labels)


def test_bins_are_the_host_bins_at_the_edges():
    """Confidences on, just below and just above every float32 edge fall where float64 comparison puts them."""
    for num_bins in (3, 10, 15):
        edges = (np.arange(num_bins // 2 + 1, num_bins) / num_bins).astype(np.float32)
        confidence = np.concatenate([np.nextafter(edges, np.float32(0)), edges, np.nextafter(edges, np.float32(1)), np.float32([1.0])])
        probs = np.stack([confidence, 1 - confidence], -1)
        labels = np.zeros(confidence.size, np.int32)
        expected = np.bincount(calibration.bin_index(confidence.astype(np.float64), num_bins), minlength=num_bins)
        np.testing.assert_array_equal(accumulate.calibration(probs, labels, num_bins=num_bins).count, expected)


def test_half_precision_and_float64(data, x64):
    log_probs, probs, labels = data
    half = jnp.asarray(probs, jnp.bfloat16)
    sums = accumulate.calibration(half, labels)
    assert sums.confidence.dtype == jnp.float32
    np.testing.assert_array_equal(sums.count, calibration.reliability_curve(half, labels).count)
    double = accumulate.classification(jax.nn.log_softmax(log_probs.astype(np.float64)), labels)
    assert double.nll.dtype == jnp.float64
    check_classification(double, np.asarray(jax.nn.log_softmax(log_probs.astype(np.float64))), labels, rel=1e-13)


def test_infinite_and_empty():
    log_probs = jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]])
    scores = accumulate.classification_scores(accumulate.classification(log_probs, jnp.array([0, 1])))
    assert scores == (0.5, np.inf, 1.0)
    masked = accumulate.classification_scores(accumulate.classification(log_probs, jnp.array([0, 1]), jnp.array([1, 0])))
    assert masked == (1.0, 0.0, 0.0)
    none = jnp.zeros(2)
    assert np.isnan(accumulate.classification_scores(accumulate.classification(log_probs, jnp.array([0, 1]), none))).all()
    assert np.isnan(accumulate.calibration_errors(accumulate.calibration(jnp.exp(log_probs), jnp.array([0, 1]), none))).all()
    assert np.isnan(accumulate.mean_value(accumulate.mean(jnp.ones(2), none)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: accumulate.classification(jnp.array([[0.5, 0.5]]), jnp.array([0])), ValueError, "log-probabilities whose exp sums to 1"),
        (lambda: accumulate.calibration(jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([0])), ValueError, "log-probabilities: pass exp"),
        (lambda: accumulate.calibration(jnp.array([[0.5, 0.6]]), jnp.array([0])), ValueError, "probs must sum to 1"),
        (lambda: accumulate.calibration(jnp.array([[0.5, 0.5]]), jnp.array([0]), num_bins=0), ValueError, "num_bins must be at least 1"),
        (lambda: accumulate.calibration(jnp.array([[0.5, 0.5]]), jnp.array([2])), ValueError, r"labels must lie in \[0, 2\)"),
        (lambda: accumulate.calibration(jnp.array([[0.5, 0.5]]), jnp.array([0.0])), TypeError, "labels must be integers"),
        (lambda: accumulate.calibration(jnp.array([[1.0]]), jnp.array([0])), ValueError, "at least 2 classes"),
        (lambda: accumulate.calibration(jnp.array([[0.5, 0.5]]), jnp.array([[0]])), ValueError, "labels must have shape"),
        (lambda: accumulate.mean(jnp.ones(3), jnp.ones((3, 1))), ValueError, "mask must have shape"),
        (lambda: accumulate.add(accumulate.mean(jnp.ones(2)), (1, 2)), TypeError, "same kind of sums, got MeanSums and tuple"),
        (
            lambda: accumulate.add(*(accumulate.calibration(jnp.array([[0.5, 0.5]]), jnp.array([0]), num_bins=b) for b in (2, 3))),
            ValueError,
            "same number of bins",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
