"""Mixture scores against quadrature, scipy and sampling; ties to closed forms; units; bad input."""

import numpy as np
import pytest
from scipy import integrate, stats

from edd.metrics import bootstrap, regression


def mixture(components=4, rows=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(components, rows)) * 2, rng.uniform(0.05, 3, size=(components, rows)), rng.normal(size=rows) * 3


def test_nll_equals_scipy():
    means, variances, targets = mixture()
    density = stats.norm.pdf(targets, means, np.sqrt(variances)).mean(0)
    assert regression.gaussian_mixture_nll(means, variances, targets) == pytest.approx(-np.log(density).mean(), rel=1e-13)
    assert regression.gaussian_mixture_nll([[0.0]], [[1e-4]], [10.0]) == pytest.approx(-stats.norm.logpdf(10, 0, 1e-2))  # no underflow


def test_crps_equals_quadrature():
    means, variances, targets = mixture()
    expected = []
    for mean, variance, target in zip(means.T, variances.T, targets):

        def integrand(value, mean=mean, variance=variance, target=target):
            return (stats.norm.cdf(value, mean, np.sqrt(variance)).mean() - (target <= value)) ** 2

        parts = [integrate.quad(integrand, *ends, epsabs=1e-12, limit=200)[0] for ends in ((-40, target), (target, 40))]
        expected.append(sum(parts))
    assert regression.gaussian_mixture_crps(means, variances, targets) == pytest.approx(np.mean(expected), rel=1e-9)


def test_crps_equals_scoringrules():
    scoringrules = pytest.importorskip("scoringrules")
    means, variances, targets = mixture(rows=40)
    expected = scoringrules.crps_mixnorm(targets, means.T, np.sqrt(variances).T, m_axis=-1).mean()
    assert regression.gaussian_mixture_crps(means, variances, targets) == pytest.approx(expected, rel=1e-12)


def test_crps_in_blocks_is_the_same(monkeypatch):
    means, variances, targets = mixture(rows=11)
    whole = regression.gaussian_mixture_crps(means, variances, targets)
    monkeypatch.setattr(regression, "_BLOCK_ELEMENTS", 4 * 16)
    assert regression.gaussian_mixture_crps(means, variances, targets) == pytest.approx(whole, rel=1e-14)


def test_narrow_mixture_is_the_ensembles_crps():
    means, _, targets = mixture()
    narrow = regression.gaussian_mixture_crps(means, np.full_like(means, 1e-16), targets)
    assert narrow == pytest.approx(regression.ensemble_crps(means, targets), rel=1e-7)


def test_ensemble_crps_equals_its_definition_and_fair_is_unbiased():
    samples, _, targets = mixture(components=5)
    distances = np.abs(samples[:, None] - samples[None])
    error = np.abs(samples - targets).mean(0)
    assert regression.ensemble_crps(samples, targets) == pytest.approx((error - distances.mean((0, 1)) / 2).mean(), rel=1e-13)
    assert regression.ensemble_crps(samples, targets, fair=True) == pytest.approx((error - distances.sum((0, 1)) / 40).mean(), rel=1e-13)
    draws = np.random.default_rng(0).normal(size=(3, 200_000))
    exact = regression.gaussian_mixture_crps([[0.0]], [[1.0]], [0.0])
    assert regression.ensemble_crps(draws, np.zeros(200_000), fair=True) == pytest.approx(exact, abs=3e-3)


def test_coverage_is_that_of_the_quantiles():
    means, variances, targets = mixture(rows=200)
    low, high = (regression.gaussian_mixture_quantile(means, variances, probability) for probability in (0.1, 0.9))
    for probability, quantile in ((0.1, low), (0.9, high)):
        cumulative = stats.norm.cdf(quantile, means, np.sqrt(variances)).mean(0)
        np.testing.assert_allclose(cumulative, probability, atol=1e-12)
    inside = (low <= targets) & (targets <= high)
    assert 0.2 < inside.mean() < 1
    assert regression.interval_coverage(means, variances, targets, 0.8) == pytest.approx(inside.mean())


def test_units_and_counts():
    means, variances, targets = mixture()
    arguments, scaled = (means, variances, targets), (10 * means, 100 * variances, 10 * targets)
    nll, crps = regression.gaussian_mixture_nll, regression.gaussian_mixture_crps
    assert nll(*scaled) == pytest.approx(nll(*arguments) + np.log(10))
    assert crps(*scaled) == pytest.approx(10 * crps(*arguments))
    for metric in (nll, crps, regression.interval_coverage):
        kept = metric(*(each[..., :4] for each in arguments))
        assert metric(*arguments, counts=[1, 1, 1, 1, 0, 0]) == pytest.approx(kept)
    assert regression.rmse([0.0, 0.0], [3.0, 4.0]) == pytest.approx(np.sqrt(12.5))
    found = bootstrap.interval(regression.rmse, means[0], targets, num_resamples=50)
    assert found.lower < found.estimate < found.upper


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": np.zeros(3)}, r"means must be \[S, N\]"),
        ({"means": np.zeros((0, 3))}, "at least one of each"),
        ({"means": np.full((2, 3), np.nan)}, "means must be finite"),
        ({"variances": np.zeros((2, 3))}, "variances must be positive, got 0"),
        ({"variances": np.ones((3, 3))}, "same shape"),
        ({"targets": np.zeros(4)}, "same N"),
        ({"targets": np.array([0, np.inf, 0])}, "targets must be finite"),
    ],
)
def test_bad_input(change, message):
    given = {"means": np.zeros((2, 3)), "variances": np.ones((2, 3)), "targets": np.zeros(3)} | change
    for metric in (regression.gaussian_mixture_nll, regression.gaussian_mixture_crps, regression.interval_coverage):
        with pytest.raises(ValueError, match=message):
            metric(**given)


def test_bad_level_probability_and_fairness():
    with pytest.raises(ValueError, match="level must lie"):
        regression.interval_coverage([[0.0]], [[1.0]], [0.0], 0.0)
    with pytest.raises(ValueError, match="probability must lie"):
        regression.gaussian_mixture_quantile([[0.0]], [[1.0]], 1.0)
    with pytest.raises(ValueError, match="at least 2 members"):
        regression.ensemble_crps([[0.0]], [0.0], fair=True)
