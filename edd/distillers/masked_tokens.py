"""Cross-entropy of tokens: masked ones, from which the body of a language model is made, and the next ones of a sequence."""

import jax.numpy as jnp

from edd.distillers.base import Distiller, no_parameters, predict_softmax
from edd.losses import supervised


def make(num_classes: int = 0, *, smoothing: float = 0.0) -> Distiller:
    """Cross-entropy of the wanted tokens, in nats, mean over an example's; needs no teachers.

    Labels are [B, L]: the token to say or restore, negative elsewhere. An example without any has loss 0.

    Args:
      num_classes: V; 0 where the network knows its vocabulary.
      smoothing: of the labels, in [0, 1].

    Raises:
      ValueError: smoothing out of range.

    References:
      Devlin et al. 2019, "BERT", section 3.1.
    """

    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"smoothing must lie in [0, 1], got {smoothing}")

    def loss(outputs, targets, params, state, labels, keys):
        del targets, params, state, keys
        found = supervised.label_smoothed_cross_entropy(outputs.logits, jnp.maximum(labels, 0), smoothing)
        wanted = labels >= 0
        return jnp.sum(jnp.where(wanted, found, 0.0), -1) / jnp.maximum(wanted.sum(-1), 1)

    return Distiller(
        student=lambda make_backbone: make_backbone(num_classes), init=no_parameters, targets=None, loss=loss, predict=predict_softmax
    )
