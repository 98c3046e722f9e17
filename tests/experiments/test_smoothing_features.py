"""The study of smoothed networks: from end to end, what projections, calibration and the curve hold, and what is refused."""

import math

import numpy as np
import pytest
from PIL import Image

from edd.experiments import launch, results, smoothing_features, smoothing_features_report
from edd.metrics import calibration

LN_N = math.log(4)  # two classes of two examples in a smoke run


@pytest.fixture(scope="module")
def config():
    model = {"name": "mlp", "options": {"widths": [16]}}
    return {
        "experiment": "smoothing_features",
        "name": "toy",
        "smoke": True,
        "data": {"name": "mnist"},
        "ensemble": {
            "num_members": 2,
            "training": {"model": model, "epochs": 1.0, "batch_size": 8, "augment": "crop", "augment_padding": 2},
        },
        "smoothings": [0.0, 0.1],
        "triples": [[0, 1, 2]],
        "information": {"classes": [0, 5], "snapshots": 5},
        "temperatures": [0.5, 1.0, 2.0],
        "reference": {"10 %": {"ECE %": 0.024}},
    }


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "run"
    return folder, launch.run(config, str(folder), progress=False)


def test_a_study_from_end_to_end(finished, config):
    folder, found = finished
    assert [part["smoothing"] for part in found["parts"]] == [0.0, 0.1]
    for part in found["parts"]:
        assert [seed["seed"] for seed in part["seeds"]] == [0, 1]
        for seed in part["seeds"]:
            at_one = seed["plain"]
            assert seed["grid"]["ece"][1] == at_one["ece"] and seed["grid"]["nll"][1] == at_one["nll"]
            assert seed["scaled"]["nll"] <= at_one["nll"] + 1e-6  # no examples are held out: the temperature fits the test set
            assert seed["scaled"]["accuracy"] == at_one["accuracy"]
            assert sum(at_one["reliability"]["count"]) == 40
        (projection,) = part["projections"]
        sides = np.array(projection["templates"])
        assert sides[0].tolist() == [0, 0] and sides[1, 0] > 0 and sides[1, 1] == pytest.approx(0, abs=1e-12)
        for name in ("train", "test"):
            assert projection[name]["labels"] == [0, 0, 1, 1, 2, 2] and np.shape(projection[name]["points"]) == (6, 2)
        curve = part["information"]
        assert curve["steps"] == [1, 2] and np.shape(curve["fresh"]) == np.shape(curve["in_sample"]) == (2, 2)
        assert np.max(curve["in_sample"]) <= LN_N and np.max(curve["fresh"]) <= LN_N
    text = (folder / "report.md").read_text()
    assert "smoothing 0.1, paper" in text and "A smoke run" in text and "## Information over training" in text
    for name in ("projections", "reliability", "temperature", "information"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5000
    assert results.encode(launch.run(config, str(folder), progress=False)["parts"]) == results.encode(found["parts"])


def test_runs_render_again_and_merge(finished, rendered_again):
    _, found = finished
    rendered_again(*finished)
    halves = [{**found, "settings": {**found["settings"], "smoothings": [part["smoothing"]]}, "parts": [part]} for part in found["parts"]]
    assert smoothing_features_report.merge(halves)["parts"] == found["parts"]


def test_a_study_of_streamed_photographs_is_that_of_photographs_in_memory(tmp_path):
    """ImageNet's program on a folder of images: held-out images choose among averaged networks, views are rectangles."""
    rng = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 256, (14, 10 + number, 3)) // 2 + 40 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / str(label) / f"{number}.png")
    images = {"folder": str(tmp_path / "images"), "num_classes": 3, "image_size": 12, "resize": 12, "squash": True}
    training = {
        "model": {"name": "mlp", "options": {"widths": [8]}},
        "optimizer": {"name": "nesterov", "learning_rate": 0.1, "schedule": "exponential", "options": {"final_fraction": 0.5}},
        "epochs": 4.0,
        "batch_size": 6,
        "augment": "rectangle8+flip",
        "ema_decay": 0.9999,
        "keep": "best",
        "checkpoint_every": 3,
    }
    found = []
    for stream in (True, False):
        options = {**images, "stream": stream, "crop": 8, "standardise": "symmetric"}
        config = {
            "experiment": "smoothing_features",
            "name": "photographs",
            "data": {"name": "image_folder", "options": options, "train_split": "test", "validation": 0.25},
            "ensemble": {"num_members": 1, "training": training},
            "smoothings": [0.1],
            "triples": [[0, 1, 2]],
            "per_class": 3,
        }
        (part,) = launch.run(config, str(tmp_path / str(stream)), progress=False)["parts"]
        found.append({key: value for key, value in part.items() if key != "seconds"})
    assert results.encode(found[0]) == results.encode(found[1])
    assert sum(found[0]["seeds"][0]["plain"]["reliability"]["count"]) == 24


def test_scores_are_those_of_the_scaled_logits():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 3, 50)
    probs = np.exp(logits / 2) / np.exp(logits / 2).sum(-1, keepdims=True)
    found = smoothing_features.scores(logits, labels, 2.0, 10)
    assert found["ece"] == pytest.approx(calibration.expected_calibration_error(probs, labels, 10), abs=1e-6)
    assert found["nll"] == pytest.approx(-np.log(probs[np.arange(50), labels]).mean(), rel=1e-5)


def test_spread_is_zero_for_tight_clusters_and_has_no_unit():
    points, labels = np.repeat([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]], 2, 0), np.repeat([4, 7, 9], 2)
    assert smoothing_features.spread(points, labels) == 0
    moved = points + np.tile([[1.0, 0.0], [-1.0, 0.0]], (3, 1))  # each at distance 1 from its centre; centres 2, 2 and sqrt 8 apart
    expected = math.sqrt(1 / ((4 + 4 + 8) / 3))
    assert smoothing_features.spread(moved, labels) == pytest.approx(expected)
    assert smoothing_features.spread(10 * moved + 3, labels) == pytest.approx(expected)


def test_pooled_reliability_weighs_by_counts_and_leaves_empty_bins_out():
    bins = [
        {"count": [1, 0, 3], "confidence": [0.2, math.nan, 0.9], "accuracy": [0.0, math.nan, 1.0]},
        {"count": [3, 0, 1], "confidence": [0.4, math.nan, 0.7], "accuracy": [1.0, math.nan, 0.0]},
    ]
    confidence, accuracy = smoothing_features_report.pooled_reliability(bins)
    np.testing.assert_allclose(confidence, [0.35, 0.85])
    np.testing.assert_allclose(accuracy, [0.75, 0.75])


@pytest.mark.parametrize(
    "change,message",
    [
        ({"smoothings": [0.0, -0.1]}, r"smoothings must lie in \[0, 1\], got -0.1"),
        ({"smoothings": [1.5]}, r"smoothings must lie in \[0, 1\], got 1.5"),
        ({"smoothings": [0.1, 0.1]}, "smoothings must differ"),
        ({"temperatures": [1.0, 0.0]}, "temperatures must be at least one, all above 0"),
        ({"triples": [[0, 1, 10]]}, r"classes must lie in \[0, 10\), the data's classes, got 10"),
        ({"triples": [[0, 1, 1]]}, "three different classes"),
        ({"information": {"classes": [0, 12]}}, r"information.classes must lie in \[0, 10\)"),
        ({"information": {"classes": [3, 3]}}, "two different classes"),
        ({"information": {"classes": [-1, 3]}}, r"information.classes must lie in \[0, 10\)"),
        ({"information": {"classes": [0, 0.5]}}, r"'information.classes\[1\]' must be int, got 0.5"),
        ({"triples": [[0, 1, -1]]}, r"classes must lie in \[0, 10\)"),
        ({"triples": [[0, 1, 2.5]]}, r"'triples\[0\]\[2\]' must be int, got 2.5"),
        ({"triples": [3]}, r"'triples\[0\]' must be a list, got 3"),
        ({"temperatures": [-1.0]}, "temperatures must be at least one, all above 0"),
        ({"temperatures": [True]}, r"'temperatures\[0\]' must be float, got True"),
        ({"smoothings": [None]}, r"'smoothings\[0\]' must be float, got None"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(config, change, message, refused):
    refused({**config, **change}, message)


def test_a_curve_needs_random_views(config, refused):
    training = {**config["ensemble"]["training"], "augment": "none"}
    refused({**config, "ensemble": {"num_members": 2, "training": training}}, "set ensemble.training.augment")
