"""Ensemble distillation (EnD): one softmax network for the ensemble's mean prediction."""

from edd.distillers.base import Distiller, check_sizes, no_parameters, predict_softmax
from edd.losses import distillation


def make(num_members: int, num_classes: int, *, temperature: float = 1.0) -> Distiller:
    """KL from the members' mean at temperature T to the student at T, times T^2. Keeps no knowledge uncertainty.

    The targets are the tempered mean's log-probabilities [*B, K], so a cache is M times smaller than the members' logits.

    Args:
      num_members: M, at least 1.
      num_classes: K, at least 2.
      temperature: T > 0, divides both sides' logits.

    Returns:
      A `Distiller`; its predictions have total = data uncertainty and no knowledge measures.

    Raises:
      ValueError: if M or K is too small or `temperature` is not above 0.

    References:
      Hinton, Vinyals & Dean 2015; Malinin, Mlodozeniec & Gales 2020, eq. 5.

    Examples:
      >>> import jax.numpy as jnp
      >>> distiller = make(2, 2)
      >>> distiller.targets(jnp.array([[[0.0, 0.0]], [[0.0, 0.0]]])).shape
      (1, 2)
    """
    check_sizes(num_members, num_classes)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")

    def targets(member_logits):
        return distillation.log_mean_probs(member_logits, temperature)

    def loss(outputs, targets, params, state, labels, key):
        del params, state, labels, key
        return distillation.end_from_log_mean_probs(outputs.logits, targets, temperature)

    return Distiller(
        student=lambda make_backbone: make_backbone(num_classes),
        init=no_parameters,
        targets=targets,
        loss=loss,
        predict=predict_softmax,
    )
