"""Features and ids of utterances: values against one utterance at a time, padding, what does not fit."""

import numpy as np
import pytest

from edd.data import listening, speech
from edd.data.log_mel import log_mel
from edd.data.translation import END, IGNORED, START

FRONT_END = listening.FrontEnd(rate=8000, num_filters=4, window=64, hop=32, floor=1e-2)
RNG = np.random.default_rng(0)


def utterance(samples, text="one"):
    return speech.Utterance(text, (0.1 * RNG.standard_normal(samples)).astype(np.float32))


def alone(samples) -> np.ndarray:
    """The front end of one utterance, without padding, in plain numpy after the logarithm."""
    level = np.sqrt((samples.astype(np.float64) ** 2).mean()).astype(np.float32)
    features = np.asarray(log_mel(samples / level, 8000, num_filters=4, window=64, hop=32, floor=1e-2))
    return (features - features.mean(0)) / np.sqrt(features.var(0) + 1e-5)


def test_features_are_those_of_each_utterance_alone():
    """More utterances than a block, of different lengths; loudness makes no difference."""
    given = [utterance(64 + 77 * (number % 5)) for number in range(listening.BLOCK + 5)]
    heard = listening.listen(given, FRONT_END, 0.1)
    assert heard.features.shape == (len(given), FRONT_END.frames(0.1), 4) and heard.left_out == 0
    for each, features, frames in zip(given, heard.features, heard.frames):
        assert frames == (len(each.samples) - 64) // 32 + 1
        np.testing.assert_allclose(features[:frames], alone(each.samples), atol=2e-4)
        assert not features[frames:].any()
    louder = listening.listen([each._replace(samples=7 * each.samples) for each in given], FRONT_END, 0.1)
    np.testing.assert_allclose(louder.features, heard.features, atol=2e-3)


def test_integers_of_files_give_the_features_of_fractions():
    wave = utterance(400)
    integers = wave._replace(samples=np.round(wave.samples * 32768).astype(np.int16))
    found = [listening.listen([each], FRONT_END, 0.1).features for each in (wave, integers)]
    np.testing.assert_allclose(*found, atol=0.02)


def test_what_does_not_fit_is_left_out_or_told():
    given = [utterance(100), utterance(801), utterance(800)]
    assert listening.listen(given, FRONT_END, 0.1, too_long="drop").frames.tolist() == [2, 24]
    assert listening.listen(given, FRONT_END, 0.1, too_long="drop").left_out == 1
    with pytest.raises(ValueError, match="utterance 1 lasts 0.10 s, more than the 0.1 s"):
        listening.listen(given, FRONT_END, 0.1)
    with pytest.raises(ValueError, match="no utterance is left"):
        listening.listen([utterance(801)], FRONT_END, 0.1, too_long="drop")
    with pytest.raises(ValueError, match="no utterance is left"):
        listening.listen([], FRONT_END, 0.1)


def test_sound_that_is_none():
    with pytest.raises(ValueError, match="utterance 1 has 0 samples, fewer than a window of 64"):
        listening.listen([utterance(100), speech.Utterance("one", np.zeros(0, np.float32))], FRONT_END, 0.1)
    with pytest.raises(ValueError, match="utterance 0 has samples that are not finite"):
        listening.listen([speech.Utterance("one", np.full(100, np.nan, np.float32))], FRONT_END, 0.1)
    silent = listening.listen([speech.Utterance("one", np.zeros(100, np.float32))], FRONT_END, 0.1)
    assert not silent.features.any() and silent.frames.tolist() == [2]


@pytest.mark.parametrize("changes", [{"rate": 0}, {"window": 1}, {"hop": 0}, {"num_filters": 0}, {"floor": 0.0}])
def test_front_ends_out_of_range(changes):
    with pytest.raises(ValueError, match="must be at least 1"):
        listening.FrontEnd(**changes)


def test_seconds_shorter_than_a_window():
    with pytest.raises(ValueError, match="seconds at least a window"):
        listening.listen([utterance(100)], FRONT_END, 0.007)


def test_arrays_hold_features_frames_and_words():
    heard = listening.listen([utterance(100, "seven zero"), utterance(300, ""), utterance(64, "one two three")], FRONT_END, 0.1)
    words = speech.Words(speech.WORDS)
    split = listening.encode(heard, words, 4)
    assert split.inputs["source"] is heard.features and split.inputs["length"].tolist() == [2, 8, 1]
    assert split.inputs["target"].tolist() == [[START, 11, 4, 0], [START, 0, 0, 0], [START, 5, 6, 7]]
    assert split.labels.tolist() == [[11, 4, END, IGNORED], [END, IGNORED, IGNORED, IGNORED], [5, 6, 7, END]]
    with pytest.raises(ValueError, match="transcript 2 has 4 tokens"):
        listening.encode(heard, words, 3)
    fewer = listening.encode(heard, words, 3, too_long="drop")
    assert fewer.inputs["length"].tolist() == [2, 8] and len(fewer.labels) == len(fewer.inputs["source"]) == 2
    with pytest.raises(ValueError, match="no utterance is left"):
        listening.encode(heard._replace(texts=("one two", "one two", "one two")), words, 2, too_long="drop")
    with pytest.raises(ValueError, match="got 'ten'"):
        listening.encode(heard._replace(texts=("ten", "one", "one")), words, 4)
