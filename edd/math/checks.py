"""Argument checks at public borders.

Shapes are static: checked through chex with `ValueError` and the argument's name, free under jit. Values are checked
only when the array is concrete (an eager call); under a transformation they are skipped, and the `validate_*` functions
of the distributions are there for use inside jit with `checkify`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from edd.typing import Array, ArrayLike

NORMALISATION_TOLERANCE = 1e-3  # |sum of probabilities - 1| in float32; half precision gets 3e-2


def as_float(value: ArrayLike, name: str) -> Array:
    """`value` as a floating array (integers and booleans become the default float); TypeError if complex or not numeric."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a numeric array, got {type(value).__name__}") from error
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool:
        return array.astype(jnp.result_type(float))
    raise TypeError(f"{name} must be real floating point, got dtype {array.dtype}")


def is_concrete(*arrays) -> bool:
    """True when every array holds values now (no tracer), so that they may be looked at."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def shape(array: Array, expected: tuple, name: str) -> None:
    """Raises ValueError unless `array.shape` matches `expected` (None entries match any size)."""
    import chex  # here and below: a third of the cost of importing this package, and only needed by a call

    chex.assert_shape(array, expected, custom_message=f"{name} must have shape {expected}, got {array.shape}", exception_type=ValueError)


def same_shape(first: Array, second: Array, first_name: str, second_name: str) -> None:
    """Raises ValueError unless the two shapes are equal: nothing here broadcasts silently."""
    import chex

    chex.assert_equal_shape(
        [first, second],
        custom_message=f"{first_name} {first.shape} and {second_name} {second.shape} must have the same shape",
        exception_type=ValueError,
    )


def classes(array: Array, name: str) -> None:
    """Raises ValueError unless `array` is [*B, K] with K >= 2."""
    if array.ndim < 1 or array.shape[-1] < 2:
        raise ValueError(f"{name} must be [*B, K] with at least 2 classes on the last axis, got shape {array.shape}")


def members(array: Array, name: str) -> None:
    """Raises ValueError unless `array` is [M, *B, K] with M >= 1 and K >= 2."""
    if array.ndim < 2:
        raise ValueError(f"{name} must be [M, *B, K] with members first and classes last, got shape {array.shape}")
    if array.shape[0] < 1:
        raise ValueError(f"{name} must hold at least one member on axis 0, got shape {array.shape}")
    classes(array, name)


def positive(array: Array, name: str) -> None:
    """Raises ValueError if a concrete `array` has an entry that is NaN or not above zero (+inf passes)."""
    if is_concrete(array) and not bool(np.all(np.asarray(array) > 0)):
        raise ValueError(f"{name} must be positive everywhere, got {_worst(array, np.asarray(array) > 0)}")


def finite(array: Array, name: str) -> None:
    """Raises ValueError if a concrete `array` has a NaN or an infinity."""
    if is_concrete(array) and not bool(np.all(np.isfinite(np.asarray(array)))):
        raise ValueError(f"{name} must be finite, got {_worst(array, np.isfinite(np.asarray(array)))}")


def log_probs(array: Array, name: str) -> None:
    """Raises ValueError if a concrete `array` [*, K] is not normalised log-probabilities (-inf entries are fine)."""
    if not is_concrete(array):
        return
    values = np.asarray(array).astype(np.float64)
    totals = np.exp(values).sum(-1)
    tolerance = 3e-2 if jnp.finfo(array.dtype).bits == 16 else NORMALISATION_TOLERANCE
    good = np.abs(totals - 1.0) <= tolerance
    if not bool(np.all(good)):
        raise ValueError(
            f"{name} must be log-probabilities whose exp sums to 1 over the last axis, got a sum of {totals[~good].ravel()[0]:.6g}; "
            "apply jax.nn.log_softmax to logits first"
        )


def labels(array: Array, num_classes: int, name: str = "labels") -> None:
    """Raises TypeError unless integer, ValueError if a concrete label lies outside [0, num_classes)."""
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if is_concrete(array):
        values = np.asarray(array)
        good = (values >= 0) & (values < num_classes)
        if not bool(np.all(good)):
            raise ValueError(f"{name} must lie in [0, {num_classes}), got {_worst(array, good)}")


def _worst(array: Array, good: np.ndarray) -> str:
    index = tuple(int(i) for i in np.argwhere(~good)[0])
    return f"{np.asarray(array)[index]} at index {index}"
