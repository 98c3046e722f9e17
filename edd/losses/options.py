"""Options that the Dirichlet losses share."""

from __future__ import annotations

import math
import numbers

import jax.numpy as jnp

from edd.math import checks
from edd.typing import Array, ArrayLike


def offset_value(offset: float, name: str) -> float:
    """`offset` as a float; it is a static choice, so traced arrays are refused.

    Raises:
      TypeError: unless it is a Python (or NumPy) real number.
      ValueError: unless it is finite and >= 0.
    """
    if checks.is_concrete(offset) and getattr(offset, "shape", None) == ():
        offset = offset.item()
    if not isinstance(offset, numbers.Real):
        raise TypeError(f"{name} must be a Python number (it is a static choice), got {type(offset).__name__}")
    if not (math.isfinite(offset) and offset >= 0):
        raise ValueError(f"{name} must be finite and >= 0, got {offset}")
    return float(offset)


def clipped_logits(logits: Array, max_concentration: float | None, offset: float) -> Array:
    """Logits clipped so that exp(z) + offset <= max_concentration; the gradient is zero where they are. None: unchanged.

    Raises:
      ValueError: unless max_concentration is above offset.
    """
    if max_concentration is None:
        return logits
    if not max_concentration > offset:
        raise ValueError(f"max_concentration must be above offset {offset}, got {max_concentration}")
    return jnp.minimum(logits, math.log(max_concentration - offset))


def temperature_value(temperature: ArrayLike, dtype: jnp.dtype, name: str = "temperature") -> Array:
    """`temperature` as a scalar array of `dtype`; it may be traced.

    Raises:
      TypeError: unless it is real.
      ValueError: unless it is a scalar and (eagerly) finite and positive.
    """
    value = checks.as_float(temperature, name)
    checks.shape(value, (), name)
    checks.positive(value, name)
    checks.finite(value, name)
    return value.astype(dtype)
