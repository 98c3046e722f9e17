"""The study of smoothed teachers: from end to end, who teaches whom, what is compared, and what is refused."""

import json

import numpy as np
import pytest

from edd.experiments import launch, settings, smoothing_distillation, smoothing_distillation_report
from edd.metrics import softness


def program(**more):
    return {"model": {"name": "mlp", "options": {"widths": [16]}}, "epochs": 1.0, "batch_size": 8, **more}


def pupil(teacher, method, curve="", **options):
    return {"teacher": teacher, "curve": curve, "student": {"method": method, "options": options, "training": program()}}


@pytest.fixture(scope="module")
def config():
    return {
        "experiment": "smoothing_distillation",
        "name": "toy",
        "smoke": True,
        "data": {"name": "digits"},
        "teachers": {
            "hard": {"num_members": 2, "training": program()},
            "smoothed": {"num_members": 2, "smoothing": 0.3, "training": program()},
        },
        "pupils": {
            "plain": pupil("", "supervised", smoothing_distillation_report.BASELINE, smoothing=0.2, prior=[0.1] * 10),
            "warm": pupil("hard", "knowledge_distillation", "hard teachers", teacher_temperature=4.0),
            "taught": pupil("smoothed", "knowledge_distillation", beta=0.6, form="logits"),
        },
        "reference": {"hard": {"errors": 67}},
    }


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoothing") / "run"
    return folder, launch.run(config, str(folder), progress=False)


def test_a_study_from_end_to_end(finished, config):
    folder, found = finished
    parts = {part["row"]: part for part in found["parts"]}
    assert {row: part["kind"] for row, part in parts.items()} == {
        "hard": "teacher",
        "smoothed": "teacher",
        "plain": "student",
        "warm": "student",
        "taught": "student",
    }
    for part in parts.values():
        assert [each["seed"] for each in part["seeds"]] == [0, 1]
        assert all(each["errors"] == round(40 * (1 - each["accuracy"])) for each in part["seeds"])
    gammas = {row: [each["gamma"] for each in part["seeds"]] for row, part in parts.items()}
    assert gammas["hard"] == [0, 0] and gammas["smoothed"] == [0.3, 0.3] and gammas["plain"] == [0.2, 0.2]
    assert len(set(gammas["warm"])) == 2  # each student has a teacher of its own
    text = (folder / "report.md").read_text()
    assert "| hard | teacher | – | 2 |" in text and "| 67 |" in text and "A smoke run" in text
    assert (folder / "figures" / "gamma.png").stat().st_size > 5000
    again = launch.run(config, str(folder), progress=False)
    assert again["parts"] == found["parts"]


def test_runs_render_again_and_merge(finished, rendered_again):
    _, found = finished
    rows = smoothing_distillation_report.rows(smoothing_distillation_report.merge([found, rendered_again(*finished)]))
    assert [len(row["seeds"]) for row in rows] == [4] * 5 and len({each["seed"] for each in rows[0]["seeds"]}) == 4


def made(row, errors, kind="student", teacher="", curve="", smoothing=0.0, gamma=0.0):
    seeds = [
        {"seed": seed, "errors": each, "accuracy": 1 - each / 1000, "nll": 0.1, "ece": 0.02, "gamma": gamma}
        for seed, each in enumerate(errors)
    ]
    return {"row": row, "kind": kind, "teacher": teacher, "curve": curve, "smoothing": smoothing, "run_seed": 0, "seeds": seeds}


def test_what_the_report_says_of_teachers_and_students():
    parts = [
        made("hard", [70, 60], "teacher"),
        made("soft", [60, 61], "teacher", smoothing=0.1),
        made("of hard", [74, 75], teacher="hard"),
        made("of soft", [91, 75], teacher="soft"),
    ]
    said = smoothing_distillation_report.opening({"parts": parts, "settings": {}})
    assert said[0] == "Teacher 'soft': 60.5 errors, the hard teacher 65.0; fewer in 1 of 2 seeds, more in 1."
    assert said[1] == "Its student 'of soft': 83.0 errors, the hard teacher's student 74.5; fewer in 0 of 2 seeds, more in 1."


def test_curves_are_compared_at_the_same_gamma():
    base = smoothing_distillation_report.BASELINE
    parts = [
        made("a", [100], curve=base, gamma=0.0),
        made("b", [200], curve=base, gamma=0.5),
        made("c", [140], curve="distilled", gamma=0.25),  # 10 errors fewer than the line between a and b
        made("d", [210], curve="distilled", gamma=0.5),
    ]
    said = smoothing_distillation_report.opening({"parts": parts, "settings": {}})
    expected = "distilled: 1 of 2 points above plain students at the same gamma (points of accuracy +1.00 at 0.25, -1.00 at 0.50)."
    assert said == [expected]


def test_gamma_is_that_of_the_softened_teacher(finished, config):
    _, found = finished
    parsed = settings.from_dict(smoothing_distillation.SmoothingDistillation, {k: v for k, v in config.items() if k != "experiment"})
    base = smoothing_distillation.base_of(parsed, "hard")
    from edd.data import augment
    from edd.ensembles import members
    from edd.experiments import build, predict, stages

    sets = build.data(base)
    teacher = stages.train_ensemble("hard", base.ensemble, base, sets, None, progress=False)
    logits = np.asarray(members.apply(teacher.model, teacher.variables, augment.preprocess(sets.info)(sets.train.inputs)).logits)
    soft = np.exp(logits[1] / 4) / np.exp(logits[1] / 4).sum(-1, keepdims=True)
    expected = softness.equivalent_smoothing(soft, sets.train.labels)
    warm = next(part for part in found["parts"] if part["row"] == "warm")
    assert warm["seeds"][1]["gamma"] == pytest.approx(expected, rel=1e-5)
    assert smoothing_distillation.taught(predict.take(teacher, np.array([1])), 4.0, sets, 16) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda c: c["pupils"]["warm"].update(teacher="hart"), "did you mean 'hard'"),
        (lambda c: c["pupils"]["warm"].update(teacher=""), "goes with teacher=''"),
        (lambda c: c["pupils"]["plain"].update(teacher="hard"), "goes with teacher=''"),
        (lambda c: c["teachers"]["hard"].update(num_members=3), "all with as many members"),
        (lambda c: c["teachers"]["hard"].update(smoothing=-0.1), r"smoothing must be in \[0, 1\]"),
        (lambda c: c["teachers"]["hard"].update(smoothing=1.1), r"smoothing must be in \[0, 1\]"),
        (lambda c: c["pupils"]["warm"]["student"]["options"].update(teacher_temperature=0.0), "teacher_temperature must be above 0"),
        (lambda c: c["pupils"]["warm"]["student"]["options"].update(teacher_temperature=float("inf")), "above 0 and finite, got inf"),
        (lambda c: c["pupils"]["warm"]["student"]["options"].update(student_temperature=-1.0), "students.warm: student_temperature must"),
        (lambda c: c["pupils"]["plain"]["student"]["options"].update(smoothing=-0.1), r"students.plain: smoothing must lie in \[0, 1\]"),
        (lambda c: c["pupils"]["plain"]["student"]["options"].update(smoothing=1.1), r"smoothing must lie in \[0, 1\]"),
        (lambda c: c["pupils"]["plain"]["student"]["options"].update(prior=[0.5, 0.5]), r"prior must have shape \(10,\)"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(config, change, message, refused):
    bad = json.loads(json.dumps(config))
    change(bad)
    refused(bad, message)
