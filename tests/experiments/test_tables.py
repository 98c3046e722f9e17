"""Tables: formatting, which columns and rows appear, blanks, variants, reference numbers."""

import math

import pytest

from edd.experiments import results, tables
from edd.experiments.evaluate import evaluate


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        (0.98765, {"scale": 100, "decimals": 2}, "98.77"),
        (-0.5, {}, "−0.500"),
        (-1e-9, {"tiny": False}, "0.000"),
        (-2.5e-9, {}, "−2.5e-09"),
        (14350.7, {"decimals": 1}, "14,351"),
        (8.4e9, {}, "8.40e+09"),
        (math.nan, {}, "NaN"),
        (-math.inf, {}, "−∞"),
        (None, {}, "–"),
    ],
)
def test_number(value, options, expected):
    assert tables.number(value, **options) == expected


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        ({"mean": 0.5, "sd": 0.25, "n": 3, "of": 3, "low": 0.4, "high": 0.6}, ("0.500 ± 0.250", "[0.400, 0.600]")),
        ({"mean": 0.5, "sd": None, "n": 1, "of": 2, "low": None, "high": None}, ("0.500 (1 of 2)", "")),
        ({"mean": 1e-7, "sd": 1e-8, "n": 2, "of": 2}, ("0.000 ± 0.000", "")),
        ({"mean": 4321.0, "sd": 56.7, "n": 2, "of": 2}, ("4,321 ± 57", "")),
        ({"mean": math.nan, "sd": None, "n": 0, "of": 2, "low": math.nan, "high": math.nan}, ("NaN", "")),
        ({"mean": None, "sd": None, "n": 0, "of": 1}, ("–", "")),
        (None, ("–", "")),
    ],
)
def test_cell(leaf, expected):
    assert tuple(tables.cell(leaf)) == expected


def test_main_table(evaluated):
    found = evaluated[-1]
    table = tables.main_table(found)
    assert table.columns[:4] == ["row", "n", "accuracy %", "NLL"] and table.groups[-1] == "AUROC %, noise"
    assert [line[0].text for line in table.rows] == ["Single", "Ensemble", "Proxy Dirichlet", "EnD", "Proxy"]
    assert [line[1].text for line in table.rows] == ["3", "1", "1", "3", "3"]
    cells = {line[0].text: dict(zip(zip(table.groups, table.columns), line)) for line in table.rows}
    assert cells["EnD"]["AUROC %, noise", "I"].text == "–" != cells["EnD"]["AUROC %, noise", "H"].text
    pooled = next(entry for entry in found["summary"] if entry["name"] == "Ensemble")["metrics"]["classification"]["accuracy"]
    cell = cells["Ensemble"]["", "accuracy %"]
    assert cell.text == f"{100 * pooled['mean']:.2f}" and cell.interval == f"[{100 * pooled['low']:.2f}, {100 * pooled['high']:.2f}]"


def test_every_line_is_as_long_as_its_head(evaluated):
    for table in [tables.main_table(evaluated[-1]), *tables.all_tables(evaluated[-1])]:
        assert len(table.columns) == len(table.groups)
        assert {len(line) for line in table.rows} == {len(table.columns)}


def test_titles_and_the_ensemble_is_not_its_own_student(evaluated):
    found = {table.title: table for table in tables.all_tables(evaluated[-1])}
    assert {"Detecting noise", "Fidelity to the ensemble, test", "Fidelity to the ensemble, noise", "Costs", "Precision"} <= set(found)
    assert "Ensemble" not in [line[0].text for line in found["Fidelity to the ensemble, test"].rows]
    assert [line[0].text for line in found["Precision"].rows] == ["Ensemble", "Proxy Dirichlet", "Proxy"]


def test_reference_beside_ours(evaluated):
    table = tables.reference_table(evaluated[-1])
    pooled = next(entry for entry in evaluated[-1]["summary"] if entry["name"] == "Ensemble")["metrics"]["classification"]["accuracy"]
    assert [cell.text for cell in table.rows[0]] == ["Ensemble", "error", f"{1 - pooled['mean']:.4f}", "0.0110"]
    assert table.rows[0][2].interval == f"[{1 - pooled['high']:.4f}, {1 - pooled['low']:.4f}]"


def test_nothing_to_show_is_no_table(make_rows):
    rows, labels = make_rows(num_test=10, num_out=5, seeds=1, out_sets=())
    rows = [row._replace(parameters=None, milliseconds_per_1000=None) for row in rows if row.name == "EnD"]
    found = evaluate(rows, labels, num_resamples=0)
    titles = [table.title for table in tables.all_tables(found)]
    assert not {"Costs", "Precision", "Beside the paper", "Fidelity to the ensemble, test"} & set(titles)
    assert tables.main_table(found) is not None


def test_variants_become_columns(make_rows):
    rows, labels = make_rows(num_test=10, num_out=5, seeds=1)
    runs = [evaluate(rows, labels, settings={"data": {"arms": arms}}, num_resamples=0) for arms in (3, 6)]
    table = tables.main_table(results.merge(runs))
    assert table.columns[:3] == ["arms", "row", "n"] and table.num_labels == 2
    assert [line[0].text for line in table.rows] == ["3"] * 5 + ["6"] * 5
