"""Members that are not a deep ensemble: masks and Langevin snapshots train on a table and are members like any other."""

import dataclasses

import jax
import numpy as np
import pytest

from edd.distillers.regression import mean_and_variance
from edd.experiments import predict, regression, settings, teachers

RNG = np.random.default_rng(0)
ARRAYS = {"inputs": RNG.normal(size=(64, 2)).astype(np.float32), "labels": RNG.normal(size=64).astype(np.float32)}


def ensemble(source, options=None, optimizer=None, **model):
    training = settings.Training(
        settings.Model("mlp", {"widths": [8], **model}), optimizer or settings.Optimizer(), epochs=100.0, max_steps=6, batch_size=16
    )
    return settings.Ensemble(4, training, source=source, options=options or {})


SGLD = settings.Optimizer("sgld", 1e-3)


def outputs(trained):
    function = predict.member_logits_function(trained.model, trained.variables, lambda x: x, mean_and_variance)
    return np.asarray(function(ARRAYS["inputs"]))


@pytest.mark.parametrize(
    "given", [ensemble("mc_dropout", dropout=0.5), ensemble("langevin", {"chains": 2, "every": 2}, SGLD)], ids=["mc_dropout", "langevin"]
)
def test_members_train_and_predict_like_a_deep_ensemble(given):
    trained, _ = regression.train_members(given, "teacher", ARRAYS, 0)
    assert trained.alive.tolist() == [True] * 4 and trained.seeds.tolist() == [0, 1, 2, 3]
    found = outputs(trained)
    assert found.shape == (4, 64, 2) and len({member.tobytes() for member in found}) == 4
    np.testing.assert_array_equal(outputs(predict.take(trained, np.array([3, 1]))), found[[3, 1]])


def test_the_last_snapshot_is_the_end_of_the_chain():
    """Snapshot after snapshot, the chains side by side; the last ones are what training ships."""
    given = ensemble("langevin", {"chains": 2, "every": 2}, SGLD)
    trained, _ = regression.train_members(given, "teacher", ARRAYS, 0)
    deep = dataclasses.replace(given, source="deep", options={}, num_members=2)
    last, _ = regression.train_members(deep, "teacher", ARRAYS, 0)
    for ours, theirs in zip(jax.tree.leaves(trained.variables), jax.tree.leaves(last.variables)):
        np.testing.assert_allclose(ours[2:], theirs, rtol=1e-6)
        assert np.abs(ours[:2] - theirs).max() > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ensemble("deeep"), "did you mean 'deep'"),
        (ensemble("deep", {"chains": 2}), "do not fit source 'deep'"),
        (ensemble("mc_dropout"), "set the model option dropout above 0"),
        (ensemble("langevin"), "needs optimizer 'sgld'"),
        (ensemble("langevin", {"chains": 3}, SGLD), "chains must divide num_members = 4"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ValueError, match=message):
        teachers.plan(given)


def test_too_few_steps_and_other_studies():
    with pytest.raises(ValueError, match="need a multiple of 5 steps"):
        regression.train_members(ensemble("langevin", {"every": 5}, SGLD), "teacher", ARRAYS, 0)
    deep = ensemble("mc_dropout", dropout=0.5)
    with pytest.raises(ValueError, match="ensemble.source must be 'deep'"):
        settings.Settings("x", settings.Data("digits"), deep, {})
