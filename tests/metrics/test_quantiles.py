"""Curves by quantile of an uncertainty: against plain sorting and splitting, areas, covariances and what must not change them."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edd.metrics import calibration, classification, quantiles

QUIET = settings(max_examples=25, deadline=None, database=None, derandomize=True)


def predictions(seed=0, size=103, num_classes=4, certainty=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, size)
    logits = rng.normal(size=(size, num_classes)) + certainty * rng.random((size, 1)) * np.eye(num_classes)[labels]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return rng.permutation(size) / size, log_probs, labels


def test_binless_calibration_error_is_at_most_that_of_any_bins_and_equals_one_bins():
    @QUIET
    @given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(-3, 6))
    def check(seed, size, certainty):
        _, log_probs, labels = predictions(seed, size, certainty=certainty)
        gap = calibration.confidence_gap(np.exp(log_probs), labels)
        assert gap == pytest.approx(calibration.expected_calibration_error(np.exp(log_probs), labels, 1), abs=1e-14)
        for num_bins in (2, 3, 15, 100):
            assert gap <= calibration.expected_calibration_error(np.exp(log_probs), labels, num_bins) + 1e-14

    check()


def test_curves_are_the_metrics_of_the_split_set():
    uncertainty, log_probs, labels = predictions()
    curves = quantiles.prediction_curves(uncertainty, log_probs, labels, 10)
    parts = np.array_split(np.argsort(uncertainty, kind="stable"), 10)
    functions = {
        "accuracy": lambda rows: classification.accuracy(np.exp(log_probs[rows]), labels[rows]),
        "nll": lambda rows: classification.nll(log_probs[rows], labels[rows]),
        "calibration_error": lambda rows: calibration.confidence_gap(np.exp(log_probs[rows]), labels[rows]),
    }
    for name, function in functions.items():
        curve = getattr(curves, name)
        np.testing.assert_allclose(curve.bucket, [function(part) for part in parts], atol=1e-13, err_msg=name)
        accepted = [function(np.concatenate(parts[: q + 1])) for q in range(10)]
        np.testing.assert_allclose(curve.acceptance, accepted, atol=1e-13, err_msg=name)
        assert curve.acceptance[-1] == pytest.approx(function(np.arange(103)), abs=1e-13)
        mean = (curve.bucket * curve.count).sum() / 103
        if name == "calibration_error":
            assert mean > curve.acceptance[-1] + 1e-3  # not linear: gaps of either sign cancel in the whole set
        else:
            assert mean == pytest.approx(curve.acceptance[-1], abs=1e-13)


def test_curves_depend_on_the_order_of_the_uncertainties_alone():
    uncertainty, log_probs, labels = predictions()
    uncertainty = np.floor(uncertainty * 7)  # ties
    order = np.random.default_rng(1).permutation(103)
    first = quantiles.prediction_curves(uncertainty, log_probs, labels)
    rows = quantiles.prediction_curves(uncertainty[order], log_probs[order], labels[order])
    scaled = quantiles.prediction_curves(jnp.exp(uncertainty), log_probs, labels)
    for one, other, third in zip(first, rows, scaled):
        for field in ("bucket", "acceptance", "count"):
            np.testing.assert_allclose(getattr(one, field), getattr(other, field), atol=1e-13)
            np.testing.assert_allclose(getattr(one, field), getattr(third, field), atol=1e-13)


def test_a_label_of_probability_zero_is_infinite_from_there_on():
    log_probs = np.log(np.full((4, 2), 0.5))
    log_probs[2] = [0.0, -np.inf]
    curve = quantiles.prediction_curves([1.0, 2.0, 3.0, 4.0], log_probs, [1, 1, 1, 1], 4).nll
    np.testing.assert_allclose(curve.bucket, [np.log(2), np.log(2), np.inf, np.log(2)])
    np.testing.assert_allclose(curve.acceptance, [np.log(2), np.log(2), np.inf, np.inf])


def test_areas():
    levels = np.arange(1, 21) / 20
    assert quantiles.curve_area(levels, np.full(20, 0.7)) == pytest.approx(0.7 * 0.95)
    assert quantiles.curve_area(levels, levels) == pytest.approx((1 - 0.05**2) / 2)  # exact for a straight line
    for wrong, message in (([1.0], "two rising"), ([0.5, 0.5], "rising"), ([np.nan, 1.0], "NaN")):
        with pytest.raises(ValueError, match=message):
            quantiles.curve_area(wrong, np.ones(len(wrong)))
    with pytest.raises(ValueError, match="2 entries"):
        quantiles.curve_area([0.5, 1.0], [1.0])


def test_negative_covariance_is_the_textbook_one():
    rng = np.random.default_rng(0)
    x, y = rng.gamma(1.0, size=12), rng.normal(size=12)
    assert quantiles.neg_cov(x, y, "raw") == pytest.approx(-np.cov(x, y, ddof=0)[0, 1])
    assert quantiles.neg_cov(x, y, "raw", ddof=1) == pytest.approx(-np.cov(x, y)[0, 1])
    for ddof in (0, 1):
        expected = -np.corrcoef(x, y)[0, 1] * y.std(ddof=ddof)
        assert quantiles.neg_cov(x, y, ddof=ddof) == pytest.approx(expected)
    ranks = (np.argsort(np.argsort(x)) + 1) / 12
    assert quantiles.neg_cov(x, y, "quantile") == pytest.approx(-np.cov(ranks, y, ddof=0)[0, 1])
    assert quantiles.neg_cov([1.0, 1.0, 2.0], [0.0, 1.0, 5.0], "quantile") == pytest.approx(
        -np.cov([0.5, 0.5, 1.0], [0.0, 1.0, 5.0], ddof=0)[0, 1]
    )
    assert np.isnan(quantiles.neg_cov([0.1, 0.1, 0.1], [0.0, 1.0, 5.0])) and quantiles.neg_cov([0.1] * 3, [0.0, 1.0, 5.0], "raw") == 0


def test_what_does_not_change_negative_covariance():
    rng = np.random.default_rng(1)
    x, y = rng.gamma(1.0, size=20), rng.normal(size=20)
    order = rng.permutation(20)
    for scale in quantiles.X_SCALES:
        value = quantiles.neg_cov(x, y, scale)
        assert quantiles.neg_cov(x[order], y[order], scale) == pytest.approx(value)
        assert quantiles.neg_cov(x + 5.0, y - 3.0, scale) == pytest.approx(value)
        assert quantiles.neg_cov(x, 2 * y, scale) == pytest.approx(2 * value)
        assert quantiles.neg_cov(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), scale) == pytest.approx(value, rel=1e-5)
    assert quantiles.neg_cov(7 * x, y) == pytest.approx(quantiles.neg_cov(x, y))
    assert quantiles.neg_cov(np.exp(3 * x), y, "quantile") == pytest.approx(quantiles.neg_cov(x, y, "quantile"))
    assert quantiles.neg_cov(7 * x, y, "raw") == pytest.approx(7 * quantiles.neg_cov(x, y, "raw"))
    assert quantiles.neg_cov([1, 2, 3], [0.9, 0.8, 0.7]) > 0  # a metric that falls as uncertainty rises


def test_levels_cannot_give_the_published_sizes():
    """|cov(q, acceptance accuracy)| <= sd(q) (1 - accuracy) / 2: why "quantile" is not the default."""
    levels = np.arange(1, 11) / 10
    steep = np.where(levels <= 0.5, 1.0, 0.7158)
    assert quantiles.neg_cov(levels, steep, "raw", ddof=1) < 0.0454 < quantiles.neg_cov(levels, steep, ddof=1)


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (([1, 2], [1]), {}, "y must have 2 entries"),
        (([1, np.nan], [1, 2]), {}, "x must not be NaN"),
        (([1, 2], [1, np.inf]), {}, "y must be finite, got inf"),
        (([1, 2], [1, 2]), {"x_scale": "rank"}, "x_scale must be one of zscore, quantile, raw"),
        (([1, 2], [1, 2]), {"ddof": 2}, "ddof"),
        (([1], [1]), {"ddof": 1}, "ddof"),
    ],
)
def test_mistakes_of_negative_covariance(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        quantiles.neg_cov(*arguments, **options)


def test_mistakes_of_curves():
    uncertainty, log_probs, labels = predictions()
    for arguments, message in (
        ((uncertainty[:-1], log_probs, labels), "entries"),
        ((uncertainty, np.exp(log_probs), labels), "pass their logarithm"),
        ((uncertainty, log_probs, labels + 4), "labels"),
        ((uncertainty, log_probs, labels, 104), "num_quantiles"),
    ):
        with pytest.raises(ValueError, match=message):
            quantiles.prediction_curves(*arguments)
