"""Masks on one trained network: its sub-models learn to classify and to differ."""

import jax.numpy as jnp

from edd.distillers.base import Distiller, check_sizes, ensemble_prediction, no_parameters
from edd.ensembles import masks
from edd.losses import supervised
from edd.models.base import Model


def make(num_members: int, num_classes: int, network: Model, *, weight: float = 2.0, regulariser: str = "mean") -> Distiller:
    """Mean cross-entropy of the sub-models on labels minus `weight` times the masks' mutual information with the sub-model, nats.

    Args:
      num_members: M sub-models; the logits are [B, M * K], members first.
      num_classes: K >= 2.
      network: as `ensembles.masks.make`, with as many members.
      weight: >= 0.
      regulariser: as `ensembles.masks.diversity`.

    Returns:
      A `Distiller` that trains on labels; its prediction is that of an ensemble of the sub-models.

    Raises:
      ValueError: sizes, weight or regulariser out of range.

    References:
      Kirsch 2024, "(Implicit) Ensembles of Ensembles", appendix B; specification A3.
    """
    check_sizes(num_members, num_classes)
    if not weight >= 0:
        raise ValueError(f"weight must be >= 0, got {weight}")
    masks.check_regulariser(regulariser)

    def members(outputs):
        return jnp.moveaxis(outputs.logits.reshape(*outputs.logits.shape[:-1], num_members, num_classes), -2, 0)

    def loss(outputs, targets, params, state, labels, key):
        del targets, params, state, key
        logits = members(outputs)
        return supervised.cross_entropy(logits, jnp.broadcast_to(labels[None], logits.shape[:-1])).mean(0)

    return Distiller(
        student=lambda make_backbone: network,
        init=no_parameters,
        targets=None,
        loss=loss,
        predict=lambda outputs, params, state, key: ensemble_prediction(members(outputs)),
        penalty=lambda variables, *_: -weight * masks.diversity(variables["params"], regulariser),
    )
