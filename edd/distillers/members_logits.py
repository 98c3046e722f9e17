"""Students with one head for each member of an ensemble of classifiers: Hydra, and BatchEnsemble with or without merging."""

import jax
import jax.numpy as jnp

from edd.distillers import batch_ensemble
from edd.distillers.base import Distiller, check_sizes, ensemble_prediction, no_parameters, predict_softmax
from edd.losses import distillation


def make_hydra(num_members: int, num_classes: int, *, temperature: float = 1.0) -> Distiller:
    """Hydra: one body, a linear head for each member; head m learns member m: T^2 KL(member m at T || head m at T), mean over heads, nats.

    Args:
      num_members: M >= 1 heads; the logits are [B, M K], heads first.
      num_classes: K >= 2.
      temperature: T > 0 of both sides in the loss; predictions are at 1.

    Raises:
      ValueError: sizes or temperature out of range.

    References:
      Tran et al. 2020, "Hydra: Preserving Ensemble Diversity for Model Distillation" (one phase; specification 6).

    Examples:
      >>> from edd.models.base import Outputs
      >>> distiller = make_hydra(2, 3)
      >>> members = jnp.array([[[1.0, 0.0, -1.0]], [[0.0, 2.0, 0.0]]])
      >>> outputs = Outputs(jnp.concatenate([members[0], members[1]], -1), None)  # heads equal to their members
      >>> round(abs(float(distiller.loss(outputs, distiller.targets(members), {}, {}, None, None)[0])), 6)
      0.0
    """
    return _distiller(num_members, num_classes, temperature, lambda make_backbone: make_backbone(num_members * num_classes))


def make_batch_ensemble(
    num_members: int, num_classes: int, *, averaging: str = "none", decay: float | None = None, temperature: float | None = None
) -> Distiller:
    """BatchEnsemble: member m of one network with rank-one factors learns member m; with an averaging it ships as one plain network.

    Args:
      num_members: M; the backbone must take `num_members`.
      num_classes: K >= 2.
      averaging: "none" keeps the members at prediction; "mask" and "factors" merge them (`models.layers.batch_ensemble.merge`).
      decay: weight of the squared distance of all factors to 1, summed; None: 1e-4 / M where members are merged, else 0.
      temperature: T > 0; None: 4 where members are merged, as the authors' code, else 1.

    Raises:
      ValueError: an option out of range; a backbone that cannot share its weights.

    References:
      Wen, Tran & Ba 2020; Nam et al. 2022 (latent BatchEnsemble: factors' gradients times M, decay to 1, temperature 4); specification 6.
      Merged, it is one network: without members it has no knowledge uncertainty.
    """
    merged = batch_ensemble.check_averaging(averaging)
    decay = batch_ensemble.factor_decay(decay, merged, num_members)
    temperature = (4.0 if merged else 1.0) if temperature is None else temperature
    method = _distiller(
        num_members,
        num_classes,
        temperature,
        lambda make_backbone: batch_ensemble.shared_backbone(make_backbone, num_members * num_classes, num_members),
    )
    if decay:
        method = method._replace(penalty=lambda variables, *_: decay * batch_ensemble.distance_to_one(variables))
    if not merged:
        return method
    return method._replace(
        finalize=lambda *network: batch_ensemble.merged(*network, averaging=averaging),
        gradient_transform=lambda gradients: batch_ensemble.scaled(gradients, num_members),
    )


def _distiller(num_members: int, num_classes: int, temperature: float, student) -> Distiller:
    check_sizes(num_members, num_classes)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")

    def heads(outputs):
        return outputs.logits.reshape(*outputs.logits.shape[:-1], -1, num_classes)

    def loss(outputs, targets, params, state, labels, key):
        del params, state, labels, key
        return distillation.end_from_log_mean_probs(heads(outputs), targets, temperature).mean(-1)

    def predict(outputs, params, state, key):
        logits = heads(outputs)
        if logits.shape[-2] == 1:  # merged, or a single member
            return predict_softmax(outputs, params, state, key)
        return ensemble_prediction(jnp.moveaxis(logits, -2, 0))

    return Distiller(
        student=student,
        init=no_parameters,
        targets=lambda member_logits: jnp.moveaxis(jax.nn.log_softmax(member_logits / temperature), 0, -2),
        loss=loss,
        predict=predict,
    )
