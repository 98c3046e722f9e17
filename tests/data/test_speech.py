"""Spoken digits: files, parts, strings, noise, arrays."""

import wave

import numpy as np
import pytest

from edd.data import speech


def write(file, samples, rate=8000, width=2, channels=1):
    with wave.open(str(file), "wb") as target:
        target.setnchannels(channels)
        target.setsampwidth(width)
        target.setframerate(rate)
        target.writeframes(np.asarray(samples, {1: "u1", 2: "<i2"}[width]).tobytes())


@pytest.fixture
def folder(tmp_path):
    for digit in (0, 7):
        for speaker in ("ann", "bob"):
            for take in (0, 4, 5):
                write(tmp_path / f"{digit}_{speaker}_{take}.wav", np.full(100 + digit, 16384 if speaker == "ann" else 8192))
    return tmp_path


def test_parts_share_neither_takes_nor_held_out_speakers(folder):
    recordings = speech.read_digits(folder)
    assert len(recordings) == 12 and recordings[0].samples.dtype == np.float32 and recordings[0].samples[0] == 0.5
    parts = {part: speech.select(recordings, part=part, held_out=["bob"]) for part in ("train", "test", "unseen")}
    assert {(each.speaker, each.take) for each in parts["train"]} == {("ann", 5)}
    assert {(each.speaker, each.take) for each in parts["test"]} == {("ann", 0), ("ann", 4)}
    assert {(each.speaker, each.take) for each in parts["unseen"]} == {("bob", 0), ("bob", 4)}
    with pytest.raises(ValueError, match="speakers of the recordings, ann, bob; got carl"):
        speech.select(recordings, part="train", held_out=["carl"])
    with pytest.raises(ValueError, match="no recording is left"):
        speech.select(recordings, part="unseen", held_out=[])
    with pytest.raises(ValueError, match="part must be"):
        speech.select(recordings, part="dev", held_out=[])


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no recording"):
        speech.read_digits(tmp_path)
    write(tmp_path / "7_ann_0.wav", [0] * 10, rate=16000)
    with pytest.raises(ValueError, match="16-bit samples at 8000 Hz, got 16-bit at 16000 Hz"):
        speech.read_digits(tmp_path)
    write(tmp_path / "7_ann_0.wav", [0] * 10, width=1)
    with pytest.raises(ValueError, match="got 8-bit"):
        speech.read_digits(tmp_path)
    write(tmp_path / "7_ann_0.wav", [])
    with pytest.raises(ValueError, match="no sample"):
        speech.read_digits(tmp_path)
    (tmp_path / "7_ann_0.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="must be a WAV file"):
        speech.read_digits(tmp_path)
    write(tmp_path / "7_ann_0.wav", [8192, -8192, 16384, 16384], channels=2)
    (tmp_path / "seven.wav").write_bytes((tmp_path / "7_ann_0.wav").read_bytes())
    assert speech.read_wave(tmp_path / "7_ann_0.wav").tolist() == [0.0, 0.5]
    with pytest.raises(ValueError, match="seven.wav: the name must be"):
        speech.read_digits(tmp_path)


def test_strings_are_one_speaker_and_say_what_they_hold(folder):
    recordings = speech.read_digits(folder)
    first, second = (speech.join(recordings, 20, digits=(1, 3), gap=(0.01, 0.02), seed=1) for _ in range(2))
    assert all(np.array_equal(a.samples, b.samples) and a.text == b.text for a, b in zip(first, second))
    assert {len(each.text.split()) for each in first} == {1, 2, 3}
    for each in first:
        words = each.text.split()
        spoken = each.samples[each.samples != 0]
        assert len(set(spoken.tolist())) == 1 and len(spoken) == sum(100 + speech.WORDS.index(word) for word in words)
        silence = len(each.samples) - len(spoken)
        assert 80 * (len(words) - 1) <= silence <= 160 * (len(words) - 1)
    with pytest.raises(ValueError, match="fewest"):
        speech.join(recordings, 1, digits=(3, 2))


def test_noise_has_its_power():
    loud, quiet = speech.Utterance("one", np.full(40000, 0.5, np.float32)), speech.Utterance("two", np.full(40000, 0.05, np.float32))
    for each, noisy in zip((loud, quiet), speech.add_noise([loud, quiet], 10.0, 3)):
        ratio = (each.samples**2).mean() / ((noisy.samples - each.samples) ** 2).mean()
        assert abs(10 * np.log10(ratio) - 10.0) < 0.2 and noisy.text == each.text
    silent = speech.Utterance("one", np.zeros(5, np.float32))
    assert not speech.add_noise([silent], 0.0, 0)[0].samples.any()
    with pytest.raises(ValueError, match="snr must be finite"):
        speech.add_noise([loud], float("inf"), 0)


def test_faster_strings_are_shorter_and_say_the_same(folder):
    recordings = speech.read_digits(folder)
    options = {"digits": (2, 2), "gap": (0.01, 0.01)}
    twice = speech.join(recordings, 5, speed=(2.0, 2.0), **options)
    assert [each.text for each in twice] == [each.text for each in speech.join(recordings, 5, **options)]
    for each in twice:
        assert len(each.samples) == 80 + sum(round((100 + speech.WORDS.index(word)) / 2) for word in each.text.split())
    lengths = {len(each.samples) for each in speech.join(recordings, 20, digits=(1, 1), speed=(0.5, 2.0))}
    assert 50 <= min(lengths) < 60 and 110 < max(lengths) <= 214
    slow = speech.faster(np.array([0.0, 4.0, 2.0], np.float32), 0.5)
    assert slow.tolist() == [0.0, 2.0, 4.0, 3.0, 2.0, 2.0] and slow.dtype == np.float32
    with pytest.raises(ValueError, match="speed must be"):
        speech.join(recordings, 1, speed=(1.2, 1.0))


def test_words_are_a_vocabulary():
    words = speech.Words(speech.WORDS)
    assert words.encode("") == [] and words.encode("seven zero") == [11, 4]
    assert words.decode([11, 0, 1, 4, 2, 5]) == "seven zero" and words.decode([14, -1]) == ""
    assert [words.piece(token) for token in (4, 13, 3, 14)] == ["zero", "nine", "_", "_"]
    with pytest.raises(ValueError, match="zero, one, .*; got 'ten'"):
        words.encode("one ten")


def test_a_folder_of_speech_and_transcripts(tmp_path):
    write(tmp_path / "a.wav", [16384] * 3)
    (tmp_path / "transcripts.tsv").write_text("a.wav\tbonjour tout le monde\n")
    found = speech.read_folder(tmp_path)
    assert found[0].text == "bonjour tout le monde" and found[0].samples.tolist() == [0.5] * 3
    (tmp_path / "transcripts.tsv").write_text("b\tbonjour\n")
    with pytest.raises(FileNotFoundError, match="b.wav does not exist"):
        speech.read_folder(tmp_path)
    (tmp_path / "transcripts.tsv").write_text("bonjour\n")
    with pytest.raises(ValueError, match="line 1"):
        speech.read_folder(tmp_path)


def test_a_folder_names_its_recordings_once_and_in_a_format_that_can_be_read(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "a.WAV", [16384] * 3, rate=16000)
    write(tmp_path / "b.wav", [8192] * 2, rate=16000)
    (tmp_path / "transcripts.tsv").write_text("deep/a.WAV\tone\n\nb\ttwo\n")
    found = speech.read_folder(tmp_path, rate=16000)
    assert [(each.text, each.samples.tolist()) for each in found] == [("one", [0.5] * 3), ("two", [0.25] * 2)]
    with pytest.raises(ValueError, match="16-bit samples at 8000 Hz, got 16-bit at 16000 Hz"):
        speech.read_folder(tmp_path)
    (tmp_path / "transcripts.tsv").write_text("b\tone\nb.wav\ttwo\n")
    with pytest.raises(ValueError, match="line 2: b.wav has a transcript already"):
        speech.read_folder(tmp_path, rate=16000)
    write(tmp_path / "b.wav", [])
    (tmp_path / "transcripts.tsv").write_text("b\tone\n")
    with pytest.raises(ValueError, match="b.wav holds no sample"):
        speech.read_folder(tmp_path)
    (tmp_path / "transcripts.tsv").write_text("b.flac\tone\n")
    (tmp_path / "b.flac").write_bytes(b"fLaC")
    with pytest.raises(ValueError, match="b.flac must be a WAV file: other formats cannot be read"):
        speech.read_folder(tmp_path)
    (tmp_path / "transcripts.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="transcripts.tsv does not exist"):
        speech.read_folder(tmp_path)


class Builder:
    """What of a TFDS builder is read: two utterances of int16 samples at 16 kHz."""

    def __init__(self, rate=16000, **example):
        self.info = type("Info", (), {"metadata": {"sample_rate": rate}, "features": {}})
        self.example = {"speech": np.array([1, -2, 3]), "text": b"IT'S HERE", "speaker_id": 7, **example}

    def as_data_source(self, split):
        assert split == "test_clean"
        return [{key: value for key, value in self.example.items() if value is not None}] * 2


def test_sets_of_tfds(monkeypatch):
    import tensorflow_datasets as tfds

    def found(builder, **options):
        monkeypatch.setattr(tfds, "builder", lambda name, data_dir: builder)
        return list(speech.read_tfds("librispeech", "test_clean", rate=16000, **options))

    for each in found(Builder()):
        assert each.text == "IT'S HERE" and each.samples.dtype == np.int16 and each.samples.tolist() == [1, -2, 3]
    assert len(found(Builder())) == 2 and len(found(Builder(), count=1)) == 1 and len(found(Builder(), count=9)) == 2
    with pytest.raises(ValueError, match="librispeech must be sampled at 16000 Hz, got 8000 Hz"):
        found(Builder(rate=8000))
    with pytest.raises(ValueError, match='must have "speech" and "text", it has speaker_id, speech'):
        found(Builder(text=None))
