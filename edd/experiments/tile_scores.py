"""What is kept of every image of a study of tiles, and the scores made of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd import metrics
from edd.ensembles import tiles
from edd.uncertainty import hierarchy

TEST, ORIGINAL = "test", "network"
WEIGHTINGS = ("uniform", "per_input_lse", "per_input_sum", "global")
CURVES = ("accuracy", "nll", "calibration_error")


class Labelled(NamedTuple):
    """An out-of-distribution set of the network's classes: the `classes` [C] that occur in it, ascending, and `labels` [N] among 0..C-1."""

    classes: np.ndarray
    labels: np.ndarray


def labelled(labels: np.ndarray) -> Labelled:
    """The classes of a set and its labels as their indices.

    Examples:
      >>> labelled(np.array([7, 2, 7]))
      Labelled(classes=array([2, 7]), labels=array([1, 0, 1]))
    """
    return Labelled(*np.unique(labels, return_inverse=True))


def without_background(outputs, first_class: int):
    """Outputs without the classes before `first_class`."""
    return outputs._replace(logits=outputs.logits[..., first_class:], positions=outputs.positions[..., first_class:])


def sums_of_logits(outputs, temperature: float, *, sizes: tuple[int, ...]) -> dict:
    """str(s) -> [B, s * s]: every tile's logits summed over classes, l_ij of the global weighting."""
    return {str(size): (tiles.members(outputs.positions, size) / temperature).sum(-1).T for size in sizes}


def global_log_weights(sums: dict) -> dict:
    """str(s) -> [s * s], ln of the share of sum_i exp(l_ij) that each tile has over a whole set of images."""
    exact = {size: np.asarray(each, np.float64) for size, each in sums.items()}
    over_images = {size: np.logaddexp.reduce(each, 0) for size, each in exact.items()}
    return {size: each - np.logaddexp.reduce(each) for size, each in over_images.items()}


def read(
    outputs, temperature: float, global_weights: dict | None = None, *, sizes: tuple[int, ...], weightings: tuple[str, ...], classes=None
) -> dict:
    """row -> what is kept of a batch of images: the network itself, and every size and weighting of its tiles.

    Args:
      outputs: of a network with positions.
      temperature: divides all logits.
      global_weights: `global_log_weights` of the test set; needed by the weighting "global".
      sizes, weightings: as the study's.
      classes: indices of classes over which "log_probs" are normalised anew; None: all; an empty array: none are kept.

    Returns:
      {"uncertainty" [B]: the network's entropy, the tiles' mutual information; "entropy" [B]; "log_probs" [B, number of classes]}. The
      logits of tiles are no part of it.
    """
    own = jax.nn.log_softmax(outputs.logits / temperature)
    rows = {ORIGINAL: {"uncertainty": entropy(own), "entropy": entropy(own), "log_probs": own}}
    for size in sizes:
        logits = tiles.members(outputs.positions, size) / temperature
        log_probs = jax.nn.log_softmax(logits)
        for weighting in weightings:
            log_weights = _log_weights(logits, weighting, size, global_weights)
            mixed = jax.nn.logsumexp(log_probs + log_weights[..., None], 0)
            mixed = mixed - jax.nn.logsumexp(mixed, -1, keepdims=True)
            within = (jnp.exp(log_weights) * entropy(log_probs)).sum(0)
            row = {"uncertainty": jnp.maximum(entropy(mixed) - within, 0.0), "entropy": entropy(mixed), "log_probs": mixed}
            rows[f"{size}x{size} {weighting}"] = row
    if classes is not None:
        for row in rows.values():
            whole = row.pop("log_probs")
            if len(classes):
                row["log_probs"] = jax.nn.log_softmax(whole[..., jnp.asarray(classes)])
    return rows


def _log_weights(logits, weighting: str, size: int, global_weights: dict | None):
    shape = logits.shape[:-1]
    if weighting == "uniform":
        return jnp.full(shape, -jnp.log(shape[0]), logits.dtype)
    if weighting == "global":
        return jnp.broadcast_to(jnp.asarray(global_weights[str(size)], logits.dtype)[:, None], shape)
    return jnp.log(hierarchy.member_weights(logits, weighting))


def entropy(log_probs):
    """Of the last axis, nats."""
    return -jnp.sum(jnp.where(jnp.isneginf(log_probs), 0.0, jnp.exp(log_probs) * log_probs), -1)


def score(found: dict, labels: np.ndarray, num_quantiles: int, x_scale: str, shared: dict[str, Labelled] | None = None) -> list[dict]:
    """Per row: its own prediction, curves and covariances by its uncertainty, errors ranked, and every out-of-distribution set detected.

    "reranked": the network's own prediction in the order of the row's uncertainty, so that rows differ in that order alone. A set in
    `shared` has errors of its own, with probabilities normalised over its classes, and where it lacks some of the network's it is also
    detected among the test images of its classes alone.
    """
    own = np.asarray(found[TEST][ORIGINAL]["log_probs"], np.float64)
    parts = []
    for row in sorted(found[TEST], key=_place):
        values = found[TEST][row]
        log_probs, uncertainty = (np.asarray(values[name], np.float64) for name in ("log_probs", "uncertainty"))
        probs = np.exp(log_probs)
        parts.append(
            {
                "row": row,
                "accuracy": metrics.classification.accuracy(probs, labels),
                "nll": metrics.classification.nll(log_probs, labels),
                "calibration_error": metrics.calibration.confidence_gap(probs, labels),
                "mean_uncertainty": {name: float(np.mean(each[row]["uncertainty"])) for name, each in found.items()},
                "own": curves(uncertainty, log_probs, labels, num_quantiles, x_scale),
                "reranked": curves(uncertainty, own, labels, num_quantiles, x_scale),
                "errors": {
                    "own": _error_auroc(uncertainty, log_probs, labels),
                    "reranked": _error_auroc(uncertainty, own, labels),
                    "entropy": _error_auroc(np.asarray(values["entropy"], np.float64), log_probs, labels),
                },
                "shared": {name: _errors(found[name][row]["log_probs"], each.labels) for name, each in (shared or {}).items()},
                "detection": _detection(found, row, labels, shared or {}),
            }
        )
    return parts


def _place(row: str) -> tuple[int, int]:
    """The network first, then by size and weighting."""
    if row == ORIGINAL:
        return 0, 0
    size, weighting = row.split()
    return int(size.split("x")[0]), WEIGHTINGS.index(weighting)


def _detection(found: dict, row: str, labels: np.ndarray, shared: dict[str, Labelled]) -> dict:
    inside, num_classes = found[TEST][row], found[TEST][row]["log_probs"].shape[-1]
    detected = {}
    for name in found:
        if name == TEST:
            continue
        detected[name] = {measure: _auroc(inside[measure], found[name][row][measure]) for measure in ("uncertainty", "entropy")}
        if name in shared and len(shared[name].classes) < num_classes:
            kept = np.isin(labels, shared[name].classes)
            if kept.any():
                detected[f"{name}, its classes"] = {
                    measure: _auroc(inside[measure][kept], found[name][row][measure]) for measure in ("uncertainty", "entropy")
                }
    return detected


def _errors(log_probs, labels: np.ndarray) -> dict[str, float]:
    log_probs = np.asarray(log_probs, np.float64)
    log_probs -= np.logaddexp.reduce(log_probs, -1, keepdims=True)
    return {
        "classes": log_probs.shape[-1],
        "accuracy": metrics.classification.accuracy(np.exp(log_probs), labels),
        "nll": metrics.classification.nll(log_probs, labels),
    }


def curves(uncertainty: np.ndarray, log_probs: np.ndarray, labels: np.ndarray, num_quantiles: int, x_scale: str) -> dict:
    """Bucket and acceptance curves, their areas, and the negative covariances of the tables."""
    found = metrics.quantiles.prediction_curves(uncertainty, log_probs, labels, num_quantiles)
    each = {name: getattr(found, name) for name in CURVES}
    area = metrics.quantiles.curve_area
    return {
        "quantile": found.accuracy.quantile.tolist(),
        "acceptance": {name: curve.acceptance.tolist() for name, curve in each.items()},
        "bucket": {name: curve.bucket.tolist() for name, curve in each.items()},
        "area": {name: area(curve.quantile, curve.acceptance) for name, curve in each.items()},
        "bucket_area": {name: area(curve.quantile, curve.bucket) for name, curve in each.items()},
        "neg_cov": {
            "calibration_error": metrics.quantiles.neg_cov(found.calibration_error.uncertainty, found.calibration_error.bucket, x_scale),
            "accuracy": metrics.quantiles.neg_cov(found.accuracy.uncertainty, found.accuracy.acceptance, x_scale),
            "nll": metrics.quantiles.neg_cov(found.nll.uncertainty, found.nll.acceptance, x_scale),
        },
    }


def _error_auroc(uncertainty: np.ndarray, log_probs: np.ndarray, labels: np.ndarray) -> float:
    return metrics.detection.auroc(uncertainty, log_probs.argmax(-1) != labels)


def _auroc(inside, outside) -> float:
    both = np.concatenate([np.asarray(inside, np.float64), np.asarray(outside, np.float64)])
    return metrics.detection.auroc(both, np.arange(len(both)) >= len(inside))
