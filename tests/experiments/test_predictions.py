"""Predictions survive the disk: every field, missing ones, odd names; a broken file is named."""

import numpy as np
import pytest

from edd.experiments import predictions
from edd.experiments.predictions import Row


def test_round_trip(tmp_path, make_rows):
    rows, labels = make_rows(num_test=12, num_out=7, seeds=2)
    rows = [*rows, rows[-1]._replace(name="Proxy, T=2.5 / β", seed=np.int64(4), parameters=None)]
    for row in rows:
        predictions.save_predictions(tmp_path, row)
    predictions.save_labels(tmp_path, labels)
    loaded = {(row.name, row.seed): row for row in predictions.load_predictions(tmp_path)}
    assert len(loaded) == len(rows)
    for row in rows:
        again = loaded[row.name, row.seed]
        assert (again.parameters, again.milliseconds_per_1000, again.group) == (row.parameters, row.milliseconds_per_1000, row.group)
        assert again.predictions.keys() == row.predictions.keys()
        for name, prediction in row.predictions.items():
            for field, other in zip(prediction, again.predictions[name]):
                assert (field is None) == (other is None)
                if field is not None:
                    np.testing.assert_array_equal(field, other)
    np.testing.assert_array_equal(predictions.load_labels(tmp_path), labels)


def test_nothing_saved(tmp_path):
    assert predictions.load_predictions(tmp_path) == [] and predictions.load_labels(tmp_path) is None


def test_saving_again_replaces(tmp_path, make_rows):
    row = make_rows(num_test=5, num_out=5, seeds=1)[0][-1]
    predictions.save_predictions(tmp_path, row)
    predictions.save_predictions(tmp_path, row._replace(parameters=7))
    (again,) = predictions.load_predictions(tmp_path)
    assert again.parameters == 7


def test_broken_file_is_named(tmp_path, make_rows):
    row = make_rows(num_test=5, num_out=5, seeds=1)[0][-1]
    path = predictions.save_predictions(tmp_path, row)[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path.name} is not a readable prediction file"):
        predictions.load_predictions(tmp_path)


def test_as_numpy_keeps_none():
    from edd.distillers.base import Prediction

    found = predictions.as_numpy(Prediction([[0.0, 1.0]], total=[1.0]))
    assert found.log_probs.shape == (1, 2) and found.data is None and isinstance(found.total, np.ndarray)
    assert Row("a", 0, {}).group == "student"
