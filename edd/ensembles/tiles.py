"""Implicit ensembles by tiles: logits at every position of an image network, averaged to s x s tiles, each of them a member."""

import math

import jax.numpy as jnp
import numpy as np

from edd.typing import Array, Float


def bins(length: int, count: int) -> tuple[tuple[int, int], ...]:
    """(start, stop) of the `count` ranges of adaptive average pooling over `length` positions: floor(i n / s) to ceil((i + 1) n / s).

    Where `count` does not divide `length` neighbours overlap, so that the mean over bins is not the mean over positions.

    Raises:
      ValueError: fewer than one bin, or more bins than positions (they would repeat positions without saying more).

    References:
      torch.nn.AdaptiveAvgPool2d; specification A4.

    Examples:
      >>> bins(7, 4)
      ((0, 2), (1, 4), (3, 6), (5, 7))
    """
    if not 1 <= count <= length:
        raise ValueError(f"there must be between 1 and {length} bins, one for each position at most, got {count}")
    return tuple((i * length // count, -(-(i + 1) * length // count)) for i in range(count))


def adaptive_average_pool(values: Float[Array, "*B h w K"], size: int) -> Float[Array, "*B s s K"]:
    """Means over s x s bins of a grid, as torch's; separable, exact for s = h = w.

    Args:
      values: [*B, h, w, K].
      size: s, at most h and w.

    Returns:
      [*B, s, s, K].

    Raises:
      ValueError: `values` of fewer than three axes, a size out of range.

    Examples:
      >>> adaptive_average_pool(jnp.arange(7.0).reshape(7, 1, 1) * jnp.ones((1, 7, 1)), 3)[:, 0, 0].tolist()
      [1.0, 3.0, 5.0]
    """
    if values.ndim < 3:
        raise ValueError(f"values must be [*B, h, w, K], got shape {values.shape}")
    rows, columns = (jnp.asarray(_weights(length, size), values.dtype) for length in values.shape[-3:-1])
    return jnp.einsum("ih,...hwk,jw->...ijk", rows, values, columns)


def members(positions: Float[Array, "B P K"], size: int, grid: tuple[int, int] | None = None) -> Float[Array, "M B K"]:
    """Logits of the s * s members of an image network's implicit ensemble: `positions` averaged to s x s tiles, row after row.

    Args:
      positions: logits at every position, rows first, as `models.base.Outputs.positions`.
      size: s; 1 gives the mean of all positions, which is the network's own logits where its head is linear.
      grid: (h, w) with h * w = P; None: a square.

    Returns:
      [s * s, B, K].

    Raises:
      ValueError: positions that do not make the grid, a size out of range.

    References:
      Kirsch 2024, "(Implicit) Ensembles of Ensembles", section 5 (tiles); specification A4.

    Examples:
      >>> members(jnp.arange(16.0).reshape(1, 16, 1), 2)[:, 0, 0].tolist()
      [2.5, 4.5, 10.5, 12.5]
    """
    if positions.ndim != 3:
        raise ValueError(f"positions must be [B, P, K], got shape {positions.shape}")
    side = math.isqrt(positions.shape[1])
    height, width = grid or (side, side)
    if height * width != positions.shape[1]:
        raise ValueError(f"grid must have {positions.shape[1]} positions, got {height} x {width}: give grid=(h, w)")
    tiles = adaptive_average_pool(positions.reshape(-1, height, width, positions.shape[-1]), size)
    return jnp.moveaxis(tiles.reshape(len(positions), size * size, -1), 1, 0)


def _weights(length: int, count: int) -> np.ndarray:
    """[count, length]: each bin's weights, which sum to one."""
    found = np.zeros((count, length))
    for index, (start, stop) in enumerate(bins(length, count)):
        found[index, start:stop] = 1 / (stop - start)
    return found
