"""The results schema: strict JSON that keeps NaN and infinity, pooling, merging runs, and errors that say what to do."""

import copy
import json
import math
import os

import numpy as np
import pytest

from edd.experiments import results
from edd.experiments.evaluate import evaluate


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_encode_is_strict_json_and_decode_inverts_it():
    tree = {"a": [math.inf, -math.inf, 1.5, None, True], "b": np.float32(0.25), "c": np.arange(3), 4: "text", "d": np.nan}
    text = json.dumps(results.encode(tree), allow_nan=False)
    back = results.decode(strict(text))
    assert math.isnan(back.pop("d"))
    assert back == {"a": [math.inf, -math.inf, 1.5, None, True], "b": 0.25, "c": [0, 1, 2], "4": "text"}


def test_save_and_load(tmp_path, evaluated):
    found = evaluated[-1]
    path = results.save(found, tmp_path)
    strict(path.read_text())
    assert results.load(tmp_path) == results.load(path) == results.plain(found)
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no results.json at"), ("{", "not valid JSON"), ('{"schema": "edd.results/0"}', "'edd.results/0'"), ("[]", "schema None")],
)
def test_load_errors(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        results.load(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0], (2.0, None, 1, 1)),
        ([1.0, None, 3.0], (2.0, math.sqrt(2), 2, 3)),
        ([None, None], (None, None, 0, 2)),
        ([math.nan, None], (math.nan, None, 0, 2)),
        ([1.0, math.inf], (math.inf, None, 2, 2)),
        ([-math.inf, math.inf], (math.nan, None, 2, 2)),
    ],
)
def test_pool(values, expected):
    found = results.pool(values)
    assert (found["n"], found["of"]) == expected[2:]
    for name, value in zip(("mean", "sd"), expected):
        assert found[name] is None if value is None else found[name] == pytest.approx(value, nan_ok=True)


def test_summary_is_mean_and_sample_deviation(evaluated):
    found = evaluated[-1]
    rows = [row["metrics"]["classification"]["nll"] for row in found["rows"] if row["name"] == "Proxy"]
    pooled = next(entry for entry in found["summary"] if entry["name"] == "Proxy")
    leaf = pooled["metrics"]["classification"]["nll"]
    assert leaf["mean"] == pytest.approx(np.mean([row["value"] for row in rows]))
    assert leaf["sd"] == pytest.approx(np.std([row["value"] for row in rows], ddof=1))
    assert leaf["low"] == pytest.approx(np.mean([row["low"] for row in rows]))
    assert pooled["seeds"] == [0, 1, 2] and leaf["n"] == 3
    single = next(entry for entry in found["summary"] if entry["name"] == "Ensemble")
    assert single["metrics"]["classification"]["nll"]["sd"] is None


@pytest.fixture(scope="module")
def runs(make_rows):
    """Three runs: two seeds of 3 arms, one of 6; the noise goes with the arms."""
    found = []
    for seed, arms in ((0, 3), (1, 3), (2, 6)):
        rows, labels = make_rows(num_test=30, num_out=20, seeds=2, seed=seed)
        settings = {
            "name": f"run-{seed}",
            "seed": seed,
            "data": {"options": {"arms": arms, "noise": 0.6 / arms}},
            "evaluation": {"x": seed},
        }
        found.append(evaluate(rows, labels, settings=settings, run={"date": str(seed)}, num_resamples=3))
    return found


def test_merge_pools_seeds_and_lists_settings(runs):
    merged = results.merge(runs)
    assert {tuple(entry["variant"].items()) for entry in merged["summary"]} == {(("data.options.arms", 3),), (("data.options.arms", 6),)}
    entry = next(entry for entry in merged["summary"] if entry["name"] == "Proxy" and entry["variant"]["data.options.arms"] == 3)
    values = [row["metrics"]["classification"]["accuracy"]["value"] for run in runs[:2] for row in run["rows"] if row["name"] == "Proxy"]
    leaf = entry["metrics"]["classification"]["accuracy"]
    assert (leaf["n"], entry["runs"], entry["seeds"]) == (4, [0, 1], [0, 1, 0, 1])
    assert leaf["mean"] == pytest.approx(np.mean(values)) and leaf["sd"] == pytest.approx(np.std(values, ddof=1))
    assert [part["run"]["date"] for part in merged["runs"]] == ["0", "1", "2"]
    assert "data.options.arms" not in merged["settings"]
    assert runs[0]["rows"][0]["variant"] == {}  # the inputs stay as they were


def test_merge_of_merges_is_the_merge(runs):
    whole = results.merge(runs)
    parts = results.merge([results.merge(runs[:2]), runs[2]])
    assert parts["summary"] == whole["summary"] and parts["rows"] == whole["rows"]


def test_merge_survives_the_disk(runs, tmp_path):
    merged = results.merge(runs[:2])
    results.save(merged, tmp_path)
    again = results.merge([results.load(tmp_path), results.plain(runs[2])])
    assert again["summary"] == results.plain(results.merge(runs)["summary"])


def change(run, path, value):
    run = copy.deepcopy(run)
    target = run
    for key in path[:-1]:
        target = target[key]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return run


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), "edd.results/0", "run 1 has schema 'edd.results/0'"),
        (("conventions", "ECE, MCE"), "10 bins", "run 1 measured 'ECE, MCE' as '10 bins'"),
        (("sets", "other"), {"kind": "out", "examples": 1}, r"run 1 has the sets \['noise', 'other', 'test'\]"),
        (("rows", 3, "metrics", "classification", "nll"), None, "row 'Ensemble' of run 1 has other metrics.*classification/nll"),
    ],
)
def test_merge_refuses(runs, path, value, message):
    with pytest.raises(ValueError, match=message):
        results.merge([runs[0], change(runs[1], path, value)])


def test_merge_refuses_the_same_run_twice_and_nothing(runs):
    diverged = change(runs[0], ("rows", 0, "metrics", "classification", "nll", "value"), math.nan)
    with pytest.raises(ValueError, match="runs 0 and 1 are the same run"):
        results.merge([diverged, results.plain(diverged)])
    with pytest.raises(ValueError, match="at least one run"):
        results.merge([])


def test_differing_settings():
    first = {"name": "a", "seed": 0, "student": {"width": 8, "layer_norm": False, "options": {}}, "evaluation": {"num_bins": 15}}
    second = {"name": "b", "seed": 1, "student": {"width": 8, "layer_norm": True, "options": {"x": [1]}}, "evaluation": {"num_bins": 10}}
    third = {**second, "student": {**second["student"], "width": 16}}
    found = results.differing_settings([first, second, third])
    assert found == {"student.width": [8, 8, 16], "student.layer_norm": [False, True, True]}
    assert results.differing_settings([first, {**first, "seed": 5, "workdir": "x"}]) == {}
