"""Penultimate activations seen in the plane through the templates of three classes.

The template of class k is its row of the last layer's weights (`Model.templates`); biases are left out, they would only shift every
point. Computed on the host in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edd.metrics import host
from edd.typing import ArrayLike, Float, Int

COLLINEAR = 1e-6  # sine of the angle at the first template below which three templates span no plane


class Plane(NamedTuple):
    """A plane in the space of activations: `origin` [d] on it, `basis` [d, 2] orthonormal columns along it."""

    origin: np.ndarray
    basis: np.ndarray


def template_plane(templates: Float[ArrayLike, "3 d"]) -> Plane:
    """The plane through three class templates, with the first as its origin and the second on its first axis.

    e1 = (w_b - w_a) / |w_b - w_a|; e2 is the rest of w_c - w_a after its part along e1, normalised. Distances between points of the
    plane are kept exactly; another order of the classes rotates or reflects the picture (and moves its origin).

    Args:
      templates: w_a, w_b, w_c, with d >= 2.

    Raises:
      ValueError: another shape, NaN or infinite templates, or templates on one line (two equal ones, say).

    References:
      Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", section 2.

    Examples:
      >>> plane = template_plane(np.eye(3))
      >>> project(np.eye(3), plane).round(4).tolist()  # an equilateral triangle of side sqrt 2
      [[0.0, 0.0], [1.4142, 0.0], [0.7071, 1.2247]]
    """
    points = host.as_numpy(templates, "templates").astype(np.float64)
    if points.ndim != 2 or points.shape[0] != 3 or points.shape[1] < 2:
        raise ValueError(f"templates must be [3, d] with d >= 2, one row for each of three classes, got shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("templates must be finite numbers")
    origin, (first, second) = points[0], points[1:] - points[0]
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    along = first / lengths[0] if lengths[0] > 0 else first
    rest = second - (second @ along) * along
    rest -= (rest @ along) * along  # a second pass: nearly collinear templates keep an orthogonal basis
    height = np.linalg.norm(rest)
    if not (lengths[0] > 0 and height > COLLINEAR * lengths[1]):
        raise ValueError("templates must span a plane, got three on one line: choose classes whose templates differ in direction")
    return Plane(origin, np.stack([along, rest / height], -1))


def project(activations: Float[ArrayLike, "N d"], plane: Plane) -> Float[np.ndarray, "N 2"]:
    """Coordinates of each activation's foot on the plane, in the activations' unit. O(N d).

    Args:
      activations: penultimate activations, or templates.
      plane: from `template_plane`.

    Raises:
      ValueError: another shape, or numbers that are not finite.

    References:
      Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", section 2.

    Examples:
      >>> plane = template_plane([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> project([[3.0, 4.0, 5.0]], plane).tolist()
      [[3.0, 4.0]]
    """
    points = host.as_numpy(activations, "activations").astype(np.float64)
    if points.ndim != 2 or points.shape[1] != plane.origin.size:
        raise ValueError(f"activations must be [N, {plane.origin.size}], as long as the templates, got shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("activations must be finite numbers")
    return (points - plane.origin) @ plane.basis


def three_classes(classes: Sequence[int], num_classes: int) -> tuple[int, int, int]:
    """`classes` checked: three different indices of classes that there are.

    Raises:
      ValueError: not three, equal ones, or one outside [0, K).

    Examples:
      >>> three_classes([0, 1, 2], 10)
      (0, 1, 2)
    """
    chosen = tuple(int(each) for each in classes)
    outside = [each for each in chosen if not 0 <= each < num_classes]
    if outside:
        raise ValueError(f"classes must lie in [0, {num_classes}), the data's classes, got {outside[0]}")
    if len(chosen) != 3 or len(set(chosen)) < 3:
        raise ValueError(f"classes must be three different classes, got {list(classes)}")
    return chosen


def first_of_each(labels: Int[ArrayLike, " N"], classes: Sequence[int], per_class: int) -> np.ndarray:
    """Indices of the first `per_class` examples of each class (all where there are fewer), class after class.

    Raises:
      ValueError: `per_class` below 1, or a class without an example.

    Examples:
      >>> first_of_each([1, 0, 1, 1, 2], [1, 2], 2).tolist()
      [0, 2, 4]
    """
    per_class = host.integer_at_least(per_class, 1, "per_class")
    labels = host.as_numpy(labels, "labels")
    found = [np.flatnonzero(labels == each)[:per_class] for each in classes]
    empty = [each for each, indices in zip(classes, found) if not indices.size]
    if empty:
        raise ValueError(f"classes must occur in the data: class {empty[0]} has no example there")
    return np.concatenate(found)
