"""Ensemble distillation (EnD): one softmax network for the ensemble's mean prediction."""

import jax

from edd.distillers.base import Distiller, no_parameters, predict_softmax
from edd.distributions import categorical
from edd.math.reduce import log_mean_exp


def make(num_members: int, num_classes: int, *, temperature: float = 1.0) -> Distiller:
    """KL from the members' mean at temperature T to the student at T, times T^2. Keeps no knowledge uncertainty.

    The targets are the tempered mean's log-probabilities [*B, K], so a cache is M times smaller than the members' logits.

    Args:
      num_members: M, members behind the targets (not used: their mean is all the loss needs).
      num_classes: K, at least 2.
      temperature: T > 0, divides both sides' logits.

    Returns:
      A `Distiller`; its predictions have total = data uncertainty and no knowledge measures.

    Raises:
      ValueError: if `temperature` is not above 0.

    References:
      Hinton, Vinyals & Dean 2015; Malinin, Mlodozeniec & Gales 2020, eq. 5.

    Examples:
      >>> import jax.numpy as jnp
      >>> distiller = make(2, 2)
      >>> distiller.targets(jnp.array([[[0.0, 0.0]], [[0.0, 0.0]]])).shape
      (1, 2)
    """
    del num_members
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")

    def targets(member_logits):
        return log_mean_exp(jax.nn.log_softmax(member_logits / temperature))

    def loss(outputs, targets, params, state, labels, key):
        del params, state, labels, key
        return temperature**2 * categorical.kl_divergence(targets, jax.nn.log_softmax(outputs.logits / temperature))

    return Distiller(
        student=lambda make_backbone: make_backbone(num_classes),
        init=no_parameters,
        targets=targets,
        loss=loss,
        predict=predict_softmax,
    )
