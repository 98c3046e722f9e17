"""Log-softmax without cancellation, which the categorical losses share."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from edd.typing import Array


class Top(NamedTuple):
    """What normalises one example's logits, each [*B, 1]."""

    top: Array  # the largest logit
    rest: Array  # sum of exp(z - top) over all classes but one of the largest: ln sum exp z = top + log1p(rest)


def normaliser(logits: Array) -> Top:
    """The largest logit and the sum of the others' ratios to it, so that a dominant class keeps the digits of what is left."""
    top = jnp.max(logits, -1, keepdims=True)
    is_top = logits == top
    rest = jnp.sum(jnp.where(is_top, 0, jnp.exp(logits - top)), -1, keepdims=True)
    count = jnp.sum(is_top, -1, keepdims=True, dtype=logits.dtype)
    return Top(top, rest + (count - 1))


def log_softmax(logits: Array) -> Array:
    """ln softmax(z) [*B, K], accurate relative to its value also where one class dominates (two sums of one sign). -inf logits pass.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(log_softmax(jnp.array([20.0, 0.0])))
      [-2.0611537e-09 -2.0000000e+01]
    """
    return _log_softmax(logits)


@jax.custom_jvp
@jax.jit
def _log_softmax(logits: Array) -> Array:
    top, rest = normaliser(logits)
    return (logits - top) - jnp.log1p(rest)


@_log_softmax.defjvp
def _log_softmax_jvp(primals, tangents):
    (logits,), (tangent,) = primals, tangents
    value = _log_softmax(logits)
    return value, tangent - jnp.sum(jnp.exp(value) * tangent, -1, keepdims=True)
