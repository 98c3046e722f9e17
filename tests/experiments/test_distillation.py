"""A whole run at the smallest size: every file it promises, resuming, and refusing what cannot work before touching anything."""

import json

import numpy as np
import pytest

from edd import experiments
from edd.distillers.base import ensemble_prediction
from edd.experiments import distillation, predict, settings, stages
from edd.training import checkpoint

TRAINING = {"model": {"name": "mlp", "options": {"widths": [8]}}, "epochs": 1.0, "max_steps": 3, "batch_size": 16}
SMALL = {**TRAINING, "model": {"name": "mlp", "options": {"widths": [4]}}}


def config(**changes):
    made = {
        "name": "tiny",
        "data": {"name": "spirals", "options": {"arms": 3, "points": 20}, "ood": {"spirals_ring": {"points": 20}}},
        "ensemble": {"num_members": 3, "training": TRAINING},
        "baselines": {"small ensemble": {"num_members": 2, "training": SMALL}},
        "students": {
            "proxy": {"method": "proxy", "seeds": 2, "training": TRAINING},
            "EnD": {"method": "end", "training": TRAINING},
            "MIMO": {"method": "mimo", "options": {"num_inputs": 3, "batch_repetition": 2}, "training": TRAINING},
        },
        "evaluation": {"num_resamples": 5, "batch_size": 50, "heat_map": 4.0, "heat_map_points": 8},
    }
    return {**made, **changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    return workdir, experiments.run(config(), str(workdir), progress=False)


def test_a_run_leaves_everything_it_promises(finished):
    workdir, results = finished
    for name in ("run.json", "results.json", "report.md", "report.html", "metrics/teacher/metrics.jsonl", "metrics/proxy/metrics.jsonl"):
        assert (workdir / name).stat().st_size > 0, name
    assert list((workdir / "figures").glob("*.png")) and list((workdir / "cache").glob("targets-*/progress.json"))
    run = json.loads((workdir / "run.json").read_text())
    assert run["settings"]["name"] == "tiny" and run["versions"]["jax"] and run["date"]
    assert run["seeds"]["run"] == 0 and set(run["seeds"]) == {"run", "teacher", "small ensemble", "proxy", "EnD", "MIMO", "evaluation"}
    for name in ("report.md", "report.html", "results.json"):
        assert str(workdir.parent) not in (workdir / name).read_text(), name
    names = {(row["name"], row["seed"]) for row in results["rows"]}
    assert names >= {("Single", 2), ("Ensemble", 0), ("Proxy Dirichlet", 0), ("small ensemble", 0), ("proxy", 1), ("EnD", 0), ("MIMO", 0)}
    groups = {row["name"]: row["group"] for row in results["rows"]}
    assert [groups[name] for name in ("proxy", "EnD", "MIMO")] == ["student", "student", "baseline"]  # which of them saw the teachers


def test_a_baseline_is_an_ensemble_of_its_own_trained_on_labels(finished):
    """Its row has every measure, its parameters are all its members', and it is what `fit` gives with no teacher in sight."""
    workdir, results = finished
    (row,) = [row for row in results["rows"] if row["name"] == "small ensemble"]
    assert row["group"] == "baseline" and row["costs"]["parameters"] == 2 * (2 * 4 + 4 + 4 * 3 + 3)
    assert row["costs"]["milliseconds_per_1000"] > 0
    assert {"accuracy", "nll", "ece"} <= set(row["metrics"]["classification"])
    assert "auroc" in row["metrics"]["detection"]["spirals_ring"]["mutual_information"]
    assert "small ensemble" in (workdir / "report.md").read_text() and (workdir / "checkpoints" / "small ensemble").is_dir()
    whole = settings.from_dict(settings.Settings, config())
    sets = distillation.build.data(whole)
    alone = stages.train_ensemble("small ensemble", whole.baselines["small ensemble"], whole, sets, None, progress=False)
    logits = predict.members.apply(alone.model, alone.variables, sets.test.inputs).logits
    expected = ensemble_prediction(logits)
    nll = -np.asarray(expected.log_probs)[np.arange(len(sets.test.labels)), sets.test.labels].mean()
    assert row["metrics"]["classification"]["nll"]["value"] == pytest.approx(nll, rel=1e-4)
    again = stages.train_ensemble("small ensemble", whole.baselines["small ensemble"], whole, sets, workdir, progress=False)
    predict.jax.tree.map(np.testing.assert_array_equal, alone.variables, again.variables)  # resumed: nothing was trained again


def test_resuming_a_finished_run_changes_no_number(finished):
    workdir, results = finished
    again = experiments.run(config(), str(workdir), progress=False)
    for old, new in zip(results["rows"], again["rows"]):
        assert old["metrics"] == new["metrics"]


def test_another_run_in_the_same_directory_is_refused(finished):
    workdir, _ = finished
    before = sorted((path, path.stat().st_mtime_ns) for path in workdir.rglob("*"))
    with pytest.raises(ValueError, match="seed"):
        experiments.run(config(seed=5), str(workdir), progress=False)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in workdir.rglob("*"))


@pytest.mark.parametrize(
    "change,message",
    [
        ({"experiment": "distilation"}, "unknown experiment 'distilation': did you mean 'distillation'"),
        ({"students": {"x": {"method": "poxy", "training": TRAINING}}}, "unknown method 'poxy': did you mean 'proxy'"),
        (
            {"students": {"x": {"method": "proxy", "options": {"ofset": 1.0}, "training": TRAINING}}},
            "option 'ofset': did you mean 'offset'",
        ),
        (
            {"students": {"m": {"method": "mimo", "options": {"batch_repetition": 3}, "training": TRAINING}}},
            "students.m: batch_size must be a multiple of batch_repetition 3, got 16",
        ),
        ({"students": {"m": {"method": "mimo", "options": {"num_input": 3}, "training": TRAINING}}}, "did you mean 'num_inputs'"),
        ({"students": {"Ensemble": {"method": "proxy", "training": TRAINING}}}, "choose another"),
        ({"students": {"small ensemble": {"method": "proxy", "training": TRAINING}}}, "students.small ensemble: .* choose another"),
        ({"baselines": {"teacher": {"num_members": 2, "training": SMALL}}}, "baselines.teacher: .* choose another"),
        ({"baselines": {"a/b": {"num_members": 2, "training": SMALL}}}, "baselines.a/b: .* must not hold a slash"),
        ({"baselines": {"x": {"num_members": 0, "training": SMALL}}}, "baselines.x.*num_members must be at least 1"),
        ({"baselines": {"x": {"num_members": 2, "training": {**SMALL, "model": {"name": "mpl"}}}}}, "unknown model 'mpl'"),
        ({"baselines": {"x": {"num_members": 2, "training": {**SMALL, "batch_size": 61}}}}, "baselines.x.training.batch_size must be"),
        ({"ensemble": {"num_members": 2, "training": {**TRAINING, "model": {"name": "mpl"}}}}, "unknown model 'mpl': did you mean 'mlp'"),
        ({"ensemble": {"num_members": 2, "training": {**TRAINING, "optimizer": {"name": "adan"}}}}, "adam"),
        ({"data": {"name": "spirl"}}, "spirals"),
        ({"ensemble": {"num_members": 2, "training": {**TRAINING, "strategy": "vmpa"}}}, "unknown strategy 'vmpa': did you mean 'vmap'"),
        ({"students": {"x": {"method": "proxy", "training": {**TRAINING, "keep": "best"}}}}, "students.x.training: keep='best' chooses"),
        ({"students": {"../x": {"method": "proxy", "training": TRAINING}}}, "must not hold a slash"),
        ({"students": {"x": {"method": "proxy", "training": {**TRAINING, "batch_size": 61}}}}, "batch_size must be at most 60"),
        ({"evaluation": {"reference": {"Ensemble": 0.1}}}, "evaluation.reference.Ensemble must map metrics to numbers"),
        ({"evaluation": {"heat_map_points": 1}}, "heat_map_points must be at least 2"),
        ({"data": {"name": "spirals", "options": {"arms": 3, "points": 20}, "ood": {"digits_photos": {}}}}, "has inputs of shape"),
    ],
)
def test_mistakes_are_found_before_the_directory_is_made(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        experiments.run(config(**change), str(tmp_path / "run"), progress=False)
    assert not (tmp_path / "run").exists()


def test_diverged_members_are_left_out_of_the_targets(tmp_path):
    whole = settings.from_dict(settings.Settings, config())
    sets = distillation.build.data(whole)
    teacher = stages.pretrain(whole, sets, None, progress=False)
    damaged = teacher._replace(alive=np.array([True, False, True]))
    left = predict.survivors(damaged, "members")
    assert left.seeds.tolist() == [0, 2]
    for kept, old in zip(*(predict.jax.tree.leaves(each.variables) for each in (left, teacher))):
        np.testing.assert_array_equal(kept, old[[0, 2]])
    with pytest.raises(ValueError, match="every one of the 3 members diverged"):
        predict.survivors(teacher._replace(alive=np.zeros(3, bool)), "members")


def test_online_and_cached_targets_train_the_same_student():
    whole = settings.from_dict(settings.Settings, config())
    sets = distillation.build.data(whole)
    teacher = stages.pretrain(whole, sets, None, progress=False)
    student = settings.from_dict(settings.Student, config()["students"]["proxy"])
    cached = stages.distil("proxy", student, teacher, whole, sets, None, progress=False)
    online = stages.distil("proxy", settings.dataclasses.replace(student, targets="online"), teacher, whole, sets, None, progress=False)
    for first, second in zip(*(predict.jax.tree.leaves(each.variables) for each in (cached, online))):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_keep_best_ships_the_checkpoint_of_least_validation_loss(tmp_path):
    training = {
        **TRAINING,
        "keep": "best",
        "checkpoint_every": 1,
        "epochs": 3.0,
        "max_steps": 6,
        "optimizer": {"name": "sgd", "learning_rate": 1.0},
    }
    spec = config(ensemble={"num_members": 2, "training": training}, students={})
    spec["data"] = {**spec["data"], "validation": 0.3}
    whole = settings.from_dict(settings.Settings, spec)
    sets = distillation.build.data(whole)
    assert len(sets.validation.labels) == 18 and len(sets.train.labels) == 42
    shipped = stages.pretrain(whole, sets, tmp_path, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "metrics" / "teacher" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if isinstance(line["loss"], float)}
    assert len(losses) == 6
    with checkpoint.Checkpointer(tmp_path / "checkpoints" / "teacher", keep_best=1) as saver:
        assert min(losses, key=losses.get) in saver.steps
    probs = np.exp(
        predict.jax.nn.log_softmax(np.asarray(predict.members.apply(shipped.model, shipped.variables, sets.validation.inputs).logits))
    )
    nll = -np.log(probs[:, np.arange(18), sets.validation.labels]).mean()
    assert nll == pytest.approx(min(losses.values()), rel=1e-4)


def test_full_sizes_are_checked_without_allocating():
    spec = config(ensemble={"num_members": 1000, "training": {"model": {"name": "mlp", "options": {"widths": [200000, 200000]}}}})
    spec["students"]["EDFM"] = {"method": "edfm", "options": {"num_features": 5, "widths": [7]}, "training": TRAINING}
    sizes = distillation.check_shapes(settings.from_dict(settings.Settings, spec))
    assert sizes["teacher"] > 4e10 and sizes["proxy"] == 2 * 8 + 8 + 8 * 3 + 3 and sizes["small ensemble"] == 2 * 4 + 4 + 4 * 3 + 3
    assert sizes["MIMO"] == 3 * 2 * 8 + 8 + 8 * 9 + 9 and sizes["EDFM"] == 2 * 8 + 8 + 8 * 5 + 5 + (5 + 9 + 3) * 7 + 7 + 7 * 3 + 3


def test_a_student_that_diverges_is_reported_and_the_others_go_on(tmp_path):
    diverging = {**TRAINING, "optimizer": {"name": "sgd", "learning_rate": 1e30}}
    spec = config(
        students={"bad": {"method": "end2", "training": diverging}, "EnD": {"method": "end", "training": TRAINING}},
        baselines={"small ensemble": {"num_members": 2, "training": diverging}},
    )
    results = experiments.run(spec, str(tmp_path / "run"), progress=False)
    assert {"bad", "small ensemble"} <= set(results["run"]["diverged (replica: step)"])
    names = {row["name"] for row in results["rows"]}
    assert "EnD" in names and "bad" not in names and "small ensemble" not in names
    assert "bad: not finite and left out from there on: replica 0 at step" in (tmp_path / "run" / "report.md").read_text()
    spec["students"], spec["baselines"] = {"bad": {"method": "end2", "training": {**diverging, "on_nonfinite": "stop"}}}, {}
    spec["data"] = {**spec["data"], "validation": 0.2}  # a held-out loss of no living replica is NaN, without a warning
    with pytest.raises(FloatingPointError, match="bad: .*replica 0 at step"):
        experiments.run(spec, str(tmp_path / "stop"), progress=False)
