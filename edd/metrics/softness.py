"""How soft targets are: the label smoothing that puts as much probability on the wrong classes."""

from __future__ import annotations

from edd.metrics import host
from edd.typing import ArrayLike, Float, Int

Counts = ArrayLike | None


def equivalent_smoothing(
    probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], *, counts: Counts = None
) -> float | Float[ArrayLike, " R"]:
    """gamma: the mean probability of the wrong classes, times K / (K - 1); unitless.

        gamma = mean over examples of (1 - p_y) K / (K - 1)

    Labels smoothed by a have gamma = a, whatever the classes. Cost: O(N K), the check of `probs`.

    Args:
      probs: targets, a teacher's probabilities at its temperature say: >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, K / (K - 1)]: 0 for correct one-hot targets, 1 for uniform ones, K / (K - 1) for one-hot targets that are all wrong.

    Raises:
      ValueError: negative or unnormalised `probs` (log-probabilities, logits), NaN, labels out of range.

    References:
      Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", section 4 (figure 5).

    Examples:
      >>> import numpy as np
      >>> labels = np.array([0, 2])
      >>> round(equivalent_smoothing(0.9 * np.eye(3)[labels] + 0.1 / 3, labels), 6)
      0.1
    """
    probs, labels = host.predictions(probs, labels)
    num_rows, num_classes = probs.shape
    own = probs[range(num_rows), labels].astype("float64")
    return host.evaluate(host.mean_of((1 - own) * (num_classes / (num_classes - 1))), counts, num_rows)
