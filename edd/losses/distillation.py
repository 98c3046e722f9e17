"""Distillation of an ensemble's mean (EnD) and of one teacher (knowledge distillation)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from edd.losses.options import temperature_value
from edd.losses.softmax import log_softmax
from edd.losses.supervised import cross_entropy
from edd.math import checks
from edd.typing import Array, ArrayLike, Float, Int
from edd.uncertainty import ensemble

MATCHING = ("cross_entropy", "kl", "logits")
SMALL = 0.5  # |ln q - ln p| below which the KL's terms are series


def end(logits: Float[Array, "*B K"], member_log_probs: Float[Array, "M *B K"], temperature: ArrayLike = 1.0) -> Float[Array, "*B"]:
    """EnD loss of each example, in nats: T^2 KL(pb_T || softmax(z / T)), pb_T the mean of the members softened by T.

    Summed over classes (the original code averages over them). Written as a sum of non-negative terms, so that it is accurate near
    its minimum; the gradient is T (softmax(z / T) - pb_T). O(M K) per example.

    Args:
      logits: the student's.
      member_log_probs: members' normalised log-probabilities; -inf is probability zero. A constant for differentiation.
      temperature: positive scalar, may be a traced array.

    Returns:
      [*B], >= 0; exactly 0 when the members agree and the logits are their log-probabilities.

    Raises:
      ValueError: wrong shapes, fewer than two classes, a temperature that is not positive, (eagerly) non-finite logits or rows
        of members whose exp does not sum to 1.
      TypeError: not real numbers.

    References:
      Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network"; Malinin, Mlodozeniec & Gales 2020,
      "Ensemble Distribution Distillation", eq. 6 (EnD).

    Examples:
      >>> import jax.numpy as jnp
      >>> members = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
      >>> print(end(jnp.zeros(2), members).round(4))  # ln 2 - H(0.7, 0.3)
      0.0823
      >>> float(end(members[0], members[:1]))
      0.0
    """
    logits = checks.as_float(logits, "logits")
    members = checks.as_float(member_log_probs, "member_log_probs")
    checks.classes(logits, "logits")
    checks.finite(logits, "logits")
    checks.members(members, "member_log_probs")
    checks.log_probs(members, "member_log_probs")
    if members.shape[1:] != logits.shape:
        raise ValueError(f"member_log_probs must be [M, *B, K] over logits of shape {logits.shape}, got {members.shape}")
    dtype = jnp.promote_types(jnp.promote_types(logits.dtype, members.dtype), jnp.float32)
    temperature = temperature_value(temperature, dtype)
    return end_from_log_mean_probs(logits, log_mean_probs(members.astype(dtype), temperature), temperature)


def log_mean_probs(member_log_probs: Float[Array, "M *B K"], temperature: ArrayLike = 1.0) -> Float[Array, "*B K"]:
    """What `end_from_log_mean_probs` needs of the members: ln of the mean of softmax(ln pi^m / T), M times smaller than they are.

    Args:
      member_log_probs: members' log-probabilities, or logits; -inf is probability zero.
      temperature: positive scalar.

    Raises:
      ValueError: not [M, *B, K >= 2], a temperature that is not positive.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", eq. 6.

    Examples:
      >>> import jax.numpy as jnp
      >>> mean = jnp.exp(log_mean_probs(jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))))
      >>> [round(float(prob), 4) for prob in mean]
      [0.7, 0.3]
    """
    members = checks.as_float(member_log_probs, "member_log_probs")
    checks.members(members, "member_log_probs")
    members = members.astype(jnp.promote_types(members.dtype, jnp.float32))
    return ensemble.log_mean_probs(log_softmax(members / temperature_value(temperature, members.dtype)))


def end_from_log_mean_probs(
    logits: Float[Array, "*B K"], log_mean_probs: Float[Array, "*B K"], temperature: ArrayLike = 1.0
) -> Float[Array, "*B"]:
    """EnD loss of each example, in nats, from the softened members' mean: T^2 KL(pb_T || softmax(z / T)); see `end`.

    Args:
      logits: the student's.
      log_mean_probs: ln pb_T, normalised, softened by the same temperature. A constant for differentiation.
      temperature: positive scalar, may be a traced array.

    Raises:
      ValueError: shapes that differ, (eagerly) non-finite logits or a target that is not normalised.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", eq. 6 (EnD).

    Examples:
      >>> import jax.numpy as jnp
      >>> print(end_from_log_mean_probs(jnp.zeros(2), jnp.log(jnp.array([0.7, 0.3]))).round(4))
      0.0823
    """
    logits, target = checks.as_float(logits, "logits"), checks.as_float(log_mean_probs, "log_mean_probs")
    checks.classes(logits, "logits")
    checks.finite(logits, "logits")
    checks.same_shape(logits, target, "logits", "log_mean_probs")
    checks.log_probs(target, "log_mean_probs")
    dtype = jnp.promote_types(jnp.promote_types(logits.dtype, target.dtype), jnp.float32)
    temperature = temperature_value(temperature, dtype)
    return temperature**2 * _kl_to_softmax(logits.astype(dtype) / temperature, jax.lax.stop_gradient(target.astype(dtype)))


def knowledge_distillation(
    logits: Float[Array, "*B K"],
    teacher_logits: Float[Array, "*B K"],
    labels: Int[Array, "*B"],
    weight: float,
    temperature: ArrayLike = 1.0,
    *,
    student_temperature: ArrayLike | None = None,
    matching: str = "cross_entropy",
    scale_by_squared_temperature: bool = False,
) -> Float[Array, "*B"]:
    """Knowledge-distillation loss of each example, in nats: (1 - weight) H(y, p) + weight * soft loss. O(K).

    The soft loss compares p(T_s) = softmax(z / T_s) to the teacher's p^t(T) = softmax(z^t / T):

        cross_entropy:  H(p^t(T), p(T_s))
        kl:             KL(p^t(T) || p(T_s)), the same up to the teacher's entropy
        logits:         1/2 ||z - z^t||^2, its high-temperature limit (temperatures unused)

    Args:
      logits: the student's.
      teacher_logits: the teacher's, a constant for differentiation.
      labels: in [0, K).
      weight: of the soft loss, in [0, 1].
      temperature: of the teacher, positive scalar.
      student_temperature: of the student in the soft loss; None: the teacher's. (Mueller et al. fix it to 1.)
      matching: "cross_entropy", "kl" or "logits".
      scale_by_squared_temperature: multiply the soft loss by T^2 (Hinton et al.), which keeps its gradient's size over T.

    Returns:
      [*B], >= 0. With "kl" and weight 1: 0 when the two softened distributions agree.

    Raises:
      ValueError: wrong shapes, unknown matching, a weight outside [0, 1], a temperature that is not positive, (eagerly) non-finite
        logits or labels out of range.
      TypeError: logits not real or labels not integers.

    References:
      Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network"; Mueller, Kornblith & Hinton 2019, "When Does Label
      Smoothing Help?", section 4.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(knowledge_distillation(jnp.zeros(4), jnp.array([5.0, 1.0, 0.0, 0.0]), jnp.array(0), 0.5, 4.0).round(4))
      1.3863
    """
    if matching not in MATCHING:
        raise ValueError(f"matching must be one of {MATCHING}, got {matching!r}")
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight must lie in [0, 1], got {weight}")
    logits = checks.as_float(logits, "logits")
    teacher = checks.as_float(teacher_logits, "teacher_logits")
    checks.same_shape(logits, teacher, "logits", "teacher_logits")
    checks.finite(teacher, "teacher_logits")
    hard = cross_entropy(logits, labels)
    dtype = hard.dtype
    logits, teacher = logits.astype(dtype), jax.lax.stop_gradient(teacher.astype(dtype))
    temperature = temperature_value(temperature, dtype)
    own = temperature if student_temperature is None else temperature_value(student_temperature, dtype, "student_temperature")
    if matching == "logits":
        soft = jnp.sum((logits - teacher) ** 2, -1) / 2
    elif matching == "kl":
        soft = _kl_to_softmax(logits / own, log_softmax(teacher / temperature))
    else:
        soft = -jnp.sum(jax.nn.softmax(teacher / temperature) * log_softmax(logits / own), -1)
    return (1 - weight) * hard + weight * (temperature**2 * soft if scale_by_squared_temperature else soft)


def _excess(log_ratio: Array) -> Array:
    """e^r - 1 - r for |r| <= 1/2 (terms of KL(p || q) over p, r = ln q - ln p), relative to its value."""
    terms = 15 if log_ratio.dtype == jnp.float64 else 9
    value = jnp.ones_like(log_ratio)
    for n in range(terms, 2, -1):
        value = 1 + value * log_ratio / n
    return log_ratio * log_ratio * value / 2


@jax.custom_vjp
def _kl_to_softmax(logits: Array, log_probs: Array) -> Array:
    """KL(p || softmax(z)) [*B] as a sum of q - p - p (ln q - ln p) >= 0."""
    return _forward(logits, log_probs)[0]


@jax.jit
def _forward(logits: Array, log_probs: Array):
    log_student = log_softmax(logits)
    probs, student = jnp.exp(log_probs), jnp.exp(log_student)
    ratio = jnp.where(probs > 0, log_student - jnp.where(probs > 0, log_probs, 0), 1)
    near = jnp.abs(ratio) <= SMALL
    terms = jnp.where(near, probs * _excess(jnp.where(near, ratio, 0)), (student - probs) - probs * jnp.where(probs > 0, ratio, 0))
    return jnp.sum(terms, -1), (log_student, log_probs)


@jax.jit
def _backward(residuals, cotangent: Array):
    log_student, log_probs = residuals
    probs, student = jnp.exp(log_probs), jnp.exp(log_student)
    ratio = jnp.where(probs > 0, log_student - jnp.where(probs > 0, log_probs, 0), 1)
    slope = jnp.where(jnp.abs(ratio) <= SMALL, probs * jnp.expm1(ratio), student - probs)
    return cotangent[..., None] * slope, jnp.zeros_like(log_probs)


_kl_to_softmax.defvjp(_forward, _backward)
