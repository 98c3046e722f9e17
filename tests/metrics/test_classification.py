"""Accuracy, NLL and Brier score against scikit-learn, by hand, and on bad input."""

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from edd.metrics import classification


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 5)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return probs, rng.integers(0, 5, 200)


def test_parity_with_scikit_learn(data):
    probs, labels = data
    assert classification.accuracy(probs, labels) == sklearn.metrics.accuracy_score(labels, probs.argmax(-1))
    assert classification.nll(np.log(probs), labels) == pytest.approx(sklearn.metrics.log_loss(labels, probs), rel=1e-12)
    brier = sklearn.metrics.brier_score_loss(labels, probs, scale_by_half=False)
    assert classification.brier_score(probs, labels) == pytest.approx(brier, rel=1e-12)


def test_brier_with_two_classes_is_twice_the_binary_score():
    positive = np.array([0.1, 0.8, 0.55])
    labels = np.array([0, 1, 0])
    binary = sklearn.metrics.brier_score_loss(labels, positive)
    assert classification.brier_score(np.stack([1 - positive, positive], -1), labels) == pytest.approx(2 * binary, rel=1e-14)


def test_extremes():
    sure = np.eye(3)
    with np.errstate(divide="ignore"):
        log_sure = np.log(sure)
    right, wrong = np.arange(3), np.array([1, 2, 0])
    assert (classification.accuracy(sure, right), classification.accuracy(sure, wrong)) == (1.0, 0.0)
    assert (classification.brier_score(sure, right), classification.brier_score(sure, wrong)) == (0.0, 2.0)
    assert (classification.nll(log_sure, right), classification.nll(log_sure, wrong)) == (0.0, np.inf)
    assert classification.nll(log_sure, [0, 1, 1], counts=[1, 2, 0]) == 0.0  # an infinite row that does not count


def test_first_class_among_equals():
    probs = np.full((2, 4), 0.25)
    assert classification.accuracy(probs, [0, 0]) == 1.0
    assert classification.accuracy(probs, [1, 3]) == 0.0


def test_blocks_of_rows_change_nothing(data, monkeypatch):
    probs, labels = data
    whole = classification.brier_score(probs, labels)
    monkeypatch.setattr("edd.metrics.host._BLOCK_ELEMENTS", 37)
    assert classification.brier_score(probs, labels) == whole


def test_half_precision_is_read_as_it_is(data):
    probs, labels = data
    half = jnp.asarray(probs, jnp.bfloat16)
    exact = np.asarray(half).astype(np.float64)
    assert classification.accuracy(half, labels) == np.mean(exact.argmax(-1) == labels)
    assert classification.brier_score(half, labels) == pytest.approx(((exact - np.eye(5)[labels]) ** 2).sum(-1).mean(), rel=1e-14)


@pytest.mark.parametrize("metric", [classification.accuracy, classification.brier_score])
def test_log_probs_for_probs(metric, data):
    probs, labels = data
    with pytest.raises(ValueError, match="log-probabilities: pass exp"):
        metric(np.log(probs), labels)


def test_probs_for_log_probs(data):
    probs, labels = data
    with pytest.raises(ValueError, match="look like probabilities: pass their logarithm"):
        classification.nll(probs, labels)
    with pytest.raises(ValueError, match="apply log_softmax"):
        classification.nll(np.log(probs) + 1, labels)


@pytest.mark.parametrize(
    ("probs", "labels", "error", "message"),
    [
        ([[0.5, 0.6]], [0], ValueError, "probs must sum to 1 .* got 1.1 in row 0"),
        ([[0.5, 0.5], [np.nan, 1.0]], [0, 0], ValueError, r"probs must be probabilities >= 0, got nan at index \(1, 0\)"),
        ([[1.2, -0.2]], [0], ValueError, r"got -0.2 at index \(0, 1\)$"),
        ([[1.0]], [0], ValueError, "K >= 2 classes"),
        (np.zeros((0, 2)), np.zeros(0, int), ValueError, "N >= 1 examples"),
        ([0.5, 0.5], [0], ValueError, "probs must be .N, K."),
        ([[[0.5, 0.5]]], [[0]], ValueError, "probs must be .N, K."),
        ([[0.5, 0.5], [0.5, 0.5]], [0], ValueError, r"labels must have shape \(2,\)"),
        ([[0.5, 0.5], [0.5, 0.5]], [[0], [1]], ValueError, r"labels must have shape \(2,\).* got \(2, 1\)"),
        ([[0.5, 0.5]], [2], ValueError, r"labels must lie in \[0, 2\), got 2"),
        ([[0.5, 0.5]], [-1], ValueError, "labels must lie in"),
        ([[0.5, 0.5]], [0.0], TypeError, "labels must be integers"),
        ([["a", "b"]], [0], TypeError, "probs must be real numbers"),
        ([[0.5 + 1j, 0.5]], [0], TypeError, "probs must be real numbers"),
    ],
)
def test_bad_input(probs, labels, error, message):
    with pytest.raises(error, match=message):
        classification.accuracy(probs, labels)
