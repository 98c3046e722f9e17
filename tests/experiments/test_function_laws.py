"""Two-mode functions: their moments and marginals by sampling, a small run end to end, and what the report says of a failing student."""

import numpy as np
import pytest

from edd.experiments import function_laws, function_laws_report, launch, report
from edd.metrics import laws

POINTS = np.array([-1.5, 0.0, 0.4, 1.2])


@pytest.mark.parametrize("separation", [0.0, 1.0, 5.0])
def test_draws_have_the_moments_and_marginals_of_the_law(separation):
    functions = function_laws.draw(POINTS, separation, 0.7, 20_000, np.random.default_rng(0))
    expected = function_laws.covariance(POINTS, separation, 0.7)
    np.testing.assert_allclose(np.cov(functions.T), expected, atol=0.04)
    means, variances = function_laws.marginal(POINTS, separation)
    np.testing.assert_allclose((variances + means**2).mean(0), np.diag(expected), rtol=1e-12)
    few = functions[:800]
    assert laws.wasserstein((means, variances), (few, np.zeros_like(few))).max() < 0.12


def test_one_mode_is_gaussian_and_two_are_not():
    for separation, low, high in ((0.0, 0.0, 1e-9), (1.0, 1e-3, 0.05), (8.0, 0.1, 0.4)):
        moments = function_laws.covariance(np.zeros(1), separation, 0.7)
        gaussian = (np.zeros((1, 1)), moments)
        assert low <= laws.energy_distance(function_laws.marginal(np.zeros(1), separation), gaussian)[0] <= high


@pytest.fixture
def config():
    def student(method, **options):
        training = {"model": {"name": "mlp", "options": {"widths": [16], "activation": "tanh"}}, "batch_size": 9, "epochs": 1e4}
        training |= {"max_steps": 40, "optimizer": {"learning_rate": 0.02}}
        return {"method": method, "training": training, "options": {"aleatoric_mode": "member", **options}}

    return {
        "name": "toy",
        "separations": [6.0],
        "num_teachers": 200,
        "num_points": 9,
        "students": {"DLF": student("dlf", latent_dim=4), "Hydra": student("hydra")},
    }


def test_a_gaussian_student_fails_where_there_are_two_modes(config, tmp_path):
    found = launch.run({"experiment": "function_laws", **config}, str(tmp_path / "run"), progress=False)
    rows = found["parts"][0]["rows"]
    floor = rows[function_laws_report.GAUSSIAN]["energy"]
    assert rows["DLF"]["energy"] > 0.8 * floor > rows["Teachers"]["energy"]  # two modes: no better than the best Gaussian
    assert "DLF: energy distance" in (tmp_path / "run" / "report.md").read_text()
    for name in ("distances", "marginals"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").stat().st_size > 5000
    assert report.render([tmp_path / "run"], tmp_path / "again")["parts"] == found["parts"]
    with pytest.raises(ValueError, match="run 1 repeats"):
        function_laws_report.merge([found, found])


def test_mistakes(config, tmp_path):
    for change, message in (({"separations": [-1.0]}, "separations"), ({"repeats": 0}, "repeats"), ({"length": 0.0}, "length")):
        with pytest.raises(ValueError, match=message):
            function_laws.run({**config, **change}, tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()
