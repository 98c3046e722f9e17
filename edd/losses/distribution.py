"""Ensemble distribution distillation (EnD2): Dirichlet negative log-likelihood of the members' predictions."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from edd.losses.options import clipped_logits, offset_value, temperature_value
from edd.losses.softmax import log_softmax, normaliser
from edd.math import checks, coefficients, special
from edd.math.polygamma import horner
from edd.typing import Array, ArrayLike, Float

VARIANTS = ("both", "teacher_only", "student_only", "reverse")
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def mean_log_probs(
    member_log_probs: Float[Array, "M *B K"], *, temperature: ArrayLike = 1.0, target_smoothing: float = 0.0
) -> Float[Array, "*B K"]:
    """Mean over members of their log-probabilities, g_k = mean_m ln pi_k^m, in nats: all that EnD2 needs without annealing.

    Members are softened first, pi <- softmax(ln pi / temperature), then smoothed, pi <- (1 - c) pi + c / K. O(M K) per example.

    Args:
      member_log_probs: members' normalised log-probabilities; -inf is probability zero.
      temperature: positive scalar, may be a traced array.
      target_smoothing: c in [0, 1]; the authors' code uses 1e-3.

    Returns:
      [*B, K], <= 0: the logarithm of the geometric mean, not normalised. -inf where a member excludes the class and c = 0.

    Raises:
      ValueError: wrong shape, fewer than two classes, c outside [0, 1], a temperature that is not positive, or (eagerly) rows
        whose exp does not sum to 1.
      TypeError: not real numbers.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", section 4; smoothing and temperature as in their code.

    Examples:
      >>> import jax.numpy as jnp
      >>> members = jnp.log(jnp.array([[0.9, 0.1], [0.4, 0.6]]))
      >>> print(jnp.exp(mean_log_probs(members)).round(3))
      [0.6   0.245]
    """
    member_log_probs = checks.as_float(member_log_probs, "member_log_probs")
    checks.members(member_log_probs, "member_log_probs")
    checks.log_probs(member_log_probs, "member_log_probs")
    if not 0.0 <= target_smoothing <= 1.0:
        raise ValueError(f"target_smoothing must lie in [0, 1], got {target_smoothing}")
    dtype = jnp.promote_types(member_log_probs.dtype, jnp.float32)
    softened = log_softmax(member_log_probs.astype(dtype) / temperature_value(temperature, dtype))
    if target_smoothing > 0:
        floor = math.log(target_smoothing / softened.shape[-1])
        kept = math.log1p(-target_smoothing) if target_smoothing < 1 else -math.inf
        softened = jnp.logaddexp(softened + kept, jnp.full_like(softened, floor))
    return jnp.mean(softened, 0)


def end2_from_mean_log_probs(
    logits: Float[Array, "*B K"], mean_log_probs: Float[Array, "*B K"], offset: float = 0.0, *, max_concentration: float | None = None
) -> Float[Array, "*B"]:
    """EnD2 loss of each example, in nats, from the members' mean log-probabilities g (`mean_log_probs`).

        sum_k ln Gamma(alpha_k) - ln Gamma(alpha_0) - sum_k (alpha_k - 1) g_k,      alpha = exp(z) + offset

    Written with the Stirling remainders of ln Gamma and alpha_k (ln(alpha_k / alpha_0) - g_k), so that the leading alpha ln alpha
    cancel analytically; no epsilon. O(K). Differentiable once, in reverse mode, in the logits; g is a constant.

    Args:
      logits: the student's.
      mean_log_probs: g, <= 0; -inf where a member excludes the class.
      offset: added to exp(z), a Python number >= 0; 0 in the paper.
      max_concentration: clips alpha from above (with zero gradient there). None, the default. The true gradient grows like exp(z),
        which can make training diverge though nothing here overflows: networks whose inputs are not scaled need it.

    Returns:
      [*B], of either sign (a density). Where g_k = -inf: +inf if such a class has alpha > 1, else -inf if one has alpha < 1.

    Raises:
      ValueError: shapes that differ, negative offset, max_concentration not above offset, (eagerly) non-finite logits, NaN or positive g.
      TypeError: not real numbers.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", eqs. 8-9.

    Examples:
      >>> import jax.numpy as jnp
      >>> g = jnp.log(jnp.array([0.5, 0.25]))
      >>> print(end2_from_mean_log_probs(jnp.zeros(2), g).round(4) + 0.0)  # the density of Dir(1, 1) is 1
      0.0
    """
    offset = offset_value(offset, "offset")
    logits = checks.as_float(logits, "logits")
    mean_log_probs = checks.as_float(mean_log_probs, "mean_log_probs")
    checks.classes(logits, "logits")
    checks.same_shape(logits, mean_log_probs, "logits", "mean_log_probs")
    checks.finite(logits, "logits")
    if checks.is_concrete(mean_log_probs) and not np.all(np.asarray(mean_log_probs) <= 1e-3):
        raise ValueError(f"mean_log_probs must be means of log-probabilities, <= 0, got {np.max(np.asarray(mean_log_probs))}")
    dtype = jnp.promote_types(jnp.promote_types(logits.dtype, mean_log_probs.dtype), jnp.float32)
    target = jax.lax.stop_gradient(mean_log_probs.astype(dtype))
    return _negative_log_likelihood(clipped_logits(logits.astype(dtype), max_concentration, offset), target, offset)


def end2(
    logits: Float[Array, "*B K"],
    member_log_probs: Float[Array, "M *B K"],
    offset: float = 0.0,
    *,
    temperature: ArrayLike = 1.0,
    target_smoothing: float = 0.0,
    variant: str = "both",
    max_concentration: float | None = None,
) -> Float[Array, "*B"]:
    """EnD2 loss of each example, in nats: negative Dirichlet log-likelihood of the members, with the temperature T of the authors' code.

        both:          alpha = exp(z / T) + offset, members softened by T, times T^2
        teacher_only:  alpha = exp(z) + offset,     members softened by T              (EnTemp)
        student_only:  alpha = exp(z / T) + offset, members as they are, times T^2     (DirTemp)
        reverse:       alpha = exp(z T) + offset,   members softened by T, divided by T^2   (Rev)

    O(M K) per example; see `end2_from_mean_log_probs` for the loss and its numerics.

    Args:
      logits: the student's.
      member_log_probs: members' normalised log-probabilities; -inf is probability zero. A constant for differentiation.
      offset: added to exp(z), a Python number >= 0; 0 in the paper.
      temperature: positive scalar, may be a traced array, so that annealing recompiles nothing.
      target_smoothing: c in [0, 1]: members become (1 - c) pi + c / K after softening. The authors' code uses 1e-3.
      variant: "both", "teacher_only", "student_only" or "reverse".
      max_concentration: clips alpha; see `end2_from_mean_log_probs`.

    Returns:
      [*B], of either sign (a density); infinite only where a member excludes a class and c = 0, or beyond the float's range.

    Raises:
      ValueError: unknown variant, and as `mean_log_probs` and `end2_from_mean_log_probs`.
      TypeError: not real numbers.

    References:
      Malinin, Mlodozeniec & Gales 2020, "Ensemble Distribution Distillation", eqs. 8-12; variants as in the authors' code.

    Examples:
      >>> import jax.numpy as jnp
      >>> members = jnp.log(jnp.array([[0.9, 0.1], [0.4, 0.6]]))
      >>> print(end2(jnp.log(jnp.array([2.0, 1.0])), members).round(4))
      -0.1823
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    logits = checks.as_float(logits, "logits")
    members = checks.as_float(member_log_probs, "member_log_probs")
    checks.members(members, "member_log_probs")
    if members.shape[1:] != logits.shape:
        raise ValueError(f"member_log_probs must be [M, *B, K] over logits of shape {logits.shape}, got {members.shape}")
    dtype = jnp.promote_types(jnp.promote_types(logits.dtype, members.dtype), jnp.float32)
    temperature = temperature_value(temperature, dtype)
    softening = jnp.ones_like(temperature) if variant == "student_only" else temperature
    target = mean_log_probs(members.astype(dtype), temperature=softening, target_smoothing=target_smoothing)
    student, scale = {
        "both": (1 / temperature, temperature**2),
        "teacher_only": (jnp.ones_like(temperature), jnp.ones_like(temperature)),
        "student_only": (1 / temperature, temperature**2),
        "reverse": (temperature, 1 / temperature**2),
    }[variant]
    return scale * end2_from_mean_log_probs(logits.astype(dtype) * student, target, offset, max_concentration=max_concentration)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _negative_log_likelihood(logits: Array, target: Array, offset: float) -> Array:
    return _forward(logits, target, offset)[0]


def _remainder(log_x: Array, x: Array) -> Array:
    """ln Gamma(x) - x ln x + x, given ln x (x itself may be 0 or inf by rounding)."""
    large = x >= 1
    t = 1 / jnp.where(large, x, 1)
    small_x = jnp.where(large, 0, x)
    small = special.log_gamma(1 + small_x) - (1 + small_x) * log_x + small_x
    return jnp.where(large, HALF_LOG_TWO_PI - log_x / 2 + t * horner(coefficients.STIRLING, t), small)


def _logarithms(logits: Array, offset: float) -> tuple[Array, Array, Array]:
    """(ln alpha [*B, K], ln alpha_0 [*B, 1], ln(alpha / alpha_0) [*B, K]); the last keeps its digits for a dominant class."""
    top, rest = normaliser(logits)
    num_classes = logits.shape[-1]
    if offset == 0:
        lost = jnp.log1p(rest)
        return logits, top + lost, (logits - top) - lost
    floor = math.log(offset)
    base, lift = jnp.maximum(logits, floor), jnp.log1p(jnp.exp(-jnp.abs(logits - floor)))
    top_base, top_lift = jnp.maximum(top, floor), jnp.log1p(jnp.exp(-jnp.abs(top - floor)))
    unit = jnp.exp(-jnp.abs(top))
    spread = (num_classes - 1) * offset
    gap = jnp.where(top > 0, (rest + spread * unit) / (1 + offset * unit), (unit * rest + spread) / (unit + offset))
    lost = jnp.log1p(gap)  # ln alpha_0 - ln alpha_top
    return base + lift, (top_base + top_lift) + lost, ((base - top_base) + (lift - top_lift)) - lost


@functools.partial(jax.jit, static_argnums=2)
def _forward(logits: Array, target: Array, offset: float):
    log_alpha, log_total, log_mean = _logarithms(logits, offset)
    shift = jax.lax.stop_gradient(jnp.maximum(jnp.max(logits, -1, keepdims=True) - 60, 0))
    scaled = jnp.exp(logits - shift) + offset * jnp.exp(-shift)
    excluded = target == -jnp.inf
    finite_target = jnp.where(excluded, 0, target)
    energy = jnp.sum(scaled * (log_mean - finite_target), -1, keepdims=True)
    energy = jnp.where(energy == 0, 0, energy * jnp.exp(shift))
    rest = jnp.sum(_remainder(log_alpha, jnp.exp(log_alpha)) + finite_target, -1, keepdims=True)
    loss = (energy + rest - _remainder(log_total, jnp.exp(log_total)))[..., 0]
    above = jnp.any(excluded & (log_alpha > 0 if offset < 1 else True), -1)
    below = jnp.any(excluded & (log_alpha < 0 if offset < 1 else False), -1)
    return jnp.where(above, jnp.inf, jnp.where(below, -jnp.inf, loss)), (logits, target)


@functools.partial(jax.jit, static_argnums=0)
def _backward(offset: float, residuals, cotangent: Array):
    logits, target = residuals
    log_alpha, log_total, log_mean = _logarithms(logits, offset)
    # e^z as a square: it may overflow where the gradient does not; kept above 0 beside an infinite target
    root = jnp.maximum(jnp.exp(logits / 2), jnp.finfo(logits.dtype).tiny)
    own = special.x_log_minus_digamma(jnp.exp(log_alpha))
    own = own if offset == 0 else own * jnp.exp(logits - log_alpha)
    common = special.x_log_minus_digamma(jnp.exp(log_total)) * jnp.exp(logits - log_total)
    slope = jnp.where(log_mean == target, 0, root * (log_mean - target) * root) - own + common
    return cotangent[..., None] * slope, jnp.zeros_like(target)


_negative_log_likelihood.defvjp(_forward, _backward)
