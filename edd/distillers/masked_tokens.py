"""Masked-token pre-training: how the body of a language model is made where no weights are given."""

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller, no_parameters, predict_softmax


def make() -> Distiller:
    """Cross-entropy of the tokens to restore, in nats, mean over an example's; needs no teachers.

    Labels are [B, L]: the word to restore, negative elsewhere. An example without any has loss 0.

    References:
      Devlin et al. 2019, "BERT", section 3.1.
    """

    def loss(outputs, targets, params, state, labels, keys):
        del targets, params, state, keys
        log_probs = jax.nn.log_softmax(outputs.logits)
        found = jnp.take_along_axis(log_probs, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
        wanted = labels >= 0
        return -jnp.sum(jnp.where(wanted, found, 0.0), -1) / jnp.maximum(wanted.sum(-1), 1)

    return Distiller(student=lambda make_backbone: make_backbone(0), init=no_parameters, targets=None, loss=loss, predict=predict_softmax)
