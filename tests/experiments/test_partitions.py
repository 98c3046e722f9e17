"""The study of sub-ensembles: every number from members' predictions by hand, groupings, and what the report says."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.experiments import build, launch, partitions, partitions_report, report, settings
from edd.training import optimizers
from edd.uncertainty import hierarchy

CONFIG = {
    "experiment": "partitions",
    "name": "toy",
    "data": {"name": "digits", "ood": {"digits_photos": {}}, "num_train": 200, "num_test": 50, "num_ood": 40},
    "ensemble": {
        "num_members": 6,
        "training": {"model": {"name": "mlp", "options": {"widths": [8]}}, "epochs": 1e4, "max_steps": 30, "batch_size": 40},
    },
    "batch_size": 32,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partitions") / "run"
    return folder, launch.run(CONFIG, str(folder), progress=False)


def test_a_study_from_end_to_end(finished, tmp_path):
    folder, found = finished
    assert [(part["groups"], part["size"]) for part in found["parts"]] == [(6, 1), (3, 2), (2, 3)]
    for part in found["parts"]:
        for values in part["sets"].values():
            assert values["mean"] + values["within"] == pytest.approx(values["total"], abs=1e-6) and values["chain_rule_error"] < 1e-5
            assert values["quantiles"][0] <= values["mean"] <= values["quantiles"][-1] <= np.log(part["groups"]) + 1e-6
        assert "auroc" in part["sets"]["digits_photos"] and "auroc" not in part["sets"]["test"]
    assert found["parts"][0]["sets"]["test"]["within"] == 0
    text = (folder / "report.md").read_text()
    assert "| 3 x 2 |" in text and "falls at every step" in text and "The chain rule holds per example" in text
    for name in ("sizes", "distributions"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5000
    assert [part["law"] for part in report.render([folder], tmp_path / "again")["parts"]] == [part["law"] for part in found["parts"]]
    with pytest.raises(ValueError, match="run 1 repeats"):
        report.render([folder, folder], tmp_path / "both")


@pytest.mark.parametrize("arg", ["cifar10,short", "cifar10"])
def test_the_papers_ensemble_as_configured(arg):
    """24 WRN-28-1 of 369,498 parameters, the rate falling at epochs 150 and 250 of 350."""
    config = configured("partitions", arg)
    training = config["ensemble"]["training"]
    assert config["ensemble"]["num_members"] == 24 and training["epochs"] == (30.0 if "short" in arg else 350.0)
    model = build.backbone(settings.Model(**training["model"]), axis_name=None)(10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 369_498
    rates = optimizers.make_schedule("multistep", 0.1, total_steps=350, milestones=training["optimizer"]["options"]["milestones"])
    np.testing.assert_allclose([rates(step) for step in (149, 151, 249, 251)], [0.1, 0.01, 0.01, 0.001], rtol=1e-5)


def configured(name, arg):
    """A file of configs/ as launch/run.py reads it, plain."""
    path = pathlib.Path(__file__).resolve().parents[2] / "configs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"config_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg).to_dict()


def test_a_batch_is_the_mean_over_orders():
    logits = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    orders = partitions.groupings(4, 3, seed=1)
    assert sorted(orders[0]) == [0, 1, 2, 3] and len({tuple(order) for order in orders}) > 1
    assert partitions.groupings(4, 0, seed=1).tolist() == [[0, 1, 2, 3]]
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    entropy = lambda p: -(p * np.log(p)).sum(-1)  # noqa: E731
    found = partitions.batch_function(hierarchy.partitions(4), orders)(logits)
    pairs = [probs[order].reshape(2, 2, 7, 3).mean(1) for order in orders]
    expected = np.mean([entropy(probs.mean(0)) - entropy(each).mean(0) for each in pairs], 0)
    np.testing.assert_allclose(found["between"][:, 1], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["total"], entropy(probs.mean(0)) - entropy(probs).mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["between"][:, 0], found["total"], rtol=1e-4, atol=1e-6)


def test_what_the_report_says_of_the_law():
    def part(groups, size, mean):
        values = {"mean": mean, "within": 0.2 - mean, "total": 0.2, "chain_rule_error": 0.0}
        return {"groups": groups, "size": size, "law": hierarchy.collapse_law(groups, size), "accuracy": 0.9, "sets": {"test": values}}

    above = partitions_report.opening({"parts": [part(4, 1, 0.2), part(2, 2, 0.07)]})
    assert above[0] == (
        "test: mean mutual information between sub-ensembles falls at every step (0.2 nats at 4 x 1, 0.07 at 2 x 2) and is on or "
        "above the law everywhere."
    )
    below = partitions_report.opening({"parts": [part(4, 1, 0.2), part(2, 2, 0.06)]})
    assert "below the law somewhere" in below[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"permutations": -1}, "permutations be >= 0"),
        ({"data": {"name": "digits"}}, "data.ood must name a set"),
        ({"ensemble": {**CONFIG["ensemble"], "num_members": 1}}, "num_members must be an integer of at least 2"),
    ],
)
def test_mistakes(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        launch.run({**CONFIG, **change}, str(tmp_path / "none"), progress=False)
    assert not (tmp_path / "none").exists()
