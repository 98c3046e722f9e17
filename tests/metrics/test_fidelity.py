"""Fidelity against scipy, by hand, with infinities and ties."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from edd.metrics import fidelity

MEASURE_SCALARS = [fidelity.rank_correlation, fidelity.mean_error, fidelity.mean_absolute_error, fidelity.ratio_of_means]


@pytest.mark.parametrize("levels", [4, 10**6])
def test_rank_correlation_against_scipy(levels):
    rng = np.random.default_rng(0)
    ensemble = rng.integers(0, levels, 300)
    student = ensemble + rng.integers(0, levels, 300)
    expected = scipy.stats.spearmanr(ensemble, student).statistic
    assert fidelity.rank_correlation(ensemble, student) == pytest.approx(expected, rel=1e-12)
    assert fidelity.rank_correlation(student, ensemble) == pytest.approx(expected, rel=1e-12)


def test_rank_correlation_extremes():
    rng = np.random.default_rng(1)
    measure = rng.integers(0, 50, 200)
    assert fidelity.rank_correlation(measure, np.exp(measure / 50)) == 1.0
    assert fidelity.rank_correlation(measure, -measure) == -1.0
    assert np.isnan(fidelity.rank_correlation(measure, np.ones(200)))
    assert np.isnan(fidelity.rank_correlation([1.0], [2.0]))
    assert fidelity.rank_correlation([0.0, 1.0, np.inf, np.inf], [0.0, 1.0, 7.0, 7.0]) == 1.0


def test_errors_and_ratio_by_hand():
    ensemble, student = [0.5, 1.0, 1.5], [0.25, 1.5, 0.5]
    assert fidelity.mean_error(ensemble, student) == pytest.approx(-0.25, rel=1e-15)
    assert fidelity.mean_absolute_error(ensemble, student) == pytest.approx(1.75 / 3, rel=1e-15)
    assert fidelity.ratio_of_means(ensemble, student) == pytest.approx(0.75, rel=1e-15)


def test_infinite_and_zero_measures():
    infinite = [np.inf, 1.0]
    assert fidelity.mean_error(infinite, [np.inf, 2.0]) == 0.5
    assert fidelity.mean_absolute_error(infinite, [np.inf, 2.0]) == 0.5
    assert fidelity.mean_error(infinite, [3.0, 2.0]) == -np.inf
    assert fidelity.mean_absolute_error(infinite, [3.0, 2.0]) == np.inf
    assert np.isnan(fidelity.mean_error([np.inf, 1.0], [1.0, np.inf]))
    assert fidelity.ratio_of_means([0.0, 0.0], [1.0, 0.0]) == np.inf
    assert fidelity.ratio_of_means([1.0, 1.0], [0.0, 0.0]) == 0.0
    assert np.isnan(fidelity.ratio_of_means([0.0, 0.0], [0.0, 0.0])) and np.isnan(fidelity.ratio_of_means(infinite, infinite))


def test_mean_kl_against_scipy():
    rng = np.random.default_rng(2)
    log_p, log_q = (scipy.special.log_softmax(rng.normal(size=(100, 7)) * scale, -1) for scale in (1.0, 3.0))
    expected = scipy.special.rel_entr(np.exp(log_p), np.exp(log_q)).sum(-1).mean()
    assert fidelity.mean_kl(log_p, log_q) == pytest.approx(expected, rel=1e-12)


def test_mean_kl_of_nearly_equal_predictions():
    """The true value is the second-order form, some 1e-16: nothing may cancel."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(50, 10))
    change = 1e-8 * rng.normal(size=(50, 10))
    log_p, log_q = (scipy.special.log_softmax(values, -1) for values in (logits, logits + change))
    probs = np.exp(log_p)
    expected = 0.5 * ((probs * change**2).sum(-1) - (probs * change).sum(-1) ** 2).mean()
    assert fidelity.mean_kl(log_p, log_q) == pytest.approx(expected, rel=1e-4, abs=0)


def test_mean_kl_ignores_rounding_of_the_normalisation():
    rng = np.random.default_rng(3)
    log_p, log_q = (scipy.special.log_softmax(rng.normal(size=(50, 10)), -1) for _ in range(2))
    single = log_p.astype(np.float32)
    assert fidelity.mean_kl(single, single) == 0.0
    assert 0 <= fidelity.mean_kl(single, log_p) < 1e-13
    assert fidelity.mean_kl(log_p + 5e-4, log_q - 5e-4) == pytest.approx(fidelity.mean_kl(log_p, log_q), rel=1e-12)


def test_mean_kl_with_excluded_classes():
    with np.errstate(divide="ignore"):
        sure, half, tiny = np.log([[1.0, 0.0]]), np.log([[0.5, 0.5]]), np.array([[0.0, -720.0]])
    assert fidelity.mean_kl(sure, half) == pytest.approx(np.log(2), rel=1e-14)
    assert fidelity.mean_kl(half, sure) == np.inf
    assert fidelity.mean_kl(sure, sure) == 0.0
    assert fidelity.mean_kl(half, tiny) == pytest.approx(0.5 * np.log(0.5) + 0.5 * (np.log(0.5) + 720), rel=1e-14)
    assert fidelity.mean_kl(tiny, half) == pytest.approx(np.log(2), rel=1e-14)


def test_agreement_counts_equal_predictions():
    log_p = np.log([[0.6, 0.4], [0.5, 0.5], [0.3, 0.7], [0.2, 0.8]])
    log_q = np.log([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.1, 0.9]])
    assert fidelity.agreement(log_p, log_q) == 0.75


def test_summary_takes_what_both_sides_have():
    rng = np.random.default_rng(4)
    ensemble = {"total": rng.random(50), "data": rng.random(50), "precision": None, "only_ensemble": rng.random(50)}
    student = {"data": rng.random(50), "total": rng.random(50), "precision": rng.random(50)}
    log_p, log_q = (scipy.special.log_softmax(rng.normal(size=(50, 3)), -1) for _ in range(2))
    result = fidelity.summary(ensemble, student, log_p, log_q)
    assert list(result.measures) == ["total", "data"]
    for name in result.measures:
        expected = tuple(metric(ensemble[name], student[name]) for metric in MEASURE_SCALARS)
        assert tuple(result.measures[name]) == expected
        assert result.measures[name].ratio_of_means == pytest.approx(student[name].mean() / ensemble[name].mean(), rel=1e-14)
    assert result.mean_kl == fidelity.mean_kl(log_p, log_q) and result.agreement == fidelity.agreement(log_p, log_q)
    without = fidelity.summary(ensemble, student)
    assert without.mean_kl is None and without.agreement is None and without.measures == result.measures
    with pytest.raises(ValueError, match="must be given together"):
        fidelity.summary(ensemble, student, log_p)


@pytest.mark.parametrize("metric", MEASURE_SCALARS)
@pytest.mark.parametrize(
    ("ensemble", "student", "message"),
    [
        ([0.1, np.nan], [0.1, 0.2], "ensemble must not be NaN"),
        ([0.1, 0.2], [0.1, np.nan], "student must not be NaN"),
        ([0.1, 0.2], [0.1], "student must have 2 entries"),
        ([0.1, 0.2], [[0.1], [0.2]], "student must be a non-empty vector"),
    ],
)
def test_bad_measures(metric, ensemble, student, message):
    with pytest.raises(ValueError, match=message):
        metric(ensemble, student)


@pytest.mark.parametrize("metric", [fidelity.mean_kl, fidelity.agreement])
def test_bad_predictions(metric):
    good = np.log([[0.5, 0.5]])
    with pytest.raises(ValueError, match="ensemble_log_probs must be log-probabilities .* look like probabilities"):
        metric(np.exp(good), good)
    with pytest.raises(ValueError, match="student_log_probs must be log-probabilities"):
        metric(good, good - 1)
    with pytest.raises(ValueError, match="must have the same shape"):
        metric(good, np.log([[0.2, 0.3, 0.5]]))
