"""Training on labels: how ensemble members, and students without teachers, are made."""

import numpy as np

from edd.distillers.base import Distiller, check_sizes, no_parameters, predict_softmax
from edd.losses import supervised


def make(
    num_members: int,
    num_classes: int,
    *,
    smoothing: float = 0.0,
    variant: str = "uniform",
    prior: tuple[float, ...] | None = None,
    scale: float = 1.0,
    auxiliary_weight: float = 0.4,
) -> Distiller:
    """Cross-entropy on labels, optionally smoothed; needs no teachers, so `num_members` is not used.

    Args:
      num_members: ignored, present because every method is made alike.
      num_classes: K, at least 2.
      smoothing: label smoothing in [0, 1].
      variant: "uniform" (the paper's) or "others" (Tensor2Tensor's), as `losses.supervised.label_smoothed_cross_entropy`.
      prior: K probabilities that labels are smoothed towards, or None for uniform ones.
      scale: multiplies the loss, > 0 (3 in the label smoothing paper's CIFAR recipes).
      auxiliary_weight: of the loss of a network's auxiliary logits, where it gives some, >= 0 (0.4 in TensorFlow-Slim).

    Returns:
      A `Distiller` whose `targets` is None.

    Raises:
      ValueError: K too small, `smoothing` outside [0, 1], an unknown variant, a prior that does not fit, a scale or weight out of range.

    References:
      Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", section 1 and appendix A.

    Examples:
      >>> distiller = make(0, 10, smoothing=0.1)
      >>> distiller.targets is None
      True
    """
    del num_members
    check_sizes(1, num_classes)
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"smoothing must lie in [0, 1], got {smoothing}")
    if not scale > 0 or not auxiliary_weight >= 0:
        raise ValueError(f"scale must be above 0 and auxiliary_weight at least 0, got {scale} and {auxiliary_weight}")

    def smoothed(logits, labels):
        return supervised.label_smoothed_cross_entropy(logits, labels, smoothing, variant=variant, prior=prior)

    smoothed(np.zeros((1, num_classes), np.float32), np.zeros(1, np.int32))  # refuses a bad variant or prior before anything compiles

    def loss(outputs, targets, params, state, labels, key):
        del targets, params, state, key
        total = smoothed(outputs.logits, labels)
        if outputs.auxiliary is not None:
            total = total + auxiliary_weight * smoothed(outputs.auxiliary, labels)
        return scale * total

    return Distiller(
        student=lambda make_backbone: make_backbone(num_classes),
        init=no_parameters,
        targets=None,
        loss=loss,
        predict=predict_softmax,
    )
