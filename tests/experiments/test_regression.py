"""Regression studies: a small run end to end from CSV files, finished parts are kept, merging, collapse is told, clear errors."""

import json

import numpy as np
import pytest

from edd.experiments import build, collapse, launch, regression, regression_figures, regression_report, report, results, settings
from edd.experiments.regression_settings import Regression


def training(steps=3, name="mlp", **options):
    model = {"name": name, "options": {"widths": [4], **options}}
    return {"model": model, "epochs": 100.0, "max_steps": steps, "batch_size": 16}


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 2))
    np.savetxt(tmp_path / "mine.csv", np.column_stack([inputs, inputs.sum(1)]), delimiter=",")
    return {
        "name": "toy",
        "data": {"sets": [str(tmp_path / "mine.csv")], "splits": [0, 1]},
        "ensemble": {"num_members": 3, "training": training()},
        "baselines": {"small ensemble": {"num_members": 3, "training": training()}},  # as the teachers: compiled once
        "students": {
            "DLF": {"method": "dlf", "training": training(), "options": {"latent_dim": 2}, "seeds": 2},
            "LBE": {
                "method": "batch_ensemble",
                "training": training(name="batch_ensemble_mlp"),
                "options": {"averaging": "mask"},
            },
        },
        "reference": {"DLF": {"mine": {"rmse": 0.25}}},
    }


def test_a_study_from_end_to_end_is_resumed_by_parts(config, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with pytest.warns(collapse.CollapseWarning, match=r"mine, split \d: LBE has collapsed"):
        found = launch.run({"experiment": "regression", **config}, str(out), progress=False)
    assert list(found["summary"]["mine"]) == ["Single", "Teachers", "small ensemble", "DLF", "LBE"]
    for row in found["summary"]["mine"].values():
        assert row["crps"]["n"] == 2 and np.isfinite(row["crps"]["mean"]) and row["crps"]["standard_error"] >= 0
    text = (out / "report.md").read_text()
    assert "| DLF, paper | 0.2500 |" in text and "LBE has collapsed" in text and "Loading norm" in text
    assert "<script" not in (out / "report.html").read_text()
    assert found["parts"][0]["dimension"].keys() == {"two_nn", "inputs", "functions"}
    for name in regression_figures.FIGURES:
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000
    monkeypatch.setattr(regression, "one_part", lambda settings, label, split, *_: {**part(split, label), "again": True})
    (out / "parts" / "mine-1.json").unlink()
    again = regression.run(config, out, progress=False)["parts"]
    assert again[0] == results.plain(found["parts"][0]) and again[1]["again"]
    with pytest.raises(ValueError, match="other settings"):
        regression.run({**config, "seed": 1}, out, progress=False)


def part(split, data="a", crps=1.0, kept=0.5):
    rows = {"Single": {"crps": 2.0}, "Teachers": {"crps": 1.0}, "DLF": {"crps": crps, "variance_ratio": kept}}
    rows = {name: {"rmse": 1.0, "nll": 0.0, "coverage": 0.9, "parameters": 5, "seconds": 1.0, **row} for name, row in rows.items()}
    curves = {name: list(regression_figures.LEVELS) for name in rows}
    return {"set": data, "split": split, "rows": rows, "curves": curves}


def test_merging_splits_and_what_the_report_says(tmp_path):
    first, second = (
        regression_report.finish(tmp_path / str(i), [part(i, crps=1.0 + 0.4 * i, kept=0.01)], {"name": "x"}, {"date": str(i)}, {})
        for i in (0, 1)
    )
    merged = regression_report.merge([first, second])
    leaf = merged["summary"]["a"]["DLF"]["crps"]
    assert leaf == {"mean": pytest.approx(1.2), "standard_error": pytest.approx(0.2), "n": 2}
    assert regression_report.opening(merged) == [
        "a: of the way from a single network's CRPS 2 to the teachers' 1 go: DLF 80 %.",
        "a: DLF has collapsed: it keeps 1.0 % of its teachers' variance.",
    ]
    with pytest.raises(ValueError, match=r"run 1 repeats \('a', 0\)"):
        regression_report.merge([first, first])
    for other, differs in (
        ({"name": "y", "data": {"splits": [1]}}, None),
        ({"seed": 1}, "seed"),
        ({"ensemble": {"num_members": 3}}, "num_members"),
    ):
        other = {**second, "settings": other}
        if differs is None:
            assert len(regression_report.merge([first, other])["parts"]) == 2
        else:
            with pytest.raises(ValueError, match=f"run 1 has another .*{differs}"):
                regression_report.merge([first, other])
    with pytest.raises(ValueError, match="run 0 has schema 'edd.results/1'"):
        regression_report.merge([{**first, "schema": "edd.results/1"}])
    assert json.loads((tmp_path / "0" / "results.json").read_text())["schema"] == regression_report.SCHEMA
    assert report.render([tmp_path / "0", tmp_path / "1"], tmp_path / "both")["summary"] == merged["summary"]
    assert "DLF" in (tmp_path / "both" / "report.md").read_text()
    (tmp_path / "0" / "results.json").write_text('{"schema": "edd.results/1"}')
    with pytest.raises(ValueError, match="schema 'edd.results/1', this version of edd reads 'edd.regression/1'"):
        report.render([tmp_path / "1", tmp_path / "0"], tmp_path / "both")


def test_mistakes_are_found_before_anything_is_written(config, tmp_path):
    def change(**values):
        return {**config, **values}

    dlf = config["students"]["DLF"]
    for bad, message in (
        (change(students={"DLF": {**dlf, "method": "dfl"}}), "did you mean 'dlf'"),
        (change(students={"DLF": {**dlf, "options": {"latent_dims": 2}}}), "did you mean 'latent_dim'"),
        (change(students={"Teachers": dlf}), "none of them Single or Teachers"),
        (change(students={"BE": {"method": "batch_ensemble", "training": training()}}), "students.BE: .*backbone that shares weights"),
        (change(data={"sets": ["nowhere.csv"]}), "nowhere.csv does not exist"),
        (change(data={"sets": []}), "must not be empty"),
        (change(data={"sets": ["x.csv"], "design_fraction": 0.0}), "design_fraction must lie"),
        (change(data={"sets": ["x.csv"], "common_fraction": 1.5}), "common_fraction must lie"),
        (change(data={"sets": ["x.csv"], "design": "trian"}), "did you mean 'train'"),
        (change(data={"sets": ["x.csv"], "teacher_fraction": 1.0}), "no row would be left"),
    ):
        with pytest.raises(ValueError, match=message):
            regression.run(bad, tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()


def test_settings_of_a_smoke_run_are_small(config):
    small = regression.shrink(settings.from_dict(Regression, config))
    assert small.ensemble.num_members == 2 and small.students["LBE"].training.max_steps == 2 and len(small.data.splits) == 1
    assert results.SCHEMA != regression_report.SCHEMA


def test_too_few_design_points_and_teachers_that_are_not_numbers_are_refused():
    student = settings.from_dict(settings.Student, {"method": "dlf", "training": training(), "options": {"latent_dim": 10}})
    distiller = build.regression_distiller(student, 3)
    inputs, members = np.zeros((20, 2), np.float32), np.ones((3, 20, 2), np.float32)
    with pytest.raises(ValueError, match="at least 10 design points, got 9"):
        regression.distil("DLF", student, distiller, inputs[:9], members[:, :9], inputs, 0)
    members[1, 4] = np.nan
    with pytest.raises(ValueError, match="hold NaN at example 4"):
        regression.distil("DLF", student, distiller, inputs, members, inputs, 0)
