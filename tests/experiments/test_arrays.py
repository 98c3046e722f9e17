"""An ensemble given as arrays: the same path, strict about what it is given."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from edd import experiments
from edd.experiments import arrays

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(40, 2)).astype(np.float32)
MEMBERS = RNG.normal(size=(4, 40, 3)).astype(np.float32)
SMALL = {"epochs": 1.0, "batch_size": 16, "model_options": {"widths": [8]}}
ROOT = pathlib.Path(__file__).parents[2]


def with_value(value):
    changed = MEMBERS.copy()
    changed[1, 2, 0] = value
    return changed


@pytest.mark.parametrize(
    "inputs,members,options,message",
    [
        (INPUTS, MEMBERS[0], {}, r"must be \[M, N, K\]"),
        (INPUTS, MEMBERS[:, :, :1], {}, "2 classes"),
        (INPUTS, MEMBERS[:0], {}, "at least 1 member"),
        (INPUTS[:-1], MEMBERS, {}, "same examples"),
        (INPUTS, with_value(np.nan), {}, "nan at member 1, example 2, class 0"),
        (INPUTS, with_value(np.inf), {}, "inf at member 1, example 2, class 0"),
        (INPUTS, MEMBERS, {"kind": "probs"}, "must be valid probs"),
        (INPUTS, np.full((4, 40, 3), 0.5), {"kind": "probs"}, "must sum to 1 over classes, got 1.5 at member 0, example 0"),
        (INPUTS, MEMBERS, {"kind": "log_probs"}, "must sum to 1 over classes"),
        (INPUTS, MEMBERS, {"labels": np.full(40, 3)}, "num_classes must be at least 4"),
        (INPUTS, MEMBERS, {"labels": np.full(40, -1)}, "labels must be"),
        (INPUTS, MEMBERS, {"method": "supervised"}, "give labels"),
        (INPUTS, MEMBERS, {"method": "mimo"}, "'mimo' trains on labels: give labels"),
        (INPUTS, MEMBERS, {"method": "prox"}, "did you mean 'proxy'"),
        (INPUTS, MEMBERS, {"model": "resnet"}, "did you mean"),
        (INPUTS, MEMBERS, {"kind": "logit"}, "did you mean 'logits'"),
        (np.full((40, 2), np.nan), MEMBERS, {}, "inputs must be finite"),
    ],
)
def test_bad_arrays_are_refused_and_no_directory_is_made(tmp_path, inputs, members, options, message):
    with pytest.raises(ValueError, match=message):
        experiments.distill(inputs, members, workdir=tmp_path / "run", **{**SMALL, **options})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["proxy", "forward_proxy", "end", "end2"])
def test_every_method_distils_and_predicts(method):
    student = experiments.distill(INPUTS, MEMBERS, method=method, **SMALL)
    prediction = student.predict(INPUTS[:7])
    np.testing.assert_allclose(np.exp(prediction.log_probs).sum(-1), 1.0, rtol=1e-5)
    assert prediction.total.shape == (7,) and (prediction.mutual_information is None) == (method == "end")
    with pytest.raises(ValueError, match="inputs must be"):
        student.predict(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="inputs must be float32 as the training inputs"):
        student.predict((INPUTS * 10).astype(np.uint8))
    with pytest.raises(ValueError, match="seed must lie in"):
        student.predict(INPUTS, seed=1)


def test_probabilities_with_exact_zeros_are_the_same_ensemble():
    probs = np.exp(MEMBERS - np.log(np.exp(MEMBERS).sum(-1, keepdims=True)))
    first = experiments.distill(INPUTS, MEMBERS, **SMALL).predict(INPUTS)
    second = experiments.distill(INPUTS, probs, kind="probs", **SMALL).predict(INPUTS)
    np.testing.assert_allclose(first.log_probs, second.log_probs, atol=1e-4)
    hard = np.eye(3)[np.random.default_rng(1).integers(0, 3, (4, 40))]
    assert np.isfinite(experiments.distill(INPUTS, hard, kind="probs", **SMALL).predict(INPUTS).mutual_information).all()


def test_a_saved_student_predicts_the_same(tmp_path):
    student = experiments.distill(INPUTS, MEMBERS, workdir=tmp_path / "run", seeds=2, **SMALL)
    loaded = experiments.load_student(tmp_path / "run")
    for seed in (0, 1):
        np.testing.assert_array_equal(student.predict(INPUTS, seed=seed).log_probs, loaded.predict(INPUTS, seed=seed).log_probs)
    with pytest.raises(ValueError, match="other settings"):
        experiments.distill(INPUTS, MEMBERS + 1e-3, workdir=tmp_path / "run", seeds=2, **SMALL)
    with pytest.raises(ValueError, match="does not exist"):
        experiments.load_student(tmp_path)


def test_the_command_line_takes_files_and_writes_a_report(tmp_path):
    labels = np.random.default_rng(2).integers(0, 3, 40)
    for name, array in (("x", INPUTS), ("z", MEMBERS), ("y", labels)):
        np.save(tmp_path / f"{name}.npy", array)
    x, z, y = (str(tmp_path / f"{name}.npy") for name in "xzy")
    command = [sys.executable, str(ROOT / "launch" / "distill.py"), "--inputs", x, "--member-logits", z, "--workdir", str(tmp_path / "run")]
    options = ["--epochs", "1", "--batch-size", "16", "--model-options", '{"widths": [8]}']
    test = ["--test-inputs", x, "--test-member-logits", z, "--test-labels", y]
    done = subprocess.run([*command, *options, *test], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    told = results["run"]["methods"]["student"]
    assert told.startswith("proxy: direction=reverse") and "prior=authors" in told
    assert all(row["costs"]["milliseconds_per_1000"] > 0 for row in results["rows"] if row["name"] == "student")
    assert {"Single", "Ensemble", "student"} <= {row["name"] for row in results["rows"]} and (tmp_path / "run" / "report.html").exists()
    failed = subprocess.run([*command, "--method", "prox"], capture_output=True, text=True)
    assert failed.returncode != 0 and "did you mean 'proxy'" in failed.stderr and "Traceback" not in failed.stderr


LABELS = np.arange(40) % 3


@pytest.mark.parametrize(
    "sets,labels,message",
    [
        ({"test": (INPUTS[:-1], MEMBERS)}, LABELS[:-1], "set 'test' has 39 inputs but 40 predictions"),
        ({"test": (INPUTS[:, :1], MEMBERS)}, LABELS, "inputs of shape"),
        ({"test": (INPUTS.astype(np.uint8), MEMBERS)}, LABELS, "must be float32 as the training inputs .*, got uint8"),
        ({"test": (INPUTS, MEMBERS[:, :, :2])}, LABELS, r"must be \[4, N, 3\]"),
        ({"test": (INPUTS, MEMBERS)}, LABELS + 1, "the largest is 3"),
        ({"test": (INPUTS, MEMBERS)}, None, "must be given"),
        ({"test": (INPUTS, MEMBERS), "far": (INPUTS, MEMBERS[:2])}, LABELS, "of 'far' must be"),
        ({"test": (INPUTS, MEMBERS), "far": (INPUTS, with_value(np.nan))}, LABELS, "of 'far' must be valid logits, got nan"),
    ],
)
def test_mistakes_in_test_arrays_are_found_before_training(sets, labels, message):
    with pytest.raises(ValueError, match=message):
        arrays.check_test(sets, labels, kind="logits", input_shape=(2,), num_classes=3)


def test_kinds_are_checked_by_value():
    with pytest.raises(ValueError, match="sum to 1"):
        arrays.member_logits_of([[[0.2, 0.2]]], "probs")
    np.testing.assert_array_equal(arrays.member_logits_of([[[1.0, 0.0]]], "probs"), [[[0.0, -np.inf]]])
