"""From predictions to results: every number of the report, per row and seed, as one JSON-able dict (see `results`)."""

from collections.abc import Sequence

import numpy as np

from edd.experiments import collapse, results, scores
from edd.experiments.predictions import Row, as_numpy
from edd.experiments.results import SCHEMA

__all__ = ["Row", "evaluate"]

RESAMPLED_SEEDS = 3  # of each name: the interval of a typical seed needs no more, and ensembles have many members


def evaluate(
    rows: Sequence[Row],
    labels: np.ndarray,
    *,
    settings: dict | None = None,
    run: dict | None = None,
    reference: dict[str, dict[str, float]] | None = None,
    ensemble: str = "Ensemble",
    num_resamples: int = 200,
    level: float = 0.95,
    num_bins: int = 15,
    seed: int = 0,
) -> dict:
    """Scores every row on the test set, against every out-of-distribution set, and against the ensemble.

    Cost: one sort per measure and set, then O(N R) for the R bootstrap resamples; seconds for ten thousand examples.

    Args:
      rows: the networks, one per name and seed; the one named `ensemble` is what the others are compared with.
      labels: classes [N] of the "test" set, integers in [0, K).
      settings: the run's settings, nested; settings that differ between merged runs become columns. None: `run["settings"]`.
      run: information about the run for the report, the contents of run.json: machine, versions, date, command, commit.
      reference: row name -> metric -> the paper's value, as fractions; metrics are named as `tables.metric_path` reads them.
      ensemble: name of the ensemble's row; there may be none, then there is no fidelity block and no relative cost.
      num_resamples: bootstrap resamples, >= 0; 0 makes no intervals.
      level: coverage of the intervals, in (0, 1).
      num_bins: bins of ECE and MCE, >= 1.
      seed: of the bootstrap.

    Returns:
      A results dict (schema in `results`): `results.save` writes it, `report.write` renders it. A measure that a row does not
      have has no entry. A row whose predictions are not numbers keeps its entries as NaN and says so in its "notes".

    Raises:
      ValueError: no rows, a row twice, sets that differ between rows, arrays whose lengths disagree, a label out of range, a
        range violated; the message names the row and the set.
    """
    rows = [row._replace(predictions={name: as_numpy(each) for name, each in row.predictions.items()}) for row in rows]
    labels = np.asarray(labels)
    sizes = _check_rows(rows, labels)
    _check_options(num_resamples, level, num_bins)
    how = scores.sampling(sizes, num_resamples=num_resamples, seed=seed, level=level, num_bins=num_bins)
    teacher = next((row for row in rows if row.name == ensemble), None)
    entries = []
    for row in rows:
        resampled = sum(entry["name"] == row.name for entry in entries) < RESAMPLED_SEEDS
        drawn = how if resampled else how._replace(counts={}, against_test={})
        entries.append(_entry(row, teacher, labels, drawn, (reference or {}).get(row.name, {})))
    return {
        "schema": SCHEMA,
        "run": results.plain({name: value for name, value in (run or {}).items() if name != "settings"}),
        "settings": results.plain(settings if settings is not None else (run or {}).get("settings", {})),
        "conventions": conventions(num_bins=num_bins, level=level, num_resamples=num_resamples),
        "sets": {name: {"kind": "in" if name == "test" else "out", "examples": size} for name, size in sizes.items()},
        "rows": entries,
        "summary": results.summarise(entries),
    }


def _entry(row: Row, teacher: Row | None, labels: np.ndarray, how: scores.Sampling, reference: dict) -> dict:
    test = row.predictions["test"]
    metrics: dict = {
        "classification": scores.classification_scores(test, labels, how),
        "rejection": scores.rejection_scores(test, labels, how),
        "detection": {name: scores.detection_scores(test, each, name, how) for name, each in row.predictions.items() if name != "test"},
    }
    described = {name: scores.describe(each) for name, each in row.predictions.items()}
    metrics["uncertainty"] = {name: means for name, (means, _) in described.items()}
    metrics["precision"] = {name: precision for name, (_, precision) in described.items() if precision is not None}
    if teacher is not None and row.name != teacher.name:
        metrics["fidelity"] = {
            name: scores.fidelity_scores(each, teacher.predictions[name], name, how) for name, each in row.predictions.items()
        }
    return {
        "name": row.name,
        "group": row.group,
        "seed": int(row.seed),
        "run": 0,
        "variant": {},
        "metrics": {block: tree for block, tree in metrics.items() if tree},
        "costs": _costs(row, teacher),
        "notes": _notes(row, teacher),
        "reference": {metric: float(value) for metric, value in reference.items()},
    }


def _costs(row: Row, teacher: Row | None) -> dict:
    costs = {"parameters": row.parameters, "milliseconds_per_1000": row.milliseconds_per_1000}
    costs = {name: None if value is None else float(value) for name, value in costs.items()}
    for name, cost in (("times_cheaper", "milliseconds_per_1000"), ("times_smaller", "parameters")):
        whole = None if teacher is None else getattr(teacher, cost)
        costs[name] = float(whole) / costs[cost] if whole is not None and costs[cost] else None
    return costs


def share(row: Row, teacher: Row) -> float | None:
    """Mean mutual information on the test set, the row's over the ensemble's; None where either has none."""
    own, whole = (each.predictions["test"].mutual_information for each in (row, teacher))
    return None if own is None or whole is None or not np.mean(whole) > 0 else float(np.mean(own) / np.mean(whole))


def _notes(row: Row, teacher: Row | None) -> list[str]:
    told = None if teacher is None or row.name == teacher.name else collapse.told(row.name, share(row, teacher), "mutual information")
    notes = [told] if told else []
    for name, prediction in row.predictions.items():
        bad = int((~(prediction.log_probs < np.inf)).any(-1).sum())
        if bad:
            notes.append(f"{bad:,} of {len(prediction.log_probs):,} predictions on {name} are not numbers: its metrics there are NaN")
    return notes


def conventions(*, num_bins: int = 15, level: float = 0.95, num_resamples: int = 200) -> dict[str, str]:
    """What each metric means, in words, for the report's footer and for `merge`, which pools equal conventions only."""
    return {
        "units": "uncertainties, NLL and KL in nats; results.json holds fractions, the report prints percent where a heading says %",
        "predictions": "students predict softmax(z); the measures of EnD2 and proxy students are those of a Dirichlet with concentration "
        "exp(z) + predict_offset (each method's options are listed with the run)",
        "NLL": "minus the mean log-probability of the label; of the mean prediction for an ensemble",
        "Brier": "squared error summed over classes, mean over examples",
        "ECE, MCE": f"{num_bins} equal-width right-closed bins of the largest probability, 0 in the first, 1 in the last; empty bins add 0",
        "adaptive ECE": f"{num_bins} equal-mass bins, ties never split over bins",
        "classwise ECE": f"mean over classes of the binary ECE, {num_bins} equal-width right-closed bins",
        "confidence gap": "|mean confidence - accuracy|",
        "PRR": "rejected examples are handed to an oracle, the denominator stays N; 1 is the oracle's order, 0 random; ties averaged",
        "AURC": "mean error among the kept over all coverages, ties averaged; E-AURC: minus the best possible; AUGRC: error times coverage",
        "AUROC, AUPR": "scikit-learn's (AUPR a step sum); positive: out-of-distribution, score: the uncertainty",
        "FPR95": "false-positive rate at the first threshold with a true-positive rate of at least 95 %, no interpolation",
        "measures": "H entropy of the mean, I mutual information, K expected pairwise KL over all M*M ordered pairs, M reverse mutual "
        "information (K = I + M), E H expected entropy; for Dirichlets in closed form",
        "fidelity": "Spearman rank correlation and mean error (row minus ensemble) of each measure; KL(ensemble || row) of the predictions",
        "precision": "median Dirichlet precision (sum of the concentration); the ensemble's is its proxy's, Stirling estimate",
        "intervals": f"{100 * level:.0f} % percentile bootstrap over examples, {num_resamples} resamples shared by all rows, in- and "
        "out-of-distribution examples resampled apart; over several seeds, the mean of the first "
        f"{RESAMPLED_SEEDS} seeds' interval ends",
        "spread": "± is the sample standard deviation over seeds (over members for single networks)",
    }


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_options(num_resamples: int, level: float, num_bins: int) -> None:
    if num_resamples < 0:
        raise ValueError(f"num_resamples must be >= 0, got {num_resamples}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    if num_bins < 1:
        raise ValueError(f"num_bins must be >= 1, got {num_bins}")


def _check_rows(rows: list[Row], labels: np.ndarray) -> dict[str, int]:
    """Sizes of the sets, "test" first."""
    if not rows:
        raise ValueError("rows must hold at least one row")
    keys = [(row.name, row.seed) for row in rows]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"row {key[0]!r} with seed {key[1]} is there {keys.count(key)} times: names and seeds must differ")
    first = rows[0].predictions
    if "test" not in first:
        raise ValueError(f"row {rows[0].name!r} must have predictions on the set 'test', got {sorted(first)}")
    sizes = {name: len(first[name].log_probs) for name in ("test", *(name for name in first if name != "test"))}
    num_classes = first["test"].log_probs.shape[-1]
    for row in rows:
        if row.predictions.keys() != first.keys():
            raise ValueError(f"row {row.name!r} has the sets {sorted(row.predictions)}, row {rows[0].name!r} has {sorted(first)}")
        for name, prediction in row.predictions.items():
            _check_prediction(prediction, (sizes[name], num_classes), f"row {row.name!r}, set {name!r}")
    if labels.shape != (sizes["test"],) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers of shape ({sizes['test']},), got {labels.dtype} {labels.shape}")
    if labels.size == 0 or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes}) and be at least one, got {labels.size} from {labels.min(initial=0)}")
    return sizes


def _check_prediction(prediction, shape: tuple[int, int], where: str) -> None:
    if prediction.log_probs.shape != shape:
        raise ValueError(f"{where}: log_probs must have shape {shape}, got {prediction.log_probs.shape}")
    for field in prediction._fields[1:]:
        values = getattr(prediction, field)
        if values is not None and values.shape != shape[:1]:
            raise ValueError(f"{where}: {field} must have shape {shape[:1]}, got {values.shape}")
