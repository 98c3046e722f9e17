"""Knowledge distillation: labels and the teachers' softened predictions, or their logits, in one loss."""

import math

from edd.distillers.base import Distiller, check_sizes, no_parameters, predict_softmax
from edd.losses import distillation


def make(
    num_members: int,
    num_classes: int,
    *,
    beta: float = 1.0,
    teacher_temperature: float = 1.0,
    student_temperature: float = 1.0,
    form: str = "cross_entropy",
) -> Distiller:
    """(1 - beta) H(y, p) + beta times the soft loss; a plain softmax student without knowledge uncertainty.

        cross_entropy:  H(p^t(T), p(T_s)), p^t(T) the mean of the teachers' softmax(z / T)
        kl:             KL(p^t(T) || p(T_s)), the same up to the teachers' entropy
        logits:         1/2 ||z - z^t||^2, z^t the mean of the teachers' logits; temperatures are not used

    The targets are one vector [*B, K] per example, whatever the number of teachers.

    Args:
      num_members: M, at least 1.
      num_classes: K, at least 2.
      beta: weight of the soft loss, in [0, 1].
      teacher_temperature: T > 0.
      student_temperature: T_s > 0 in the soft loss; the paper fixes it to 1.
      form: "cross_entropy", "kl" or "logits".

    Returns:
      A `Distiller`; its predictions have total = data uncertainty and no knowledge measures.

    Raises:
      ValueError: M or K too small, beta outside [0, 1], a temperature that is not above 0 and finite, an unknown form.

    References:
      Hinton, Vinyals & Dean 2015; Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", section 4.

    Examples:
      >>> import jax.numpy as jnp
      >>> make(1, 2, beta=0.6, form="logits").targets(jnp.array([[[3.0, 1.0]]])).tolist()
      [[3.0, 1.0]]
    """
    check_sizes(num_members, num_classes)
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta must lie in [0, 1], got {beta}")
    for name, value in (("teacher_temperature", teacher_temperature), ("student_temperature", student_temperature)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}")
    if form not in distillation.MATCHING:
        raise ValueError(f"form must be one of {distillation.MATCHING}, got {form!r}")

    def targets(member_logits):
        return member_logits.mean(0) if form == "logits" else distillation.log_mean_probs(member_logits, teacher_temperature)

    def loss(outputs, targets, params, state, labels, key):
        del params, state, key
        options = {"student_temperature": student_temperature, "matching": form}
        return distillation.knowledge_distillation(outputs.logits, targets, labels, beta, **options)

    return Distiller(
        student=lambda make_backbone: make_backbone(num_classes),
        init=no_parameters,
        targets=targets,
        loss=loss,
        predict=predict_softmax,
    )
