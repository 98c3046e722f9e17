"""Smoothed labels in translation: scores over the temperature against slow references, tokens in their plane, settings, the report."""

import importlib.util
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.data.base import Split
from edd.decoding import beam
from edd.experiments import sequence_rows, translation, translation_smoothing, translation_smoothing_report
from edd.experiments import settings as settings_lib
from edd.experiments.predict import Trained
from edd.experiments.report import render
from edd.models import transformer

MODEL = transformer.make(9, size="tiny", width=8, num_layers=1, num_heads=2, hidden=8)
X = {"source": jnp.array([[4, 5, 2], [6, 2, 0]]), "target": jnp.array([[1, 7, 8], [1, 4, 0]])}


@pytest.fixture(scope="module")
def variables():
    return jax.tree.map(lambda leaf: 3 * leaf[None], MODEL.init(jax.random.key(0), X))


def test_a_search_at_a_temperature_is_that_of_divided_logits(variables):
    """Dividing the table's copy at the output by hand: log-probabilities of the best hypothesis, token by token."""
    search = beam.make(translation_smoothing.tempered(MODEL), start=1, end=2, beam=2, length=4)
    plain = beam.make(MODEL, start=1, end=2, beam=2, length=4)({k: v for k, v in variables.items()}, {"source": X["source"]})
    for temperature in (1.0, 2.0):
        found = search({"network": variables, "temperature": jnp.full(1, temperature)}, {"source": X["source"]})
        one = jax.tree.map(lambda leaf: leaf[0], variables)
        for row in range(2):
            length, tokens = int(found.lengths[row, 0]), found.tokens[row, 0]
            inputs = {"source": X["source"][row : row + 1], "target": jnp.concatenate([jnp.ones(1, jnp.int32), tokens[:-1]])[None]}
            log_probs = jax.nn.log_softmax(MODEL.apply(one, inputs, train=False, rngs=None)[0].logits[0] / temperature)
            expected = sum(float(log_probs[step, tokens[step]]) for step in range(length))
            assert float(found.log_probs[row, 0]) == pytest.approx(expected, rel=1e-4)
        if temperature == 1.0:
            np.testing.assert_array_equal(found.tokens, plain.tokens)


def test_next_tokens_at_a_temperature_are_those_of_a_loop(variables):
    labels = np.array([[7, 8, 2], [4, 2, -1]])
    one = jax.tree.map(lambda leaf: leaf[0], variables)
    logits = lambda inputs: MODEL.apply(one, inputs, train=False, rngs=None)[0].logits  # noqa: E731
    test = Split({name: np.asarray(leaf) for name, leaf in X.items()}, labels)
    found = sequence_rows.teacher_forced(translation_smoothing.at_temperature(logits, 1.7), test)
    probs = np.asarray(jax.nn.softmax(logits(X) / 1.7))
    want = [np.log(probs[row, step, labels[row, step]]) for row in range(2) for step in range(3) if labels[row, step] >= 0]
    assert found["nll"] == pytest.approx(-np.mean(want), rel=1e-5) and found["tokens"] == 5


class Vocabulary:
    """Pieces named by their number."""

    def piece(self, token):
        return f"\u2581w{token}"

    def decode(self, ids):
        return " ".join(map(self.piece, ids))


def test_activations_are_those_before_the_token(variables):
    """Each point is the projection of the step whose label is its token, found by a loop."""
    labels = np.array([[7, 8, 2], [4, 2, -1]])
    split = Split({name: np.asarray(leaf) for name, leaf in X.items()}, labels)
    sets = translation.Sets(Vocabulary(), split, split, ("", ""), {}, {}, None)
    trained = Trained(MODEL, None, variables, {}, {}, np.ones(1, bool), -np.ones(1), np.zeros(1))
    found = translation_smoothing.projected(trained, sets, per_token=5)
    assert found["classes"] == ["_w4", "_w7", "_w8"] and found["test"]["labels"] == found["classes"]
    one = jax.tree.map(lambda leaf: leaf[0], variables)
    states = np.asarray(MODEL.apply(one, X, train=False, rngs=None)[0].penultimate, np.float64)
    table = np.asarray(MODEL.templates(one)[0], np.float64)[[4, 7, 8]]
    along = (table[1] - table[0]) / np.linalg.norm(table[1] - table[0])
    across = table[2] - table[0] - ((table[2] - table[0]) @ along) * along
    basis = np.stack([along, across / np.linalg.norm(across)], 1)
    want = [(states[place] - table[0]) @ basis for place in ((1, 0), (0, 0), (0, 1))]
    np.testing.assert_allclose(found["test"]["points"], want, rtol=1e-4, atol=1e-5)


def test_a_teacher_that_gives_nan_is_named(variables):
    broken = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0] + jnp.nan]), variables)
    trained = Trained(MODEL, None, broken, {}, {}, np.ones(2, bool), -np.ones(2), np.array([0, 3]))
    source = np.asarray(X["source"])
    split = Split({name: np.asarray(leaf) for name, leaf in X.items()}, np.array([[7, 8, 2], [4, 2, -1]]))
    sets = translation.Sets(Vocabulary(), split, split, ("a", "b"), {}, {}, None)
    corpus = types.SimpleNamespace(target_length=4)
    settings = types.SimpleNamespace(corpus=corpus, beam=2, batch_size=2, temperatures=[1.0], beam_temperatures=[2.0])
    with pytest.raises(FloatingPointError, match="the teacher of seed 3 at temperature 2: 2 of 2 sources"):
        translation_smoothing.over_temperatures(trained, sets, source, settings)


def test_frequent_tokens_are_in_both_sets():
    both = [Split({}, np.array(labels)) for labels in ([[7, 7, 5, 2], [6, 5, 7, -1]], [[5, 6, 7]])]
    sets = translation.Sets(Vocabulary(), *both, ("",), {}, {}, None)
    assert translation_smoothing.frequent(sets, 2) == [7, 5]
    with pytest.raises(ValueError, match="at least 4 tokens in common, got 3"):
        translation_smoothing.frequent(sets, 4)


def config(**changes) -> dict:
    model = {"name": "transformer", "options": {"size": "tiny"}}
    student = {"method": "pd_send2", "training": {"model": model}, "targets": "online"}
    ensemble = {"num_members": 2, "training": {"model": model}}
    grids = {"temperatures": [1.0, 2.0], "beam_temperatures": [1.0]}
    return {
        "name": "x",
        "corpus": {},
        "ensemble": ensemble,
        "students": {"PD-SEnD2": student},
        "smoothings": [0.0, 0.1],
        **grids,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smoothings": []}, "smoothings must differ and be at least one"),
        ({"smoothings": [0.1, 0.1]}, "smoothings must differ"),
        ({"smoothings": [1.1]}, r"smoothings must lie in \[0, 1\], got 1.1"),
        ({"smoothings": ["a"]}, r"'smoothings\[0\]' must be float"),
        ({"temperatures": [0.5, 2.0]}, "temperatures must be above 0 and finite, with 1 among them"),
        ({"beam_temperatures": [0.0, 1.0]}, "beam_temperatures must be above 0"),
        ({"per_token": 0}, "per_token at least 1, got 0 and 0"),
        ({"beam": 0}, "beam and batch_size must be at least 1"),
        ({"students": {"a": {"method": "sand", "training": {"model": {"name": "transformer"}}, "targets": "online"}}}, "unknown method"),
    ],
)
def test_bad_settings_are_told_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        translation_smoothing.run(config(**changes), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def part(smoothing, nll, ece, bleu):
    seed = {"seed": 0, "nll": nll, "ece": ece, "bleu": bleu, "tokens": 9, "signature": "nrefs:1"}
    points = {"points": [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], "labels": ["a", "b", "c"], "spread": 0.5 - smoothing}
    plane = {"classes": ["a", "b", "c"], "templates": [[0.0, 0.0]] * 3, "train": points, "test": points}
    rows = []
    for name, information in (("Ensemble", 0.2), ("PD-SEnD2", 0.1)):
        means = {label: {"total": 1.0, "mutual_information": information} for label in ("test", "permuted")}
        own = {"row": name, "nll": 1.5, "ece": 0.02, "tokens": 9, "uncertainty": means, "members": 2, "seconds": 1.0}
        rows.append({**own, "auroc": {"permuted": {"total": 0.6, "mutual_information": 0.75}}})
    own = {"smoothing": smoothing, "run_seed": 0, "parameters": 10, "left_out": {"test": [1, 9]}}
    return {**own, "seeds": [seed], "projections": [plane], "rows": rows, "seconds": 1.0}


def test_the_temperature_is_chosen_on_validation_pairs_where_there_are_some():
    settings = {"temperatures": [1.0, 1.5], "beam_temperatures": [1.0]}
    own = part(0.0, [2.0, 1.9], [0.06, 0.02], [0.2])
    assert translation_smoothing_report.column({"settings": settings}, own, "ECE % at T") == 0.02
    own["seeds"][0]["validation_nll"] = [1.0, 1.1]
    assert translation_smoothing_report.column({"settings": settings}, own, "ECE % at T") == 0.06


def test_the_report_says_what_the_numbers_say(tmp_path):
    parts = [part(0.0, [2.0, 1.9], [0.06, 0.02], [0.2, 0.21]), part(0.1, [2.1, 1.8], [0.03, 0.04], [0.22, 0.23])]
    settings = {"name": "toy", "temperatures": [1.0, 1.5], "beam_temperatures": [1.0, 1.5], "reference": {"10 %": {"BLEU": 0.258}}}
    for smoothing, own in zip((0.0, 0.1), parts):  # halves run apart, merged in either order
        translation_smoothing_report.finish(tmp_path / f"{smoothing}", [own], {**settings, "smoothings": [smoothing]}, {"command": "x"})
    merged = render([tmp_path / "0.1", tmp_path / "0.0"], tmp_path)
    assert [own["smoothing"] for own in merged["parts"]] == [0.0, 0.1]
    report = (tmp_path / "report.md").read_text()
    assert "hard labels: BLEU 20.00, token NLL 2.000, ECE 6.00 %; at its temperature 1.50 ECE 2.00 %." in report
    for told in (
        "lowers the ECE of hard labels (here too)",
        "at none they reach the smoothed networks' BLEU (here too)",
        "least ECE at temperature 1 (here too)",
        "and their best BLEU (not here)",
        "lower NLL at every temperature (not here)",
    ):
        assert told in report
    assert "spread from hard labels to smoothing 0.1: train 0.500 to 0.400" in report
    assert "| smoothing 0.1, paper | – | 25.80 |" in report and "signature nrefs:1; left out as too long or empty: test 1 of 9" in report
    assert (
        "PD-SEnD2, smoothing 0.1: NLL 1.500, mutual information 0.1000 nats on test and 0.1000 on permuted sources, AUROC 75.0 %." in report
    )
    assert "| PD-SEnD2 | hard labels | 1.500 | 2.00 | 0.1000 | 0.1000 | 0.50 |" in report
    assert (tmp_path / "figures" / "temperature.png").stat().st_size > 1000
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == translation_smoothing_report.SCHEMA


@pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None or importlib.util.find_spec("sacrebleu") is None,
    reason="needs the packages sentencepiece and sacrebleu, which are not installed",
)
def test_parts_are_made_once(tmp_path, monkeypatch):
    """A second run reads what the first wrote; every smoothing trains teachers of its own smoothing."""
    seen = []

    def one_part(settings, sets, workdir, progress):
        seen.append(settings.ensemble.smoothing)
        return part(settings.ensemble.smoothing, [2.0, 1.9], [0.06, 0.02], [0.2])

    monkeypatch.setattr(translation_smoothing, "one_part", one_part)
    for _ in range(2):
        found = translation_smoothing.run(config(smoke=True), tmp_path, progress=False)
    assert seen == [0.0, 0.1] == [each["smoothing"] for each in found["parts"]]
    assert settings_lib.from_dict(translation_smoothing.TranslationSmoothing, config()).num_translated == 0
