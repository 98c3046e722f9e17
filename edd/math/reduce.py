"""Reductions that keep float32's accuracy over many classes, and means that mind masks and members."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from edd.typing import Array, ArrayLike, Bool, Float

_CHUNK = 64  # partial sums per stage: the rounding error grows with the number of terms added one after another
_FAN_IN = 8  # additions per stage of the compensated sum


def class_sum(values: Float[Array, "*B K"]) -> Float[Array, "*B"]:
    """Sum over the last axis in stages of 64, so that the rounding error stays near one unit in the last place.

    Adding 256,000 float32 numbers one after another, as some backends do, may lose four digits.

    Args:
      values: any real numbers.

    Returns:
      The sums.

    Examples:
      >>> import jax.numpy as jnp
      >>> abs(float(class_sum(jnp.full(256_000, 0.1))) - 25600.0) < 0.01
      True
    """
    while values.shape[-1] > _CHUNK:
        size = values.shape[-1]
        columns = -(-size // _CHUNK)
        missing = columns * _CHUNK - size
        if missing:
            values = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
        values = values.reshape(*values.shape[:-1], _CHUNK, columns).sum(-2)
    return values.sum(-1)


def compensated_add(first: Array, second: Array) -> tuple[Array, Array]:
    """The rounded sum of two finite numbers and its exact rounding error.

    References:
      Knuth, The Art of Computer Programming 2, section 4.2.2, theorem B.

    Examples:
      >>> import jax.numpy as jnp
      >>> [float(part) for part in compensated_add(jnp.float32(2.0**30), jnp.float32(1.0))]
      [1073741824.0, 1.0]
    """
    total = first + second
    back = total - first
    return total, (first - (total - back)) + (second - back)


def compensated_class_sum(values: Float[Array, "*B K"], rest: Float[Array, "*B K"] | None = None) -> tuple[Array, Array]:
    """Sum over the last axis of `values` (+ `rest`) to twice the working precision, as a rounded sum and what it lost.

    A tree of error-free additions, O(K). The pair adds up to the sum with a relative error of a few units of the square of the
    machine precision of the sum of absolute values.

    Args:
      values: finite numbers.
      rest: small corrections to them, or None for zeros.

    Returns:
      Two arrays of shape [*B]; the first is the correctly rounded sum but for ties.

    Examples:
      >>> import jax.numpy as jnp
      >>> total, lost = compensated_class_sum(jnp.array([1e8, 1e-4], jnp.float32))
      >>> float(total), round(float(lost), 6)
      (100000000.0, 0.0001)
    """
    rest = jnp.zeros_like(values) if rest is None else rest
    while values.shape[-1] > 1:
        size = values.shape[-1]
        columns = -(-size // _FAN_IN)
        padding = [(0, 0)] * (values.ndim - 1) + [(0, columns * _FAN_IN - size)]
        value_rows, rest_rows = (jnp.pad(part, padding).reshape(*part.shape[:-1], _FAN_IN, columns) for part in (values, rest))
        values, rest = value_rows[..., 0, :], rest_rows[..., 0, :]
        for index in range(1, _FAN_IN):
            values, lost = compensated_add(values, value_rows[..., index, :])
            rest = rest + (rest_rows[..., index, :] + lost)
        # one stage at a time: fused, the stages would be recomputed for each of their readers
        values, rest = lax.optimization_barrier((values, rest))
    return compensated_add(values[..., 0], rest[..., 0])


def leave_one_out_sum(values: Float[Array, "*B K"]) -> Float[Array, "*B K"]:
    """Sum of all the other classes' entries, for each class, accurate relative to itself.

    The total less the entry, but for the largest entry of each example the others are added up: there the total may hold nothing of them.

    Args:
      values: non-negative.

    Returns:
      Non-negative, of the shape of `values`.

    Examples:
      >>> import jax.numpy as jnp
      >>> leave_one_out_sum(jnp.array([1e8, 0.25], jnp.float32)).tolist()
      [0.25, 100000000.0]
    """
    largest, count, others = split_largest(values)
    others = others + (count - 1) * largest
    return jnp.where(values == largest[..., None], others[..., None], class_sum(values)[..., None] - values)


def split_largest(values: Float[Array, "*B K"]) -> tuple[Float[Array, "*B"], Float[Array, "*B"], Float[Array, "*B"]]:
    """The largest entry over the last axis, how many entries equal it, and the sum of the others.

    Examples:
      >>> import jax.numpy as jnp
      >>> [float(part) for part in split_largest(jnp.array([3.0, 1.0, 3.0, 0.5]))]
      [3.0, 2.0, 1.5]
    """
    largest = values.max(-1)
    is_largest = values == largest[..., None]
    return largest, is_largest.sum(-1).astype(values.dtype), class_sum(jnp.where(is_largest, 0, values))


def settle(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """`values`, computed in full before what follows.

    An identity that keeps XLA's CPU compiler from pulling half of a long elementwise computation into the sum that follows, which
    made that up to ten times slower; it costs one buffer.

    Examples:
      >>> import jax.numpy as jnp
      >>> settle(jnp.array([0.1])).tolist() == jnp.array([0.1]).tolist()
      True
    """
    info = jnp.finfo(values.dtype)
    return lax.reduce_precision(values, info.nexp, info.nmant)


def compensated_product(first: Array, second: Array) -> tuple[Array, Array]:
    """The rounded product and its rounding error; the factors are split by bits, which no compiler contraction can spoil.

    Examples:
      >>> import jax.numpy as jnp
      >>> product, lost = compensated_product(jnp.float32(16777215.0), jnp.float32(16777215.0))
      >>> float(product) + float(lost) == 16777215.0**2
      True
    """
    (a, b), (c, d) = _halves(first), _halves(second)
    product = first * second
    return product, (((a * c - product) + a * d) + b * c) + b * d


def _halves(x: Array) -> tuple[Array, Array]:
    """x as a sum of two numbers of half its significant bits."""
    unsigned, mask = (jnp.uint64, 0xFFFFFFFFF8000000) if x.dtype == jnp.float64 else (jnp.uint32, 0xFFFFF000)
    high = lax.bitcast_convert_type(lax.bitcast_convert_type(x, unsigned) & unsigned(mask), x.dtype)
    return high, x - high


def log_mean_exp(values: Float[Array, "M *B"]) -> Float[Array, "*B"]:
    """ln of the mean over axis 0 of exp(values): the members' mean in log space.

    The largest member is taken out first, so nothing overflows. One exp per entry.

    Args:
      values: M rows; -inf stands for a probability of zero.

    Returns:
      At most the largest row and at least that less ln M; -inf where all rows are. Gradients are finite, 0 where all rows are -inf.

    Raises:
      ValueError: if there is no row.

    Examples:
      >>> import jax.numpy as jnp
      >>> log_mean_exp(jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]])).tolist()
      [0.0, -inf]
    """
    if values.ndim < 1 or values.shape[0] < 1:
        raise ValueError(f"values must hold at least one row on axis 0, got shape {values.shape}")
    largest = lax.stop_gradient(values.max(0))
    shift = jnp.where(jnp.isfinite(largest), largest, 0)
    total = jnp.exp(values - shift[None]).sum(0)
    empty = total == 0
    return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1, total) / values.shape[0]) + shift)


def masked_mean(
    values: Float[Array, "*B"], mask: Bool[ArrayLike, "*B"] | Float[ArrayLike, "*B"], axis: int | tuple[int, ...] | None = None
) -> Float[Array, "..."]:
    """Mean of the entries that count, over all axes or over `axis`.

    Args:
      values: any numbers; what is masked out may even be NaN.
      mask: of the same shape, 1 (or True) where an entry counts and 0 where it is padding.
      axis: the axes to reduce; None for all.

    Returns:
      The mean; 0 where nothing counts. No gradient reaches masked entries.

    Raises:
      ValueError: if the shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1, 1, 0])))
      2.0
    """
    mask = jnp.asarray(mask)
    if mask.shape != values.shape:
        raise ValueError(f"mask {mask.shape} and values {values.shape} must have the same shape")
    weights = mask.astype(values.dtype)
    count = weights.sum(axis)
    total = (jnp.where(weights > 0, values, 0) * weights).sum(axis)
    return total / jnp.where(count > 0, count, 1)


def masked_class_sum(values: Float[Array, "*B K"], keep: Bool[Array, "*B K"]) -> Float[Array, "*B"]:
    """`class_sum` of the entries to keep; the others may be anything.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(masked_class_sum(jnp.array([1.0, jnp.inf]), jnp.array([True, False])))
      1.0
    """
    return class_sum(jnp.where(keep, values, jnp.zeros((), values.dtype)))
