"""Translation: training on pytrees of token ids, scores against slow references, the report."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.data import translation as data
from edd.data.base import Split
from edd.decoding.beam import Hypotheses
from edd.distillers import masked_tokens, sequence
from edd.experiments import build, predict, stages, translation, translation_report
from edd.experiments import settings as settings_lib
from edd.models.base import Model, Outputs
from edd.uncertainty import ensemble

needs_subwords = pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None or importlib.util.find_spec("sacrebleu") is None,
    reason="needs the packages sentencepiece and sacrebleu, which are not installed",
)
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


def fitted(distiller, num_replicas, online=None, epochs=40.0):
    optimizer = settings_lib.Optimizer("adam", learning_rate=0.1)
    training = settings_lib.Training(settings_lib.Model("mlp"), optimizer, epochs=epochs, batch_size=12)
    arrays = {"inputs": INPUTS, "labels": LABELS}
    options = {"num_replicas": num_replicas, "seed": 0, "online_targets": online, "progress": False}
    return stages.fit("tokens", training, table_model(), distiller, arrays, lambda x: x, **options)


@pytest.fixture(scope="module")
def teacher():
    return fitted(masked_tokens.make(VOCABULARY), 2)


def test_networks_learn_from_pytrees_of_tokens(teacher):
    """The labels repeat the inputs: two members learn the table's diagonal, and a student from both of them."""
    assert (teacher.variables["params"]["table"].argmax(-1) == np.arange(VOCABULARY)).all()
    student = fitted(sequence.make_proxy(2, VOCABULARY), 1, (teacher.model, teacher.variables))
    assert (student.variables["params"]["table"][0].argmax(-1) == np.arange(VOCABULARY)).all()


def test_scores_of_references_are_those_of_a_loop(teacher):
    found = translation.teacher_forced(translation.prediction(teacher), Split(INPUTS, LABELS), batch_size=7)
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
        fill = jnp.zeros((count, 3))
        lengths = jnp.tile(jnp.array([[3, 1, 0]]), (count, 1))
        return Hypotheses(jnp.tile(jnp.asarray(tokens), (count, 1, 1)), lengths, fill, fill, jnp.zeros((2, count, 3, 4)))

    found = translation.uncertainty(translation.prediction(teacher), decode, np.zeros((3, 3), np.int32), 2)
    log_probs = jax.nn.log_softmax(teacher.variables["params"]["table"])
    for measure, function in (("total", ensemble.total_uncertainty), ("expected_pairwise_kl", ensemble.expected_pairwise_kl)):
        of = function(log_probs)  # the model sees the token before: 1 4 5 of the first hypothesis, 1 of the second
        expected = (of[jnp.array([1, 4, 5])].mean() + of[1]) / 2
        np.testing.assert_allclose(found[measure], np.full(3, expected), rtol=1e-5)
        np.testing.assert_allclose(found[f"{measure}_tokens"][0, :3], of[jnp.array([1, 4, 5])], rtol=1e-5)
    assert found["tokens"].tolist() == [tokens[0, 0].tolist()] * 3


def test_one_network_has_no_knowledge_measures(teacher):
    single = translation.prediction(predict.take(teacher, np.array([0])))(INPUTS)
    assert single.mutual_information is None and single.total.shape == LABELS.shape


def config(**changes) -> dict:
    model = {"name": "transformer", "options": {"size": "tiny"}}
    student = {"method": "pd_send2", "training": {"model": model}, "targets": "online"}
    ensemble = {"num_members": 2, "training": {"model": model}}
    return {"name": "x", "corpus": {"foreign": {"german": "de"}}, "ensemble": ensemble, "students": {"PD-SEnD2": student}, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam": 0}, "beam and batch_size must be at least 1"),
        ({"corpus": {"folder": ""}}, "a folder or a tfds name"),
        ({"students": {"a": {"method": "send", "training": {"model": {"name": "transformer"}}}}}, "must be 'online'"),
        (
            {"students": {"a": {"method": "sand", "training": {"model": {"name": "transformer"}}, "targets": "online"}}},
            "unknown method 'sand'",
        ),
        ({"beeam": 3}, "did you mean 'beam'"),
    ],
)
def test_bad_settings_are_told_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        translation.run(config(**changes), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@needs_subwords
def test_sets_of_files(tmp_path):
    pairs = data.invented(30, 0)
    (tmp_path / "multi30k").mkdir()
    for split, count in (("train", 30), ("test_2016_flickr", 6)):
        for language, sentences in (("en", pairs.source), ("de", pairs.target)):
            (tmp_path / "multi30k" / f"{split}.{language}").write_text("\n".join(sentences[:count]) + "\n")
    (tmp_path / "speech.tsv").write_text("a\tbird tree\nb\told house\n")
    corpus = {
        "foreign": {"german": "de"},
        "speech": "speech.tsv",
        "vocab_size": 300,
        "source_length": 40,
        "target_length": 40,
        "num_test": 4,
    }
    settings = settings_lib.from_dict(translation.Translation, config(corpus=corpus))
    made = [translation.encode(settings, *translation.texts(settings, str(tmp_path)), tmp_path) for _ in range(2)]
    sets = made[0]
    assert len(sets.train.labels) == 30 and sets.references == pairs.target[:4]
    assert {name: source.shape for name, source in sets.ood.items()} == {"permuted": (4, 40), "german": (4, 40), "speech": (2, 40)}
    assert sets.subwords.decode(sets.ood["german"][0]) == pairs.target[0]
    assert sets.subwords.model == made[1].subwords.model == (tmp_path / translation.SUBWORDS).read_bytes()
    with pytest.raises(FileNotFoundError, match="test_2016_flickr.fr does not exist"):
        other = config(corpus={**corpus, "foreign": {"french": "fr"}})
        translation.texts(settings_lib.from_dict(translation.Translation, other), str(tmp_path))


def part(row, nll, **auroc):
    example = {
        "measure": "total",
        "value": 0.5,
        "source": "a b",
        "reference": "c",
        "text": "d",
        "pieces": ["\u2581d", "."],
        "uncertainty": [0.1, 0.9],
    }
    own = {"row": row, "bleu": 0.25, "signature": "nrefs:1", "nll": nll, "ece": 0.05, "tokens": 9, "prr": {"total": 0.4}, "parameters": 10}
    return {**own, "seconds": 1.0, "seconds_of_evaluation": 1.0, "auroc": {"permuted": auroc}, "examples": [example]}


def test_the_report_says_what_the_numbers_say(tmp_path):
    parts = [
        part("Single", 2.0, total=0.6),
        part("Ensemble", 1.5, total=0.7, reverse_mutual_information=0.97),
        part("SEnD", 2.1, total=0.5),
    ]
    settings = {"name": "toy", "reference": {"permuted": {"Single": {"total": 80.7}}}}
    translation_report.finish(tmp_path, parts, settings, {"command": "x"})
    report = (tmp_path / "report.md").read_text()
    assert "Ensemble: BLEU 25.00 (Single 25.00), token NLL 1.500, below Single's 2.000." in report
    assert "SEnD: BLEU 25.00 (Single 25.00), token NLL 2.100, not below Single's 2.000." in report
    assert "permuted 97.0 %" in report and "| permuted | Single, paper | 80.7 |" in report and "signature nrefs:1" in report
    assert (tmp_path / "figures" / "sentences_ensemble.png").stat().st_size > 1000
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == translation_report.SCHEMA


def test_methods_are_those_of_the_config():
    assert set(build.SEQUENCE_METHODS) == {"send", "send2", "pd_send2"}
