"""The study of tiles: its rows from the network's positions by hand, what is refused, and what the report says."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.data import sources
from edd.data.base import Split
from edd.ensembles import tiles
from edd.experiments import build, launch, predict, report, settings, tile_scores, tile_study, tile_study_report
from edd.models.base import Model, Outputs

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
    assert len(found["parts"]) == 2 * 5 and [part["row"] for part in found["parts"][:5]] == [
        "network", "2x2 uniform", "2x2 per_input_lse", "8x8 uniform", "8x8 per_input_lse",
    ]  # fmt: skip
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
    assert all((folder / "figures" / f"T_{kind}_uniform.png").stat().st_size > 5000 for kind in ("one", "fitted"))
    assert len(report.render([folder], tmp_path / "again")["parts"]) == 10
    with pytest.raises(ValueError, match="run 1 repeats"):
        report.render([folder, folder], tmp_path / "both")


def entropy(p):
    return -(p * np.log(p)).sum(-1)


def test_rows_are_the_mixtures_of_the_tiles():
    positions = jax.random.normal(jax.random.key(0), (6, 16, 3)) * 2
    found = tile_scores.read(
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


def test_the_global_weights_are_the_formula_over_all_test_images(monkeypatch):
    """One weight for each tile, in proportion to the sum over images of exp of its summed logits, from a pass over batches."""
    logits = jax.random.normal(jax.random.key(1), (10, 16, 3))
    network = Model(None, lambda variables, x, **_: (Outputs(x.mean(1), None, x), {}), None)
    config = tile_study.Tiles("toy", settings.Data("cifar10"), settings.Model("none"), [2, 3], ["global"], ["one"], batch_size=4)
    split = Split(np.asarray(logits), np.arange(10) % 3)
    sets = build.Sets(None, split, None, split, {})
    look = functools.partial(tile_study.stream, tile_study.compiled(network, {}, lambda x: x, 0), config.batch_size)
    found = tile_study.read_sets(config, sets, look, tile_study.readers(config, sets, {}), 2.0, progress=False)["test"]
    for size in (2, 3):
        members = np.asarray(tiles.members(logits, size), np.float64) / 2
        sums = np.exp(members.sum(-1)).sum(1)
        weights = (sums / sums.sum())[:, None]
        probs = np.exp(members) / np.exp(members).sum(-1, keepdims=True)
        mixture = (weights[..., None] * probs).sum(0)
        values = found[f"{size}x{size} global"]
        np.testing.assert_allclose(np.exp(values["log_probs"]), mixture, rtol=1e-4)
        np.testing.assert_allclose(values["uncertainty"], entropy(mixture) - (weights * entropy(probs)).sum(0), atol=1e-5)


def test_logits_of_tiles_are_held_for_one_batch_alone(monkeypatch):
    """40 images in batches of 4: what lives on the device does not grow with the images, and no tile is among what is kept."""
    held, original = [], predict.stream

    def watched(function, inputs, batch_size, axis):
        def each(batch):
            outputs = jax.block_until_ready(function(batch))
            held.append(sum(leaf.nbytes for leaf in jax.live_arrays()))
            return outputs

        return original(each, inputs, batch_size, axis)

    monkeypatch.setattr(tile_study.predict, "stream", watched)
    positions, classes = 64, 50
    network = Model(None, lambda variables, x, **_: (Outputs(x.mean(1), None, x), {}), None)
    config = tile_study.Tiles("toy", settings.Data("cifar10"), settings.Model("none"), [2, 8], ["uniform"], ["one"], batch_size=4)
    images = np.random.default_rng(0).normal(size=(40, positions, classes)).astype(np.float32)
    split = Split(images, np.arange(40) % classes)
    look = functools.partial(tile_study.stream, tile_study.compiled(network, {}, lambda x: x, 0), config.batch_size)
    sets = build.Sets(None, split, None, split, {"other": split})
    before = sum(leaf.nbytes for leaf in jax.live_arrays())
    found = tile_study.read_sets(config, sets, look, tile_study.readers(config, sets, {}), 1.0, progress=False)
    assert len(held) == 20 and max(held) - before < images.nbytes / 4
    assert max(held[3:]) - min(held[3:]) <= 4 * positions * classes * 4
    assert {leaf.shape for leaf in jax.tree.leaves(found["test"])} == {(40,), (40, classes)}
    assert {leaf.shape for leaf in jax.tree.leaves(found["other"])} == {(40,)}


def test_sets_of_fewer_classes_are_scored_over_those_alone():
    """By hand: two of three classes occur in the shifted set."""
    rng = np.random.default_rng(0)
    positions = jnp.asarray(rng.normal(size=(8, 4, 3)) * 2, jnp.float32)
    outputs = Outputs(positions.mean(1), None, positions)
    labels = np.array([0, 1, 2, 2, 0, 1, 2, 0])
    shifted = tile_scores.labelled(np.array([2, 0, 2, 0, 2, 2, 0, 0]))
    assert shifted.classes.tolist() == [0, 2] and shifted.labels.tolist() == [1, 0, 1, 0, 1, 1, 0, 0]
    options = {"sizes": (2,), "weightings": ("uniform",), "temperature": 1.0}
    found = {"test": tile_scores.read(outputs, **options), "shifted": tile_scores.read(outputs, **options, classes=shifted.classes)}
    own = np.asarray(found["test"]["network"]["log_probs"], np.float64)[:, [0, 2]]
    probs = np.exp(own) / np.exp(own).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(found["shifted"]["network"]["log_probs"]), probs, rtol=1e-5)
    part = tile_scores.score(found, labels, 2, "zscore", {"shifted": shifted})[0]
    assert part["shared"]["shifted"]["accuracy"] == pytest.approx((probs.argmax(-1) == shifted.labels).mean())
    assert part["shared"]["shifted"]["nll"] == pytest.approx(-np.log(probs[np.arange(8), shifted.labels]).mean(), rel=1e-5)
    uncertainty = np.asarray(found["test"]["network"]["uncertainty"])
    inside = uncertainty[labels != 1]
    wins = (uncertainty[:, None] > inside[None]) + 0.5 * (uncertainty[:, None] == inside[None])
    assert part["detection"]["shifted, its classes"]["uncertainty"] == pytest.approx(wins.mean())
    assert part["detection"]["shifted"]["uncertainty"] == pytest.approx(0.5)


def test_a_background_class_is_dropped_before_everything():
    positions = jax.random.normal(jax.random.key(0), (2, 4, 5))
    dropped = tile_scores.without_background(Outputs(positions.mean(1), None, positions), 1)
    np.testing.assert_array_equal(dropped.positions, positions[..., 1:])
    np.testing.assert_array_equal(dropped.logits, positions.mean(1)[:, 1:])


def test_positions_that_agree_have_no_information():
    positions = jnp.tile(jax.random.normal(jax.random.key(0), (4, 1, 3)), (1, 9, 1))
    found = tile_scores.read(Outputs(positions[:, 0], None, positions), sizes=(3,), weightings=("uniform",), temperature=1.0)
    np.testing.assert_allclose(found["3x3 uniform"]["uncertainty"], 0, atol=1e-6)
    np.testing.assert_allclose(found["3x3 uniform"]["log_probs"], found["network"]["log_probs"], atol=1e-5)


def configured(arg):
    """configs/tiles.py as launch/run.py reads it, plain."""
    path = pathlib.Path(__file__).resolve().parents[2] / "configs" / "tiles.py"
    spec = importlib.util.spec_from_file_location("config_tiles", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg).to_dict()


@pytest.mark.parametrize(
    ("name", "sizes", "row", "numbers"),
    [
        ("resnet152", range(2, 8), "7x7 uniform", (-0.031, 0.054, -0.203)),
        ("resnet152", range(2, 8), "7x7 per_input_lse", (-0.035, 0.020, -0.062)),
        ("wide_resnet101_2", range(2, 8), "network", (-0.030, 0.044, -0.141)),
        ("resnext101_64x4d", range(2, 8), "2x2 global", (-0.043, 0.036, -0.131)),
        ("maxvit_base", range(2, 17), "16x16 uniform", (-0.103, 0.037, -0.211)),
        ("maxvit_xlarge", range(2, 17), "16x16 per_input_sum", (-0.082, 0.043, -0.233)),
    ],
)
def test_the_papers_networks_and_numbers_are_configured(name, sizes, row, numbers):
    config = configured(name)
    assert config.pop("experiment") == "tiles" and config["sizes"] == list(sizes)
    study = settings.from_dict(tile_study.Tiles, config)
    columns = ("calibration error, bucket", "accuracy", "NLL")
    assert study.reference[row] == {f"negative covariance, {what}": number for what, number in zip(columns, numbers)}
    assert len(study.reference) == 1 + 4 * len(sizes)
    side = sources.info(study.data.name, **study.data.options).input_shape[0]
    assert side == (512 if "maxvit" in name else 224) and study.model.options.get("image_size", 224) == side
    for other, options in study.data.ood.items():
        options = {key: value for key, value in options.items() if key != "split"}
        assert sources.info(options.pop("source", other), **options).input_shape == (side, side, 3)


def test_mobilenet_reads_a_folder_of_photographs():
    study = settings.from_dict(
        tile_study.Tiles, {key: value for key, value in configured("mobilenet_v2,photographs=mine").items() if key != "experiment"}
    )
    assert study.first_class == 1 and study.data.options["folder"] == "mine" and set(study.shared) == set(study.data.ood)
    with pytest.raises(ValueError, match="known are one of resnet20"):
        configured("resnet21")


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
        ({"weightings": ["global_lse"]}, "weightings must be among"),
        ({"temperatures": []}, "temperatures must be among"),
        ({"x_scale": "rank"}, "x_scale must be one of"),
        ({"mean": [0.5]}, "one entry per channel"),
        ({"shared": ["svhn_cropped"]}, "shared among cifar100"),
        ({"first_class": -1}, "first_class must be >= 0"),
        ({"model": {"name": "mlp"}}, "positions"),
    ],
)
def test_mistakes(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        launch.run({**CONFIG, **change}, str(tmp_path / "none"), progress=False)
    assert not (tmp_path / "none").exists()
