"""gamma: the closed forms of section 4's abscissa."""

import numpy as np
import pytest

from edd.metrics import softness


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.75, 1.0])
def test_smoothed_labels_have_their_own_smoothing(alpha):
    labels = np.array([0, 3, 3, 1])
    targets = (1 - alpha) * np.eye(5)[labels] + alpha / 5
    assert softness.equivalent_smoothing(targets, labels) == pytest.approx(alpha, abs=1e-15)


def test_limits():
    labels = np.array([1, 2, 0])
    assert softness.equivalent_smoothing(np.eye(4)[labels], labels) == 0
    assert softness.equivalent_smoothing(np.full((3, 4), 0.25), labels) == pytest.approx(1)
    assert softness.equivalent_smoothing(np.eye(4)[labels + 1], labels) == pytest.approx(4 / 3)


def test_grows_with_the_temperature_of_a_right_teacher():
    logits, found = np.array([5.0, 1.0, 0.0, 0.0]), []
    for temperature in (1, 2, 4, 8, 16):
        probs = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        found.append(softness.equivalent_smoothing(probs[None], [0]))
    np.testing.assert_allclose(found, [0.04108, 0.30730, 0.64636, 0.83527, 0.92207], atol=5e-6)


def test_counts_repeat_rows():
    probs, labels = np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, 0])
    repeated = softness.equivalent_smoothing(np.repeat(probs, [1, 3], 0), np.zeros(4, int))
    assert softness.equivalent_smoothing(probs, labels, counts=[1, 3]) == pytest.approx(repeated)
    assert softness.equivalent_smoothing(probs, labels, counts=[[1, 0], [0, 1]]).tolist() == pytest.approx([0.2, 1.4])


def test_refuses_logits_and_foreign_labels():
    with pytest.raises(ValueError, match="sum to 1"):
        softness.equivalent_smoothing([[2.0, 1.0]], [0])
    with pytest.raises(ValueError, match="labels"):
        softness.equivalent_smoothing([[0.5, 0.5]], [2])
