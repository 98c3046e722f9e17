"""Gaussian regression networks: teachers trained on labels, and the student that matches the mixture's two moments."""

import jax.numpy as jnp

from edd.distillers.base import Distiller, no_parameters
from edd.distillers.regression import PredictiveMixture, check_members, mean_and_variance

LOG_2_PI = 1.8378770664093453


def _predict(outputs, params, state, key) -> PredictiveMixture:
    del params, state, key
    found = mean_and_variance(outputs.logits)
    return PredictiveMixture(found[None, ..., 0], found[None, ..., 1])


def make_teacher(num_members: int = 1, num_outputs: int = 2) -> Distiller:
    """Gaussian negative log-likelihood of real labels, in nats: a network with a mean and a variance output; needs no teachers.

    References:
      Nix & Weigend 1994; Lakshminarayanan, Pritzel & Blundell 2017, "Simple and Scalable Predictive Uncertainty Estimation".

    Examples:
      >>> from edd.models.base import Outputs
      >>> loss = make_teacher().loss(Outputs(jnp.array([[1.0, 0.541325]]), None), None, {}, {}, jnp.array([1.0]), None)
      >>> round(float(loss[0]), 4)  # variance 1, no error: ln(2 pi) / 2
      0.9189
    """
    check_members(num_members, num_outputs)

    def loss(outputs, targets, params, state, labels, key):
        del targets, params, state, key
        mean, variance = jnp.moveaxis(mean_and_variance(outputs.logits), -1, 0)
        return 0.5 * (LOG_2_PI + jnp.log(variance) + jnp.square(labels - mean) / variance)

    return Distiller(lambda make_backbone: make_backbone(2), no_parameters, None, loss, _predict)


def make_moments(num_members: int, num_outputs: int = 2) -> Distiller:
    """One Gaussian per input with the mixture's mean and total variance: KL(Gaussian of the mixture's moments || student), in nats.

    It keeps how uncertain the ensemble is, not why: function and noise variance are one number, and nothing is shared between inputs.

    References:
      Moment matching of a mixture; the Gaussian analogue of EnD.
    """
    check_members(num_members, num_outputs)

    def targets(member_outputs):
        means, variances = member_outputs[..., 0], member_outputs[..., 1]
        return {"mean": means.mean(0), "variance": means.var(0) + variances.mean(0)}

    def loss(outputs, targets, params, state, labels, key):
        del params, state, labels, key
        mean, variance = jnp.moveaxis(mean_and_variance(outputs.logits), -1, 0)
        ratio = targets["variance"] / variance
        return 0.5 * (ratio - 1 - jnp.log(ratio) + jnp.square(targets["mean"] - mean) / variance)

    return Distiller(lambda make_backbone: make_backbone(2), no_parameters, targets, loss, _predict)
