"""Hydra: one body with a linear head for each member."""

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller, expect_members
from edd.distillers.regression import PredictiveMixture, aleatoric, check_members, no_law

ONCE = 10**9  # the members' variances do not change: their law is fitted at the first step


def make(num_members: int, num_outputs: int = 2, *, aleatoric_mode: str = "input") -> Distiller:
    """Head m regresses member m's mean: squared error, averaged over heads. The latent factor model with fixed effects for latents.

    Args:
      num_members: M, one head each.
      num_outputs: 2, the members' mean and variance.
      aleatoric_mode: as `regression.aleatoric`; noise variances are drawn in the order of the heads.

    References:
      Tran et al. 2020, "Hydra: Preserving Ensemble Diversity for Model Distillation" (one phase; specification 6).
    """
    check_members(num_members, num_outputs)
    noise = aleatoric(aleatoric_mode)

    def targets(member_outputs):
        expect_members(member_outputs, num_members)
        return {"means": jnp.moveaxis(member_outputs[..., 0], 0, -1), "noise": noise.targets(member_outputs[..., 1])}

    def loss(outputs, targets, params, state, labels, key):
        del params, state, labels, key
        error = 0.5 * jnp.square(outputs.logits[..., :num_members] - targets["means"]).mean(-1)
        return error + noise.loss(outputs.logits[..., num_members:], targets["noise"])

    def update(statistics, variables, params, state, step):
        del state, step
        return variables, params, {"noise": noise.fit(statistics)}

    def predict(outputs, params, state, key):
        del params
        columns = outputs.logits[..., num_members:]
        means = jnp.moveaxis(outputs.logits[..., :num_members], -1, 0)
        return PredictiveMixture(means, noise.variances(columns, state["noise"], jax.random.fold_in(key, 1), num_members))

    return Distiller(
        student=lambda make_backbone: make_backbone(num_members + noise.num_outputs),
        init=lambda key: ({}, {"noise": no_law()}),
        targets=targets,
        loss=loss,
        predict=predict,
        statistics=lambda outputs, targets, params, state: noise.statistics(targets["noise"]),
        update=update,
        update_from="design_set",
        update_every=ONCE,
    )
