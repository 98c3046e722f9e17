"""What every host metric shares: arguments as float64 numpy, rows that count several times, tie groups.

Metrics run on the host in float64, whatever the arrays' type: float32 sums lose exact counts beyond 2^24 and exact ties
after any arithmetic. `counts` (how often each row counts) is a mask, a frequency weight and a bootstrap resample at once.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd.math import checks

_BLOCK_ELEMENTS = 1 << 20  # rows are converted to float64 in blocks of about this many elements


class Groups(NamedTuple):
    """Rows sorted by a score, and for each sorted row the half-open range [first, last) of rows that share its score."""

    order: np.ndarray
    first: np.ndarray
    last: np.ndarray


def as_numpy(value, name: str) -> np.ndarray:
    """`value` as a numeric numpy array in its own dtype; TypeError for a tracer or anything that is not real numbers."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name} is traced: this metric sorts on the host; inside jit use edd.metrics.accumulate")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a numeric array, got {type(value).__name__}") from error
    if not (array.dtype == bool or jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}")
    return array


def vector(value, name: str, num_rows: int | None = None) -> np.ndarray:
    """`value` [N] as float64 (infinities pass); ValueError if it is not one-dimensional, empty, holds NaN or has another length."""
    array = as_numpy(value, name).astype(np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a non-empty vector [N], got shape {array.shape}")
    if num_rows is not None and array.size != num_rows:
        raise ValueError(f"{name} must have {num_rows} entries, one for each row, got {array.size}")
    if np.isnan(array).any():
        raise ValueError(f"{name} must not be NaN, got NaN at index {int(np.flatnonzero(np.isnan(array))[0])}")
    return array


def unit_interval(value, name: str, num_rows: int) -> np.ndarray:
    """`value` [N] as float64 in [0, 1]."""
    array = vector(value, name, num_rows)
    bad = (array < 0) | (array > 1)
    if bad.any():
        raise ValueError(f"{name} must lie in [0, 1], got {array[bad][0]:.6g} at index {int(np.flatnonzero(bad)[0])}")
    return array


def binary(value, name: str, num_rows: int) -> np.ndarray:
    """`value` [N] as booleans; ValueError if an entry is neither 0 nor 1."""
    array = vector(value, name, num_rows)
    bad = (array != 0) & (array != 1)
    if bad.any():
        raise ValueError(f"{name} must be booleans or 0 and 1, got {array[bad][0]:.6g} at index {int(np.flatnonzero(bad)[0])}")
    return array == 1


def integer_at_least(value, minimum: int, name: str) -> int:
    """`value` as an int; TypeError unless it is an integer, ValueError below `minimum`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def fraction(value, name: str) -> float:
    """`value` as a float in (0, 1]."""
    if not 0 < value <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {value}")
    return float(value)


def _table(value, name: str) -> np.ndarray:
    array = as_numpy(value, name)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(f"{name} must be [N, K] with N >= 1 examples and K >= 2 classes (flatten other axes), got shape {array.shape}")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(np.float64)


def class_labels(value, num_rows: int, num_classes: int) -> np.ndarray:
    """`value` as integer labels [N] in [0, K)."""
    array = as_numpy(value, "labels")
    if array.shape != (num_rows,):
        raise ValueError(f"labels must have shape ({num_rows},), one for each row of the predictions, got {array.shape}")
    checks.labels(array, num_classes)
    return array.astype(np.int64)


def _tolerance(array: np.ndarray) -> float:
    return 3e-2 if array.dtype.itemsize <= 2 else checks.NORMALISATION_TOLERANCE


def blocks(array: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (rows, float64 copy of those rows) so that a large [N, K] array is never converted whole."""
    step = max(1, _BLOCK_ELEMENTS // array.shape[1])
    for start in range(0, array.shape[0], step):
        rows = slice(start, min(start + step, array.shape[0]))
        yield rows, array[rows].astype(np.float64)


def probabilities(probs, name: str = "probs") -> np.ndarray:
    """`probs` [N, K] in its own dtype; ValueError if negative, NaN or not summing to one over the last axis."""
    array = _table(probs, name)
    for rows, block in blocks(array):
        low = ~(block >= 0)
        if low.any():
            row, column = np.argwhere(low)[0]
            hint = "; these look like log-probabilities: pass exp of them" if np.all(block <= 0) else ""
            raise ValueError(
                f"{name} must be probabilities >= 0, got {block[row, column]:.6g} at index ({rows.start + row}, {column}){hint}"
            )
        totals = block.sum(-1)
        good = np.abs(totals - 1) <= _tolerance(array)
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            raise ValueError(
                f"{name} must sum to 1 over the last axis, got {totals[row]:.6g} in row {rows.start + row}; apply softmax first"
            )
    return array


def log_probabilities(log_probs, name: str = "log_probs") -> np.ndarray:
    """`log_probs` [N, K] in its own dtype (-inf entries pass); ValueError if NaN or if exp does not sum to one."""
    array = _table(log_probs, name)
    for rows, block in blocks(array):
        with np.errstate(over="ignore"):
            totals = np.exp(block).sum(-1)
        good = np.abs(totals - 1) <= _tolerance(array)
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            probs_given = np.all(block >= 0) and abs(block[row].sum() - 1) <= _tolerance(array)
            hint = "these look like probabilities: pass their logarithm" if probs_given else "apply log_softmax to logits first"
            raise ValueError(
                f"{name} must be log-probabilities whose exp sums to 1, got {totals[row]:.6g} in row {rows.start + row}; {hint}"
            )
    return array


def predictions(probs, labels) -> tuple[np.ndarray, np.ndarray]:
    """Checked (probs [N, K], labels [N])."""
    array = probabilities(probs)
    return array, class_labels(labels, *array.shape)


def row_counts(counts, num_rows: int) -> np.ndarray:
    """`counts` [N] or [R, N] checked: whole numbers >= 0, a positive sum in each row."""
    array = as_numpy(counts, "counts")
    if array.ndim not in (1, 2) or array.shape[-1] != num_rows:
        raise ValueError(f"counts must have shape ({num_rows},) or (R, {num_rows}), got {array.shape}")
    if jnp.issubdtype(array.dtype, jnp.floating):
        whole = array.astype(np.float64)
        if not np.all(whole == np.floor(whole)):
            raise ValueError("counts must be whole numbers: how many times each row counts")
        array = whole.astype(np.int64)
    if array.dtype != bool and array.size and array.min() < 0:
        raise ValueError(f"counts must be >= 0, got {array.min()}")
    if not np.all(array.any(-1)):
        raise ValueError("counts must have a positive sum: no row counts at all")
    return array


def evaluate(statistic: Callable[[np.ndarray], float], counts, num_rows: int):
    """`statistic` of the rows' counts (int64 [N]): a float, or float64 [R] for counts [R, N]; None counts each row once."""
    if counts is None:
        return float(statistic(np.ones(num_rows, np.int64)))
    array = row_counts(counts, num_rows)
    if array.ndim == 1:
        return float(statistic(array.astype(np.int64)))
    return np.array([statistic(row.astype(np.int64)) for row in array], np.float64)


def mean_of(values: np.ndarray) -> Callable[[np.ndarray], float]:
    """The statistic "mean of `values` over the counted rows"; infinite values of rows that do not count are left out."""
    finite = bool(np.isfinite(values).all())

    def statistic(counts):
        if finite:
            return counts.astype(np.float64) @ values / counts.sum()
        kept = counts > 0
        with np.errstate(invalid="ignore"):  # inf - inf is nan
            return (counts[kept] * values[kept]).sum() / counts.sum()

    return statistic


def tie_groups(scores: np.ndarray) -> Groups:
    """Sorts `scores` [N] ascending; equal scores (infinities too) share one group."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], scores.size)
    group = np.cumsum(new) - 1
    return Groups(order, starts[group], ends[group])


def prefix_sum(values: np.ndarray) -> np.ndarray:
    """[0, v0, v0 + v1, ...]: length N + 1, in the values' own kind (integers stay exact)."""
    total = np.empty(values.size + 1, np.int64 if values.dtype.kind in "iub" else np.float64)
    total[0] = 0
    np.cumsum(values, out=total[1:])
    return total
