"""MIMO: one network with several inputs and as many heads, an ensemble in one forward pass, trained on labels without teachers."""

import jax.numpy as jnp

from edd.data.multi_input import MultiInput
from edd.distillers.base import Distiller, check_sizes, ensemble_prediction, no_parameters
from edd.losses import supervised
from edd.models import mimo

REDUCTIONS = ("sum", "mean")


def make(
    num_members: int,
    num_classes: int,
    *,
    num_inputs: int = 2,
    batch_repetition: int = 1,
    input_repetition: float = 0.0,
    reduction: str = "sum",
) -> Distiller:
    """Head m learns the label of the example at input m; in prediction all inputs are the same and the heads are the members.

    Args:
      num_members: ignored, present because every method is made alike.
      num_classes: K, at least 2.
      num_inputs: M >= 1 inputs and heads; the logits are [B, M * K], heads first.
      batch_repetition, input_repetition: as in `MultiInput`; the training's batch size counts rows and must be a multiple of the former.
      reduction: over the heads of a row: "sum" (uncertainty-baselines) or "mean" (the proxy paper's code): M times smaller, another
        learning rate for SGD and another balance with weight decay.

    Returns:
      A `Distiller` whose `targets` is None. The heads' probabilities are averaged, their disagreement measured as an ensemble's; the proxy
      paper's MIMO rows average logits instead and read them as a Dirichlet's.

    Raises:
      ValueError: an option out of range.

    References:
      Havasi et al. 2021, "Training Independent Subnetworks for Robust Prediction"; CIFAR: M = 3, batch repetition 4; ImageNet: M = 2,
      batch repetition 2, input repetition 0.6.

    Examples:
      >>> distiller = make(0, 10, num_inputs=3)
      >>> distiller.targets is None, distiller.multi_input.num_inputs
      (True, 3)
    """
    del num_members
    check_sizes(1, num_classes)
    layout = MultiInput(num_inputs, batch_repetition, input_repetition)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")

    def heads(outputs):
        return outputs.logits.reshape(*outputs.logits.shape[:-1], num_inputs, num_classes)

    def loss(outputs, targets, params, state, labels, key):
        """Labels [*B, M], one per head, or [*B] where the inputs were all one example."""
        del targets, params, state, key
        logits = heads(outputs)
        labels = labels if labels.ndim == logits.ndim - 1 else jnp.broadcast_to(labels[..., None], logits.shape[:-1])
        losses = supervised.label_smoothed_cross_entropy(logits, labels, 0.0)
        return losses.sum(-1) if reduction == "sum" else losses.mean(-1)

    def predict(outputs, params, state, key):
        del params, state, key
        return ensemble_prediction(jnp.moveaxis(heads(outputs), -2, 0))

    return Distiller(
        student=lambda make_backbone: mimo.make(make_backbone(num_inputs * num_classes), num_inputs),
        init=no_parameters,
        targets=None,
        loss=loss,
        predict=predict,
        multi_input=layout,
    )
