"""Translation: settings, sets of files, the report."""

import importlib.util
import json

import jax
import pytest

from edd.data import translation as data
from edd.experiments import build, report, sequence_rows, translation, translation_report
from edd.experiments import settings as settings_lib

needs_subwords = pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None or importlib.util.find_spec("sacrebleu") is None,
    reason="needs the packages sentencepiece and sacrebleu, which are not installed",
)


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
    assert sets.subwords.decode(sets.ood["german"][0]) == pairs.target[0] and sets.validation is None
    assert sets.left_out == {"train": [0, 30], "test": [0, 6], "german": [0, 6], "speech": [0, 2]}
    sizes = [len(sets.subwords.encode(each)) for each in pairs.source[:6]]
    assert min(sizes) < max(sizes)
    short = {**corpus, "source_length": max(sizes), "num_test": 0, "validation_split": "test_2016_flickr"}
    less = translation.encode(
        settings_lib.from_dict(translation.Translation, config(corpus=short)), *translation.texts(settings, str(tmp_path)), tmp_path
    )
    fitting = [number for number, size in enumerate(sizes) if size < max(sizes)]  # an end takes the last place
    assert less.references == tuple(pairs.target[number] for number in fitting) and less.left_out["test"] == [6 - len(fitting), 6]
    assert [row[row > 0].tolist() for row in less.ood["german"]] == [
        [*sets.subwords.encode(each), data.END] for each in pairs.target[:6] if len(sets.subwords.encode(each)) < max(sizes)
    ][: len(fitting)]
    for permuted, source in zip(less.ood["permuted"], less.test.inputs["source"], strict=True):
        assert sorted(permuted) == sorted(source)  # nothing is lost to a cut
    assert sets.subwords.model == made[1].subwords.model and not (tmp_path / sequence_rows.SUBWORDS).exists()
    sets.subwords.save(tmp_path / sequence_rows.SUBWORDS)
    other = settings_lib.from_dict(translation.Translation, config(corpus={**corpus, "vocab_size": 290}))
    kept = translation.encode(other, *translation.texts(other, str(tmp_path)), tmp_path)
    assert kept.subwords.model == sets.subwords.model
    small = {"num_members": 2, "training": {**config()["ensemble"]["training"], "batch_size": 30}}
    for changes, message in (
        ({"ensemble": small}, "students.PD-SEnD2.training.batch_size must be at most 30"),
        ({}, "ensemble.training.batch_size must be at most 30, the training examples, got 128"),
        ({"corpus": {**corpus, "target_length": 2000}, "ensemble": small, "students": {}}, "at most 1024 positions"),
    ):
        with pytest.raises(ValueError, match=message):
            translation.run(config(**{"corpus": corpus, **changes}), tmp_path / "run", data_dir=str(tmp_path), progress=False)
        assert not (tmp_path / "run").exists()
    with pytest.raises(FileNotFoundError, match="test_2016_flickr.fr does not exist"):
        other = config(corpus={**corpus, "foreign": {"french": "fr"}})
        translation.texts(settings_lib.from_dict(translation.Translation, other), str(tmp_path))


@needs_subwords
def test_the_first_process_alone_writes_the_subwords(tmp_path, monkeypatch):
    raw = config(smoke=True)
    settings = translation.shrink(settings_lib.from_dict(translation.Translation, raw))
    kept = []
    for process in (1, 0, 1):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        sets, _ = translation.begin(settings, raw, tmp_path / "run", None)
        kept.append(sets.subwords.model)
        assert (tmp_path / "run").exists() == (len(kept) > 1)
    assert kept[0] == kept[1] == kept[2] == (tmp_path / "run" / sequence_rows.SUBWORDS).read_bytes()


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
    return {
        **own,
        "left_out": {"test": [1, 9]},
        "seconds": 1.0,
        "seconds_of_evaluation": 1.0,
        "auroc": {"permuted": auroc},
        "examples": [example],
    }


def test_the_report_says_what_the_numbers_say(tmp_path):
    parts = [
        part("Single", 2.0, total=0.6),
        part("Ensemble", 1.5, total=0.7, reverse_mutual_information=0.97),
        part("SEnD", 2.1, total=0.5),
    ]
    settings = {"name": "toy", "reference": {"permuted": {"Single": {"total": 80.7}}}}
    translation_report.finish(tmp_path, parts, settings, {"command": "x"})
    report.render([tmp_path], tmp_path / "again")
    with pytest.raises(ValueError, match="repeats"):
        report.render([tmp_path, tmp_path / "again"], tmp_path / "both")
    told = (tmp_path / "again" / "report.md").read_text()
    assert "Ensemble: BLEU 25.00 (Single 25.00), token NLL 1.500, below Single's 2.000." in told
    assert "SEnD: BLEU 25.00 (Single 25.00), token NLL 2.100, not below Single's 2.000." in told
    assert (
        "permuted 97.0 %" in told
        and "| permuted | Single, paper | 80.7 |" in told
        and "signature nrefs:1; left out as too long or empty: test 1 of 9" in told
    )
    assert (tmp_path / "figures" / "sentences_ensemble.png").stat().st_size > 1000
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == translation_report.SCHEMA


def test_methods_are_those_of_the_config():
    assert set(build.SEQUENCE_METHODS) == {"send", "send2", "pd_send2"}
