"""Parts of the scoring that a whole evaluation does not show."""

import math

import numpy as np
import pytest

from edd.distillers.base import Prediction
from edd.experiments import scores
from edd.metrics import detection

NO_RESAMPLES = scores.Sampling({}, {}, 0.95, 15)


def test_sampling_is_seeded_and_keeps_the_sizes():
    options = {"num_resamples": 5, "level": 0.9, "num_bins": 15}
    first = scores.sampling({"test": 7, "a": 3, "b": 3}, seed=1, **options)
    again = scores.sampling({"test": 7, "a": 3, "b": 3}, seed=1, **options)
    other = scores.sampling({"test": 7, "a": 3, "b": 3}, seed=2, **options)
    np.testing.assert_array_equal(first.counts["a"], again.counts["a"])
    assert not np.array_equal(first.counts["test"], other.counts["test"])
    assert not np.array_equal(first.counts["a"], first.counts["b"])
    assert (first.counts["test"].sum(1) == 7).all()
    np.testing.assert_array_equal(first.against_test["a"], np.hstack([first.counts["test"], first.counts["a"]]))


def test_measured_without_resamples_is_the_value():
    found = scores.measured(detection.auroc, np.array([0.0, 1.0]), np.array([False, True]), counts=None, level=0.95)
    assert found == {"value": 1.0, "low": None, "high": None}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_is_sound(bad):
    good = Prediction(np.array([[0.0, -np.inf]]))
    assert scores.is_sound(good)
    assert not scores.is_sound(Prediction(np.array([[0.0, bad]])))


def test_confidence_tells_apart_what_float32_rounds_to_one():
    log_probs = np.array([[-1e-9, -20.7], [-1e-12, -27.6]], np.float32)
    assert (np.exp(log_probs[:, 0]) == 1).all()
    first, second = scores.uncertainties(Prediction(log_probs))["confidence"]
    assert first > second > 0


def test_equal_measures_are_scored_once():
    calls = []

    def score(values):
        calls.append(values)
        return {"x": scores.leaf(values.sum())}

    total = np.array([1.0, 2.0])
    found = scores._each_once({"total": total, "data": total.copy(), "confidence": total + 1}, score)
    assert len(calls) == 2 and found["data"] == found["total"] and found["confidence"]["x"]["value"] == 5.0


def test_excluded_class_gives_infinite_nll():
    prediction = Prediction(np.array([[0.0, -np.inf], [0.0, -np.inf]]))
    found = scores.classification_scores(prediction, np.array([0, 1]), NO_RESAMPLES)
    assert found["nll"]["value"] == math.inf and found["accuracy"]["value"] == 0.5


def test_no_errors_leave_prr_undefined_but_not_the_rest():
    prediction = Prediction(np.log(np.array([[0.9, 0.1], [0.6, 0.4]])), total=np.array([0.3, 0.7]))
    found = scores.rejection_scores(prediction, np.array([0, 0]), NO_RESAMPLES)["total"]
    assert math.isnan(found["prr"]["value"]) and found["aurc"]["value"] == 0.0


def test_describe():
    means, precision = scores.describe(
        Prediction(np.log(np.full((3, 2), 0.5)), total=np.array([1.0, 2.0, 6.0]), precision=np.array([1, 5, np.inf]))
    )
    assert means["total"]["value"] == 3.0 and precision["value"] == 5.0 and set(means) == {"total"}
    assert scores.describe(Prediction(np.full((1, 2), np.nan), total=np.array([1.0])))[1] is None
