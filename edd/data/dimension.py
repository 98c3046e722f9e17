"""How many dimensions a cloud of points has: a nearest-neighbour estimate of its intrinsic dimension, and its linear counterpart."""

import numpy as np

BLOCK = 1024  # rows of the distance matrix held at once


def two_nn(points: np.ndarray, *, discard: float = 0.1) -> float:
    """Intrinsic dimension from the ratio of every point's second to its first nearest-neighbour distance (TwoNN).

    Where the density is about constant over two neighbours the ratio mu has the distribution 1 - mu^(-d): d is the slope through the
    origin of -ln(1 - F(mu)) over ln mu. Repeated points count once. Cost O(N^2 d). Rows on a lattice have ties, which it is not made for.

    Args:
      points: [N, D], at least 4 different rows; scale features alike before.
      discard: share of the largest ratios that are left out, in [0, 1).

    Returns:
      d > 0; inf where all the ratios kept are 1 (a lattice).

    Raises:
      ValueError: another shape, values that are not finite, too few points, or a share out of range.

    References:
      Facco, d'Errico, Rodriguez & Laio 2017, "Estimating the intrinsic dimension of datasets by a minimal neighborhood information".

    Examples:
      >>> line = np.random.default_rng(0).uniform(size=(500, 1)) * np.ones((1, 5))
      >>> round(two_nn(line), 1)
      1.0
    """
    points = np.unique(_checked(points), axis=0)
    if len(points) < 4 or not 0 <= discard < 1:
        raise ValueError(f"two_nn needs at least 4 different points and discard in [0, 1), got {len(points)} and {discard}")
    squares = np.square(points).sum(1)
    ratios = np.empty(len(points))
    for start in range(0, len(points), BLOCK):
        rows = points[start : start + BLOCK]
        distances = squares[None] + squares[start : start + BLOCK, None] - 2 * rows @ points.T
        distances[np.arange(len(rows)), start + np.arange(len(rows))] = np.inf
        nearest = np.argpartition(distances, 1, axis=1)[:, :2]
        # again without the cancellation of the expanded square
        exact = np.sort(np.linalg.norm(rows[:, None] - points[nearest], axis=-1), axis=1)
        ratios[start : start + len(rows)] = exact[:, 1] / exact[:, 0]
    logs = np.log(np.sort(ratios))[: max(2, round((1 - discard) * len(ratios)))]
    survival = -np.log1p(-np.arange(1, len(logs) + 1) / (len(ratios) + 1))
    total = logs @ logs
    return float(logs @ survival / total) if total > 0 else float("inf")


def participation_ratio(points: np.ndarray) -> float:
    """Effective linear dimension of points [N, D]: (sum of the covariance's eigenvalues)^2 / sum of their squares.

    Returns:
      In [1, min(N - 1, D)]: the number of directions, if the points vary equally along all of them; 0 for points that do not vary.

    Raises:
      ValueError: another shape or values that are not finite.

    References:
      Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement", equation 5.

    Examples:
      >>> round(participation_ratio(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 6)
      2.0
    """
    points = _checked(points)
    centred = points - points.mean(0)
    gram = centred @ centred.T if len(points) < points.shape[1] else centred.T @ centred
    squares = np.square(gram).sum()
    return float(np.trace(gram) ** 2 / squares) if squares > 0 else 0.0


def _checked(points) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or min(points.shape) < 1:
        raise ValueError(f"points must be [N, D] with N, D >= 1, got shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("points must be finite")
    return points
