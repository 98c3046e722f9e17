"""Bootstrap: resamples as counts equal resampled rows, intervals cover, pairs are paired."""

import numpy as np
import pytest

from edd.metrics import bootstrap, classification, detection, rejection


def detection_data(seed=0, num_examples=200):
    rng = np.random.default_rng(seed)
    positive = rng.random(num_examples) < 0.4
    return np.round(rng.normal(size=num_examples) + positive, 1), positive


def test_draw_is_seeded_and_extends():
    counts = bootstrap.draw(50, 20, seed=3)
    assert counts.shape == (20, 50) and counts.dtype == np.int32
    assert (counts.sum(1) == 50).all() and (counts >= 0).all()
    np.testing.assert_array_equal(counts, bootstrap.draw(50, 20, seed=3))
    np.testing.assert_array_equal(counts[:5], bootstrap.draw(50, 5, seed=3))
    assert (counts != bootstrap.draw(50, 20, seed=4)).any()


def test_draw_is_multinomial():
    counts = bootstrap.draw(40, 20000, seed=0)
    np.testing.assert_allclose(counts.mean(0), 1.0, atol=5 / np.sqrt(20000))
    np.testing.assert_allclose(counts.var(0), 1 - 1 / 40, atol=0.08)
    covariance = np.mean((counts[:, 0] - 1.0) * (counts[:, 1] - 1.0))
    assert covariance == pytest.approx(-1 / 40, abs=0.03)


def test_strata_keep_their_size():
    strata = np.array([0, 1, 1, 2, 2, 2, 0])
    counts = bootstrap.draw(7, 30, seed=1, strata=strata)
    for value in range(3):
        assert (counts[:, strata == value].sum(1) == (strata == value).sum()).all()
    assert (counts[:, strata == 2].max(0) > 1).all()


def test_counts_equal_resampled_rows():
    """The fast path (counts) and the obvious one (a function without counts, called on repeated rows) agree."""
    scores, positive = detection_data()
    counts = bootstrap.draw(200, 25, seed=2)
    fast = bootstrap.replicates(detection.auroc, scores, positive, counts=counts)
    slow = bootstrap.replicates(lambda s, p: detection.auroc(s, p), scores, positive, counts=counts)
    np.testing.assert_allclose(fast, slow, rtol=1e-13)
    assert np.unique(fast).size > 10
    options = bootstrap.replicates(detection.fpr_at_tpr, scores, positive, counts=counts, tpr=0.5)
    np.testing.assert_array_equal(options, [detection.fpr_at_tpr(np.repeat(scores, c), np.repeat(positive, c), 0.5) for c in counts])


def test_interval_of_an_accuracy_is_binomial():
    probs = np.tile([[0.9, 0.1]], (1000, 1))
    labels = (np.arange(1000) >= 700).astype(int)
    result = bootstrap.interval(classification.accuracy, probs, labels, num_resamples=2000, seed=5)
    deviation = np.sqrt(0.7 * 0.3 / 1000)
    assert result.estimate == 0.7 and result.num_defined == 2000
    assert result.standard_error == pytest.approx(deviation, rel=0.06)
    assert result.lower == pytest.approx(0.7 - 1.96 * deviation, abs=0.004)
    assert result.upper == pytest.approx(0.7 + 1.96 * deviation, abs=0.004)
    narrow = bootstrap.interval(classification.accuracy, probs, labels, level=0.5, num_resamples=2000, seed=5)
    assert result.lower < narrow.lower < 0.7 < narrow.upper < result.upper


def test_interval_ends_are_percentiles():
    scores, positive = detection_data()
    counts = bootstrap.draw(200, 401, seed=6)
    samples = bootstrap.replicates(detection.aupr, scores, positive, counts=counts)
    result = bootstrap.interval(detection.aupr, scores, positive, counts=counts)
    assert (result.lower, result.upper) == pytest.approx(np.quantile(samples, [0.025, 0.975]), rel=1e-14)
    assert result == bootstrap.interval(detection.aupr, scores, positive, num_resamples=401, seed=6)
    assert result.estimate == detection.aupr(scores, positive)


def test_coverage_of_a_mean():
    rng = np.random.default_rng(7)
    counts = bootstrap.draw(100, 200, seed=8)
    errors = rng.random((200, 100)) < 0.3
    intervals = [bootstrap.interval(rejection.aurc, np.zeros(100), row, counts=counts) for row in errors]
    covered = np.mean([interval.lower <= 0.3 <= interval.upper for interval in intervals])
    assert 0.88 <= covered <= 0.99


def test_undefined_resamples_are_left_out():
    scores, positive = np.arange(4.0), np.array([0, 0, 0, 1])
    result = bootstrap.interval(detection.auroc, scores, positive, num_resamples=300)
    without_positive = (3 / 4) ** 4
    assert result.num_defined == pytest.approx(300 * (1 - without_positive), abs=30)
    assert (result.lower, result.upper) == (1.0, 1.0)
    assert bootstrap.interval(detection.auroc, scores, positive, num_resamples=300, strata=positive).num_defined == 300
    none = bootstrap.interval(detection.auroc, scores, np.ones(4), num_resamples=10)
    assert none.num_defined == 0 and np.isnan(none[:4]).all()


def test_infinite_resamples():
    with np.errstate(divide="ignore"):
        log_probs = np.log([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    result = bootstrap.interval(classification.nll, log_probs, [1, 0, 0], num_resamples=200)
    assert result.estimate == result.upper == np.inf and result.lower == pytest.approx(np.log(2)) and np.isnan(result.standard_error)


def test_paired_difference():
    scores, positive = detection_data()
    rng = np.random.default_rng(9)
    noisy = scores + 0.5 * rng.normal(size=200)
    counts = bootstrap.draw(200, 300, seed=1)
    result = bootstrap.paired_difference(detection.auroc, (noisy, positive), (scores, positive), counts=counts)
    assert result.estimate == detection.auroc(scores, positive) - detection.auroc(noisy, positive)
    samples = [bootstrap.replicates(detection.auroc, values, positive, counts=counts) for values in (noisy, scores)]
    assert result.standard_error == pytest.approx(np.std(samples[1] - samples[0], ddof=1), rel=1e-12)
    assert result.standard_error < np.hypot(*(np.std(s, ddof=1) for s in samples))  # pairing removes the shared part
    same = bootstrap.paired_difference(detection.auroc, (scores, positive), (3 * scores, positive), num_resamples=50)
    assert same[:4] == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap.draw(0), "num_rows must be at least 1, got 0"),
        (lambda: bootstrap.draw(5, 0), "num_resamples must be at least 1"),
        (lambda: bootstrap.draw(5, 2, seed=-1), "seed must be at least 0"),
        (lambda: bootstrap.draw(5, 2, strata=[1, 2]), "strata must have 5 entries"),
        (lambda: bootstrap.interval(detection.auroc, [1.0, 2.0], [0, 1], level=1.0), "level must lie in"),
        (lambda: bootstrap.interval(detection.auroc, [1.0, 2.0], [0, 1, 1]), r"same number of rows, at least one, got \[2, 3\]"),
        (lambda: bootstrap.interval(detection.auroc), "same number of rows"),
        (lambda: bootstrap.interval(detection.auroc, [1.0, 2.0], [0, 1], 0.95), "pass scalars by keyword"),
        (lambda: bootstrap.interval(detection.auroc, [1.0, 2.0], [0, 1], counts=[[1, 1, 0]]), r"counts must have shape \(2,\)"),
        (lambda: bootstrap.interval(detection.auroc, [1.0, 2.0], [0, 1], counts=[1, 1]), "one row for each resample"),
        (lambda: bootstrap.interval(detection.auroc, [1.0, np.nan], [0, 1]), "scores must not be NaN"),
        (lambda: bootstrap.paired_difference(detection.auroc, ([1.0], [0]), ([1.0, 2.0], [0, 1])), "same number of rows"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
