"""Speech recognition: settings, sets of digits, of TFDS and of folders, a whole small run and its continuation, the report."""

import importlib.util
import json
import wave

import jax
import numpy as np
import pytest

from edd.data import speech as data
from edd.experiments import report, sequence_rows, speech, speech_report
from edd.experiments import settings as settings_lib

needs_subwords = pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None, reason="needs the package sentencepiece, which is not installed"
)
needs_jiwer = pytest.mark.skipif(importlib.util.find_spec("jiwer") is None, reason="needs the package jiwer, which is not installed")
DIGITS = {"held_out": ["ann"], "num_train": 20, "num_test": 4, "strings": [1, 2], "seconds": 0.6, "test_seconds": 1.0, "target_length": 3}


def config(corpus=DIGITS, **changes) -> dict:
    model = {"name": "speech", "options": {"size": "tiny", "width": 8, "num_layers": 1, "num_heads": 2, "hidden": 16}}
    student = {"method": "pd_send2", "training": {"model": model}, "targets": "online"}
    ensemble = {"num_members": 2, "training": {"model": model}}
    front_end = {"rate": 8000, "num_filters": 4, "window": 160, "hop": 80}
    given = {"corpus": corpus, "ensemble": ensemble, "students": {"PD-SEnD2": student}, "front_end": front_end}
    return {"name": "x", **given, **changes}


def parsed(**changes) -> speech.Speech:
    return settings_lib.from_dict(speech.Speech, config(**changes))


def write(file, samples, rate=8000):
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(rate)
        target.writeframes(np.asarray(samples, "<i2").tobytes())


@pytest.fixture
def folder(tmp_path):
    """Two digits, two speakers, two takes of either part; ann says everything twice as loud."""
    for digit in (0, 7):
        for speaker, level in (("ann", 2000), ("bob", 1000)):
            for take in (0, 1, 5, 6):
                wave_of = level * np.sin(np.arange(1600) * (digit + 1) / 10)
                write(tmp_path / "fsdd/recordings" / f"{digit}_{speaker}_{take}.wav", wave_of)
    return tmp_path


MODEL = {"name": "speech", "options": {"size": "tiny"}}
BAD = [
    ({"beam": 0}, "beam and batch_size must be at least 1"),
    ({"corpus": {**DIGITS, "digits": ""}}, "a folder of digits or a tfds name"),
    ({"corpus": {**DIGITS, "tfds": "librispeech"}}, "a folder of digits or a tfds name"),
    ({"corpus": {**DIGITS, "held_out": []}}, "digits need held_out speakers"),
    ({"corpus": {**DIGITS, "shifted": {"other": "test_other"}}}, "have no other splits"),
    ({"corpus": {**DIGITS, "num_train": 0}}, "num_train and num_test must be at least 1"),
    ({"corpus": {**DIGITS, "strings": [3]}}, "strings and speed must be"),
    ({"corpus": {**DIGITS, "target_length": 2}}, "target_length must exceed the 2 digits"),
    ({"front_end": {"rate": 16000}}, "front_end.rate must be 8000"),
    ({"front_end": {"rate": 8000, "hop": 0}}, "hop must be at least 1"),
    ({"students": {"a": {"method": "send", "training": {"model": MODEL}}}}, "must be 'online'"),
    ({"students": {"a": {"method": "sand", "training": {"model": MODEL}, "targets": "online"}}}, "unknown method 'sand'"),
    ({"ensemble": {"num_members": 2, "training": {"model": {"name": "transformer"}, "batch_size": 8}}}, "source must be integers"),
    ({"ensemble": {"num_members": 2, "training": {"model": MODEL, "batch_size": 21}}}, "ensemble.training.batch_size must be at most 20"),
    ({"corpus": {**DIGITS, "test_seconds": 0.3}}, "test: utterance . lasts 0.4. s, more than the 0.3 s"),
    ({"corpus": {**DIGITS, "held_out": ["carl"]}}, "speakers of the recordings, ann, bob; got carl"),
    ({"beeam": 3}, "did you mean 'beam'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_settings_are_told_before_anything_is_written(folder, changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        speech.run(config(**changes), folder / "run", data_dir=str(folder), progress=False)
    assert not (folder / "run").exists()


def test_a_missing_folder_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no recording"):
        speech.run(config(), tmp_path / "run", data_dir=str(tmp_path), progress=False)
    assert not (tmp_path / "run").exists()


def test_sets_of_digits(folder):
    write(folder / "mine" / "a.wav", 1000 * np.sin(np.arange(1600)))
    (folder / "mine" / "transcripts.tsv").write_text("a\tseven\n")
    settings = parsed(corpus={**DIGITS, "noise": [10, 0], "folders": {"mine": "mine"}, "speed": [0.9, 1.1]})
    train, tests = speech.utterances(settings, str(folder))
    assert list(tests) == ["test", "unseen speakers", "mine", "noise 10 dB", "noise 0 dB"] and len(train) == 20
    loudest = {name: max(np.abs(each.samples).max() for each in own) * 32768 for name, own in tests.items()}
    assert loudest["test"] == pytest.approx(1000, abs=2) and loudest["unseen speakers"] == pytest.approx(2000, abs=2)
    assert [each.text for each in tests["noise 0 dB"]] == [each.text for each in tests["test"]]
    again = speech.utterances(settings, str(folder))[0]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(train, again))
    sets = speech.read(settings, str(folder))
    assert sets.vocabulary.size == 14 and sets.references["mine"] == ("seven",) and len(sets.train.labels) + sets.left_out == 20
    assert {split.inputs["source"].shape[1:] for split in sets.tests.values()} == {(99, 4)}
    assert sets.train.inputs["source"].shape[1:] == (59, 4) and sets.tests["test"].inputs["target"].shape == (4, 3)
    assert sets.references["test"] == tuple(sets.vocabulary.decode(np.maximum(row, 0)) for row in sets.tests["test"].labels)


@needs_subwords
def test_sets_of_tfds_and_folders(tmp_path, monkeypatch):
    """Subwords are learnt from the training text, kept in the run directory, and every text is compared in lower case."""
    said = {"train_clean100": "THE CAT SAT ON THE MAT", "test_clean": "THE MAT", "test_other": "A CAT"}

    def read_tfds(name, split, *, rate, data_dir, count):
        assert (name, rate) == ("librispeech", 8000)
        return (data.Utterance(said[split], np.full(1600 + 80 * number, 99, np.int16)) for number in range(count or 3))

    monkeypatch.setattr(data, "read_tfds", read_tfds)
    write(tmp_path / "french" / "a.wav", [1000] * 800)
    (tmp_path / "french" / "transcripts.tsv").write_text("a.wav\tLe chat, c'est ça!\n")
    corpus = {"digits": "", "tfds": "librispeech", "shifted": {"other": "test_other"}, "folders": {"french": "french"}, "vocab_size": 25}
    settings = parsed(corpus={**corpus, "num_test": 2, "target_length": 40, "seconds": 0.3})
    sets = speech.read(settings, str(tmp_path), tmp_path)
    assert len(sets.train.labels) == 3 and [len(each.labels) for each in sets.tests.values()] == [2, 2, 1]
    assert sets.references == {"test": ("the mat",) * 2, "other": ("a cat",) * 2, "french": ("le chat c'est ça",)}
    assert sets.vocabulary.decode(np.maximum(sets.tests["test"].labels[0], 0)) == "the mat"
    sets.vocabulary.save(tmp_path / sequence_rows.SUBWORDS)
    said["train_clean100"] = "SOMETHING QUITE DIFFERENT FROM THAT"
    assert speech.read(settings, str(tmp_path), tmp_path).vocabulary.model == sets.vocabulary.model
    with pytest.raises(ValueError, match="french: transcript 0 has"):
        speech.read(parsed(corpus={**corpus, "target_length": 10, "num_test": 2}), str(tmp_path), tmp_path)


@needs_subwords
def test_the_first_process_alone_writes_the_subwords(tmp_path, monkeypatch):
    class Enough(Exception):
        pass

    def train(*_, **__):
        raise Enough

    monkeypatch.setattr(sequence_rows, "train", train)
    for process in (1, 0):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        with pytest.raises(Enough):
            speech.run(config(corpus={"digits": "", "tfds": "librispeech"}, smoke=True), tmp_path / "run", progress=False)
        assert (tmp_path / "run" / sequence_rows.SUBWORDS).exists() == (process == 0)


@needs_jiwer
def test_a_run_goes_on_where_it_stopped(tmp_path):
    """Two steps on invented sound; then one part is lost and made again from the checkpoints. Students: the smoke runs of the configs."""
    settings = config(smoke=True, students={})
    first = speech.run(settings, tmp_path / "run", progress=False)
    rows = {part["row"]: part for part in first["parts"]}
    assert list(rows) == ["Single", "Ensemble"]
    for part in rows.values():
        assert set(part["sets"]) == {"test", "unseen speakers"} and set(part["auroc"]) == {"unseen speakers"}
        assert part["sets"]["test"]["wer"] >= 0 and part["sets"]["test"]["tokens"] > 0 and len(part["examples"]) in (8, 20)
    assert rows["Ensemble"]["parameters"] == 2 * rows["Single"]["parameters"]
    assert set(rows["Single"]["auroc"]["unseen speakers"]) == {"total", "data"}
    kept = (tmp_path / "run/parts/Ensemble.json").stat().st_mtime_ns
    (tmp_path / "run/parts/Single.json").unlink()
    second = {part["row"]: part for part in speech.run(settings, tmp_path / "run", progress=False)["parts"]}
    assert (
        json.dumps(second["Ensemble"]) == json.dumps(rows["Ensemble"]) and (tmp_path / "run/parts/Ensemble.json").stat().st_mtime_ns == kept
    )
    for name in ("sets", "auroc", "examples", "parameters"):
        assert json.dumps(second["Single"][name]) == json.dumps(rows["Single"][name])
    with pytest.raises(ValueError, match="holds a run with other settings"):
        speech.run({**settings, "seed": 1}, tmp_path / "run", progress=False)


def part(row, wer, nll, **auroc):
    example = {"measure": "total", "value": 0.5, "source": "utterance 3, 1.20 s", "reference": "one two", "text": "one"}
    scores = {"utterances": 4, "words": 9, "nll": nll, "ece": 0.05, "tokens": 13, "prr": {"total": 0.4}}
    sets = {"test": {**scores, "wer": wer}, "noise 0 dB": {**scores, "wer": 1.25}}
    own = {"row": row, "sets": sets, "auroc": {"noise 0 dB": auroc}, "parameters": 10, "seconds": 1.0, "left_out": 2}
    return {**own, "examples": [{**example, "pieces": ["one"], "uncertainty": [0.1]}], "seconds_of_evaluation": 1.0}


def test_the_report_says_what_the_numbers_say(tmp_path):
    parts = [
        part("Single", 0.15, 0.2, total=0.6),
        part("Ensemble", 0.1, 0.1, total=0.7, reverse_mutual_information=0.97),
        part("SEnD", 0.2, 0.3, total=0.5),
    ]
    speech_report.finish(tmp_path, parts, {"name": "toy"}, {"command": "x"})
    report.render([tmp_path], tmp_path / "again")
    found = (tmp_path / "again" / "report.md").read_text()
    told = "Ensemble: WER (Single's) test 10.00 % (15.00 %), noise 0 dB 125.00 % (125.00 %); token NLL on test 0.100, below Single's 0.200."
    assert told in found and "token NLL on test 0.300, not below Single's 0.200." in found
    assert "noise 0 dB 97.0 %" in found and "| Ensemble | 10.00 | 125.00 | 10 |" in found
    assert "| noise 0 dB | Single | 125.00 | 0.200 | 5.00 | 40.0 |" in found and "Training left out 2 utterances" in found
    assert (tmp_path / "figures" / "sentences_ensemble.png").stat().st_size > 1000
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == speech_report.SCHEMA
