"""Spirals: the two-dimensional classification problem of the proxy-Dirichlet paper, and its out-of-distribution ring."""

import numpy as np

from edd.data.base import Info, Split

SPLITS = ("train", "validation", "test")
LENGTH = 6 * np.pi  # an arm's largest angle; its radius is the angle squared


def spirals_info(*, arms: int = 3, **options) -> Info:
    """Description of `spirals` with `arms` classes; the other options do not change it."""
    del options
    if arms < 2:
        raise ValueError(f"arms must be at least 2, got {arms}")
    return Info("spirals", arms, (2,), splits=SPLITS)


def spirals(
    split: str = "train",
    *,
    arms: int = 3,
    points: int = 1000,
    test_points: int | None = None,
    noise: float = 0.1,
    scale: float = 100.0,
    seed: int = 100,
    legacy_seed: int | None = None,
) -> Split:
    """Points on `arms` noisy spiral arms, one class per arm; inputs in units of `scale`.

    Arm c: n = sqrt(U(0, 1)) 6 pi, x = -cos(n + 2 pi c / C) n^2 + N(0, 1) noise n^1.5, y = sin(n + 2 pi c / C) n^2 + N(0, 1)
    noise n^1.5. Raw inputs reach about +-355. Splits and seeds are independent draws.

    Args:
      split: "train", "validation" or "test".
      arms: classes C >= 2.
      points: examples per arm, >= 1.
      test_points: examples per arm in the splits other than train; None for `points`.
      noise: relative noise >= 0; the paper's noise is not given, 0.2, 0.1, 0.05, 0.025 fit its errors at 3, 6, 10, 20 arms.
      scale: inputs are divided by it; 1 gives the authors' raw inputs.
      seed: names the draw, >= 0.
      legacy_seed: draw from numpy's legacy generator in the authors' order instead (arm by arm, not shuffled); the split is
        then ignored, so that train and test need two legacy seeds.

    Returns:
      `Split` with inputs [arms * points, 2] float32 in random order.

    Raises:
      ValueError: an argument out of range, an unknown split.

    References:
      Ryabinin, Malinin & Gales 2021, section 5; Malinin, Mlodozeniec & Gales 2020, section 4 (the generator).

    Examples:
      >>> spirals("train", arms=3, points=4).inputs.shape
      (12, 2)
    """
    count = points if split == "train" or test_points is None else test_points
    _check(arms=arms, points=count, noise=noise, scale=scale, seed=seed)
    rng = _generator(split, seed) if legacy_seed is None else np.random.RandomState(legacy_seed)
    inputs = np.concatenate([_arm(rng, 2 * np.pi * arm / arms, count, noise) for arm in range(arms)])
    labels = np.repeat(np.arange(arms, dtype=np.int32), count)
    if legacy_seed is None:
        order = rng.permutation(len(labels))
        inputs, labels = inputs[order], labels[order]
    return Split((inputs / scale).astype(np.float32), labels)


def ring_info(*, arms: int = 3, **options) -> Info:
    """Description of `ring`, the out-of-distribution set of spirals with `arms` classes."""
    return spirals_info(arms=arms, **options)._replace(name="spirals_ring", splits=("test",))


def ring(
    split: str = "test",
    *,
    arms: int = 3,
    points: int = 1000,
    radius: float = 410.0,
    noise: float = 1.0,
    scale: float = 100.0,
    seed: int = 100,
) -> Split:
    """Points on a ring around the spirals, out of their distribution; inputs in units of `scale`.

    `radius * v / |v| + noise * N(0, I)` with v ~ N(0, I).

    Args:
      split: "test".
      arms: accepted for uniformity with `spirals`.
      points: examples in all, >= 1.
      radius: the ring's radius in raw units, > 0; the arms end at about 355.
      noise: standard deviation in raw units, >= 0.
      scale: inputs are divided by it, as the spirals'.
      seed: names the draw, >= 0.

    Returns:
      `Split` with inputs [points, 2] float32 and labels -1: these points have no class.

    Raises:
      ValueError: an argument out of range.

    References:
      Malinin, Mlodozeniec & Gales 2020, section 4.

    Examples:
      >>> far = ring(points=5, noise=0.0).inputs
      >>> bool(np.allclose(np.linalg.norm(far, axis=1), 4.1))
      True
    """
    _check(arms=arms, points=points, noise=noise, scale=scale, seed=seed)
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}")
    rng = _generator("ring", seed)
    directions = rng.standard_normal((points, 2))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    inputs = radius * directions + noise * rng.standard_normal((points, 2))
    return Split((inputs / scale).astype(np.float32), np.full(points, -1, np.int32))


def posterior(inputs: np.ndarray, *, arms: int, noise: float, scale: float = 100.0, num_nodes: int = 4096) -> np.ndarray:
    """The exact class probabilities P(arm | input) of `spirals`, by quadrature; unitless.

    p(x | c) integrates the Gaussian N(x; centre_c(n), noise^2 n^3 I) over u = (n / 6 pi)^2 ~ U(0, 1); midpoint rule in n.
    O(N arms num_nodes) in blocks.

    Args:
      inputs: points in units of `scale`, [N, 2].
      arms, noise, scale: as given to `spirals`; noise > 0.
      num_nodes: quadrature nodes; their spacing along the arm must stay below its noise (4096: 1.6 raw units at the end).

    Returns:
      Probabilities [N, arms] float64; rows sum to 1.

    Raises:
      ValueError: an argument out of range.

    References:
      The generator's normalised density; the authors' `calc_prob_of_x_given_class` omits its 1 / std^2.

    Examples:
      >>> point = [[-(2 * np.pi) ** 2 / 100, 0.0]]  # on arm 0 after one turn
      >>> posterior(np.array(point), arms=3, noise=0.2).round(2).tolist()
      [[1.0, 0.0, 0.0]]
    """
    _check(arms=arms, points=1, noise=noise, scale=scale, seed=0)
    points = np.asarray(inputs, np.float64) * scale
    if points.ndim != 2 or points.shape[1] != 2 or not noise > 0:
        raise ValueError(f"inputs must be [N, 2] and noise positive, got {points.shape} and {noise}")
    angle = (np.arange(num_nodes) + 0.5) / num_nodes * LENGTH
    variance = noise**2 * angle**3
    log_density = np.empty((len(points), arms))
    for arm in range(arms):
        turned = angle + 2 * np.pi * arm / arms
        centre_x, centre_y = -np.cos(turned) * angle**2, np.sin(turned) * angle**2
        for start in range(0, len(points), 1024):
            x, y = points[start : start + 1024, :1], points[start : start + 1024, 1:]
            log_terms = np.log(angle) - np.log(variance) - ((x - centre_x) ** 2 + (y - centre_y) ** 2) / (2 * variance)
            log_density[start : start + 1024, arm] = np.logaddexp.reduce(log_terms, 1)
    return np.exp(log_density - np.logaddexp.reduce(log_density, 1)[:, None])


def _arm(rng, turn: float, points: int, noise: float) -> np.ndarray:
    angle = np.sqrt(rng.random_sample(points) if isinstance(rng, np.random.RandomState) else rng.random(points)) * LENGTH
    x = -np.cos(angle + turn) * angle**2 + rng.standard_normal(points) * noise * angle**1.5
    y = np.sin(angle + turn) * angle**2 + rng.standard_normal(points) * noise * angle**1.5
    return np.stack([x, y], 1)


def _generator(stream: str, seed: int) -> np.random.Generator:
    streams = (*SPLITS, "ring")
    if stream not in streams:
        raise ValueError(f"unknown split {stream!r}: spirals has the splits {', '.join(SPLITS)}")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, streams.index(stream)))))


def _check(*, arms, points, noise, scale, seed) -> None:
    if arms < 2:
        raise ValueError(f"arms must be at least 2, got {arms}")
    if points < 1:
        raise ValueError(f"points must be at least 1, got {points}")
    if not noise >= 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
