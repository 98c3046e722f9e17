"""Proxy-Dirichlet distillation (PD-EnD2): a Prior Network trained against one Dirichlet per example."""

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller, check_sizes, dirichlet_prediction, no_parameters
from edd.losses import proxy


def make(
    num_members: int,
    num_classes: int,
    *,
    direction: str = "reverse",
    estimator: str = "stirling",
    offset: float = 1.0,
    target_offset: float = 1.0,
    prior: str = "authors",
    predict_offset: float = 0.0,
    max_concentration: float | None = None,
    max_precision: float | None = None,
) -> Distiller:
    """KL between the student's Dirichlet and the ensemble's proxy Dirichlet, reverse (the paper) or forward.

    The targets are the mean's log-probabilities [*B, K] and one precision per example [*B]: M times smaller than the
    members' logits. Predictions are softmax(z) with concentration exp(z) + `predict_offset`.

    Args:
      num_members: M, at least 1 (identical members have infinite precision, which the loss carries).
      num_classes: K, at least 2.
      direction: "reverse", KL[student || proxy] scaled by the precision, or "forward", KL[proxy || student].
      estimator: "stirling", (K - 1) / (2 RMI), or "epkl", (K - 1) / EPKL.
      offset: added to exp(z) in training, >= 0; 1 in the paper.
      target_offset: added to the proxy's concentration, >= 0; 1 in the paper.
      prior: "paper" or "authors": what the prior term of the reverse loss is divided by (`losses.proxy.reverse_kl`).
      predict_offset: added to exp(z) at prediction, >= 0.
      max_concentration: clips the student's concentration in the loss; None (default): the stable forms do not need it.
      max_precision: caps the target's precision; None: no cap for the reverse loss, whose limit at identical members is finite, and
        (K - 1) 2^23, what the authors' epsilon implies, for the forward loss, whose limit is not.

    Returns:
      A `Distiller` with all five measures and a precision.

    Raises:
      ValueError: if M or K is too small, for an unknown direction, estimator or prior, or a negative offset.

    References:
      Ryabinin, Malinin & Gales 2021, eqs. 11-17.

    Examples:
      >>> distiller = make(2, 2)
      >>> target = distiller.targets(jnp.array([[[0.0, 0.0]], [[0.0, 0.0]]]))
      >>> bool(jnp.isinf(target.precision[0]))  # identical members
      True
    """
    check_sizes(num_members, num_classes)
    for name, value in (("offset", offset), ("target_offset", target_offset), ("predict_offset", predict_offset)):
        if value < 0:
            raise ValueError(f"{name} must be >= 0, got {value}")
    for name, value, known in (
        ("direction", direction, ("reverse", "forward")),
        ("estimator", estimator, ("stirling", "epkl")),
        ("prior", prior, ("paper", "authors")),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {known}, got {value!r}")

    if max_precision is None and direction == "forward":
        max_precision = (num_classes - 1) * 2.0**23
    if max_precision is not None and not max_precision > 0:
        raise ValueError(f"max_precision must be above 0 or None, got {max_precision}")

    def targets(member_logits):
        target = proxy.proxy_target(jax.nn.log_softmax(member_logits), estimator=estimator)
        return target if max_precision is None else target._replace(precision=jnp.minimum(target.precision, max_precision))

    def loss(outputs, targets, params, state, labels, key):
        del params, state, labels, key
        common = {"offset": offset, "target_offset": target_offset, "max_concentration": max_concentration}
        if direction == "reverse":
            return proxy.reverse_kl(outputs.logits, targets, prior=prior, **common)
        return proxy.forward_kl(outputs.logits, targets, **common)

    def predict(outputs, params, state, key):
        del params, state, key
        return dirichlet_prediction(outputs.logits, predict_offset)

    return Distiller(
        student=lambda make_backbone: make_backbone(num_classes),
        init=no_parameters,
        targets=targets,
        loss=loss,
        predict=predict,
    )
