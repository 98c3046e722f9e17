"""Ensemble distribution distillation (EnD2): a Prior Network by maximum likelihood of the members' predictions."""

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller, check_sizes, dirichlet_prediction, no_parameters
from edd.losses import distribution

VARIANTS = ("both", "teacher_only", "student_only", "reverse")


def make(
    num_members: int,
    num_classes: int,
    *,
    offset: float = 0.0,
    target_smoothing: float = 1e-3,
    initial_temperature: float = 1.0,
    hold_steps: int = 0,
    decay_steps: int = 0,
    variant: str = "both",
    predict_offset: float = 0.0,
    max_concentration: float | None = None,
) -> Distiller:
    """Negative Dirichlet log-likelihood of the members, with the temperature annealed from T0 to 1.

    T = T0 for `hold_steps`, then linear to 1 over `decay_steps`, then 1. Without annealing (T0 = 1) the loss needs only the
    members' mean log-probabilities, and the targets are [*B, K]; with it they are the members' logits [*B, M, K].

    Args:
      num_members: M, at least 1.
      num_classes: K, at least 2.
      offset: added to exp(z) in training, >= 0.
      target_smoothing: c in [0, 1]: members become (1 - c) pi + c / K; the authors' code uses 1e-3, a reproduction 1e-4.
      initial_temperature: T0 >= 1.
      hold_steps: steps at T0.
      decay_steps: steps of the linear decay.
      variant: which side the temperature divides (`losses.distribution.end2`).
      predict_offset: added to exp(z) at prediction, >= 0.
      max_concentration: clips exp(z) + offset in the loss. The true gradient grows like exp(z); networks whose inputs are
        not scaled need this.

    Returns:
      A `Distiller` with all five measures and a precision; its state holds the temperature when annealed.

    Raises:
      ValueError: if M or K is too small, or an option lies outside its range.

    References:
      Malinin, Mlodozeniec & Gales 2020, eqs. 8-12.

    Examples:
      >>> make(10, 3, initial_temperature=10.0, hold_steps=30, decay_steps=30).init(None)[1]["temperature"].item()
      10.0
    """
    check_sizes(num_members, num_classes)
    _check(offset, target_smoothing, initial_temperature, hold_steps, decay_steps, variant, predict_offset)
    annealed = initial_temperature != 1.0

    def init(key):
        return ({}, {"temperature": jnp.float32(initial_temperature)}) if annealed else no_parameters(key)

    def targets(member_logits):
        if annealed:
            return jnp.moveaxis(member_logits, 0, -2)
        return distribution.mean_log_probs(jax.nn.log_softmax(member_logits), target_smoothing=target_smoothing)

    def loss(outputs, targets, params, state, labels, key):
        del params, labels, key
        if not annealed:
            return distribution.end2_from_mean_log_probs(outputs.logits, targets, offset=offset, max_concentration=max_concentration)
        return distribution.end2(
            outputs.logits,
            jax.nn.log_softmax(jnp.moveaxis(targets, -2, 0)),
            offset=offset,
            temperature=state["temperature"],
            target_smoothing=target_smoothing,
            variant=variant,
            max_concentration=max_concentration,
        )

    def update(statistics, variables, params, state, step):
        del statistics
        return variables, params, {"temperature": anneal(step, initial_temperature, hold_steps, decay_steps)}

    def predict(outputs, params, state, key):
        del params, state, key
        return dirichlet_prediction(outputs.logits, predict_offset)

    return Distiller(
        student=lambda make_backbone: make_backbone(num_classes),
        init=init,
        targets=targets,
        loss=loss,
        predict=predict,
        update=update if annealed else None,
    )


def anneal(step, initial_temperature: float, hold_steps: int, decay_steps: int):
    """The temperature at `step`: T0 for `hold_steps`, linear to 1 over `decay_steps`, then 1.

    References:
      Malinin, Mlodozeniec & Gales 2020, section 4 (temperature annealing).

    Examples:
      >>> [float(anneal(step, 10.0, 2, 3)) for step in (0, 2, 3, 5, 9)]
      [10.0, 10.0, 7.0, 1.0, 1.0]
    """
    progress = jnp.clip((jnp.asarray(step, jnp.float32) - hold_steps) / max(decay_steps, 1), 0.0, 1.0)
    return initial_temperature + (1.0 - initial_temperature) * progress


def _check(offset, target_smoothing, initial_temperature, hold_steps, decay_steps, variant, predict_offset) -> None:
    if not initial_temperature >= 1.0:
        raise ValueError(f"initial_temperature must be at least 1, got {initial_temperature}")
    if not 0.0 <= target_smoothing <= 1.0:
        raise ValueError(f"target_smoothing must lie in [0, 1], got {target_smoothing}")
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    if min(hold_steps, decay_steps, offset, predict_offset) < 0:
        raise ValueError(
            f"hold_steps, decay_steps, offset and predict_offset must be >= 0, got {hold_steps}, {decay_steps}, {offset}, {predict_offset}"
        )
