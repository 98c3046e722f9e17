"""The sweep of the teachers' smoothing: from end to end, what is kept of each run, and what the report says."""

import json

import pytest

from edd.experiments import launch, smoothing_sweep, smoothing_sweep_report


@pytest.fixture(scope="module")
def config():
    training = {"model": {"name": "mlp", "options": {"widths": [8]}}, "epochs": 1.0, "batch_size": 8}
    students = {name: {"method": method, "training": training} for name, method in (("EnD", "end"), ("proxy", "proxy"))}
    return {
        "experiment": "smoothing_sweep",
        "name": "toy",
        "smoke": True,
        "smoothings": [0.0, 0.5, 0.9],
        "base": {
            "data": {"name": "digits", "ood": {"digits_photos": {}}},
            "ensemble": {"num_members": 3, "training": training},
            "students": students,
            "evaluation": {"num_resamples": 0, "timed_examples": 0},
        },
    }


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "run"
    return folder, launch.run(config, str(folder), progress=False)


def test_a_study_from_end_to_end(finished):
    folder, found = finished
    assert [part["smoothing"] for part in found["parts"]] == [0.0, 0.9]
    for part in found["parts"]:
        whole = json.loads((folder / f"smoothing-{part['smoothing']:g}" / "results.json").read_text())
        assert whole["settings"]["ensemble"]["smoothing"] == part["smoothing"]
        assert set(part["rows"]) == {"Single", "Ensemble", "Proxy Dirichlet", "EnD", "proxy"} and len(part["rows"]["Single"]["seeds"]) == 2
        own = next(row["metrics"] for row in whole["rows"] if row["name"] == "Ensemble")
        (kept,) = part["rows"]["Ensemble"]["seeds"]
        assert kept["uncertainty"]["test"]["mutual_information"] == own["uncertainty"]["test"]["mutual_information"]["value"]
        assert kept["auroc"]["digits_photos"]["total"] == own["detection"]["digits_photos"]["total"]["auroc"]["value"]
        assert kept["precision"]["test"] == own["precision"]["test"]["value"]
        (student,) = part["rows"]["EnD"]["seeds"]
        assert (
            student["uncertainty"]["test"]["mutual_information"] is None and "mutual_information" not in student["auroc"]["digits_photos"]
        )
    first, last = (part["rows"]["Ensemble"]["seeds"][0]["uncertainty"]["test"]["total"] for part in found["parts"])
    assert first != last  # the teachers' labels did change
    text = (folder / "report.md").read_text()
    assert "A smoke run" in text and "## digits: the ensemble" in text and "detection by EnD" in text
    assert (folder / "figures" / "smoothing.png").stat().st_size > 5000


def test_runs_render_again_and_merge(finished, rendered_again):
    _, found = finished
    merged = smoothing_sweep_report.studies(smoothing_sweep_report.merge([found, rendered_again(*finished)]))
    assert [len(part["rows"]["Ensemble"]["seeds"]) for part in merged["digits"]] == [2, 2]


def row(group, auroc, **uncertainty):
    seed = {
        "accuracy": 0.9,
        "nll": 0.3,
        "ece": 0.01,
        "uncertainty": {name: {"mutual_information": value, "expected_pairwise_kl": 2 * value} for name, value in uncertainty.items()},
        "precision": {name: 1 / value for name, value in uncertainty.items()},
        "auroc": {"out": auroc},
        "kept": {},
    }
    return {"group": group, "seeds": [seed]}


def test_what_the_report_says():
    parts = [
        {
            "smoothing": smoothing,
            "data": "toy",
            "run_seed": 0,
            "rows": {
                "Ensemble": row("ensemble", {"mutual_information": 0.9, "total": 0.8}, test=inside, out=0.5),
                "EnD": row("student", {"total": 0.7 - smoothing}, test=0.1, out=0.2),
            },
        }
        for smoothing, inside in ((0.1, 0.02), (0.0, 0.04), (0.2, 0.01))
    ]
    said = smoothing_sweep_report.opening({"parts": parts})
    assert said[0] == "toy: mean mutual information on test falls at every step (smoothing 0 to 0.2: 0.04 to 0.01 nats)."
    assert said[1] == "toy: mean mutual information on out is not monotone (smoothing 0 to 0.2: 0.5 to 0.5 nats)."
    assert said[4] == "toy: median proxy precision, smoothing 0 to 0.2: test 25 to 100, out 2 to 2."
    assert said[5] == "toy: detection by Ensemble, smoothing 0 to 0.2: out 0.9000 to 0.9000 by I."
    assert said[-1] == "toy: detection by EnD, smoothing 0 to 0.2: out 0.7000 to 0.5000 by H."


@pytest.mark.parametrize(
    "change,message",
    [
        ({"smoothings": [0.0, -0.1]}, r"smoothings must lie in \[0, 1\], got -0.1"),
        ({"smoothings": [1.1]}, r"smoothings must lie in \[0, 1\], got 1.1"),
        ({"smoothings": []}, "at least one"),
        ({"smoothings": 0.1}, "'smoothings' must be a list, got 0.1"),
        ({"smoothings": [0, "a"]}, r"'smoothings\[1\]' must be float, got 'a'"),
        ({"base": {"seed": 3}}, "base.seed is the study's own"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(config, change, message, refused):
    refused({**config, **change}, message)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda base: base["students"]["EnD"].update(options={"temperature": 0.0}), "students.EnD: temperature must be above 0, got 0.0"),
        (lambda base: base["students"]["EnD"].update(options={"temperature": -1.0}), "students.EnD: temperature must be above 0, got -1.0"),
        (lambda base: base["data"].update(name="digitz"), "did you mean 'digits'"),
        (lambda base: base["ensemble"]["training"].update(batch_size=10**4), "ensemble.training.batch_size must be at most"),
    ],
)
def test_a_bad_run_is_refused_before_the_first_begins(config, change, message, refused):
    base = json.loads(json.dumps(config["base"]))
    change(base)
    refused({**config, "smoke": "at most" not in message, "base": base}, message)


def test_each_run_has_its_smoothing(config):
    parsed = smoothing_sweep.SmoothingSweep(**{key: value for key, value in config.items() if key != "experiment"})
    program = smoothing_sweep.at_smoothing(parsed, 0.3)
    assert program["ensemble"]["smoothing"] == 0.3 and program["ensemble"]["num_members"] == 3 and program["smoke"]
    assert "smoothing" not in config["base"]["ensemble"]
