"""Sub-ensembles on a toy regression: variances against numpy and the law, a small run end to end, mistakes."""

import numpy as np
import pytest

from edd.experiments import hierarchy_regression, launch, report
from edd.experiments import hierarchy_regression_report as words


@pytest.fixture
def config():
    training = {"model": {"name": "mlp", "options": {"widths": [16], "activation": "tanh"}}, "batch_size": 12, "epochs": 1e4}
    training |= {"max_steps": 40, "optimizer": {"learning_rate": 0.02}}
    return {"name": "toy", "training": training, "sizes": [1, 4], "num_groups": 4, "num_points": 12}


def test_variances_are_those_of_disjoint_ensembles():
    means = np.random.default_rng(0).normal(size=(30, 7)) * np.arange(1.0, 8.0)
    found = hierarchy_regression.variance_by_size(means, 3, 4)  # two ensembles of three sub-ensembles of four; six are left over
    groups = means[:24].reshape(2, 3, 4, 7)
    assert found["ensembles"] == 2 and found["law"] == pytest.approx(2 / 11)
    assert found["between"] == pytest.approx(groups.mean(2).var(1).mean(), rel=1e-5)
    assert found["total"] == pytest.approx(groups.reshape(2, 12, 7).var(1).mean(), rel=1e-5)
    np.testing.assert_allclose(found["curve"], groups[0].mean(1).var(0), rtol=1e-5)
    assert found["first"] == pytest.approx(found["curve"].mean()) and found["residual"] < 1e-5


def test_independent_members_have_slope_minus_one_and_lie_on_the_law():
    means = np.random.default_rng(0).normal(size=(500, 2000))
    rows = {str(size): hierarchy_regression.variance_by_size(means, 10, size) for size in (1, 2, 5, 10, 20, 50)}
    part = {"rows": rows, "members": 500, "variance": means.var(0, ddof=1).mean()}
    assert words.slope(rows, "between") == pytest.approx(-1, abs=0.01) == words.slope(rows, "first")
    for size in rows:
        assert rows[size]["between"] == pytest.approx(words.law(part, int(size)), rel=0.03)
        assert words.law(part, int(size)) == pytest.approx(rows[size]["law"] * rows[size]["total"], rel=0.03)
    for row in rows.values():
        row["between"] = 1.0  # members that all agree within a group do not collapse
    assert words.slope(rows, "between") == pytest.approx(0, abs=1e-12)


def test_observations_lie_in_their_clusters(config):
    settings = hierarchy_regression.settings_lib.from_dict(hierarchy_regression.HierarchyRegression, {**config, "noise": 0.0})
    inputs, labels = hierarchy_regression.observations(settings, np.random.default_rng(0))
    assert inputs.shape == (12, 1) and (np.diff(inputs[:, 0]) > 0).all()
    first = (inputs >= -2.5) & (inputs <= -0.5)
    assert first.sum() == 6 and (first | ((inputs >= 1.0) & (inputs <= 2.5))).all()
    np.testing.assert_allclose(labels, np.sin(inputs[:, 0]), atol=1e-6)


def test_a_small_run_collapses_and_is_told(config, tmp_path):
    found = launch.run({"experiment": "hierarchy_regression", **config}, str(tmp_path / "run"), progress=False)
    rows = found["parts"][0]["rows"]
    assert rows["4"]["between"] < 0.7 * rows["1"]["between"] and rows["1"]["ensembles"] == 4
    assert np.abs(np.array(found["parts"][0]["curves"]["means"]["4"])).max() < 5  # four sub-ensembles near sin
    page = (tmp_path / "run" / "report.md").read_text()
    assert "Slope of ln variance between sub-ensembles over ln size, one ensemble: -" in page
    assert "smoke run" not in page
    assert (tmp_path / "run" / "figures" / "hierarchy_regression.png").stat().st_size > 5000
    assert report.render([tmp_path / "run"], tmp_path / "again")["parts"] == found["parts"]
    again = launch.run({"experiment": "hierarchy_regression", **config}, str(tmp_path / "run"), progress=False)
    assert again["parts"] == found["parts"]  # read, not trained again
    with pytest.raises(ValueError, match="run 1 repeats"):
        words.merge([found, found])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sizes": [2]}, "sizes must be two or more ascending"),
        ({"sizes": [2, 1]}, "sizes"),
        ({"sizes": [1, 2.5]}, "sizes"),
        ({"num_groups": 1}, "num_groups must be at least 2"),
        ({"clusters": [[1.0, 1.0]]}, r"clusters must hold intervals"),
        ({"noise": -1.0}, "noise"),
        ({"extent": 0.0}, "extent"),
        ({"repeats": 0}, "repeats"),
    ],
)
def test_mistakes(config, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        hierarchy_regression.run({**config, **change}, tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()


def test_members_that_diverge_are_an_error(config, tmp_path):
    config["training"]["optimizer"] = {"name": "sgd", "learning_rate": 1e30}
    with pytest.raises((ValueError, FloatingPointError), match="diverged|not finite"):
        hierarchy_regression.run(config, tmp_path / "run", progress=False)
