"""One battery over every scalar metric: row order, counts, dtypes, purity, and what the host refuses."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edd.metrics import calibration, classification, detection, fidelity, rejection

QUIET = settings(max_examples=25, deadline=None, database=None, derandomize=True)


def probabilities(rng, size):
    """Few distinct values, so that confidences and classes tie."""
    weights = rng.integers(1, 5, (size, 3)).astype(np.float64)
    return weights / weights.sum(-1, keepdims=True)


def with_probs(rng, size):
    return probabilities(rng, size), rng.integers(0, 3, size)


def with_log_probs(rng, size):
    return np.log(probabilities(rng, size)), rng.integers(0, 3, size)


def with_scores(rng, size):
    return rng.integers(0, 4, size) / 4, rng.random(size) < 0.4


def with_errors(rng, size):
    return rng.integers(0, 4, size) / 4, rng.integers(0, 3, size) / 2


def with_measures(rng, size):
    return rng.integers(0, 5, size) / 8, rng.integers(0, 5, size) / 8


def with_two_predictions(rng, size):
    return np.log(probabilities(rng, size)), np.log(probabilities(rng, size))


METRICS = {
    classification.accuracy: with_probs,
    classification.nll: with_log_probs,
    classification.brier_score: with_probs,
    calibration.expected_calibration_error: with_probs,
    calibration.maximum_calibration_error: with_probs,
    calibration.root_mean_square_calibration_error: with_probs,
    calibration.adaptive_calibration_error: with_probs,
    calibration.classwise_calibration_error: with_probs,
    calibration.confidence_gap: with_probs,
    detection.auroc: with_scores,
    detection.aupr: with_scores,
    detection.fpr_at_tpr: with_scores,
    rejection.aurc: with_errors,
    rejection.e_aurc: with_errors,
    rejection.augrc: with_errors,
    rejection.prediction_rejection_ratio: with_errors,
    fidelity.rank_correlation: with_measures,
    fidelity.mean_error: with_measures,
    fidelity.mean_absolute_error: with_measures,
    fidelity.ratio_of_means: with_measures,
    fidelity.mean_kl: with_two_predictions,
    fidelity.agreement: with_two_predictions,
}
EVERY = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)


def close(value, expected):
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_every_scalar_with_counts_is_here():
    modules = (classification, calibration, detection, rejection, fidelity)
    functions = {f for module in modules for _, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
    public = {f for f in functions if not f.__name__.startswith("_") and "counts" in inspect.signature(f).parameters}
    assert public == set(METRICS)


@EVERY
def test_row_order_changes_nothing(metric):
    @QUIET
    @given(st.integers(0, 2**32 - 1), st.integers(1, 40))
    def check(seed, size):
        rng = np.random.default_rng(seed)
        arrays = METRICS[metric](rng, size)
        order = rng.permutation(size)
        close(metric(*(array[order] for array in arrays)), metric(*arrays))
        close(metric(*(array[::-1] for array in arrays)), metric(*arrays))

    check()


@EVERY
def test_counts_are_repeated_rows(metric):
    @QUIET
    @given(st.integers(0, 2**32 - 1), st.integers(1, 20))
    def check(seed, size):
        rng = np.random.default_rng(seed)
        arrays = METRICS[metric](rng, size)
        counts = rng.integers(0, 3, size)
        counts[rng.integers(size)] += 1
        close(metric(*arrays, counts=counts), metric(*(np.repeat(array, counts, axis=0) for array in arrays)))

    check()


@EVERY
def test_rows_of_counts_are_single_counts(metric):
    rng = np.random.default_rng(1)
    arrays = METRICS[metric](rng, 30)
    counts = rng.integers(0, 3, (4, 30)) + (np.arange(30) == 3)
    counts[3] = 1
    together = metric(*arrays, counts=counts)
    assert together.shape == (4,) and together.dtype == np.float64
    np.testing.assert_array_equal(together, [metric(*arrays, counts=row) for row in counts])
    np.testing.assert_array_equal(together[:3], metric(*arrays, counts=counts[:3].astype(np.float32)))
    assert together[3] == metric(*arrays) == metric(*arrays, counts=np.ones(30, bool))


@EVERY
def test_jax_and_numpy_arrays_and_purity(metric):
    arrays = METRICS[metric](np.random.default_rng(2), 25)
    kept = [array.copy() for array in arrays]
    single = [array.astype(np.float32) if array.dtype == np.float64 else array for array in arrays]
    value = metric(*map(jnp.asarray, single))
    assert type(value) is float
    assert value == metric(*single) == metric(*single)
    metric(*arrays)
    metric(*arrays, counts=np.ones((2, 25), int))
    for array, before in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(array, before)


@EVERY
def test_one_example_is_enough(metric):
    arrays = METRICS[metric](np.random.default_rng(3), 1)
    assert type(metric(*arrays)) is float


@EVERY
def test_traced_arrays_are_refused(metric):
    arrays = METRICS[metric](np.random.default_rng(4), 8)
    with pytest.raises(TypeError, match="edd.metrics.accumulate"):
        jax.jit(metric)(*map(jnp.asarray, arrays))


@EVERY
def test_a_column_does_not_broadcast(metric):
    first, second = METRICS[metric](np.random.default_rng(5), 8)
    with pytest.raises(ValueError, match="must"):
        metric(first, second[:, None])
    with pytest.raises(ValueError, match="must"):
        metric(first[:, None], second)


@EVERY
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones(7), r"counts must have shape \(8,\) or \(R, 8\), got \(7,\)"),
        (np.ones((8, 1)), "counts must have shape"),
        (np.ones((2, 2, 8)), "counts must have shape"),
        (np.full(8, 0.5), "whole numbers"),
        (np.full(8, np.nan), "whole numbers"),
        (np.arange(8) - 1, "counts must be >= 0, got -1"),
        (np.zeros(8, int), "no row counts at all"),
        (np.stack([np.ones(8), np.zeros(8)]), "no row counts at all"),
    ],
)
def test_bad_counts(metric, counts, message):
    arrays = METRICS[metric](np.random.default_rng(6), 8)
    with pytest.raises(ValueError, match=message):
        metric(*arrays, counts=counts)
