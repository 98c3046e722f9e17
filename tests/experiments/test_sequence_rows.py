"""What studies of sequences share: training on pytrees of token ids, scores against slow references, examples, settings."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.data import translation as data
from edd.data.base import Split
from edd.decoding.beam import Hypotheses
from edd.distillers import masked_tokens, sequence
from edd.ensembles import members
from edd.experiments import predict, sequence_rows, stages
from edd.experiments import settings as settings_lib
from edd.models import transformer
from edd.models.base import Model, Outputs
from edd.uncertainty import ensemble

VOCABULARY = 7
RNG = np.random.default_rng(0)
LABELS = np.where(np.arange(5) < RNG.integers(2, 6, (24, 1)), RNG.integers(0, VOCABULARY, (24, 5)), -1).astype(np.int32)
INPUTS = {"source": np.zeros((24, 3), np.int32), "target": np.maximum(LABELS, 0)}


def table_model() -> Model:
    """Says of each token of the target what a table [V, V] holds for it."""

    def init(key, example):
        del example
        return {"params": {"table": 0.1 * jax.random.normal(key, (VOCABULARY, VOCABULARY))}}

    def apply(variables, x, *, train, rngs=None):
        logits = variables["params"]["table"][x["target"]] + 0.0 * x["source"].sum()
        return Outputs(logits, logits), {}

    return Model(init, apply, lambda variables: (variables["params"]["table"].T, jnp.zeros(VOCABULARY)))


def study(**changes) -> sequence_rows.Study:
    training = settings_lib.Training(settings_lib.Model("transformer"))
    return sequence_rows.Study(name="x", ensemble=settings_lib.Ensemble(2, training), students={}, **changes)


def fitted(distiller, num_replicas, online=None, epochs=40.0):
    optimizer = settings_lib.Optimizer("adam", learning_rate=0.1)
    training = settings_lib.Training(settings_lib.Model("mlp"), optimizer, epochs=epochs, batch_size=12)
    arrays = {"inputs": INPUTS, "labels": LABELS}
    options = {"num_replicas": num_replicas, "seed": 0, "online_targets": online, "progress": False}
    return stages.fit("tokens", training, table_model(), distiller, arrays, lambda x: x, **options)


@pytest.mark.parametrize("average", ["tokens", "sentences"])
def test_the_loss_is_the_mean_over_what_the_settings_say(average, monkeypatch):
    """One step of descent on all sentences, of 2 to 5 tokens, against the gradient of that mean."""
    monkeypatch.setattr(sequence_rows.build, "backbone", lambda model: lambda size: table_model())

    def tables(rate):
        optimizer = settings_lib.Optimizer("sgd", learning_rate=rate, options={"momentum": 0.0})
        training = settings_lib.Training(settings_lib.Model("mlp"), optimizer, max_steps=1, batch_size=24)
        settings = dataclasses.replace(study(average=average), ensemble=settings_lib.Ensemble(2, training))
        found = sequence_rows.pretrain(settings, Split(INPUTS, LABELS), VOCABULARY, None, progress=False)
        return found.variables["params"]["table"]

    def loss(table):
        log_probs = jax.nn.log_softmax(table[INPUTS["target"]])
        nll = -jnp.take_along_axis(log_probs, INPUTS["target"][..., None], -1)[..., 0] * (LABELS >= 0)
        counts = (LABELS >= 0).sum(1)
        return nll.sum() / counts.sum() if average == "tokens" else (nll.sum(1) / counts).mean()

    before, after = tables(1e-30), tables(1.0)
    for own, moved in zip(before, after):
        np.testing.assert_allclose(own - moved, jax.grad(loss)(own), atol=1e-6)


@pytest.fixture(scope="module")
def teacher():
    return fitted(masked_tokens.make(VOCABULARY), 2)


def test_networks_learn_from_pytrees_of_tokens(teacher):
    """The labels repeat the inputs: two members learn the table's diagonal, and a student from both of them."""
    assert (teacher.variables["params"]["table"].argmax(-1) == np.arange(VOCABULARY)).all()
    student = fitted(sequence.make_proxy(2, VOCABULARY), 1, (teacher.model, teacher.variables))
    assert (student.variables["params"]["table"][0].argmax(-1) == np.arange(VOCABULARY)).all()


def test_scores_of_references_are_those_of_a_loop(teacher):
    found = sequence_rows.teacher_forced(sequence_rows.prediction(teacher), Split(INPUTS, LABELS), batch_size=7)
    probs = jax.nn.softmax(teacher.variables["params"]["table"][:, INPUTS["target"]]).mean(0)
    kept = [(probs[row, step], LABELS[row, step]) for row in range(24) for step in range(5) if LABELS[row, step] >= 0]
    assert found["tokens"] == len(kept)
    assert found["nll"] == pytest.approx(-np.mean([np.log(p[y]) for p, y in kept]), rel=1e-5)
    bins = {}
    for p, y in kept:
        bins.setdefault(int(np.ceil(float(p.max()) * 15)), []).append(float(p.max()) - float(p.argmax() == y))
    assert found["ece"] == pytest.approx(sum(abs(sum(each)) for each in bins.values()) / len(kept), rel=1e-4)


def test_uncertainty_is_the_mean_over_tokens_then_hypotheses(teacher):
    """Two hypotheses of 3 and 1 tokens and an empty place, against the measures of each token one by one."""
    tokens = np.array([[[4, 5, data.END, 0], [data.END, 0, 0, 0], [0, 0, 0, 0]]])

    def decode(x):
        count = len(x["source"])
        log_probs = jnp.tile(jnp.log(jnp.array([[0.3, 0.1, 0.0]])), (count, 1))
        lengths = jnp.tile(jnp.array([[3, 1, 0]]), (count, 1))
        return Hypotheses(jnp.tile(jnp.asarray(tokens), (count, 1, 1)), lengths, log_probs, log_probs, jnp.zeros((2, count, 3, 4)))

    inputs, predicted = {"source": np.zeros((3, 3), np.int32)}, sequence_rows.prediction(teacher)
    found = sequence_rows.uncertainty(predicted, decode, inputs, study(batch_size=2))
    weighted = sequence_rows.uncertainty(predicted, decode, inputs, study(batch_size=2, weighting="importance", temperature=0.5))
    log_probs = jax.nn.log_softmax(teacher.variables["params"]["table"])
    for measure, function in (("total", ensemble.total_uncertainty), ("expected_pairwise_kl", ensemble.expected_pairwise_kl)):
        of = function(log_probs)  # the model sees the token before: 1 4 5 of the first hypothesis, 1 of the second
        expected = (of[jnp.array([1, 4, 5])].mean() + of[1]) / 2
        np.testing.assert_allclose(found[measure], np.full(3, expected), rtol=1e-5)
        expected = 0.9 * of[jnp.array([1, 4, 5])].mean() + 0.1 * of[1]  # 0.3^2 : 0.1^2
        np.testing.assert_allclose(weighted[measure], np.full(3, expected), rtol=1e-5)
        np.testing.assert_allclose(found[f"{measure}_tokens"][0, :3], of[jnp.array([1, 4, 5])], rtol=1e-5)
    assert found["tokens"].tolist() == [tokens[0, 0].tolist()] * 3


@pytest.mark.parametrize("diverged", [1, 2], ids=["a member", "all members"])
def test_networks_that_give_nan_are_told_from_empty_hypotheses(diverged):
    model = transformer.make(VOCABULARY, size="tiny", width=8, num_layers=1, num_heads=2, hidden=8)
    inputs = {"source": np.array([[4, 2], [5, 2], [6, 2]], np.int32), "target": np.ones((3, 1), np.int32)}
    variables = members.init(model, jax.random.key(0), 2, inputs)
    trained = predict.Trained(model, None, variables, {}, {}, np.ones(2, bool), np.full(2, -1), np.arange(2))
    settings = study(beam=2, batch_size=2)
    run = lambda trained: sequence_rows.uncertainty(  # noqa: E731
        sequence_rows.prediction(trained), sequence_rows.decoder(trained, settings, 3), inputs, settings, "Ensemble on test"
    )
    assert np.isfinite(run(trained)["total"]).all()
    table = variables["params"]["words"]["embedding"]
    variables["params"]["words"]["embedding"] = table.at[:diverged, 5].set(jnp.nan)
    with pytest.raises(FloatingPointError, match="Ensemble on test: 3 of 3 sources, the first of them number 0, .* gives NaN"):
        run(trained)
    ended = np.array([[5, data.END, 0], [0, 0, 0], [data.END, 0, 0]])
    with pytest.raises(FloatingPointError, match="1 of 3 sources, the first of them number 1,"):
        sequence_rows.check_decoded(ended, "x")
    sequence_rows.check_decoded(ended[[0, 2]], "x")


def test_one_network_has_no_knowledge_measures(teacher):
    single = sequence_rows.prediction(predict.take(teacher, np.array([0])))(INPUTS, LABELS)
    assert set(single) & set(sequence_rows.MEASURES) == {"total", "data"} and single["total"].shape == LABELS.shape


def test_scores_in_chunks_of_time_are_those_of_the_whole():
    """An ensemble, one network and a Prior Network; in chunks no array of all logits is compiled."""
    model = transformer.make(50, size="tiny", width=8, num_layers=1, num_heads=2, hidden=16)
    inputs = {"source": RNG.integers(4, 50, (3, 6)).astype(np.int32), "target": RNG.integers(4, 50, (3, 5)).astype(np.int32)}
    variables = jax.tree.map(lambda leaf: 3 * leaf, members.init(model, jax.random.key(0), 2, inputs))
    labels = np.where(RNG.random((3, 5)) < 0.8, inputs["target"], -1).astype(np.int32)
    none, alive = ({}, {}), np.ones(2, bool)
    ensemble_of_two = predict.Trained(model, masked_tokens.make(50), variables, *none, alive, -np.ones(2), np.zeros(2))
    one = predict.take(ensemble_of_two, np.array([0]))
    for trained in (ensemble_of_two, one, one._replace(distiller=sequence.make_proxy(2, 50))):
        whole, chunked = (sequence_rows.prediction(trained, size)(inputs, labels) for size in (None, 2))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), whole, chunked)
    for size, there in ((None, True), (1, False)):
        predicted = sequence_rows.prediction(ensemble_of_two, size)
        text = predicted.func.lower(*predicted.args, inputs, labels).compile().as_text()
        assert ("[2,3,5,50]" in text) == there


def test_rejection_and_detection_by_each_measure():
    own = {"total": np.array([0.1, 0.3, 0.2]), "expected_pairwise_kl": np.array([1.0, 0.5, 0.2]), "tokens": np.zeros((3, 2), int)}
    other = {"total": np.array([0.3, 0.05]), "expected_pairwise_kl": np.array([2.0, 3.0])}
    areas = sequence_rows.detection_areas(own, other)
    assert areas == {"total": pytest.approx(2.5 / 6), "expected_pairwise_kl": 1.0}
    ratios = sequence_rows.rejection_ratios(own, np.array([0.0, 1.0, 0.0]))
    assert ratios["total"] == pytest.approx(1.0) and ratios["expected_pairwise_kl"] < 1 and set(ratios) == set(areas)
    assert all(np.isnan(value) for value in sequence_rows.rejection_ratios(own, np.zeros(3)).values())


def test_examples_are_the_most_and_the_least_certain():
    total = np.arange(8.0)[::-1]
    tokens = np.tile([5, 6, data.END, 0], (8, 1))
    own = {"total": total, "total_tokens": np.tile([0.25, 0.5, 0.75, 0.0], (8, 1)), "tokens": tokens}
    vocabulary = types.SimpleNamespace(piece=lambda token: f"<{token}>")
    names = [f"text {number}" for number in range(8)]
    found = sequence_rows.examples(own, names, [f"wanted {number}" for number in range(8)], lambda index: f"source {index}", vocabulary)
    assert [each["value"] for each in found] == [0.0, 1.0, 6.0, 7.0]
    data_too = sequence_rows.examples({**own, "data": -total, "data_tokens": own["total_tokens"]}, names, names, str, vocabulary)
    assert [each["measure"] for each in data_too] == ["total"] * 4 + ["data"] * 4
    assert found[0] == {
        "measure": "total",
        "value": 0.0,
        "source": "source 7",
        "reference": "wanted 7",
        "text": "text 7",
        "pieces": ["<5>", "<6>"],
        "uncertainty": [0.25, 0.5],
    }


def test_settings_that_no_study_takes():
    student = settings_lib.Student("send", settings_lib.Training(settings_lib.Model("transformer")), targets="online")
    ensemble = settings_lib.Ensemble(2, student.training)
    good = sequence_rows.Study(name="x", beam=1, batch_size=1, students={"a": student}, ensemble=ensemble)
    sequence_rows.check_methods(good)
    for changes, message in (
        ({"beam": 0}, "beam and batch_size must be at least 1, got 0 and 1"),
        ({"batch_size": 0}, "got 1 and 0"),
        ({"students": {"a": settings_lib.Student("send", student.training)}}, "students.a.targets must be 'online'"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(good, **changes)
    with pytest.raises(ValueError, match="unknown method 'sand'"):
        sequence_rows.check_methods(dataclasses.replace(good, students={"a": dataclasses.replace(student, method="sand")}))


def test_options_of_methods_are_checked_before_training():
    """What depends on the vocabulary as soon as that is known, all else before the data is read."""
    small = {"size": "tiny", "width": 8, "num_layers": 1, "num_heads": 2, "hidden": 8}
    training = settings_lib.Training(settings_lib.Model("transformer", small), batch_size=12)

    def study(method="send", **options):
        student = settings_lib.Student(method, training, targets="online", options=options)
        return sequence_rows.Study(name="x", ensemble=settings_lib.Ensemble(2, training), students={"a": student})

    for option in ("top_k", "chunk_size"):
        for wrong in (0, -3, True, 1.5):
            with pytest.raises(ValueError, match=option):
                sequence_rows.check_methods(study(**{option: wrong}))
    for method in ("send", "send2", "pd_send2"):
        sequence_rows.check_methods(study(method))
    train = Split(INPUTS, LABELS)
    for top_k in (VOCABULARY, VOCABULARY - 1):
        sequence_rows.check_methods(study(top_k=top_k, chunk_size=99))
    sequence_rows.check_sizes(study(top_k=VOCABULARY - 1, chunk_size=99), VOCABULARY, train)
    with pytest.raises(ValueError, match="top_k must be below the 7 classes, got 7"):
        sequence_rows.check_sizes(study(top_k=VOCABULARY), VOCABULARY, train)
