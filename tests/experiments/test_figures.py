"""Figures: what is drawn agrees with the metrics, nothing fails on rows without a measure, diverged rows or ties."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from edd.experiments import figures, results
from edd.experiments.evaluate import evaluate


@pytest.fixture(scope="module")
def rows(evaluated):
    return figures.representatives(evaluated[0])


def lines(axis):
    return {line.get_label(): line.get_xydata() for line in axis.lines if not line.get_label().startswith("_")}


def diverged(row):
    test = row.predictions["test"]
    return row._replace(predictions={**row.predictions, "test": test._replace(log_probs=test.log_probs * np.nan)})


def test_representatives_are_the_first_of_each_name(evaluated, rows):
    assert [row.name for row in rows] == ["Single", "Ensemble", "Proxy Dirichlet", "EnD", "Proxy"]
    assert all(row.seed == 0 for row in rows)


def test_knowledge_falls_back_to_total(rows):
    by_name = {row.name: row for row in rows}
    values, measure = figures.knowledge(by_name["EnD"], "test")
    assert measure == "total" and values is by_name["EnD"].predictions["test"].total
    assert figures.knowledge(by_name["Proxy"], "test")[1] == "mutual_information"


def test_reliability(evaluated, rows):
    _, labels, found = evaluated
    figure = figures.reliability(rows, labels)
    assert [axis.get_title() for axis in figure.axes] == [row.name for row in rows]
    ece = next(entry for entry in found["rows"] if entry["name"] == "Ensemble")["metrics"]["classification"]["ece"]["value"]
    assert figure.axes[1].texts[0].get_text() == f"ECE {100 * ece:.1f} %"
    probs = np.exp(rows[1].predictions["test"].log_probs)
    dots = figure.axes[1].collections[0].get_offsets()
    assert 1 <= len(dots) <= 15 and dots[:, 0].max() <= probs.max() + 1e-9
    bars = figure.axes[1].patches
    for right, gap, (confidence, accuracy) in zip(bars[: len(dots)], bars[len(dots) :], dots):
        assert right.get_height() == pytest.approx(accuracy)
        assert sorted((gap.get_y(), gap.get_y() + gap.get_height())) == pytest.approx(sorted((accuracy, confidence)))
    assert figures.reliability([diverged(rows[0])], labels) is None


def test_histograms_show_every_example(rows):
    figure = figures.uncertainty_histograms(rows)
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == ["Ensemble", "Proxy Dirichlet", "Proxy"]
    for axis in figure.axes[:3]:
        assert axis.get_xlabel() == "mutual information (nats)"
        for patch in axis.patches:
            assert patch.get_data().values.sum() == pytest.approx(100)  # nothing falls outside the axis


def test_histograms_with_zero_and_infinite_uncertainty(rows):
    row = rows[-1]
    test = row.predictions["test"]._replace(mutual_information=np.zeros(len(row.predictions["test"].total)))
    out = row.predictions["noise"]
    out = out._replace(mutual_information=np.append(np.inf, out.mutual_information[1:]))
    figure = figures.uncertainty_histograms([row._replace(predictions={"test": test, "noise": out})])
    assert [patch.get_data().values.sum() for patch in figure.axes[0].patches] == pytest.approx([100, 100])
    none = row._replace(predictions={"test": test})
    assert figures.uncertainty_histograms([none]) is None


def test_risk_coverage_ends_at_the_error(evaluated, rows):
    labels = evaluated[1]
    axis = figures.risk_coverage(rows, labels).axes[0]
    for row in rows:
        error = np.mean(row.predictions["test"].log_probs.argmax(-1) != labels)
        np.testing.assert_allclose(lines(axis)[row.name][-1], [100, 100 * error])
    assert "(%)" in axis.get_xlabel() and "(%)" in axis.get_ylabel()


def test_risk_coverage_is_not_squeezed_by_one_bad_row(rows):
    labels = rows[1].predictions["test"].log_probs.argmax(-1)
    labels[:4] = (labels[:4] + 1) % 4  # five percent of errors for the good rows
    bad = rows[-1].predictions["test"]
    bad = rows[-1]._replace(name="bad", predictions={"test": bad._replace(log_probs=np.roll(rows[1].predictions["test"].log_probs, 1, -1))})
    good = [rows[1], rows[1]._replace(name="again"), bad]
    axis = figures.risk_coverage(good, labels).axes[0]
    assert axis.get_ylim()[1] < 30 and any("off the scale" in label for label in lines(axis))
    perfect = figures.risk_coverage([rows[1]], rows[1].predictions["test"].log_probs.argmax(-1)).axes[0]
    assert perfect.get_ylim()[1] > 0


def test_roc_is_the_area_in_the_legend(rows):
    axis = figures.roc(rows).axes[0]
    row = rows[-1]
    score = np.concatenate([row.predictions[name].mutual_information for name in ("test", "noise")])
    area = sklearn_metrics.roc_auc_score(np.arange(len(score)) >= len(row.predictions["test"].total), score)
    drawn = lines(axis)[f"Proxy, I: {100 * area:.1f} %"]
    assert np.trapezoid(drawn[:, 1], drawn[:, 0]) / 1e4 == pytest.approx(area, abs=1e-9)
    assert any(label.startswith("EnD, H:") for label in lines(axis))


def test_roc_without_sets_or_sound_rows(rows):
    assert figures.roc([row._replace(predictions={"test": row.predictions["test"]}) for row in rows]) is None
    assert figures.roc([diverged(rows[0])]) is None
    labels = {label.split(",")[0] for label in lines(figures.roc([diverged(rows[0]), *rows[1:]]).axes[0])}
    assert "Single" not in labels and "Ensemble" in labels


def test_study(make_rows):
    found = []
    for arms in (6, 3):
        rows, labels = make_rows(num_test=20, num_out=10, seeds=2, seed=arms)
        found.append(evaluate(rows, labels, settings={"data": {"arms": arms}}, num_resamples=0))
    merged = results.merge(found)
    figure = figures.study(merged["summary"])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["error (%)", "NLL (nats)", "ECE (%)", "median precision, test", "AUROC by I, noise (%)"]
    axis = figure.axes[0]
    assert axis.get_xlabel() == "arms" and [text.get_text() for text in axis.get_xticklabels()] == ["3", "6"]
    entry = next(each for each in merged["summary"] if each["name"] == "EnD" and each["variant"] == {"data.arms": 3})
    drawn = next(each for each in axis.containers if each.get_label() == "EnD").lines[0].get_xydata()
    assert drawn[0][1] == pytest.approx(100 * (1 - entry["metrics"]["classification"]["accuracy"]["mean"]))
    assert abs(drawn[0][0] / 3 - 1) < 0.1 and len(drawn) == 2


@pytest.mark.parametrize("variant", [{}, {"a": 1, "b": 2}, {"a": "text"}, {"a": True}])
def test_study_needs_one_number(variant):
    assert figures.study([{"variant": variant, "name": "x", "group": "student", "metrics": {}}]) is None
