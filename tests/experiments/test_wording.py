"""The opening says what the numbers say, also where there is no ensemble, no out-of-distribution set or a diverged student."""

import re

import numpy as np

from edd.experiments import results, wording
from edd.experiments.evaluate import evaluate


def text(found):
    return {heading: " ".join(paragraphs) for heading, paragraphs in wording.opening(found)}


def mean(found, name, *path):
    return results.get(next(entry for entry in found["summary"] if entry["name"] == name)["metrics"], path)["mean"]


def test_opening(evaluated):
    found = evaluated[-1]
    sections = text(found)
    assert list(sections) == ["What the ensemble knows", "What each student kept", "What it cost"]
    accuracy, single = (100 * mean(found, name, "classification", "accuracy") for name in ("Ensemble", "Single"))
    assert f"ensemble of 3 classifies **{accuracy:.2f} %** of 80 test" in sections["What the ensemble knows"]
    assert f"{single:.2f} % on average" in sections["What the ensemble knows"]
    area = 100 * mean(found, "Ensemble", "detection", "noise", "mutual_information", "auroc")
    assert f"**{area:.1f} %** of the time (AUROC)" in sections["What the ensemble knows"]
    kept = sections["What each student kept"]
    assert "**EnD** (mean of 3 seeds)" in kept and "keeps no knowledge uncertainty" in kept
    rank = mean(found, "Proxy", "fidelity", "test", "mutual_information", "rank_correlation")
    assert f"rank correlation of {rank:.2f}" in kept
    mine, theirs = (mean(found, name, "precision", "test") for name in ("Proxy", "Ensemble"))
    assert f"median precision on test examples is {mine:.1f} (the ensemble's proxy: {theirs:.1f})" in kept
    assert "3.0 times smaller" in sections["What it cost"] and "2.5 to 2.7 times" in sections["What it cost"]


def test_rows_trained_on_labels_alone_are_told_apart(make_rows):
    rows, labels = make_rows(num_test=10, seeds=1)
    sections = text(evaluate([row._replace(group="baseline") if row.name == "Proxy" else row for row in rows], labels, num_resamples=0))
    assert "**Proxy**" in sections["What training on labels alone gives"] and "Proxy**" not in sections["What each student kept"]


def test_points_have_the_right_sign(evaluated):
    found = evaluated[-1]
    gap = 100 * (mean(found, "EnD", "classification", "accuracy") - mean(found, "Ensemble", "classification", "accuracy"))
    sentence = re.search(r"\*\*EnD\*\*.*?correctly, (.*?)\. ", text(found)["What each student kept"]).group(1)
    expected = "as the ensemble does" if abs(gap) < 0.005 else f"{abs(gap):.2f} points {'below' if gap < 0 else 'above'} the ensemble"
    assert sentence == expected


def test_without_ensemble_costs_and_other_sets(make_rows):
    rows, labels = make_rows(num_test=10, seeds=1, out_sets=())
    rows = [row._replace(milliseconds_per_1000=None, parameters=None) for row in rows if row.group == "student"]
    sections = text(evaluate(rows, labels, num_resamples=0))
    assert list(sections) == ["What each student kept"] and "ensemble" not in sections["What each student kept"]


def test_diverged_students(make_rows):
    rows, labels = make_rows(num_test=10, num_out=5, seeds=2)
    bad = {"EnD": 2, "Proxy": 1}
    for index, row in enumerate(rows):
        if bad.get(row.name, 0) > row.seed:
            broken = {name: each._replace(log_probs=each.log_probs * np.nan) for name, each in row.predictions.items()}
            rows[index] = row._replace(predictions=broken)
    kept = text(evaluate(rows, labels, num_resamples=0))["What each student kept"]
    assert "**EnD** gave predictions that are not numbers" in kept and "**Proxy** (mean of 1 of 2 seeds)" in kept
    assert "nan" not in kept.lower()


def test_study_and_title(make_rows):
    rows, labels = make_rows(num_test=10, num_out=5, seeds=1)
    runs = [evaluate(rows, labels, settings={"name": f"spirals-{arms}", "data": {"arms": arms}}, num_resamples=0) for arms in (3, 6)]
    merged = results.merge(runs)
    assert wording.title(merged).startswith("spirals: ") and wording.title(runs[0]).startswith("spirals-3: ")
    study = text(merged)["What was compared"]
    error = 100 * (1 - mean(merged, "Ensemble", "classification", "accuracy"))
    assert "2 runs that differ in `data.arms`" in study and f"Ensemble {error:.2f} %" in study and "**arms = 6**" in study
