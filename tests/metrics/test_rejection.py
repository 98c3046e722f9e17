"""Rejection metrics against every order of the tied examples, the published PRR code, and closed forms."""

import itertools

import numpy as np
import pytest

from edd.metrics import detection, rejection

SCALARS = [rejection.aurc, rejection.e_aurc, rejection.augrc, rejection.prediction_rejection_ratio]


def strict_aurc(errors):
    return np.mean([np.mean(errors[:j]) for j in range(1, len(errors) + 1)])


def strict_augrc(errors):
    return np.mean([np.sum(errors[:j]) / len(errors) for j in range(1, len(errors) + 1)])


def strict_prr(errors):
    """The authors' areas for 0/1 or fractional errors already sorted from certain to uncertain, with exact error counts."""
    size, base = len(errors), np.mean(errors)
    x = (np.arange(size) + 1) / size

    def area(curve):
        return np.trapezoid(curve, x)

    by_uncertainty = area(np.cumsum(errors)[::-1] / size)
    oracle = area(np.cumsum(np.sort(errors))[::-1] / size)
    random = area(base * (1 - np.arange(size) / size))
    return (random - by_uncertainty) / (random - oracle)


def over_all_orders(strict, uncertainty, errors):
    """Mean of `strict` over every permutation that sorts the uncertainty."""
    ordered = sorted(uncertainty)
    orders = [list(o) for o in itertools.permutations(range(len(errors))) if [uncertainty[i] for i in o] == ordered]
    return np.mean([strict(np.asarray(errors, float)[o]) for o in orders])


CASES = [
    ([1, 1, 1, 1, 1], [0, 1, 0, 0, 1]),
    ([1, 1, 2, 2, 2, 3], [0, 1, 1, 0, 0, 1]),
    ([3, 1, 2, 1, 3, 3], [1, 0, 0, 1, 1, 0]),
    ([1, 2, 3, 4, 5], [1, 0, 0, 1, 0]),
    ([2, 2, 1, 1, 0, 0], [0.3, 0.9, 0.0, 1.0, 0.25, 0.5]),
    ([-np.inf, np.inf, np.inf, 0.0, 0.0], [0, 1, 0.5, 0, 1]),
]


@pytest.mark.parametrize(("uncertainty", "errors"), CASES)
def test_ties_are_the_mean_over_all_orders(uncertainty, errors):
    oracle = strict_aurc(np.sort(np.asarray(errors, float)))
    assert rejection.aurc(uncertainty, errors) == pytest.approx(over_all_orders(strict_aurc, uncertainty, errors), rel=1e-13)
    assert rejection.e_aurc(uncertainty, errors) == pytest.approx(over_all_orders(strict_aurc, uncertainty, errors) - oracle, abs=1e-14)
    assert rejection.augrc(uncertainty, errors) == pytest.approx(over_all_orders(strict_augrc, uncertainty, errors), rel=1e-13)
    prr = rejection.prediction_rejection_ratio(uncertainty, errors)
    assert prr == pytest.approx(over_all_orders(strict_prr, uncertainty, errors), abs=1e-13)
    risk = rejection.risk_coverage_curve(uncertainty, errors).risk
    for j in range(len(errors)):
        assert risk[j] == pytest.approx(over_all_orders(lambda e, j=j: e[: j + 1].mean(), uncertainty, errors), rel=1e-13)


@pytest.mark.parametrize("fractional", [False, True])
def test_prr_is_the_published_area_at_size(fractional):
    rng = np.random.default_rng(0)
    uncertainty = rng.permutation(2000) / 2000
    errors = rng.random(2000) * uncertainty if fractional else (rng.random(2000) < uncertainty**2).astype(float)
    expected = strict_prr(errors[np.argsort(uncertainty)])
    assert rejection.prediction_rejection_ratio(uncertainty, errors) == pytest.approx(expected, rel=1e-11)
    assert rejection.aurc(uncertainty, errors) == pytest.approx(strict_aurc(errors[np.argsort(uncertainty)]), rel=1e-12)


def test_prr_oracle_has_the_published_binary_form():
    """For 0/1 errors the oracle is E (1 - i / n_err) for i < n_err, else 0."""
    errors = np.array([0, 1, 0, 0, 1, 1, 0])
    left = np.arange(8)
    expected = np.where(left < 3, 3 / 7 * (1 - left / 3), 0.0)
    np.testing.assert_allclose(rejection.rejection_curve(np.arange(7), errors).oracle, expected, atol=1e-15)


@pytest.mark.parametrize("value", [0.0, 2.5, np.inf])
def test_constant_uncertainty(value):
    errors = np.array([0, 1, 0, 0, 1, 0, 0, 0])
    for order in (np.arange(8), np.argsort(errors), np.argsort(-errors)):
        constant = np.full(8, value)
        assert rejection.aurc(constant, errors[order]) == 0.25
        assert rejection.prediction_rejection_ratio(constant, errors[order]) == 0.0
        assert rejection.augrc(constant, errors[order]) == pytest.approx(0.25 * 9 / 16, rel=1e-15)
        np.testing.assert_allclose(rejection.risk_coverage_curve(constant, errors[order]).risk, 0.25, rtol=1e-15)


def test_oracle_and_reversed_order():
    rng = np.random.default_rng(1)
    errors = rng.random(1000) < 0.2
    assert rejection.prediction_rejection_ratio(errors, errors) == 1.0
    assert rejection.prediction_rejection_ratio(-errors.astype(float), errors) == pytest.approx(-1.0, abs=0.01)
    assert rejection.e_aurc(errors, errors) == 0.0
    fractional = rng.random(1000)
    assert rejection.prediction_rejection_ratio(fractional, fractional) == 1.0
    assert rejection.e_aurc(fractional, fractional) == 0.0
    assert rejection.e_aurc(rng.random(1000), fractional) > 0


def test_no_errors_and_nothing_but_errors():
    uncertainty = [0.3, 0.1, 0.2]
    assert [metric(uncertainty, [0, 0, 0]) for metric in SCALARS[:3]] == [0.0, 0.0, 0.0]
    assert rejection.aurc(uncertainty, [1, 1, 1]) == pytest.approx(1.0, rel=1e-15)
    assert rejection.e_aurc(uncertainty, [1, 1, 1]) == pytest.approx(0.0, abs=1e-15)
    for constant in (0.0, 1.0, 0.3, 1e-7):
        assert np.isnan(rejection.prediction_rejection_ratio(uncertainty, np.full(3, constant)))
    rng = np.random.default_rng(5)
    for constant in (0.1, 0.3, 0.7):
        assert np.isnan(rejection.prediction_rejection_ratio(rng.integers(0, 50, 999), np.full(999, constant)))
    assert np.isnan(rejection.prediction_rejection_ratio([0.5], [1]))
    assert rejection.prediction_rejection_ratio(uncertainty, [1e-7, 0, 0]) == 1.0


@pytest.mark.parametrize("levels", [5, 10**9])
def test_augrc_closed_form(levels):
    """Traub et al.: (1 - AUROC) r (1 - r) + r^2 / 2, plus r / (2N) for the mean that starts at 1/N."""
    rng = np.random.default_rng(2)
    uncertainty = rng.integers(0, levels, 500)
    errors = rng.random(500) < 0.3
    rate = errors.mean()
    area = detection.auroc(uncertainty, errors)
    expected = (1 - area) * rate * (1 - rate) + rate**2 / 2 + rate / 1000
    assert rejection.augrc(uncertainty, errors) == pytest.approx(expected, rel=1e-12)


def test_curves_agree_with_the_scalars():
    rng = np.random.default_rng(3)
    uncertainty, errors = rng.integers(0, 9, 200), rng.random(200)
    curve = rejection.risk_coverage_curve(uncertainty, errors)
    assert curve.risk.mean() == pytest.approx(rejection.aurc(uncertainty, errors), rel=1e-13)
    assert (curve.risk * curve.coverage).mean() == pytest.approx(rejection.augrc(uncertainty, errors), rel=1e-13)
    assert curve.coverage[[0, -1]].tolist() == [1 / 200, 1.0] and curve.risk[-1] == pytest.approx(errors.mean(), rel=1e-14)
    rejected = rejection.rejection_curve(uncertainty, errors)
    for values in (rejected.error, rejected.random, rejected.oracle):
        assert values[0] == pytest.approx(errors.mean(), rel=1e-14) and values[-1] == 0.0
    assert (rejected.oracle <= rejected.error + 1e-15).all()
    areas = [np.trapezoid(values[:-1], rejected.rejected[:-1]) for values in (rejected.random, rejected.error, rejected.oracle)]
    expected = (areas[0] - areas[1]) / (areas[0] - areas[2])
    assert rejection.prediction_rejection_ratio(uncertainty, errors) == pytest.approx(expected, rel=1e-11)


def test_quantile_curve_without_ties():
    rng = np.random.default_rng(4)
    uncertainty, values = rng.permutation(103) * 0.5, rng.normal(size=103)
    curve = rejection.uncertainty_quantile_curve(uncertainty, values, 10)
    parts = np.array_split(np.argsort(uncertainty), 10)
    assert curve.count.tolist() == [part.size for part in parts]
    np.testing.assert_allclose(curve.bucket, [values[part].mean() for part in parts], atol=1e-13)
    np.testing.assert_allclose(curve.uncertainty, [uncertainty[part].mean() for part in parts], rtol=1e-13)
    np.testing.assert_allclose(curve.acceptance, [values[np.concatenate(parts[: q + 1])].mean() for q in range(10)], atol=1e-13)
    np.testing.assert_allclose(curve.quantile, np.arange(1, 11) / 10)
    assert (curve.bucket * curve.count).sum() / 103 == pytest.approx(values.mean(), abs=1e-13)


def test_quantile_curve_shares_ties():
    curve = rejection.uncertainty_quantile_curve([1, 1, 1, 1], [0, 1, 0, 0], 2)
    assert curve.bucket.tolist() == [0.25, 0.25] and curve.acceptance.tolist() == [0.25, 0.25]
    orders = list(itertools.permutations([0.0, 1.0, 5.0]))
    curve = rejection.uncertainty_quantile_curve([2, 2, 2, 1], [0, 1, 5, 7], 2)
    assert curve.bucket == pytest.approx([np.mean([(7 + o[0]) / 2 for o in orders]), np.mean([(o[1] + o[2]) / 2 for o in orders])])


@pytest.mark.parametrize("function", [*SCALARS, rejection.risk_coverage_curve, rejection.rejection_curve])
@pytest.mark.parametrize(
    ("uncertainty", "errors", "message"),
    [
        ([0.1, np.nan], [0, 1], "uncertainty must not be NaN"),
        ([0.1, 0.2], [0, np.nan], "errors must not be NaN"),
        ([0.1, 0.2], [0, 1.5], r"errors must lie in \[0, 1\], got 1.5 at index 1"),
        ([0.1, 0.2], [-0.5, 1], r"errors must lie in \[0, 1\], got -0.5 at index 0"),
        ([0.1, 0.2], [0], "errors must have 2 entries"),
        ([[0.1, 0.2]], [0, 1], "uncertainty must be a non-empty vector"),
        ([0.1, 0.2], [[0], [1]], "errors must be a non-empty vector"),
        ([], [], "uncertainty must be a non-empty vector"),
    ],
)
def test_bad_input(function, uncertainty, errors, message):
    with pytest.raises(ValueError, match=message):
        function(uncertainty, errors)


@pytest.mark.parametrize(
    ("uncertainty", "errors", "quantiles", "message"),
    [
        ([0.1, np.inf], [0, 1], 1, "must be finite"),
        ([0.1, 0.2], [0, np.inf], 1, "must be finite"),
        ([0.1, 0.2], [0, 1], 3, "num_quantiles must be at most the number of examples 2, got 3"),
        ([0.1, 0.2], [0, 1], 0, "num_quantiles must be at least 1"),
    ],
)
def test_quantile_curve_bad_input(uncertainty, errors, quantiles, message):
    with pytest.raises(ValueError, match=message):
        rejection.uncertainty_quantile_curve(uncertainty, errors, quantiles)
