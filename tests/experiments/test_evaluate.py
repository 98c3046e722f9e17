"""Evaluation against scikit-learn, scipy and brute-force resampling; ties, missing measures, diverged rows."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sklearn_metrics

from edd.experiments import results, scores
from edd.experiments.evaluate import RESAMPLED_SEEDS, evaluate


def entry(found, name, seed=0):
    return next(row for row in found["rows"] if row["name"] == name and row["seed"] == seed)


def value(found, name, *path):
    return results.get(entry(found, name)["metrics"], path)["value"]


def test_classification_values(evaluated):
    rows, labels, found = evaluated
    for row in rows:
        log_probs = row.predictions["test"].log_probs
        block = entry(found, row.name, row.seed)["metrics"]["classification"]
        probs = np.exp(log_probs)
        assert block["accuracy"]["value"] == pytest.approx(np.mean(probs.argmax(-1) == labels), abs=1e-12)
        assert block["nll"]["value"] == pytest.approx(sklearn_metrics.log_loss(labels, probs), rel=1e-9)
        assert block["brier"]["value"] == pytest.approx(np.mean(np.sum((probs - np.eye(4)[labels]) ** 2, -1)), rel=1e-9)
        gap, ece, mce = (block[name]["value"] for name in ("confidence_gap", "ece", "mce"))
        assert 0 <= gap <= ece + 1e-12 and ece <= mce + 1e-12 and mce <= 1


@pytest.mark.parametrize("measure", ["total", "mutual_information", "expected_pairwise_kl", "reverse_mutual_information", "data"])
def test_detection_values(evaluated, measure):
    rows, _, found = evaluated
    row = next(row for row in rows if row.name == "Proxy")
    score = np.concatenate([getattr(row.predictions[name], measure) for name in ("test", "noise")])
    positive = np.arange(len(score)) >= len(row.predictions["test"].total)
    path = ("detection", "noise", measure)
    assert value(found, "Proxy", *path, "auroc") == pytest.approx(sklearn_metrics.roc_auc_score(positive, score), abs=1e-12)
    assert value(found, "Proxy", *path, "aupr") == pytest.approx(sklearn_metrics.average_precision_score(positive, score), abs=1e-12)
    false, true, _ = sklearn_metrics.roc_curve(positive, score, drop_intermediate=False)
    assert value(found, "Proxy", *path, "fpr95") == pytest.approx(false[np.argmax(true >= 0.95)], abs=1e-12)


def test_confidence_orders_as_the_largest_probability(evaluated):
    rows, _, found = evaluated
    row = next(row for row in rows if row.name == "EnD")
    score = np.concatenate([-np.exp(row.predictions[name].log_probs).max(-1) for name in ("test", "noise")])
    expected = sklearn_metrics.roc_auc_score(np.arange(len(score)) >= len(row.predictions["test"].total), score)
    assert value(found, "EnD", "detection", "noise", "confidence", "auroc") == pytest.approx(expected, abs=1e-12)


def test_fidelity_values(evaluated):
    rows, _, found = evaluated
    whole, proxy = (next(row for row in rows if row.name == name).predictions["noise"] for name in ("Ensemble", "Proxy"))
    kl = scipy.stats.entropy(np.exp(whole.log_probs), np.exp(proxy.log_probs), axis=-1).mean()
    assert value(found, "Proxy", "fidelity", "noise", "kl") == pytest.approx(kl, rel=1e-9)
    rank = scipy.stats.spearmanr(whole.mutual_information, proxy.mutual_information).statistic
    path = ("fidelity", "noise", "mutual_information")
    assert value(found, "Proxy", *path, "rank_correlation") == pytest.approx(rank, abs=1e-12)
    error = np.mean(proxy.mutual_information - whole.mutual_information)
    assert value(found, "Proxy", *path, "mean_error") == pytest.approx(error, abs=1e-12)
    assert "fidelity" not in entry(found, "Ensemble")["metrics"]


def test_interval_is_the_percentile_of_explicit_resamples(evaluated):
    rows, labels, found = evaluated
    row = next(row for row in rows if row.name == "Proxy")
    how = scores.sampling({"test": 80, "noise": 60}, num_resamples=40, seed=0, level=0.95, num_bins=15)
    prediction = row.predictions["test"]
    score = np.concatenate([prediction.total, row.predictions["noise"].total])
    positive = np.arange(len(score)) >= 80
    areas, right = [], []
    for counts in how.against_test["noise"]:
        assert counts[:80].sum() == 80 and counts[80:].sum() == 60
        drawn = np.repeat(np.arange(140), counts)
        areas.append(sklearn_metrics.roc_auc_score(positive[drawn], score[drawn]))
        right.append(np.mean(np.repeat(prediction.log_probs.argmax(-1) == labels, counts[:80])))
    for replicates, path in ((areas, ("detection", "noise", "total", "auroc")), (right, ("classification", "accuracy"))):
        leaf = results.get(entry(found, "Proxy")["metrics"], path)
        assert leaf["low"] == pytest.approx(np.sort(replicates)[0], abs=1e-12)  # 2.5 % of 40, rounded outwards
        assert leaf["high"] == pytest.approx(np.sort(replicates)[-1], abs=1e-12)
        assert leaf["low"] < leaf["value"] < leaf["high"]


def test_only_the_first_seeds_are_resampled(make_rows):
    rows, labels = make_rows(num_test=20, num_out=20, seeds=RESAMPLED_SEEDS + 1)
    found = evaluate(rows, labels, num_resamples=5)
    lows = [row["metrics"]["classification"]["nll"]["low"] for row in found["rows"] if row["name"] == "EnD"]
    assert all(low is not None for low in lows[:-1]) and lows[-1] is None
    pooled = next(row for row in found["summary"] if row["name"] == "EnD")["metrics"]["classification"]["nll"]
    assert pooled["low"] == pytest.approx(np.mean(lows[:-1]))
    assert pooled["of"] == RESAMPLED_SEEDS + 1


def test_no_resamples_no_intervals(make_rows):
    rows, labels = make_rows(num_test=20, num_out=10, seeds=1)
    found = evaluate(rows, labels, num_resamples=0)
    leaf = entry(found, "Proxy")["metrics"]["detection"]["noise"]["total"]["auroc"]
    assert (leaf["low"], leaf["high"]) == (None, None) and 0 <= leaf["value"] <= 1


def test_ties_and_row_order(make_rows):
    rows, labels = make_rows(num_test=40, num_out=20, seeds=1)
    rows = [row for row in rows if row.name in ("Ensemble", "Proxy")]
    flat = {name: each._replace(mutual_information=np.full(len(each.total), 0.25)) for name, each in rows[1].predictions.items()}
    rows[1] = rows[1]._replace(predictions=flat)
    found = evaluate(rows, labels, num_resamples=3)
    constant = entry(found, "Proxy")["metrics"]["detection"]["noise"]["mutual_information"]
    assert [constant[name]["value"] for name in ("auroc", "aupr", "fpr95")] == pytest.approx([0.5, 1 / 3, 1.0])
    error = 1 - value(found, "Proxy", "classification", "accuracy")
    assert value(found, "Proxy", "rejection", "mutual_information", "aurc") == pytest.approx(error)
    assert math.isnan(value(found, "Proxy", "fidelity", "test", "mutual_information", "rank_correlation"))

    order = np.random.default_rng(1).permutation(40)
    shuffled = [
        row._replace(
            predictions={
                name: type(each)(*(None if field is None else field[order] if name == "test" else field[::-1] for field in each))
                for name, each in row.predictions.items()
            }
        )
        for row in rows
    ]
    again = evaluate(shuffled, labels[order], num_resamples=0)
    for name in ("Ensemble", "Proxy"):
        for (path, one), (_, two) in zip(results.leaves(entry(found, name)["metrics"]), results.leaves(entry(again, name)["metrics"])):
            assert one["value"] == pytest.approx(two["value"], rel=1e-12, abs=1e-15, nan_ok=True), path


def test_missing_measures_are_absent_not_zero(evaluated):
    found = evaluated[-1]
    for block in ("rejection", "uncertainty"):
        tree = entry(found, "EnD")["metrics"][block]
        tree = tree if block == "rejection" else tree["test"]
        assert "mutual_information" not in tree and "total" in tree
    assert "precision" not in entry(found, "EnD")["metrics"]
    assert set(entry(found, "EnD")["metrics"]["fidelity"]["test"]) == {"kl", "agreement", "total", "data"}


def test_diverged_row_is_nan_everywhere_and_said(make_rows):
    rows, labels = make_rows(num_test=30, num_out=20)
    healthy = evaluate(rows, labels, num_resamples=4)
    index = next(index for index, row in enumerate(rows) if row.name == "Proxy" and row.seed == 1)
    broken = rows[index].predictions["test"].log_probs.copy()
    broken[3] = np.nan
    rows[index] = rows[index]._replace(
        predictions={**rows[index].predictions, "test": rows[index].predictions["test"]._replace(log_probs=broken)}
    )
    found = evaluate(rows, labels, num_resamples=4)
    bad, good = entry(found, "Proxy", 1), entry(healthy, "Proxy", 1)
    assert [path for path, _ in results.leaves(bad["metrics"])] == [path for path, _ in results.leaves(good["metrics"])]
    touched = {path: leaf for path, leaf in results.leaves(bad["metrics"]) if path[0] in ("classification", "rejection", "detection")}
    assert touched and all(math.isnan(leaf["value"]) for leaf in touched.values())
    assert not math.isnan(bad["metrics"]["fidelity"]["noise"]["kl"]["value"])  # the other set is sound
    assert bad["notes"] == ["1 of 30 predictions on test are not numbers: its metrics there are NaN"]
    pooled = next(row for row in found["summary"] if row["name"] == "Proxy")
    accuracy = pooled["metrics"]["classification"]["accuracy"]
    assert (accuracy["n"], accuracy["of"]) == (2, 3) and accuracy["mean"] > 0.3
    assert pooled["notes"] == ["seed 1: " + bad["notes"][0]]


def test_measure_with_nan_touches_only_itself(make_rows):
    rows, labels = make_rows(num_test=30, num_out=20, seeds=1)
    test = rows[-1].predictions["test"]
    values = test.expected_pairwise_kl.copy()
    values[0] = np.nan
    rows[-1] = rows[-1]._replace(predictions={**rows[-1].predictions, "test": test._replace(expected_pairwise_kl=values)})
    found = evaluate(rows, labels, num_resamples=2)
    assert math.isnan(value(found, "Proxy", "detection", "noise", "expected_pairwise_kl", "auroc"))
    assert 0 <= value(found, "Proxy", "detection", "noise", "total", "auroc") <= 1
    assert 0 <= value(found, "Proxy", "classification", "accuracy") <= 1


def test_infinite_measure_ranks_last(make_rows):
    rows, labels = make_rows(num_test=30, num_out=20, seeds=1)
    out = rows[-1].predictions["noise"]
    rows[-1] = rows[-1]._replace(
        predictions={**rows[-1].predictions, "noise": out._replace(expected_pairwise_kl=np.full(len(out.total), np.inf))}
    )
    found = evaluate(rows, labels, num_resamples=2)
    assert value(found, "Proxy", "detection", "noise", "expected_pairwise_kl", "auroc") == 1.0
    assert value(found, "Proxy", "uncertainty", "noise", "expected_pairwise_kl") == math.inf
    text = json.dumps(results.encode(found), allow_nan=False)
    assert results.decode(json.loads(text)) == results.plain(found)


def test_costs_and_reference(evaluated):
    found = evaluated[-1]
    assert entry(found, "Proxy")["costs"] == pytest.approx(
        {"parameters": 100.0, "milliseconds_per_1000": 1.2, "times_cheaper": 2.5, "times_smaller": 3.0}
    )
    assert entry(found, "Ensemble")["reference"] == {"error": 0.011}
    assert found["settings"]["data"] == {"arms": 3} and "settings" not in found["run"]


def test_unknown_costs_stay_unknown(make_rows):
    rows, labels = make_rows(num_test=20, num_out=10, seeds=1)
    rows = [row._replace(milliseconds_per_1000=None, parameters=None) for row in rows]
    found = evaluate(rows, labels, num_resamples=0)
    assert set(entry(found, "Proxy")["costs"].values()) == {None}


def test_median_precision(evaluated):
    rows, _, found = evaluated
    row = next(row for row in rows if row.name == "Proxy")
    assert value(found, "Proxy", "precision", "noise") == pytest.approx(np.median(row.predictions["noise"].precision))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows, labels: ([], labels), "at least one row"),
        (lambda rows, labels: ([rows[0], rows[0]], labels), "'Single' with seed 0 is there 2 times"),
        (lambda rows, labels: ([rows[0]._replace(predictions={"noise": rows[0].predictions["noise"]})], labels), "on the set 'test'"),
        (lambda rows, labels: ([rows[0], rows[1]._replace(predictions={"test": rows[1].predictions["test"]})], labels), "has the sets"),
        (lambda rows, labels: (rows, labels[:-1]), "labels must be integers of shape"),
        (lambda rows, labels: (rows, labels.astype(float)), "labels must be integers"),
        (lambda rows, labels: (rows, labels + 1), r"labels must lie in \[0, 4\)"),
        (
            lambda rows, labels: (
                [rows[0]._replace(predictions={**rows[0].predictions, "test": rows[0].predictions["test"]._replace(total=np.zeros(3))})],
                labels,
            ),
            "row 'Single', set 'test': total must have shape",
        ),
    ],
)
def test_bad_rows(make_rows, change, message):
    rows, labels = change(*make_rows(num_test=10, num_out=5, seeds=1))
    with pytest.raises(ValueError, match=message):
        evaluate(rows, labels, num_resamples=0)


@pytest.mark.parametrize("option", [{"num_resamples": -1}, {"level": 1.0}, {"num_bins": 0}])
def test_bad_options(make_rows, option):
    rows, labels = make_rows(num_test=10, num_out=5, seeds=1)
    with pytest.raises(ValueError, match=next(iter(option))):
        evaluate(rows, labels, **option)
