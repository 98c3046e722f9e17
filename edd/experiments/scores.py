"""All metrics of one row by `edd.metrics`, as a tree of {"value", "low", "high"} with bootstrap intervals over examples.

All rows share the same resamples, so that their intervals are paired; in- and out-of-distribution examples are resampled
apart, so that the share of positives stays as it is.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edd.distillers.base import Prediction
from edd.metrics import bootstrap, calibration, classification, detection, fidelity, rejection

_RESAMPLED = ("prr", "aurc", "rank_correlation", "mean_error")  # of the rejection and fidelity metrics, those with intervals
FIELDS = ("total", "mutual_information", "expected_pairwise_kl", "reverse_mutual_information", "data")


class Sampling(NamedTuple):
    """The bootstrap of one report, and the metrics' options.

    Attributes:
      counts: set name -> [R, N] how often each example was drawn in each resample; empty without a bootstrap.
      against_test: set name -> [R, N_test + N_set]: the test set's resamples and the set's own side by side.
      level: coverage of the intervals.
      num_bins: of the calibration errors.
    """

    counts: dict[str, np.ndarray]
    against_test: dict[str, np.ndarray]
    level: float
    num_bins: int


def sampling(sizes: dict[str, int], *, num_resamples: int, seed: int, level: float, num_bins: int) -> Sampling:
    """The resamples of every set; a set's draws depend on `seed`, its place and its size alone."""
    counts = {}
    if num_resamples:
        seeds = np.random.SeedSequence(seed).generate_state(len(sizes)).tolist()
        counts = {name: bootstrap.draw(size, num_resamples, seed=own) for own, (name, size) in zip(seeds, sizes.items())}
    against_test = {name: np.concatenate([counts["test"], each], 1) for name, each in counts.items() if name != "test"}
    return Sampling(counts, against_test, level, num_bins)


def leaf(value: float, low: float | None = None, high: float | None = None) -> dict:
    """A metric's value and its interval (None: none was made)."""
    return {"value": float(value), "low": low, "high": high}


def measured(metric: Callable, *arrays, counts: np.ndarray | None, level: float, **options) -> dict:
    """`metric` of the arrays, with its bootstrap interval where there are resamples."""
    if counts is None:
        return leaf(metric(*arrays, **options))
    found = bootstrap.interval(metric, *arrays, counts=counts, level=level, **options)
    return leaf(found.estimate, found.lower, found.upper)


def _guard(sound: bool, names: tuple[str, ...], compute: Callable[[], dict]) -> dict:
    """`compute()`, or NaN under the same names where the row's numbers mean nothing."""
    return compute() if sound else {name: leaf(math.nan) for name in names}


def is_sound(prediction: Prediction) -> bool:
    """False when a log-probability is NaN or +inf: the network diverged and no metric of it means anything."""
    return bool(np.all(prediction.log_probs < np.inf))


def uncertainties(prediction: Prediction) -> dict[str, np.ndarray]:
    """Every measure the row has, [N] each, high = uncertain.

    "confidence" is minus the largest log-probability: it orders as minus the largest probability does, and tells apart
    probabilities that float32 rounds to one.
    """
    measures = {name: getattr(prediction, name) for name in FIELDS if getattr(prediction, name) is not None}
    measures["confidence"] = -prediction.log_probs.max(-1)
    return {name: values.astype(np.float64) for name, values in measures.items()}


def _each_once(measures: dict[str, np.ndarray], score: Callable[[np.ndarray], dict]) -> dict:
    """`score` of every measure, computed once where two are equal: a softmax network's data uncertainty is its total."""
    found: dict = {}
    for name, values in measures.items():
        twin = next((other for other in found if np.array_equal(measures[other], values)), None)
        found[name] = dict(found[twin]) if twin else score(values)
    return found


# --- in distribution --------------------------------------------------------------------------------------------------

_CLASSIFICATION = ("accuracy", "nll", "brier", "ece", "mce", "confidence_gap", "adaptive_ece", "classwise_ece")


def classification_scores(prediction: Prediction, labels: np.ndarray, how: Sampling) -> dict:
    """Accuracy, NLL, Brier and calibration on the test set. Adaptive and classwise ECE come without intervals."""
    return _guard(is_sound(prediction), _CLASSIFICATION, lambda: _classification(prediction, labels, how))


def _classification(prediction: Prediction, labels: np.ndarray, how: Sampling) -> dict:
    probs = probabilities(prediction)
    resampled = {"counts": how.counts.get("test"), "level": how.level}
    bins = {"num_bins": how.num_bins}
    return {
        "accuracy": measured(classification.accuracy, probs, labels, **resampled),
        "nll": measured(classification.nll, prediction.log_probs, labels, **resampled),
        "brier": measured(classification.brier_score, probs, labels, **resampled),
        "ece": measured(calibration.expected_calibration_error, probs, labels, **resampled, **bins),
        "mce": measured(calibration.maximum_calibration_error, probs, labels, **resampled, **bins),
        "confidence_gap": measured(calibration.confidence_gap, probs, labels, **resampled),
        "adaptive_ece": leaf(calibration.adaptive_calibration_error(probs, labels, **bins)),
        "classwise_ece": leaf(calibration.classwise_calibration_error(probs, labels, **bins)),
    }


def probabilities(prediction: Prediction) -> np.ndarray:
    """exp of the log-probabilities [N, K], in their own precision."""
    return np.exp(prediction.log_probs)


_REJECTION = {
    "prr": rejection.prediction_rejection_ratio,
    "aurc": rejection.aurc,
    "e_aurc": rejection.e_aurc,
    "augrc": rejection.augrc,
}


def rejection_scores(prediction: Prediction, labels: np.ndarray, how: Sampling) -> dict:
    """PRR, AURC, E-AURC and AUGRC when examples are rejected by each measure the row has."""
    errors = (prediction.log_probs.argmax(-1) != labels).astype(np.float64)
    sound = is_sound(prediction)

    def score(values):
        return _guard(sound and not np.isnan(values).any(), tuple(_REJECTION), lambda: _rejection(values, errors, how))

    return _each_once(uncertainties(prediction), score)


def _rejection(values: np.ndarray, errors: np.ndarray, how: Sampling) -> dict:
    resampled = {"counts": how.counts.get("test"), "level": how.level}
    once = {**resampled, "counts": None}
    return {name: measured(metric, values, errors, **(resampled if name in _RESAMPLED else once)) for name, metric in _REJECTION.items()}


# --- out of distribution ----------------------------------------------------------------------------------------------

_DETECTION = {"auroc": detection.auroc, "aupr": detection.aupr, "fpr95": detection.fpr_at_tpr}


def detection_scores(inside: Prediction, outside: Prediction, name: str, how: Sampling) -> dict:
    """AUROC, AUPR and FPR95 of telling `outside` (positive) from `inside` by each measure both have."""
    negatives, positives = uncertainties(inside), uncertainties(outside)
    sound = is_sound(inside) and is_sound(outside)

    def score(values):
        usable = sound and not np.isnan(values).any()
        return _guard(usable, tuple(_DETECTION), lambda: _detection(values, len(inside.log_probs), name, how))

    both = {measure: np.concatenate([negatives[measure], positives[measure]]) for measure in negatives if measure in positives}
    return _each_once(both, score)


def _detection(scores: np.ndarray, num_in: int, name: str, how: Sampling) -> dict:
    positive = np.arange(len(scores)) >= num_in
    resampled = {"counts": how.against_test.get(name), "level": how.level}
    return {title: measured(metric, scores, positive, **resampled) for title, metric in _DETECTION.items()}


# --- against the ensemble ---------------------------------------------------------------------------------------------

_PREDICTIONS = {"kl": fidelity.mean_kl, "agreement": fidelity.agreement}
_MEASURES = {
    "rank_correlation": fidelity.rank_correlation,
    "mean_error": fidelity.mean_error,
    "mean_absolute_error": fidelity.mean_absolute_error,
    "ratio_of_means": fidelity.ratio_of_means,
}


def fidelity_scores(prediction: Prediction, ensemble: Prediction, name: str, how: Sampling) -> dict:
    """KL from the ensemble's prediction to the row's and their agreement; per measure the rank correlation, errors and ratio."""
    sound = is_sound(prediction) and is_sound(ensemble)
    resampled = {"counts": how.counts.get(name), "level": how.level}
    pair = (ensemble.log_probs, prediction.log_probs)
    tree = _guard(sound, tuple(_PREDICTIONS), lambda: {name: measured(metric, *pair, **resampled) for name, metric in _PREDICTIONS.items()})
    for field in FIELDS:
        theirs, mine = getattr(ensemble, field), getattr(prediction, field)
        if mine is not None and theirs is not None:
            usable = sound and not np.isnan(mine).any() and not np.isnan(theirs).any()
            tree[field] = _guard(usable, tuple(_MEASURES), lambda pair=(theirs, mine): _kept(pair, resampled))
    return tree


def _kept(pair: tuple[np.ndarray, np.ndarray], resampled: dict) -> dict:
    once = {**resampled, "counts": None}
    return {name: measured(metric, *pair, **(resampled if name in _RESAMPLED else once)) for name, metric in _MEASURES.items()}


def describe(prediction: Prediction) -> tuple[dict, dict | None]:
    """Mean of each measure the row has, and the median precision (None without a Dirichlet)."""
    sound = is_sound(prediction)
    measures = {name: getattr(prediction, name) for name in FIELDS if getattr(prediction, name) is not None}
    means = {name: leaf(values.mean(dtype=np.float64) if sound else math.nan) for name, values in measures.items()}
    precision = prediction.precision
    return means, None if precision is None else leaf(np.median(precision) if sound else math.nan)
