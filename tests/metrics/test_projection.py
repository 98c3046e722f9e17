"""The plane through three templates: an equilateral example, isometry, what another order of the classes does, and bad input."""

import itertools

import numpy as np
import pytest

from edd.metrics import projection


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def test_unit_vectors_make_an_equilateral_triangle():
    plane = projection.template_plane(np.eye(3))
    found = projection.project(np.eye(3), plane)
    np.testing.assert_allclose(found, [[0, 0], [2**0.5, 0], [2**0.5 / 2, 6**0.5 / 2]], atol=1e-15)


def test_distances_in_the_plane_are_kept_and_others_shrink():
    rng = np.random.default_rng(0)
    templates, activations = rng.normal(size=(3, 40)) + 3.0, rng.normal(size=(20, 40))
    plane = projection.template_plane(templates)
    np.testing.assert_allclose(plane.basis.T @ plane.basis, np.eye(2), atol=1e-14)
    np.testing.assert_allclose(distances(projection.project(templates, plane)), distances(templates), atol=1e-12)
    mixed = rng.dirichlet(np.ones(3), 10) @ templates
    np.testing.assert_allclose(distances(projection.project(mixed, plane)), distances(mixed), atol=1e-12)
    assert np.all(distances(projection.project(activations, plane)) <= distances(activations) + 1e-12)


def test_the_foot_is_the_nearest_point_of_the_plane():
    rng = np.random.default_rng(1)
    templates, activation = rng.normal(size=(3, 6)), rng.normal(size=6)
    plane = projection.template_plane(templates)
    foot = plane.origin + plane.basis @ projection.project(activation[None], plane)[0]
    solution = np.linalg.lstsq((templates[1:] - templates[0]).T, activation - templates[0], rcond=None)[0]
    np.testing.assert_allclose(foot, templates[0] + solution @ (templates[1:] - templates[0]), atol=1e-12)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_another_order_rotates_or_reflects(order):
    rng = np.random.default_rng(2)
    templates, activations = rng.normal(size=(3, 8)), rng.normal(size=(15, 8))
    points = [projection.project(activations, projection.template_plane(each)) for each in (templates, templates[list(order)])]
    np.testing.assert_allclose(distances(points[1]), distances(points[0]), atol=1e-12)
    centred = [each - each.mean(0) for each in points]
    turn = np.linalg.lstsq(centred[0], centred[1], rcond=None)[0]
    np.testing.assert_allclose(centred[0] @ turn, centred[1], atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("third", [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-5.0, -5.0, -5.0 - 1e-9]])
def test_templates_on_a_line_are_refused(third):
    with pytest.raises(ValueError, match="three on one line"):
        projection.template_plane([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], third])


def test_equal_first_templates_are_refused():
    with pytest.raises(ValueError, match="three on one line"):
        projection.template_plane([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def test_bad_arrays_are_refused():
    with pytest.raises(ValueError, match=r"templates must be \[3, d\]"):
        projection.template_plane(np.eye(4))
    with pytest.raises(ValueError, match="finite"):
        projection.template_plane([[0.0, 1.0], [np.nan, 0.0], [1.0, 0.0]])
    plane = projection.template_plane(np.eye(3))
    with pytest.raises(ValueError, match=r"activations must be \[N, 3\]"):
        projection.project(np.ones((5, 4)), plane)
    with pytest.raises(ValueError, match="activations must be finite"):
        projection.project([[np.inf, 0.0, 0.0]], plane)


def test_classes_must_be_three_and_in_the_data():
    assert projection.three_classes([4, 30, 55], 100) == (4, 30, 55)
    with pytest.raises(ValueError, match=r"\[0, 10\), the data's classes, got 10"):
        projection.three_classes([0, 1, 10], 10)
    with pytest.raises(ValueError, match="got -1"):
        projection.three_classes([0, 1, -1], 10)
    for bad in ([0, 1], [0, 1, 1]):
        with pytest.raises(ValueError, match="three different classes"):
            projection.three_classes(bad, 10)


def test_examples_of_each_class():
    labels = np.array([2, 0, 0, 2, 2])
    assert projection.first_of_each(labels, (2, 0), 2).tolist() == [0, 3, 1, 2]
    with pytest.raises(ValueError, match="class 1 has no example"):
        projection.first_of_each(labels, (2, 1), 2)
    with pytest.raises(ValueError, match="per_class must be at least 1"):
        projection.first_of_each(labels, (2, 0), 0)
