"""Heads on frozen bodies: the shapes of a run, resuming, and that a head learns the new names of the classes."""

import json

import numpy as np
import pytest

from edd.experiments import report, shift

TRAINING = {
    "model": {"name": "mlp", "options": {"widths": [16]}},
    "optimizer": {"name": "adam", "learning_rate": 1e-2},
    "epochs": 4.0,
    "batch_size": 64,
}


def config(**changes):
    student = {"training": TRAINING, "options": {}}
    return {
        "name": "toy",
        "base": {
            "name": "digits",
            "data": {"name": "digits"},
            "ensemble": {"num_members": 2, "training": TRAINING},
            "students": {"Plain": {**student, "method": "supervised"}, "DLF": {**student, "method": "dlf", "options": {"latent_dim": 2}}},
        },
        "counts": [20, 150],
        "num_subsets": 2,
        "head": {**TRAINING, "epochs": 1e5, "max_steps": 150, "optimizer": {"name": "adam", "learning_rate": 3e-2}},
        **changes,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shift")
    return folder, shift.run(config(), folder, progress=False)


def test_every_head_is_scored_and_plain_activations_learn_the_new_names(finished):
    folder, found = finished
    rows = {part["row"]: part for part in found["parts"]}
    assert set(rows) == {"Plain: activations", "Plain: outputs", "DLF: activations", "DLF: outputs", "DLF: latent"}
    for part in rows.values():
        assert all(len(each["accuracy"]) == 2 and np.isfinite(each["nll"]).all() for each in part["scores"].values())
    few, many = (np.mean(rows["Plain: activations"]["scores"][count]["accuracy"]) for count in ("20", "150"))
    assert many > 0.6 and many > few
    assert (folder / "figures" / "shift.png").exists() and "Plain: outputs" in (folder / "report.md").read_text()


def test_resuming_reads_the_parts(finished):
    folder, found = finished
    path = folder / "parts" / "Plain-outputs.json"
    part = json.loads(path.read_text())
    path.write_text(json.dumps({**part, "seconds": 123.0}))
    again = shift.run(config(), folder, progress=False)
    assert [part["seconds"] for part in again["parts"]].count(123.0) == 1


def test_runs_merge(finished, tmp_path):
    folder, found = finished
    with pytest.raises(ValueError, match="repeats"):
        report.render([folder, folder], tmp_path / "both")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": [5000]}, "counts must be at most"),
        ({"counts": []}, "counts must be >= 1"),
        ({"num_subset": 3}, "did you mean 'num_subsets'"),
        ({"head": {**TRAINING, "optimizer": {"name": "adma"}}}, "adma"),
        ({"head": {**TRAINING, "keep": "best"}}, "head must keep the last"),
    ],
)
def test_bad_settings_write_nothing(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        shift.run(config(**changes), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
