"""Batch normalisation with statistics averaged over a mesh axis in training."""

import flax.linen as nn


def batch_norm(
    *, train: bool, axis_name: str | None = None, momentum: float = 0.9, epsilon: float = 1e-5, scale: bool = True, dtype=None, name=None
) -> nn.BatchNorm:
    """A batch normalisation layer over all axes but the last; unitless.

    In training it uses the batch's mean and biased variance, averaged over `axis_name` when given (one all-reduce of both in
    the forward pass, one in the backward pass), and moves its running statistics by `1 - momentum`. In evaluation it uses
    the running statistics and communicates nothing.

    Args:
      train: a training pass.
      axis_name: mesh axis over which a batch is spread, or None.
      momentum: share of the running statistics that is kept, in [0, 1).
      epsilon: added to the variance, > 0.
      scale: multiply by a trained scale.
      dtype: dtype of the computation, None for the inputs'.
      name: name of the layer, or None for Linen's.

    Returns:
      The Linen module; scale starts at 1, bias at 0.

    Raises:
      ValueError: momentum or epsilon out of range.

    References:
      Ioffe & Szegedy 2015, "Batch Normalization".
    """
    if not 0.0 <= momentum < 1.0:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
    if not epsilon > 0.0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    options = {"momentum": momentum, "epsilon": epsilon, "use_scale": scale, "dtype": dtype, "name": name}
    return nn.BatchNorm(use_running_average=not train, axis_name=axis_name, **options)
