"""Calibration errors against an obvious loop, at the bins' edges, and the temperature against a search."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from edd.metrics import calibration

TOP_LABEL = [
    calibration.expected_calibration_error,
    calibration.maximum_calibration_error,
    calibration.root_mean_square_calibration_error,
    calibration.adaptive_calibration_error,
]


def predictions(seed=0, num_examples=300, num_classes=4, scale=2.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_examples, num_classes)) * scale
    return logits, scipy.special.softmax(logits, -1), rng.integers(0, num_classes, num_examples)


def slow_bins(confidence, correct, num_bins):
    """(size, |gap|) of every right-closed bin, one example at a time, in the words of the definition."""
    found = []
    for index in range(num_bins):
        low, high = index / num_bins, (index + 1) / num_bins
        inside = [n for n, c in enumerate(confidence) if low < c <= high or (index == 0 and c == 0)]
        gap = abs(np.mean([correct[n] - confidence[n] for n in inside])) if inside else 0.0
        found.append((len(inside), gap))
    return np.array(found)


@pytest.mark.parametrize("num_bins", [1, 2, 10, 15, 100])
def test_equal_width_against_a_loop(num_bins):
    _, probs, labels = predictions()
    sizes, gaps = slow_bins(probs.max(-1), probs.argmax(-1) == labels, num_bins).T
    arguments = (probs, labels, num_bins)
    assert calibration.expected_calibration_error(*arguments) == pytest.approx((sizes * gaps).sum() / 300, rel=1e-12)
    assert calibration.maximum_calibration_error(*arguments) == pytest.approx(gaps.max(), rel=1e-12)
    assert calibration.root_mean_square_calibration_error(*arguments) == pytest.approx(np.sqrt((sizes * gaps**2).sum() / 300), rel=1e-12)
    curve = calibration.reliability_curve(*arguments)
    assert curve.count.tolist() == sizes.tolist()
    full = curve.count > 0
    np.testing.assert_allclose(np.abs(curve.accuracy - curve.confidence)[full], gaps[full], atol=1e-14)
    assert np.isnan(curve.accuracy[~full]).all() and np.isnan(curve.confidence[~full]).all()
    np.testing.assert_array_equal(curve.upper, (np.arange(num_bins) + 1) / num_bins)
    np.testing.assert_array_equal(curve.lower, np.arange(num_bins) / num_bins)


def test_fifteen_bins_by_default():
    _, probs, labels = predictions()
    # gaps of both signs: of one sign, an adaptive error is the same for any number of bins
    labels = np.where(np.random.default_rng(1).random(300) < probs.max(-1), probs.argmax(-1), labels)
    for metric in [*TOP_LABEL, calibration.classwise_calibration_error]:
        assert metric(probs, labels) == metric(probs, labels, 15) != metric(probs, labels, 10)


def test_norms_are_ordered_and_one_bin_is_the_gap():
    _, probs, labels = predictions(1)
    gap = calibration.confidence_gap(probs, labels)
    assert gap == pytest.approx(abs(probs.max(-1).mean() - (probs.argmax(-1) == labels).mean()), rel=1e-12)
    for num_bins in (1, 3, 15, 40):
        ece, mce, rms, adaptive = (metric(probs, labels, num_bins) for metric in (*TOP_LABEL[:3], TOP_LABEL[3]))
        assert gap - 1e-14 <= ece <= rms + 1e-14 <= mce + 2e-14
        assert gap - 1e-14 <= adaptive
        if num_bins == 1:
            assert [ece, mce, rms, adaptive] == pytest.approx([gap] * 4, rel=1e-12)


def test_confidence_zero_and_one_and_exact_edges():
    values = np.array([0.0, 0.2, 0.2000001, 0.4, 1.0])
    assert calibration.bin_index(values, 5).tolist() == [0, 0, 1, 1, 4]
    for num_bins in (2, 3, 7, 10, 15):
        edges = np.arange(num_bins + 1) / num_bins
        assert calibration.bin_index(edges, num_bins).tolist() == [0, *range(num_bins)]
        above = np.nextafter(edges[:-1], 1)
        assert calibration.bin_index(above, num_bins).tolist() == list(range(num_bins))
    sure = calibration.reliability_curve([[1.0, 0.0], [1.0, 0.0]], [0, 1])
    assert sure.count.tolist() == [0] * 14 + [2]
    assert calibration.expected_calibration_error([[1.0, 0.0], [1.0, 0.0]], [0, 1]) == 0.5
    assert calibration.maximum_calibration_error([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == 0.0


def test_float32_confidence_is_compared_as_the_number_it_is():
    probs = np.array([[0.2, 0.2, 0.2, 0.2, 0.2]])
    assert np.flatnonzero(calibration.reliability_curve(probs, [0], 15).count).tolist() == [2]  # 0.2 = 3/15: (2/15, 3/15]
    assert float(np.float32(0.2)) > 0.2
    assert np.flatnonzero(calibration.reliability_curve(probs.astype(np.float32), [0], 15).count).tolist() == [3]


def test_confidence_above_one_by_rounding_is_in_the_last_bin():
    assert calibration.bin_index(np.array([1.0000001, -1e-9]), 15).tolist() == [14, 0]


@pytest.mark.parametrize("num_bins", [1, 4, 7, 15])
def test_adaptive_without_ties_is_equal_mass(num_bins):
    _, probs, labels = predictions(2, num_examples=7 * 4 * 15)
    confidence, correct = probs.max(-1), probs.argmax(-1) == labels
    order = np.argsort(confidence)
    parts = np.array_split((confidence - correct)[order], num_bins)
    expected = sum(abs(part.sum()) for part in parts) / confidence.size
    assert calibration.adaptive_calibration_error(probs, labels, num_bins) == pytest.approx(expected, rel=1e-12)


def test_adaptive_never_splits_ties():
    confidence = np.array([0.9] * 5 + [0.7] * 5)
    probs = np.stack([confidence, 1 - confidence], -1)
    labels = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1])
    expected = (abs(4.5 - 4) + abs(3.5 - 1)) / 10
    assert calibration.adaptive_calibration_error(probs, labels, 3) == pytest.approx(expected, rel=1e-12)
    constant = np.stack([np.full(10, 0.8), np.full(10, 0.2)], -1)
    gap = calibration.confidence_gap(constant, labels)
    for num_bins in (1, 2, 15):
        assert calibration.adaptive_calibration_error(constant, labels, num_bins) == pytest.approx(gap, rel=1e-12)


def test_classwise_against_a_loop():
    _, probs, labels = predictions(3)
    expected = 0.0
    for k in range(4):
        sizes, gaps = slow_bins(probs[:, k], labels == k, 15).T
        expected += (sizes * gaps).sum() / 300 / 4
    assert calibration.classwise_calibration_error(probs, labels) == pytest.approx(expected, rel=1e-12)


def test_calibrated_predictions_have_no_error():
    probs = np.tile([[0.75, 0.25]], (4, 1))
    for metric in [*TOP_LABEL, calibration.classwise_calibration_error]:
        assert metric(probs, [0, 0, 1, 0]) == 0.0
    assert calibration.confidence_gap(probs, [0, 0, 1, 0]) == 0.0


def nll_at(logits, labels, temperature):
    return -scipy.special.log_softmax(logits / temperature, -1)[np.arange(labels.size), labels].mean()


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_temperature_against_a_search(scale):
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(400, 6))
    labels = np.array([rng.choice(6, p=row) for row in scipy.special.softmax(logits, -1)])
    logits = logits * scale
    found = calibration.fit_temperature(logits, labels)
    best = scipy.optimize.minimize_scalar(
        lambda s: nll_at(logits, labels, np.exp(s)),
        bounds=(np.log(scale) - 2, np.log(scale) + 2),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert np.log(found) == pytest.approx(best.x, abs=1e-6)
    assert nll_at(logits, labels, found) <= best.fun + 1e-15
    step = 1e-6 * found  # the minimum is where the derivative changes its sign
    assert nll_at(logits, labels, found) <= min(nll_at(logits, labels, found - step), nll_at(logits, labels, found + step))


def test_temperature_in_closed_form_and_on_log_probs():
    logits = np.tile([[2.0, 0.0]], (4, 1))
    assert calibration.fit_temperature(logits, [0, 0, 0, 1]) == pytest.approx(2 / np.log(3), rel=1e-12)
    logits, _, labels = predictions(5, scale=0.2)
    labels = np.where(np.arange(300) < 200, logits.argmax(-1), labels)
    fitted = calibration.fit_temperature(logits, labels)
    assert calibration.fit_temperature(scipy.special.log_softmax(logits, -1), labels) == pytest.approx(fitted, rel=1e-9)
    assert calibration.fit_temperature(logits + 1e3, labels) == pytest.approx(fitted, rel=1e-9)
    assert calibration.fit_temperature(10 * logits, labels) == pytest.approx(10 * fitted, rel=1e-9)


def test_temperature_at_its_bounds():
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert calibration.fit_temperature(logits, [0, 1]) == 1e-3  # sharpening always helps
    assert calibration.fit_temperature(logits, [1, 0]) == 1e3  # worse than uniform
    assert calibration.fit_temperature(logits, [0, 1], bounds=(0.5, 2.0)) == 0.5
    assert calibration.fit_temperature(np.zeros((3, 4)), [0, 1, 2]) == 1.0  # every temperature gives the same likelihood
    assert calibration.fit_temperature([[3.0, -np.inf], [-np.inf, 3.0]], [0, 1]) == 1.0
    mixed = np.tile([[2.0, 0.0]], (4, 1))
    assert calibration.fit_temperature(mixed, [0, 0, 0, 1], bounds=(3.0, 5.0)) == 3.0
    assert calibration.fit_temperature(mixed, [0, 0, 0, 1], bounds=(0.1, 1.0)) == 1.0


def test_temperature_with_excluded_classes():
    logits = np.tile([[2.0, 0.0, -np.inf]], (4, 1))
    assert calibration.fit_temperature(logits, [0, 0, 0, 1]) == pytest.approx(2 / np.log(3), rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "labels", "options", "message"),
    [
        ([[np.nan, 0.0]], [0], {}, "logits must be finite or -inf"),
        ([[np.inf, 0.0]], [0], {}, "logits must be finite or -inf"),
        ([[-np.inf, 0.0]], [0], {}, "must not be -inf at the label"),
        ([[1.0]], [0], {}, "K >= 2"),
        ([1.0, 2.0], [0], {}, "logits must be .N, K."),
        ([[1.0, 2.0]], [2], {}, "labels must lie in"),
        ([[1.0, 2.0]], [0], {"bounds": (0.0, 1.0)}, "bounds must be two increasing positive finite"),
        ([[1.0, 2.0]], [0], {"bounds": (2.0, 1.0)}, "bounds must be"),
    ],
)
def test_temperature_bad_input(logits, labels, options, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit_temperature(logits, labels, **options)


@pytest.mark.parametrize("metric", [*TOP_LABEL, calibration.classwise_calibration_error, calibration.reliability_curve])
def test_bad_bins_and_log_probs(metric):
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        metric([[0.5, 0.5]], [0], 0)
    with pytest.raises(TypeError, match="num_bins must be an integer, got float"):
        metric([[0.5, 0.5]], [0], 10.0)
    with pytest.raises(ValueError, match="log-probabilities: pass exp"):
        metric(np.log([[0.5, 0.5]]), [0])
