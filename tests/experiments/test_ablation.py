"""Ablations: variants change what they say, teachers are shared and cut, parts are kept, runs merge, the report tells what was best."""

import numpy as np
import pytest

from edd.experiments import ablation, ablation_report, collapse, launch, predict, regression, report, results, settings


def training(steps=3):
    return {"model": {"name": "mlp", "options": {"widths": [4]}}, "epochs": 100.0, "max_steps": steps, "batch_size": 16}


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 2))
    np.savetxt(tmp_path / "mine.csv", np.column_stack([inputs, inputs.sum(1)]), delimiter=",")
    return {
        "name": "toy",
        "study": "number of teachers",
        "base": {
            "data": {"sets": [str(tmp_path / "mine.csv")], "splits": [0]},
            "ensemble": {"num_members": 3, "training": training()},
            "students": {"DLF": {"method": "dlf", "training": training(), "options": {"latent_dim": 2}}},
        },
        "variants": [
            {"value": 2, "change": {"ensemble.num_members": 2}},
            {"value": 3, "change": {}},
            {"value": 3, "change": {"students.DLF.options.latent_dim": 1}, "group": "q 1"},
        ],
    }


@pytest.fixture(autouse=True)
def untrained_students_may_collapse(recwarn):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collapse, "warn", lambda *_: None)
        yield


def test_a_sweep_from_end_to_end_trains_shared_teachers_once(config, tmp_path, monkeypatch):
    trained = []
    plain = regression.train_members
    monkeypatch.setattr(regression, "train_members", lambda *args: trained.append(args[0].num_members) or plain(*args))
    out = tmp_path / "run"
    found = launch.run({"experiment": "ablation", **config}, str(out), progress=False)
    assert trained == [3]  # the three, of which the first variant takes two
    assert [(part["value"], part["group"]) for part in found["parts"]] == [(2, ""), (3, ""), (3, "q 1")]
    first, second, third = (part["rows"] for part in found["parts"])
    assert second["Teachers"]["crps"] == third["Teachers"]["crps"] != first["Teachers"]["crps"]
    assert second["DLF"]["parameters"] == third["DLF"]["parameters"] + 5  # one loading less of a layer of four units and a bias
    for name in ablation_report.FIGURES:
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000
    text = (out / "report.md").read_text()
    assert "| mine | q 1 | DLF |" in text and "## Best value and dimension" in text
    again = out.rename(tmp_path / "again")  # one of the smaller ensembles is missing: the larger is trained for it
    (again / "parts" / "mine-0-0.json").unlink()
    resumed, out = ablation.run(config, again, progress=False), again
    assert trained == [3, 3]
    for row in ("Teachers", "DLF"):
        assert resumed["parts"][0]["rows"][row]["crps"] == first[row]["crps"]
    found = resumed
    monkeypatch.setattr(regression, "one_part", None)  # every part is kept
    assert ablation.run(config, out, progress=False)["parts"] == results.plain(found["parts"])
    with pytest.raises(ValueError, match="other settings"):
        ablation.run({**config, "study": "other"}, out, progress=False)


def test_a_cut_ensemble_is_the_first_of_the_larger_one(config):
    study = ablation.variant_settings(settings.from_dict(ablation.Ablation, config), ablation.Variant(0, {}))
    rng = np.random.default_rng(0)
    arrays = {"inputs": rng.normal(size=(40, 2)).astype(np.float32), "labels": rng.normal(size=40).astype(np.float32)}
    teach = ablation.SharedTeachers()
    three, two = (teach(settings.Ensemble(count, study.ensemble.training), "teacher", arrays, 0)[0] for count in (3, 2))
    alone, _ = regression.train_members(settings.Ensemble(2, study.ensemble.training), "teacher", arrays, 0)
    kernel = lambda found: found.variables["params"]["Dense_0"]["kernel"]  # noqa: E731
    np.testing.assert_allclose(kernel(two), kernel(alone), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(kernel(two), kernel(three)[:2])
    other = teach(settings.Ensemble(2, study.ensemble.training), "teacher", {**arrays, "labels": -arrays["labels"]}, 0)[0]
    assert np.abs(kernel(other) - kernel(two)).max() > 1e-4  # other data, other teachers
    assert isinstance(two, predict.Trained) and len(two.alive) == 2


def test_paths_that_are_not_there_are_refused(config):
    for path, message in (("student.DLF.seeds", "no section 'student'"), ("data.split", "did you mean 'splits'")):
        bad = {**config, "variants": [{"value": 1, "change": {path: 1}}]}
        with pytest.raises(ValueError, match=message.replace("'splits'", ".*splits")):
            ablation.run(bad, "nowhere", progress=False)
    with pytest.raises(ValueError, match="at least one variant"):
        ablation.run({**config, "variants": []}, "nowhere", progress=False)


def part(value, crps, kept=0.5, split=0, data="a"):
    rows = {"Single": {"crps": 3.0}, "Teachers": {"crps": 1.0}, "DLF": {"crps": crps, "variance_ratio": kept}}
    numbers = {"two_nn": 2.04, "inputs": 3.0, "functions": 1.5}
    return {"set": data, "split": split, "value": value, "group": "", "rows": rows, "dimension": numbers, "num_features": 4}


def test_merging_and_what_the_report_says(tmp_path):
    description = {"name": "x", "study": "q"}
    first = ablation_report.finish(tmp_path / "0", [part(1, 2.0, 0.05), part(5, 1.5)], description, {})
    second = ablation_report.finish(tmp_path / "1", [part(1, 3.0, 0.05, split=1), part(5, 1.5, split=1)], description, {})
    merged = report.render([tmp_path / "0", tmp_path / "1"], tmp_path / "both")
    assert ablation_report.opening(merged) == [
        "a, DLF: CRPS from 1.5 at 5 to 2.5 at 1.",
        "a, q 1: DLF has collapsed: it keeps 5.0 % of its teachers' variance.",
    ]
    row = [cell.text for cell in ablation_report.dimensions(merged).rows[0]]
    assert row == ["a", "DLF 5", "4", "2.0", "3.0", "1.5"]
    with pytest.raises(ValueError, match="run 1 repeats"):
        ablation_report.merge([first, first])
    with pytest.raises(ValueError, match="only runs of one study merge"):
        ablation_report.merge([first, {**second, "settings": {"study": "width"}}])


def test_a_smoke_run_takes_the_ends_of_the_sweep(config, tmp_path):
    found = ablation.run({**config, "smoke": True}, tmp_path / "run", progress=False)
    assert [part["group"] for part in found["parts"]] == ["", "q 1"] and found["parts"][0]["num_train"] < 40
