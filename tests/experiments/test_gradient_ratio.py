"""The rho table of the gradient analysis."""

import csv

import numpy as np
import pytest

from edd.experiments import gradient_ratio

KS = (3, 10, 100, 1000)
# (loss, state, c): rho at K = 3, 10, 100, 1000, independently computed in 50-digit arithmetic
TABLE = {
    ("nll", "init", 100.0): (0.456, 0.176, 0.0289, 0.00416),
    ("forward_kl", "init", 100.0): (0.347, 0.141, 0.0242, 0.00355),
    ("reverse_kl_paper", "init", 100.0): (1.33, 1.33, 1.33, 1.33),
    ("nll", "init", 1.0): (0.107, 0.0342, 0.00526, 0.000751),
    ("forward_kl", "init", 1.0): (0.479, 0.245, 0.0488, 0.00755),
    ("reverse_kl_paper", "init", 1.0): (1.0, 1.0, 1.0, 1.0),
    ("reverse_kl_authors", "init", 1.0): (1.15, 1.14, 1.14, 1.14),
    ("nll", "near", 1.0): (0.0358, 0.00661, 0.000559, 5.5e-05),
    ("forward_kl", "near", 1.0): (7.48, 10.6, 11.9, 12.1),
    ("reverse_kl_paper", "near", 1.0): (7.25, 10.2, 11.4, 11.6),
    ("nll", "near", 100.0): (0.0516, 0.0109, 0.00098, 9.7e-05),
    ("reverse_kl_paper", "near", 100.0): (2.37, 2.32, 2.31, 2.31),
}


@pytest.fixture(scope="module")
def rows():
    return gradient_ratio.gradient_ratios(gradient_ratio.Settings(num_classes=KS))


@pytest.mark.parametrize("case", TABLE, ids=lambda case: "-".join(map(str, case)))
def test_the_table_is_reproduced(rows, case):
    found = {row["num_classes"]: row["rho"] for row in rows if (row["loss"], row["state"], row["precision_per_class"]) == case}
    np.testing.assert_allclose([found[k] for k in KS], TABLE[case], rtol=0.008)


def test_a_misaligned_student_is_pulled_by_the_head_only_under_reverse_kl(rows):
    found = {
        (row["loss"], row["num_classes"]): row["rho"]
        for row in rows
        if row["state"] == "misaligned" and row["precision_per_class"] == 100.0
    }
    assert found["reverse_kl_paper", 1000] > 100 * found["nll", 1000]


def test_run_writes_csv_and_figure(tmp_path):
    settings = {"num_classes": (3,), "losses": ("reverse_kl_paper",), "states": ("init",)}
    rows = gradient_ratio.run(settings, tmp_path)["rows"]
    with open(tmp_path / "gradient_ratio.csv") as file:
        assert [float(row["rho"]) for row in csv.DictReader(file)] == [row["rho"] for row in rows]
    assert (tmp_path / "figures" / "gradient_ratio.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"klasses": 3}, "klasses"),
        ({"states": ("late",)}, "states"),
        ({"num_classes": (2,)}, "num_classes"),
        ({"head_probability": 1.0}, "head"),
    ],
)
def test_bad_settings_are_refused(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gradient_ratio.run(settings, tmp_path)
