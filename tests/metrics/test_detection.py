"""AUROC, AUPR, FPR at TPR and the ROC curve: scikit-learn, all pairs, ties, infinities, single-sided sets."""

import itertools

import numpy as np
import pytest
import sklearn.metrics

from edd.metrics import detection

SCALARS = [detection.auroc, detection.aupr, detection.fpr_at_tpr]


def tied_data(seed, num_examples=300, levels=20):
    rng = np.random.default_rng(seed)
    positive = rng.random(num_examples) < 0.3
    return np.round(rng.normal(size=num_examples) + positive, 6 if levels is None else 0) / 3, positive


def slow_fpr(scores, positive, tpr):
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        if (called & positive).sum() / positive.sum() >= tpr:
            return (called & ~positive).sum() / (~positive).sum()


@pytest.mark.parametrize("levels", [None, 20])
@pytest.mark.parametrize("seed", range(3))
def test_parity_with_scikit_learn(seed, levels):
    scores, positive = tied_data(seed, levels=levels)
    assert detection.auroc(scores, positive) == pytest.approx(sklearn.metrics.roc_auc_score(positive, scores), rel=1e-13)
    assert detection.aupr(scores, positive) == pytest.approx(sklearn.metrics.average_precision_score(positive, scores), rel=1e-13)
    for tpr in (0.1, 0.5, 0.8, 0.95, 1.0):
        assert detection.fpr_at_tpr(scores, positive, tpr) == slow_fpr(scores, positive, tpr)
    curve = detection.roc_curve(scores, positive)
    for ours, theirs in zip(curve, sklearn.metrics.roc_curve(positive, scores, drop_intermediate=False), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    assert np.trapezoid(curve.true_positive_rate, curve.false_positive_rate) == pytest.approx(detection.auroc(scores, positive), rel=1e-12)


def test_auroc_is_the_share_of_ordered_pairs():
    scores, positive = tied_data(5, num_examples=60)
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(scores[positive], scores[~positive])]
    assert detection.auroc(scores, positive) == pytest.approx(np.mean(pairs), rel=1e-14)


@pytest.mark.parametrize("value", [0.0, -3.5, np.inf, -np.inf])
def test_constant_score(value):
    positive = np.array([1, 0, 0, 1, 0, 0, 0, 0])
    scores = np.full(8, value)
    for order in (np.arange(8), np.argsort(positive), np.argsort(-positive)):
        assert detection.auroc(scores, positive[order]) == 0.5
        assert detection.aupr(scores, positive[order]) == 0.25
        assert detection.fpr_at_tpr(scores, positive[order]) == 1.0


def test_perfect_and_reversed():
    scores, positive = np.arange(10.0), np.arange(10) >= 6
    assert [metric(scores, positive) for metric in SCALARS] == [1.0, 1.0, 0.0]
    assert detection.auroc(-scores, positive) == 0.0
    assert detection.fpr_at_tpr(-scores, positive) == 1.0


def test_infinities_rank_last_and_first():
    positive = [0, 1, 0, 1, 1]
    infinite = [-np.inf, 0.0, 1.0, np.inf, np.inf]
    finite = [-1e9, 0.0, 1.0, 1e9, 1e9]
    for metric in SCALARS:
        assert metric(infinite, positive) == metric(finite, positive)
    assert (
        detection.roc_curve(infinite, positive).true_positive_rate.tolist()
        == detection.roc_curve(finite, positive).true_positive_rate.tolist()
    )


def test_rate_is_reached_exactly():
    """19 of 20 positives is 95 %: the threshold of the 19th counts, without rounding."""
    scores = np.concatenate([np.arange(20.0), [0.5]])
    positive = np.arange(21) < 20
    assert detection.fpr_at_tpr(scores, positive, 0.95) == 0.0
    assert detection.fpr_at_tpr(scores, positive, 0.951) == 1.0
    for total in range(1, 60):
        for hits in range(1, total + 1):
            one_negative = np.concatenate([np.arange(total, 0, -1.0), [total - hits + 0.5]])
            assert detection.fpr_at_tpr(one_negative, np.arange(total + 1) < total, hits / total) == 0.0


def test_only_the_order_of_scores_matters():
    scores, positive = tied_data(7)
    for metric in SCALARS:
        assert metric(np.exp(scores), positive) == metric(scores, positive)


def test_one_sided_sets():
    scores = [0.1, 0.2, 0.2]
    assert np.isnan([metric(scores, [0, 0, 0]) for metric in SCALARS]).all()
    assert np.isnan(detection.auroc(scores, [1, 1, 1])) and np.isnan(detection.fpr_at_tpr(scores, [1, 1, 1]))
    assert detection.aupr(scores, [1, 1, 1]) == 1.0
    curve = detection.roc_curve(scores, [1, 1, 1])
    assert np.isnan(curve.false_positive_rate).all() and curve.true_positive_rate.tolist() == [0.0, 2 / 3, 1.0]


@pytest.mark.parametrize("metric", [*SCALARS, detection.roc_curve])
@pytest.mark.parametrize(
    ("scores", "positive", "message"),
    [
        ([0.1, np.nan], [0, 1], "scores must not be NaN, got NaN at index 1"),
        ([0.1, 0.2], [0, 2], "is_positive must be booleans or 0 and 1, got 2 at index 1"),
        ([0.1, 0.2], [0, 1, 1], "is_positive must have 2 entries, .* got 3"),
        ([[0.1], [0.2]], [0, 1], r"scores must be a non-empty vector \[N\], got shape \(2, 1\)"),
        ([0.1, 0.2], [[0], [1]], "is_positive must be a non-empty vector"),
        ([], [], "scores must be a non-empty vector"),
    ],
)
def test_bad_input(metric, scores, positive, message):
    with pytest.raises(ValueError, match=message):
        metric(scores, positive)


@pytest.mark.parametrize("tpr", [0.0, -0.1, 1.01, np.nan])
def test_bad_rate(tpr):
    with pytest.raises(ValueError, match="tpr must lie in"):
        detection.fpr_at_tpr([0.1, 0.2], [0, 1], tpr)
