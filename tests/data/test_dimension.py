"""Dimension estimates: manifolds of known dimension, invariance to rotation and scale, the linear ratio in closed form."""

import numpy as np
import pytest

from edd.data import dimension


def embedded(d, count=2000, ambient=10, seed=0):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(ambient, ambient)))[0]
    return rng.uniform(size=(count, d)) @ rotation[:d], rotation


@pytest.mark.parametrize("d", [1, 2, 4])
def test_uniform_cubes_have_their_dimension_whatever_the_space(d):
    points, rotation = embedded(d)
    found = dimension.two_nn(points)
    assert abs(found - d) < 0.12 * d
    assert dimension.two_nn(7 * points @ rotation + 3) == pytest.approx(found, rel=1e-6)
    assert dimension.participation_ratio(points) == pytest.approx(d, rel=0.05)


def test_a_curved_surface_is_two_dimensional_where_a_linear_measure_says_three():
    directions = np.random.default_rng(1).normal(size=(3000, 3))
    sphere = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    assert abs(dimension.two_nn(sphere) - 2) < 0.15 and dimension.participation_ratio(sphere) > 2.9


def test_repeated_points_count_once():
    points, _ = embedded(2, count=1500, seed=3)
    assert dimension.two_nn(np.concatenate([points, points[:700]])) == dimension.two_nn(points)
    assert dimension.two_nn(points, discard=0.0) == pytest.approx(2, rel=0.15)


def test_blocks_do_not_matter(monkeypatch):
    points, _ = embedded(3, count=300)
    whole = dimension.two_nn(points)
    monkeypatch.setattr(dimension, "BLOCK", 37)
    assert dimension.two_nn(points) == pytest.approx(whole, rel=1e-12)


def test_the_ratio_is_that_of_the_eigenvalues_and_more_dimensions_than_points_are_no_harm():
    points = np.random.default_rng(0).normal(size=(20, 50)) * np.arange(1, 51)[None]
    values = np.linalg.eigvalsh(np.cov(points.T))
    assert dimension.participation_ratio(points) == pytest.approx(values.sum() ** 2 / (values**2).sum())
    assert dimension.participation_ratio(np.ones((3, 2))) == 0.0


def test_a_lattice_and_bad_points():
    grid = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2)
    assert dimension.two_nn(grid) == np.inf
    for bad, message in ((np.ones(3), "must be"), (np.full((5, 2), np.nan), "finite"), (np.ones((9, 2)), "at least 4 different")):
        with pytest.raises(ValueError, match=message):
            dimension.two_nn(bad)
