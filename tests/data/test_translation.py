"""Parallel text: files, subwords, padded arrays, shifted sources."""

import gzip
import importlib.util
import types

import numpy as np
import pytest

from edd.data import translation
from edd.data.translation import END, IGNORED, PAD, START, UNKNOWN

needs_subwords = pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None, reason="needs the package sentencepiece, which is not installed"
)


@pytest.fixture(scope="module")
def subwords():
    pairs = translation.invented(60, 0)
    return translation.Subwords(translation.learn([*pairs.source, *pairs.target], 330))


def test_files_match_line_by_line(tmp_path):
    (tmp_path / "train.en").write_text("A man.\n\nTwo\u2028dogs.\n", encoding="utf-8")
    (tmp_path / "train.de").write_text("Ein Mann.\nNichts.\nZwei Hunde.", encoding="utf-8")
    pairs = translation.read_folder(tmp_path, "train")
    assert pairs.source == ("A man.", "", "Two\u2028dogs.") and pairs.target[2] == "Zwei Hunde."
    assert translation.read_folder(tmp_path, "train", ("de", "en")).source == pairs.target
    (tmp_path / "train.fr").write_text("Un homme.\n")
    with pytest.raises(ValueError, match="match line by line, got 3 and 1 lines"):
        translation.read_folder(tmp_path, "train", ("en", "fr"))
    with pytest.raises(FileNotFoundError, match="val.en does not exist"):
        translation.read_folder(tmp_path, "val")
    (tmp_path / "train.xx").write_text("\n\n")
    with pytest.raises(ValueError, match="holds no sentence"):
        translation.lines(tmp_path / "train.xx")
    (tmp_path / "train.xx").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        translation.lines(tmp_path / "train.xx")


def test_transcripts_plain_and_packed(tmp_path):
    text = "1089-1-0\the hoped there would be stew\n1089-1-1\tstuff it\n"
    (tmp_path / "a.tsv").write_text(text)
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(text.encode()))
    assert translation.read_transcripts(tmp_path / "a.tsv") == ("he hoped there would be stew", "stuff it")
    assert translation.read_transcripts(tmp_path / "a.tsv.gz") == translation.read_transcripts(tmp_path / "a.tsv")
    (tmp_path / "a.tsv").write_text(text + "no tab here\n")
    with pytest.raises(ValueError, match="line 3: must be an utterance's name"):
        translation.read_transcripts(tmp_path / "a.tsv")
    (tmp_path / "a.tsv.gz").write_bytes(b"not packed")
    with pytest.raises(ValueError, match="must be text"):
        translation.read_transcripts(tmp_path / "a.tsv.gz")


def test_sets_by_tfds_name(monkeypatch):
    examples = [{"en": b"A  man.\n", "de": b"Ein Mann."}, {"en": "Dogs", "de": "Hunde"}]
    fake = types.SimpleNamespace(data_source=lambda name, split, data_dir, download: examples)
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", fake)
    assert translation.read_tfds("wmt17_translate/de-en", "train").source == ("A man.", "Dogs")
    with pytest.raises(ValueError, match="has no language fr, it has de, en"):
        translation.read_tfds("wmt17_translate/de-en", "train", ("en", "fr"))


@needs_subwords
def test_every_text_comes_back(subwords, tmp_path):
    for sentence in ("bird tree.", "Füße 猫 \u2603!", "unseen words"):
        ids = subwords.encode(sentence)
        assert min(ids) > UNKNOWN and max(ids) < subwords.size  # bytes spell what is unknown
        assert subwords.decode([START, *ids, END, 7, 7]) == sentence
    assert subwords.encode("") == [] and subwords.decode([END]) == "" and subwords.decode([PAD, IGNORED]) == ""
    half = tmp_path / "subwords.model.part"
    half.write_bytes(b"of another process")
    subwords.save(tmp_path / "subwords.model")
    assert half.read_bytes() == b"of another process"
    assert translation.Subwords(tmp_path / "subwords.model").encode("bird tree.") == subwords.encode("bird tree.")
    pairs = translation.invented(60, 0)
    assert translation.learn([*pairs.source, *pairs.target], 330) == subwords.model  # the same text, the same pieces


@needs_subwords
def test_without_bytes_the_unknown_is_unknown():
    made = translation.Subwords(translation.learn(translation.invented(40, 0).source, 40, byte_fallback=False))
    assert UNKNOWN in made.encode("猫") and made.size <= 40


@needs_subwords
def test_what_cannot_be_learnt():
    with pytest.raises(ValueError, match="at least 261 with byte_fallback"):
        translation.learn(["a"], 100)
    with pytest.raises(ValueError, match="at least one that is not empty"):
        translation.learn(["", " "], 300)


@needs_subwords
def test_decoder_inputs_are_labels_moved_by_one(subwords):
    pairs = translation.invented(5, 1)
    split = translation.encode(subwords, pairs, 40, 40)
    source, target, labels = split.inputs["source"], split.inputs["target"], split.labels
    assert source.shape == target.shape == labels.shape == (5, 40) and labels.dtype == np.int32
    for row, (english, german) in enumerate(zip(*pairs)):
        count = int((labels[row] >= 0).sum())
        assert (labels[row, count:] == IGNORED).all() and labels[row, count - 1] == END
        assert target[row, 0] == START and (target[row, 1:count] == labels[row, : count - 1]).all() and (target[row, count:] == PAD).all()
        assert subwords.decode(labels[row]) == german and subwords.decode(source[row]) == english


@needs_subwords
def test_empty_and_too_long(subwords):
    pairs = translation.Parallel(("bird.", "", "bird tree runs green house sings."), ("vogel.", "vogel.", "baum."))
    with pytest.raises(ValueError, match="source sentence 2 has .* tokens with its end, more than the 6"):
        translation.encode(subwords, pairs, 6, 8)
    cut = translation.encode(subwords, pairs, 6, 8, too_long="cut")
    long = subwords.encode(pairs.target[2])
    assert len(long) == 4 and cut.labels[2].tolist() == [*long, END, *[IGNORED] * 3]
    cut_short = translation.encode(subwords, pairs, 6, 3, too_long="cut")
    assert cut_short.labels[2].tolist() == long[:3]  # no end that is not there is asked for
    assert cut_short.inputs["target"][2].tolist() == [START, *long[:2]]
    assert translation.fits(subwords, pairs.source, 6).tolist() == [0 < len(subwords.encode(each)) < 6 for each in pairs.source]
    assert cut.inputs["source"][1].tolist() == [END, 0, 0, 0, 0, 0]  # an empty source is its end alone
    assert cut.inputs["source"][2, -1] == END and cut.inputs["source"][2, :5].tolist() == subwords.encode(pairs.source[2])[:5]
    assert len(translation.encode(subwords, pairs, 6, 8, too_long="drop").labels) == 1
    with pytest.raises(ValueError, match="no sentence pair is left"):
        translation.encode(subwords, translation.Parallel(("",), ("",)), 6, 8, too_long="drop")
    with pytest.raises(ValueError, match="too_long"):
        translation.sources(subwords, pairs.source, 6, too_long="dropp")
    np.testing.assert_array_equal(translation.sources(subwords, pairs.source, 6, too_long="cut"), cut.inputs["source"])


@needs_subwords
def test_permuted_sources_keep_their_tokens_and_full_stop(subwords):
    sentences = translation.invented(30, 2).source
    plain, shuffled = (translation.sources(subwords, sentences, 40, permutation=seed) for seed in (None, 3))
    np.testing.assert_array_equal(np.sort(plain, 1), np.sort(shuffled, 1))
    ends = (plain == END).argmax(1)
    rows = np.arange(30)
    np.testing.assert_array_equal(shuffled[rows, ends], plain[rows, ends])
    np.testing.assert_array_equal(shuffled[rows, ends - 1], plain[rows, ends - 1])
    assert (plain != shuffled).any(1).mean() > 0.8
    np.testing.assert_array_equal(shuffled, translation.sources(subwords, sentences, 40, permutation=3))
    assert not np.array_equal(shuffled, translation.sources(subwords, sentences, 40, permutation=4))
