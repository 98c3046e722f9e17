"""The study of tiles: its rows from the network's positions by hand, what is refused, and what the report says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.ensembles import tiles
from edd.experiments import launch, report, tile_study, tile_study_report
from edd.models.base import Outputs

CONFIG = {
    "experiment": "tiles",
    "name": "toy",
    "smoke": True,
    "data": {"name": "cifar10", "ood": {"cifar100": {}}},
    "model": {"name": "cifar_resnet", "options": {"depth": 8}},
    "sizes": [2, 8],
    "weightings": ["uniform", "per_input_lse"],
    "num_quantiles": 5,
    "reference": {"network": {"NLL": 1.5}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles") / "run"
    return folder, launch.run(CONFIG, str(folder), progress=False)


def test_a_study_from_end_to_end(finished, tmp_path):
    folder, found = finished
    assert len(found["parts"]) == 2 * 5 and found["parts"][0]["row"] == "network"
    for part in found["parts"]:
        curve = part["own"]["acceptance"]["accuracy"]
        assert len(curve) == 5 and curve[-1] == pytest.approx(part["accuracy"])
        assert part["own"]["acceptance"]["nll"][-1] == pytest.approx(part["nll"], rel=1e-5)
        assert part["own"]["acceptance"]["calibration_error"][-1] == pytest.approx(part["calibration_error"], abs=1e-6)
        assert all(0 <= value <= 1 for value in part["detection"]["cifar100"].values())
    network = {part["temperature"]: part for part in found["parts"] if part["row"] == "network"}
    assert network["one"]["own"] == network["one"]["reranked"] and network["fitted"]["nll"] <= network["one"]["nll"]
    assert network["one"]["accuracy"] == network["fitted"]["accuracy"]
    text = (folder / "report.md").read_text()
    assert "| network, paper | – | 1.5000 |" in text and "detecting cifar100: the best tiles" in text
    assert (folder / "figures" / "acceptance.png").stat().st_size > 5000
    assert len(report.render([folder], tmp_path / "again")["parts"]) == 10
    with pytest.raises(ValueError, match="run 1 repeats"):
        report.render([folder, folder], tmp_path / "both")


def entropy(p):
    return -(p * np.log(p)).sum(-1)


def test_rows_are_the_mixtures_of_the_tiles():
    positions = jax.random.normal(jax.random.key(0), (6, 16, 3)) * 2
    found = tile_study.read(
        Outputs(positions.mean(1), None, positions), sizes=(2,), weightings=("uniform", "per_input_lse"), temperature=2.0
    )
    logits = np.asarray(tiles.members(positions, 2), np.float64) / 2
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    sums = np.exp(logits).sum(-1)
    for row, weights in (("uniform", np.full(sums.shape, 0.25)), ("per_input_lse", sums / sums.sum(0))):
        mixture = (weights[..., None] * probs).sum(0)
        values = found[f"2x2 {row}"]
        np.testing.assert_allclose(np.exp(values["log_probs"]), mixture, rtol=1e-5)
        np.testing.assert_allclose(values["uncertainty"], entropy(mixture) - (weights * entropy(probs)).sum(0), atol=1e-5)
        np.testing.assert_allclose(values["entropy"], entropy(mixture), rtol=1e-5)
    own = np.asarray(jax.nn.softmax(positions.mean(1) / 2))
    np.testing.assert_allclose(found["network"]["uncertainty"], entropy(own), rtol=1e-5)


def test_positions_that_agree_have_no_information():
    positions = jnp.tile(jax.random.normal(jax.random.key(0), (4, 1, 3)), (1, 9, 1))
    found = tile_study.read(Outputs(positions[:, 0], None, positions), sizes=(3,), weightings=("uniform",), temperature=1.0)
    np.testing.assert_allclose(found["3x3 uniform"]["uncertainty"], 0, atol=1e-6)
    np.testing.assert_allclose(found["3x3 uniform"]["log_probs"], found["network"]["log_probs"], atol=1e-5)


def test_what_the_report_says():
    def part(row, errors, detection):
        detected = {"ood": {"uncertainty": detection}}
        return {"temperature": "one", "row": row, "errors": {"reranked": errors}, "detection": detected}

    said = tile_study_report.opening({"parts": [part("network", 0.8, 0.9), part("2x2 uniform", 0.7, 0.95)]})
    assert said[0] == (
        "T one, ranking the network's errors: the best tiles (2x2 uniform, AUROC 0.7000) are no better than the network's entropy (0.8000)."
    )
    assert "are better than" in said[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [1]}, "sizes must be at least 2"),
        ({"sizes": [9]}, "sizes must be at most 8"),
        ({"weightings": ["global"]}, "weightings must be among"),
        ({"temperatures": []}, "temperatures must be among"),
        ({"x_scale": "rank"}, "x_scale must be one of"),
        ({"mean": [0.5]}, "one entry per channel"),
        ({"model": {"name": "mlp"}}, "positions"),
    ],
)
def test_mistakes(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        launch.run({**CONFIG, **change}, str(tmp_path / "none"), progress=False)
    assert not (tmp_path / "none").exists()
