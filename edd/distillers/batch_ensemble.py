"""BatchEnsemble students of a regression ensemble: one set of weights, a rank-one factor for each member; merged or not."""

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller
from edd.distillers.hydra import ONCE
from edd.distillers.regression import PredictiveMixture, aleatoric, check_members, no_law

AVERAGINGS = ("none", "mask", "factors")
FACTORS = ("r", "s")


def make(
    num_members: int, num_outputs: int = 2, *, averaging: str = "none", decay: float | None = None, aleatoric_mode: str = "input"
) -> Distiller:
    """Member m of the student regresses member m of the ensemble; with an averaging it ships as one plain network (latent BatchEnsemble).

    Args:
      num_members: M; the backbone must be a "batch_ensemble_mlp", which is made with as many members.
      num_outputs: 2, the members' mean and variance.
      averaging: "none" keeps the members at prediction; "mask" and "factors" merge them (`layers.batch_ensemble.merge`).
      decay: weight of the squared distance of all factors to 1, summed; None: 1e-4 / M where members are merged, else 0.
      aleatoric_mode: as `regression.aleatoric`.

    Raises:
      ValueError: an unknown averaging or a negative decay.

    References:
      Wen, Tran & Ba 2020; Nam et al. 2022 (latent BatchEnsemble); specification 6. Merged, it is one function: its predictions differ by
      their noise alone.
    """
    check_members(num_members, num_outputs)
    merges = check_averaging(averaging)
    decay = factor_decay(decay, merges, num_members)
    noise = aleatoric(aleatoric_mode)
    columns = 1 + noise.num_outputs

    def targets(member_outputs):
        return {"means": jnp.moveaxis(member_outputs[..., 0], 0, -1), "noise": noise.targets(member_outputs[..., 1])}

    def split(outputs):
        each = outputs.logits.reshape(*outputs.logits.shape[:-1], -1, columns)
        return each[..., 0], each[..., 1:].mean(-2)

    def loss(outputs, targets, params, state, labels, key):
        del params, state, labels, key
        means, logs = split(outputs)
        return 0.5 * jnp.square(means - targets["means"]).mean(-1) + noise.loss(logs, targets["noise"])

    def update(statistics, variables, params, state, step):
        del state, step
        return variables, params, {"noise": noise.fit(statistics)}

    def predict(outputs, params, state, key):
        del params
        means, logs = split(outputs)
        variances = noise.variances(logs, state["noise"], key, num_members)
        return PredictiveMixture(jnp.broadcast_to(jnp.moveaxis(means, -1, 0), variances.shape), variances)

    return Distiller(
        student=lambda make_backbone: shared_backbone(make_backbone, num_members * columns, num_members),
        init=lambda key: ({}, {"noise": no_law()}),
        targets=targets,
        loss=loss,
        predict=predict,
        penalty=(lambda variables, *_: decay * distance_to_one(variables)) if decay else None,
        statistics=lambda outputs, targets, params, state: noise.statistics(targets["noise"]),
        update=update,
        update_from="design_set",
        update_every=ONCE,
        finalize=(lambda *network: merged(*network, averaging=averaging)) if merges else lambda *network: network,
        gradient_transform=(lambda gradients: scaled(gradients, num_members)) if merges else None,
    )


def check_averaging(averaging: str) -> bool:
    """Whether members are merged; ValueError for an unknown averaging."""
    if averaging not in AVERAGINGS:
        raise ValueError(f"averaging must be one of {', '.join(AVERAGINGS)}, got {averaging!r}")
    return averaging != "none"


def factor_decay(decay: float | None, merges: bool, num_members: int) -> float:
    """The weight of the factors' distance to 1; ValueError for a negative one."""
    decay = (1e-4 / num_members if merges else 0.0) if decay is None else decay
    if not decay >= 0:
        raise ValueError(f"decay must be >= 0, got {decay}")
    return decay


def shared_backbone(make_backbone, num_outputs: int, num_members: int):
    """The network of `num_members` members; ValueError for a backbone that has none."""
    try:
        return make_backbone(num_outputs, num_members=num_members)
    except TypeError as error:
        raise ValueError("batch_ensemble needs a backbone that shares weights between members (its make takes num_members)") from error


def distance_to_one(variables):
    """Squared distance of all rank-one factors to 1, summed."""
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return sum(jnp.square(leaf - 1).sum() for path, leaf in leaves if path[-1].key in FACTORS)


def scaled(gradients, num_members: int):
    """Factors see one member's share of the mean loss each: multiplied by M they move as the shared weights do."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf * num_members if path[-1].key in FACTORS else leaf, gradients)


def merged(model, variables, params, state, *, averaging: str):
    """The members as one plain network: what a latent BatchEnsemble ships."""
    return *model.merge(variables, averaging), params, state
