"""How much of the ensemble's uncertainty the student kept.

Every function compares two vectors (or predictions) over the same examples, *the ensemble first, the student second*. A measure
is one number for each example: any of `edd.uncertainty`'s five, in nats. Rank correlation asks whether the student orders the
examples as the ensemble does, the errors and the ratio of means whether it also has the amounts.

Every scalar takes `counts`: how many times each row counts, [N] (a mask or a frequency weight) or [R, N] (one row for each
bootstrap resample; the result is then a float64 array [R]).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Real

from edd.metrics import host
from edd.typing import ArrayLike, Float

Counts = ArrayLike | None


class MeasureFidelity(NamedTuple):
    """One measure of the student against the ensemble's: see the functions of the same names."""

    rank_correlation: float
    mean_error: float
    mean_absolute_error: float
    ratio_of_means: float


class Summary(NamedTuple):
    """`measures` by name; `mean_kl` (nats) and `agreement` (fraction) of the predictions, None when these were not given."""

    measures: dict[str, MeasureFidelity]
    mean_kl: float | None
    agreement: float | None


def _pair(ensemble, student) -> tuple[np.ndarray, np.ndarray]:
    ensemble = host.vector(ensemble, "ensemble")
    return ensemble, host.vector(student, "student", ensemble.size)


def _errors(ensemble, student) -> np.ndarray:
    ensemble, student = _pair(ensemble, student)
    same = ensemble == student  # equal infinities differ by 0
    return np.where(same, 0.0, np.where(same, 0.0, student) - np.where(same, 0.0, ensemble))


def rank_correlation(
    ensemble: Real[ArrayLike, " N"], student: Real[ArrayLike, " N"], *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Spearman's rank correlation of a measure of the student with the ensemble's; ties share their middle rank.

    Cost: two sorts, then O(N) for each row of `counts`.

    Args:
      ensemble: the ensemble's measure; +-inf are fine (they rank last and first).
      student: the student's measure of the same examples.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [-1, 1]: 1 when both order the examples alike; nan when either is constant (then there is no order to keep).

    Raises:
      ValueError: NaN, other lengths, no example.

    References:
      Spearman 1904; scipy's `spearmanr(ensemble, student).statistic`.

    Examples:
      >>> rank_correlation([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 4.0, 3.0])
      0.8
    """
    groups = [host.tie_groups(values) for values in _pair(ensemble, student)]

    def statistic(counts):
        doubled = []  # 2 rank - 1 - N, whole numbers with mean zero
        for order, first, last in groups:
            ranks = host.prefix_sum(counts[order])
            centred = np.empty(counts.size)
            centred[order] = ranks[first] + ranks[last] - ranks[-1]
            doubled.append(centred)
        one, two = doubled
        scale = np.sqrt(((counts * one) @ one) * ((counts * two) @ two))
        return np.clip((counts * one) @ two / scale, -1.0, 1.0) if scale > 0 else np.nan

    return host.evaluate(statistic, counts, groups[0].order.size)


def mean_error(
    ensemble: Real[ArrayLike, " N"], student: Real[ArrayLike, " N"], *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Mean of student minus ensemble: the bias of a measure, in its unit (nats).

    Args:
      ensemble: the ensemble's measure; infinities pass.
      student: the student's measure of the same examples.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      Any sign: negative when the student lost uncertainty, 0 when the means agree. Two equal infinities differ by 0, unequal ones
      give +-inf, infinite errors of both signs nan.

    Raises:
      ValueError: NaN, other lengths, no example.

    References:
      The mean signed deviation.

    Examples:
      >>> mean_error([0.5, 1.0], [0.25, 0.75])
      -0.25
    """
    errors = _errors(ensemble, student)
    return host.evaluate(host.mean_of(errors), counts, errors.size)


def mean_absolute_error(
    ensemble: Real[ArrayLike, " N"], student: Real[ArrayLike, " N"], *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Mean of |student minus ensemble|: the typical error of a measure, in its unit (nats).

    Args:
      ensemble: the ensemble's measure; infinities pass.
      student: the student's measure of the same examples.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      >= 0, and at least |`mean_error`|; 0 exactly when the two are equal everywhere. Two equal infinities differ by 0.

    Raises:
      ValueError: NaN, other lengths, no example.

    References:
      The mean absolute deviation.

    Examples:
      >>> mean_absolute_error([0.5, 1.0], [0.75, 0.75])
      0.25
    """
    errors = np.abs(_errors(ensemble, student))
    return host.evaluate(host.mean_of(errors), counts, errors.size)


def ratio_of_means(
    ensemble: Real[ArrayLike, " N"], student: Real[ArrayLike, " N"], *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """The student's mean measure divided by the ensemble's: the fraction of the uncertainty it kept.

    Args:
      ensemble: the ensemble's measure; infinities pass.
      student: the student's measure of the same examples.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      1 when the amounts agree on average, 0 when the student has none left, above 1 when it is more uncertain than the ensemble.
      +inf when the ensemble's mean is 0 and the student's is not; nan when both are 0, or both infinite.

    Raises:
      ValueError: NaN, other lengths, no example.

    References:
      None: the plain quotient, of means and not the mean of quotients (which the smallest measures would rule).

    Examples:
      >>> ratio_of_means([0.5, 1.5], [0.5, 0.5])
      0.5
    """
    ensemble, student = _pair(ensemble, student)
    means = [host.mean_of(values) for values in (ensemble, student)]

    def statistic(counts):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.float64(means[1](counts)) / np.float64(means[0](counts))

    return host.evaluate(statistic, counts, ensemble.size)


def _log_prob_pair(ensemble_log_probs, student_log_probs) -> tuple[np.ndarray, np.ndarray]:
    ensemble = host.log_probabilities(ensemble_log_probs, "ensemble_log_probs")
    student = host.log_probabilities(student_log_probs, "student_log_probs")
    if ensemble.shape != student.shape:
        raise ValueError(f"ensemble_log_probs {ensemble.shape} and student_log_probs {student.shape} must have the same shape")
    return ensemble, student


def _normalised(log_probs: np.ndarray) -> np.ndarray:
    return log_probs - np.log(np.exp(log_probs).sum(-1, keepdims=True))


def mean_kl(
    ensemble_log_probs: Float[ArrayLike, "N K"], student_log_probs: Float[ArrayLike, "N K"], *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Mean Kullback-Leibler divergence from the ensemble's to the student's prediction, KL(ensemble || student), in nats.

    The rounding of float32 log-probabilities is normalised away in float64 and each class adds p (x - 1 - ln x) >= 0 with x = q/p, so
    that nearly equal predictions do not cancel to a negative value.

    Args:
      ensemble_log_probs: logarithm of the members' mean prediction; -inf is a probability of exactly zero.
      student_log_probs: the student's log-probabilities of the same examples.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      >= 0; 0 when the predictions are equal; +inf when the student excludes a class that the ensemble allows.

    Raises:
      ValueError: log-probabilities whose exp does not sum to 1, NaN, different shapes.

    References:
      Kullback & Leibler 1951; up to the ensemble's entropy the distillation loss of Hinton et al. 2015.

    Examples:
      >>> import numpy as np
      >>> round(mean_kl(np.log([[0.5, 0.5]]), np.log([[0.8, 0.2]])), 4)
      0.2231
    """
    ensemble, student = _log_prob_pair(ensemble_log_probs, student_log_probs)
    values = np.empty(ensemble.shape[0])
    for rows, block in host.blocks(ensemble):
        log_p, log_q = _normalised(block), _normalised(student[rows].astype(np.float64))
        with np.errstate(invalid="ignore", over="ignore"):  # where p or q is zero: replaced below
            ratio = log_p - log_q
            terms = np.exp(log_p) * (ratio + np.expm1(-ratio))
            large = ~(np.abs(ratio) < 30)  # there exp(log_q) is written out: expm1 may overflow, and p may be zero
            direct = np.where(np.isneginf(log_p), 0.0, np.exp(log_p) * ratio) - np.exp(log_p) + np.exp(log_q)
        values[rows] = np.where(large, direct, terms).sum(-1)
    return host.evaluate(host.mean_of(values), counts, values.size)


def agreement(
    ensemble_log_probs: Float[ArrayLike, "N K"], student_log_probs: Float[ArrayLike, "N K"], *, counts: Counts = None
) -> float | Float[np.ndarray, " R"]:
    """Fraction of examples for which student and ensemble predict the same class (first class among equals).

    Args:
      ensemble_log_probs: logarithm of the members' mean prediction.
      student_log_probs: the student's log-probabilities of the same examples.
      counts: whole numbers >= 0, how many times each row counts: [N], or [R, N]; None counts each row once.

    Returns:
      In [0, 1]; 1 when all predicted classes agree, right or wrong.

    Raises:
      ValueError: log-probabilities whose exp does not sum to 1, NaN, different shapes.

    References:
      Stanton et al. 2021, "Does knowledge distillation really work?" ("average top-1 agreement").

    Examples:
      >>> import numpy as np
      >>> agreement(np.log([[0.6, 0.4], [0.6, 0.4]]), np.log([[0.9, 0.1], [0.3, 0.7]]))
      0.5
    """
    ensemble, student = _log_prob_pair(ensemble_log_probs, student_log_probs)
    same = (ensemble.argmax(-1) == student.argmax(-1)).astype(np.float64)
    return host.evaluate(host.mean_of(same), counts, same.size)


def summary(
    ensemble: Mapping[str, ArrayLike | None],
    student: Mapping[str, ArrayLike | None],
    ensemble_log_probs: Float[ArrayLike, "N K"] | None = None,
    student_log_probs: Float[ArrayLike, "N K"] | None = None,
) -> Summary:
    """Fidelity of every measure that both sides have, and of the predictions when both are given.

    Args:
      ensemble: name -> the ensemble's measure [N]; None (or no entry) where it has none.
      student: name -> the student's measure [N]; None (or no entry) where the method has none.
      ensemble_log_probs: logarithm of the members' mean prediction, or None.
      student_log_probs: the student's log-probabilities, or None.

    Returns:
      `Summary`; its `measures` keep the ensemble's order and leave out what one side lacks.

    Raises:
      ValueError: NaN, other lengths; one of the two predictions without the other.

    References:
      The functions of this module.

    Examples:
      >>> kept = summary({"mutual_information": [0.1, 0.4]}, {"mutual_information": [0.1, 0.2], "total_uncertainty": None})
      >>> [round(value, 3) for value in kept.measures["mutual_information"]]
      [1.0, -0.1, 0.1, 0.6]
    """
    if (ensemble_log_probs is None) != (student_log_probs is None):
        raise ValueError("ensemble_log_probs and student_log_probs must be given together")
    functions = (rank_correlation, mean_error, mean_absolute_error, ratio_of_means)
    shared = [name for name in ensemble if ensemble[name] is not None and student.get(name) is not None]
    measures = {name: MeasureFidelity(*(function(ensemble[name], student[name]) for function in functions)) for name in shared}
    if ensemble_log_probs is None:
        return Summary(measures, None, None)
    predictions = (ensemble_log_probs, student_log_probs)
    return Summary(measures, mean_kl(*predictions), agreement(*predictions))
