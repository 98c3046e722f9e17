"""Synthetic ensembles and students, made with numpy and scipy alone: an oracle beside the library's own measures."""

import json

import numpy as np
import pytest
import scipy.special
import scipy.stats

from edd.distillers.base import Prediction
from edd.experiments.predictions import Row


def _ensemble(member_probs):
    mean = member_probs.mean(0)
    total = scipy.stats.entropy(mean, axis=-1)
    data = scipy.stats.entropy(member_probs, axis=-1).mean(0)
    reverse = scipy.stats.entropy(mean[None], member_probs, axis=-1).mean(0)
    precision = (mean.shape[-1] - 1) / (2 * reverse)
    return Prediction(np.log(mean), total, data, total - data, total - data + reverse, reverse, precision)


def _dirichlet(probs, precision):
    total = scipy.stats.entropy(probs, axis=-1)
    alpha = probs * precision[:, None]
    data = -(probs * (scipy.special.digamma(alpha + 1) - scipy.special.digamma(precision + 1)[:, None])).sum(-1)
    pairwise = (probs.shape[-1] - 1) / precision
    return Prediction(np.log(probs), total, data, total - data, pairwise, pairwise - total + data, precision)


def _softmax(probs):
    entropy = scipy.stats.entropy(probs, axis=-1)
    return Prediction(np.log(probs), entropy, entropy)


def _member_probs(rng, labels, num_members, num_classes, certainty):
    """Members drawn from a Dirichlet around a noisy label: in distribution precise, out of distribution not."""
    centre = rng.dirichlet(np.ones(num_classes), len(labels)) + certainty * np.eye(num_classes)[labels]
    centre /= centre.sum(-1, keepdims=True)
    return np.stack([[rng.dirichlet((3 + 20 * certainty) * row + 0.05) for row in centre] for _ in range(num_members)]) * 0.999 + (
        0.001 / num_classes
    )


@pytest.fixture(scope="session")
def make_rows():
    """(num_test, seeds, seed, out_sets) -> (rows, labels): two members, ensemble, proxy, an EnD and a Dirichlet student."""

    def make(num_test=80, *, seeds=3, seed=0, out_sets=("noise",), num_classes=4, num_out=60, num_members=3):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, num_classes, num_test)
        sets = {"test": _member_probs(rng, labels, num_members, num_classes, 0.6)}
        for name in out_sets:
            sets[name] = _member_probs(rng, rng.integers(0, num_classes, num_out), num_members, num_classes, 0.1)
        whole = {name: _ensemble(probs) for name, probs in sets.items()}
        rows = [
            Row("Single", index, {name: _softmax(probs[index]) for name, probs in sets.items()}, 100, 1.0, "single")
            for index in range(num_members)
        ]
        rows.append(Row("Ensemble", 0, whole, 100 * num_members, 3.0, "ensemble"))
        proxy = {name: _dirichlet(np.exp(each.log_probs), each.precision) for name, each in whole.items()}
        rows.append(Row("Proxy Dirichlet", 0, proxy, 100 * num_members, 3.0, "proxy"))
        for index in range(seeds):
            noisy = {name: np.exp(each.log_probs + 0.3 * rng.normal(size=each.log_probs.shape)) for name, each in whole.items()}
            noisy = {name: probs / probs.sum(-1, keepdims=True) for name, probs in noisy.items()}
            rows.append(Row("EnD", index, {name: _softmax(probs) for name, probs in noisy.items()}, 100, 1.1))
            precision = {name: each.precision * np.exp(0.3 * rng.normal(size=len(each.precision))) for name, each in whole.items()}
            rows.append(Row("Proxy", index, {name: _dirichlet(noisy[name], precision[name]) for name in sets}, 100, 1.2))
        return rows, labels

    return make


@pytest.fixture
def refused(tmp_path):
    """(config, message): the launcher refuses the config with this message and leaves no run directory."""
    from edd.experiments import launch

    def check(config, message):
        with pytest.raises(ValueError, match=message):
            launch.run(config, str(tmp_path / "run"), progress=False)
        assert not (tmp_path / "run").exists()

    return check


@pytest.fixture
def rendered_again(tmp_path):
    """(folder, results of a finished study): it renders again to its own parts and repeats itself; -> results of another seed."""
    from edd.experiments import report, results

    def check(folder, found):
        again = report.render([folder], tmp_path / "again")
        assert results.encode(again["parts"]) == json.loads((folder / "results.json").read_text())["parts"]
        with pytest.raises(ValueError, match="run 1 repeats"):
            report.render([folder, folder], tmp_path / "both")
        return {**found, "settings": {**found["settings"], "seed": 1}, "parts": [{**part, "run_seed": 1} for part in found["parts"]]}

    return check


@pytest.fixture(scope="session")
def evaluated(make_rows):
    """(rows, labels, results) of the default synthetic run, evaluated once."""
    from edd.experiments.evaluate import evaluate

    rows, labels = make_rows()
    settings = {"name": "synthetic", "seed": 0, "data": {"arms": 3}}
    run = {"command": "run.py --config synthetic.py", "versions": {"jax": "0"}, "settings": {"ignored": True}}
    return rows, labels, evaluate(rows, labels, settings=settings, run=run, num_resamples=40, reference={"Ensemble": {"error": 0.011}})
