"""Training of a variational autoencoder on the engine: the data are their own labels."""

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller, no_parameters, predict_softmax


def make(num_pixels: int) -> Distiller:
    """Negative evidence lower bound in nats per image: Bernoulli cross-entropy summed over pixels plus KL(q(z | x) || N(0, I)).

    Labels are the images as [B, D] values in [0, 1]; needs no teachers.

    Args:
      num_pixels: D.

    References:
      Kingma & Welling 2014, "Auto-Encoding Variational Bayes", equation 10 and appendix B.

    Examples:
      >>> from edd.models.base import Outputs
      >>> outputs = Outputs(jnp.zeros((1, 4)), jnp.zeros((1, 6)))  # every pixel at 1/2, the posterior at its prior
      >>> round(float(make(4).loss(outputs, None, {}, {}, jnp.ones((1, 4)), None)[0]), 4)  # 4 ln 2
      2.7726
    """

    def loss(outputs, targets, params, state, labels, keys):
        del targets, params, state, keys
        pixels = jax.nn.softplus(outputs.logits) - labels * outputs.logits
        mean, log_variance = jnp.split(outputs.penultimate, 2, -1)
        divergence = 0.5 * (jnp.square(mean) + jnp.expm1(log_variance) - log_variance).sum(-1)
        return pixels.sum(-1) + divergence

    return Distiller(
        student=lambda make_backbone: make_backbone(num_pixels), init=no_parameters, targets=None, loss=loss, predict=predict_softmax
    )
