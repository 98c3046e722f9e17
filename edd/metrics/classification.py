"""Accuracy, negative log-likelihood and Brier score of class probabilities.

Conventions: examples on the first axis, classes on the last; `accuracy` and `brier_score` take probabilities, `nll` takes
log-probabilities (a probability that underflowed has lost its logarithm); each refuses the other with a ValueError. Fractions
and nats, never percent. For an ensemble pass its *mean* prediction: the mean of the members' scores is another quantity.

Every function takes `counts`: how many times each row counts, [N] (a mask or a frequency weight) or [R, N] (one row for each
bootstrap resample; the result is then a float64 array [R]).
"""

from __future__ import annotations

import numpy as np

from edd.metrics import host
from edd.typing import ArrayLike, Float, Int

Counts = ArrayLike | None


def accuracy(probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], *, counts: Counts = None) -> float | Float[np.ndarray, " R"]:
    """Fraction of examples whose most probable class is the label.

    Several classes that share the largest probability: the first of them is the prediction, as in numpy's and JAX's argmax.

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      A fraction in [0, 1]: 0 when every prediction is wrong, 1 when every one is right.

    Raises:
      ValueError: negative or unnormalised `probs` (log-probabilities, logits), NaN, labels out of range, other shapes.
      TypeError: labels that are not integers; traced arrays.

    References:
      Top-1 accuracy, scikit-learn's `accuracy_score(labels, argmax(probs))`.

    Examples:
      >>> accuracy([[0.8, 0.2], [0.4, 0.6]], [0, 0])
      0.5
    """
    probs, labels = host.predictions(probs, labels)
    return host.evaluate(host.mean_of((probs.argmax(-1) == labels).astype(np.float64)), counts, labels.size)


def nll(log_probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], *, counts: Counts = None) -> float | Float[np.ndarray, " R"]:
    """Mean negative log-likelihood of the labels, in nats.

    Args:
      log_probs: normalised log-probabilities; -inf is a probability of exactly zero.
      labels: integers in [0, K).
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      >= 0 (up to the rounding of `log_probs`); 0 when every label has probability 1, +inf when a label has probability 0.

    Raises:
      ValueError: `log_probs` whose exp does not sum to 1 (probabilities, logits), NaN, labels out of range, other shapes.
      TypeError: labels that are not integers; traced arrays.

    References:
      The logarithmic score; scikit-learn's `log_loss(labels, exp(log_probs))`, without its clipping.

    Examples:
      >>> import numpy as np
      >>> round(nll(np.log([[0.8, 0.2], [0.5, 0.5]]), [0, 1]), 4)
      0.4581
    """
    log_probs = host.log_probabilities(log_probs)
    labels = host.class_labels(labels, *log_probs.shape)
    values = 0.0 - log_probs[np.arange(labels.size), labels].astype(np.float64)
    return host.evaluate(host.mean_of(values), counts, labels.size)


def brier_score(probs: Float[ArrayLike, "N K"], labels: Int[ArrayLike, " N"], *, counts: Counts = None) -> float | Float[np.ndarray, " R"]:
    """Brier score: squared distance from the one-hot label, *summed* over classes, averaged over examples.

    Some codes average over the classes or halve the sum; with two classes this one is twice the score of the positive class
    alone.

    Args:
      probs: probabilities, >= 0, summing to 1 over the classes.
      labels: integers in [0, K).
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 2]: 0 when every label has probability 1, 2 when every prediction is certain of a wrong class.

    Raises:
      ValueError: negative or unnormalised `probs` (log-probabilities, logits), NaN, labels out of range, other shapes.
      TypeError: labels that are not integers; traced arrays.

    References:
      Brier 1950; scikit-learn's multi-class `brier_score_loss(..., scale_by_half=False)`.

    Examples:
      >>> round(brier_score([[0.8, 0.2], [0.5, 0.5]], [0, 1]), 4)
      0.29
    """
    probs, labels = host.predictions(probs, labels)
    values = np.empty(labels.size)
    for rows, block in host.blocks(probs):
        block[np.arange(block.shape[0]), labels[rows]] -= 1
        values[rows] = np.einsum("nk,nk->n", block, block)
    return host.evaluate(host.mean_of(values), counts, labels.size)
