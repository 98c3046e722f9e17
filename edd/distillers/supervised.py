"""Training on labels: how ensemble members, and students without teachers, are made."""

from edd.distillers.base import Distiller, check_sizes, no_parameters, predict_softmax
from edd.losses import supervised


def make(num_members: int, num_classes: int, *, smoothing: float = 0.0) -> Distiller:
    """Cross-entropy on labels, optionally smoothed; needs no teachers, so `num_members` is not used.

    Args:
      num_members: ignored, present because every method is made alike.
      num_classes: K, at least 2.
      smoothing: label smoothing in [0, 1].

    Returns:
      A `Distiller` whose `targets` is None.

    Raises:
      ValueError: if K is too small or `smoothing` lies outside [0, 1].

    Examples:
      >>> distiller = make(0, 10, smoothing=0.1)
      >>> distiller.targets is None
      True
    """
    del num_members
    check_sizes(1, num_classes)
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"smoothing must lie in [0, 1], got {smoothing}")

    def loss(outputs, targets, params, state, labels, key):
        del targets, params, state, key
        return supervised.label_smoothed_cross_entropy(outputs.logits, labels, smoothing)

    return Distiller(
        student=lambda make_backbone: make_backbone(num_classes),
        init=no_parameters,
        targets=None,
        loss=loss,
        predict=predict_softmax,
    )
