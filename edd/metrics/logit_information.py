"""How much a logit tells about which training example it came from: a Gaussian estimate of mutual information, on the host in float64."""

from __future__ import annotations

import numpy as np

from edd.metrics import host
from edd.typing import ArrayLike, Float

FLOOR = 1e-12  # of the pooled variance, as a fraction of the values' total variance


def example_information(draws: Float[ArrayLike, "L N"], fresh: Float[ArrayLike, " N"] | None = None, *, floor: float = FLOOR) -> float:
    """Estimated mutual information between an example's index X (uniform over N) and a number Y computed from a random view of it, in nats.

    p(y | x) is taken for N(mu_x, sigma^2) with one variance for all:

        mu_x = mean of the L draws of x        sigma^2 = mean over x of (y_x - mu_x)^2
        I = mean over x of [ -(y_x - mu_x)^2 / (2 sigma^2) - ln mean_x' exp(-(y_x - mu_x')^2 / (2 sigma^2)) ]

    The first term averages exactly -1/2. With y_x = draws[0], a draw that mu_x has seen ("in sample"), the estimate is high; with a fresh
    y_x it is low and may be slightly negative (for Gaussian means of standard deviation 1 at noise 1, L = 5, N = 600: 0.45 and 0.27
    against 0.35). The paper does not say which it used. Cost: O(N^2).

    Args:
      draws: Y of L >= 1 random views of each of N >= 2 examples.
      fresh: Y of one more view of each, which mu_x does not see; None: in sample, with the first draw.
      floor: least sigma^2 as a fraction (> 0) of the total variance of the draws: without noise the estimate would not exist.

    Returns:
      At most ln N, which means separated by much more than the noise; 0 when all means are equal. Unchanged by y -> a y + b, a != 0.

    Raises:
      ValueError: shapes that do not fit, one example, numbers that are not finite, a floor not in (0, 1).

    References:
      Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?" (third version), section 4.

    Examples:
      >>> draws = np.repeat([0.0, 1000.0], 50) + np.random.default_rng(0).normal(size=(500, 100))
      >>> round(example_information(draws), 1), example_information(np.zeros((5, 100)))  # two far clusters: ln 2
      (0.7, 0.0)
    """
    draws = host.as_numpy(draws, "draws").astype(np.float64)
    if draws.ndim != 2 or draws.shape[0] < 1 or draws.shape[1] < 2:
        raise ValueError(f"draws must be [L, N] with L >= 1 views of N >= 2 examples, got shape {draws.shape}")
    if not 0 < floor < 1:
        raise ValueError(f"floor must lie in (0, 1), got {floor}")
    values = draws[0] if fresh is None else host.vector(fresh, "fresh", draws.shape[1])
    if not (np.isfinite(draws).all() and np.isfinite(values).all()):
        raise ValueError("draws and fresh must be finite numbers")
    scale = np.abs(draws - draws[0, 0]).max() or 1.0  # differences of about 1: their squares neither overflow nor vanish
    draws, values = (draws - draws[0, 0]) / scale, (values - draws[0, 0]) / scale
    means = draws.mean(0)
    squares = (values - means) ** 2
    variance = max(squares.mean(), floor * draws.var())
    if variance == 0:
        return 0.0
    exponents = -((values[:, None] - means) ** 2) / (2 * variance)
    largest = exponents.max(1)
    mixtures = largest + np.log(np.exp(exponents - largest[:, None]).mean(1))
    value = float((-squares / (2 * variance) - mixtures).mean())
    return min(value, float(np.log(means.size)))  # what rounding adds to the bound
