"""The heat-map grid: order of the points, the disk, and what is drawn."""

import numpy as np
import pytest

from edd.distillers.base import Prediction
from edd.experiments import heatmaps


@pytest.fixture
def grid():
    points = heatmaps.grid_points((-1.0, 1.0, 0.0, 1.0), (3, 5))
    log_probs = np.log(np.full((15, 2), 0.5))
    whole = Prediction(log_probs, total=points[:, 0].astype(float) + 1, mutual_information=points[:, 1].astype(float))
    plain = Prediction(log_probs, total=np.ones(15))
    return heatmaps.Grid((-1.0, 1.0, 0.0, 1.0), (3, 5), {"Ensemble": whole, "EnD": plain}, points, np.zeros(15, int))


def test_points_run_along_x_then_up():
    points = heatmaps.grid_points((0, 4, 10, 12), (3, 5))
    assert points.shape == (15, 2) and points.dtype == np.float32
    np.testing.assert_array_equal(points[:5], [[0, 10], [1, 10], [2, 10], [3, 10], [4, 10]])
    np.testing.assert_array_equal(points[-1], [4, 12])


def test_image_is_right_side_up(grid):
    figure = heatmaps.heatmaps(grid)
    images = [axis.images[0] for axis in figure.axes if axis.images and axis.get_title() == "Ensemble"]
    array = np.asarray(images[0].get_array())
    assert images[0].origin == "lower" and array.shape == (3, 5)
    assert (np.diff(array, axis=1) > 0).all() and (np.diff(array, axis=0) == 0).all()  # total uncertainty grows with x alone


def test_row_without_the_measure_says_so_and_scales_are_shared(grid):
    figure = heatmaps.heatmaps(grid)
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts == ["no such measure"]
    limits = {axis.images[0].get_clim() for axis in figure.axes[:2]}
    assert len(limits) == 1
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert "knowledge uncertainty I (nats)" in labels and "total uncertainty H (nats)" in labels


def test_only_lines_that_exist(grid):
    plain = grid._replace(predictions={"EnD": grid.predictions["EnD"]})
    figure = heatmaps.heatmaps(plain)
    assert sum(bool(axis.images) for axis in figure.axes) == 1
    bare = grid._replace(predictions={"x": Prediction(grid.predictions["EnD"].log_probs)})
    assert heatmaps.heatmaps(bare) is None


def test_non_finite_values_are_drawn_around(grid):
    values = grid.predictions["EnD"].total.copy()
    values[:] = np.nan
    broken = grid._replace(predictions={"EnD": grid.predictions["EnD"]._replace(total=values)})
    assert heatmaps.heatmaps(broken) is not None


def test_disk(tmp_path, grid):
    assert heatmaps.load_grid(tmp_path) is None
    heatmaps.save_grid(tmp_path, grid)
    again = heatmaps.load_grid(tmp_path)
    assert (again.extent, again.shape) == (grid.extent, grid.shape) and list(again.predictions) == ["Ensemble", "EnD"]
    np.testing.assert_array_equal(again.inputs, grid.inputs)
    np.testing.assert_array_equal(again.predictions["Ensemble"].mutual_information, grid.predictions["Ensemble"].mutual_information)
    assert again.predictions["EnD"].mutual_information is None
    assert list(heatmaps.load_grid(tmp_path, ["EnD"]).predictions) == ["EnD"]
