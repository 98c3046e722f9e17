"""Text tasks: files, tokenising, masking."""

import importlib.util

import numpy as np
import pytest

from edd.data import sources, text

needs_tokenizers = pytest.mark.skipif(
    importlib.util.find_spec("tokenizers") is None, reason="needs the package tokenizers, which is not installed"
)
LINES = [
    "0\tThe cat sat on the mat in the old house.\tA cat sat.",
    "1\tDogs bark.\tThe cats sat on the mats and the dogs bark at the old house.",
    "1\tRéal\u2028text.\tThe end.",  # a line separator of Unicode is no end of a line
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "rte_train.tsv").write_text("\n".join(LINES * 4), encoding="utf-8")
    (tmp_path / "text" / "rte_dev.tsv").write_text("\n".join(LINES) + "\r\n", encoding="utf-8")
    (tmp_path / "text" / "wic_train.tsv").write_text("1\tThe bank is shut.\tA bank of sand.\tbank\n")
    return tmp_path


def test_labels_and_fields(folder):
    labels, fields = text.read(text.path("rte", "dev", str(folder)), text.TASKS["rte"])
    assert labels.tolist() == [0, 1, 1] and labels.dtype == np.int32
    assert fields[2] == ("Réal\u2028text.", "The end.")
    _, fields = text.read(text.path("wic", "train", str(folder)), text.TASKS["wic"])
    assert fields == [("bank: The bank is shut.", "A bank of sand.")]


@pytest.mark.parametrize("line", ["2\ta\tb", "x\ta\tb", "0\ta", "0\ta\tb\tc"])
def test_a_line_that_does_not_fit_is_named(folder, line):
    file = folder / "text" / "rte_dev.tsv"
    file.write_text(f"{LINES[0]}\n{line}\n")
    with pytest.raises(ValueError, match="line 2: must hold a label below 2 and 2 field"):
        text.read(file, text.TASKS["rte"])


def test_missing_and_empty_files(folder):
    with pytest.raises(FileNotFoundError, match="mrpc_train.tsv does not exist"):
        text.read(text.path("mrpc", "train", str(folder)), text.TASKS["mrpc"])
    (folder / "text" / "rte_dev.tsv").write_text("\n\n")
    with pytest.raises(ValueError, match="holds no example"):
        text.read(folder / "text" / "rte_dev.tsv", text.TASKS["rte"])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_length": 4}, "at least 8"), ({"vocab_size": 5}, "vocab_size"), ({"tokenizer": "bertt"}, "path of a tokenizer.json or one of")],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        sources.info("rte", **options)
    with pytest.raises(ValueError, match="no option max_len; its options are max_length, tokenizer, vocab_size"):
        sources.info("rte", max_len=3)


@needs_tokenizers
def test_pairs_are_cut_typed_and_padded(folder):
    split = sources.load("rte", "dev", data_dir=str(folder), max_length=12, vocab_size=60)
    assert split.inputs.shape == (3, 12, 2) and split.inputs.dtype == np.int32 and split.labels.tolist() == [0, 1, 1]
    made = text.make_tokenizer("rte", data_dir=str(folder), vocab_size=60)
    pad, unknown, cls, sep, _ = text.special_ids(made)
    assert (pad, unknown, cls, sep) == (0, 1, 2, 3)
    lengths = {}
    for row, (ids, types) in enumerate(np.moveaxis(split.inputs, -1, 1)):
        ends = np.flatnonzero(ids == sep)
        assert ids[0] == cls and len(ends) == 2, row
        assert (types[: ends[0] + 1] == 0).all() and (types[ends[0] + 1 : ends[1] + 1] == 1).all()
        assert (ids[ends[1] + 1 :] == pad).all() and (ids[: ends[1] + 1] != pad).all()
        lengths[row] = (ends[0] - 1, ends[1] - ends[0] - 1)
    whole = [len(made.encode(sentence, add_special_tokens=False).ids) for sentence in ("Dogs bark.",)]
    made.no_truncation(), made.no_padding()
    assert sum(lengths[0]) == sum(lengths[1]) == 12 - 3  # both are too long and fill the row
    assert lengths[1][0] == min(whole[0], lengths[1][0]) and lengths[1][1] >= lengths[1][0]  # the longer sentence is cut first


@needs_tokenizers
def test_the_same_text_gives_the_same_tokens(folder):
    first, second = (sources.load("rte", "train[:3]", data_dir=str(folder), max_length=16, vocab_size=50) for _ in range(2))
    np.testing.assert_array_equal(first.inputs, second.inputs)
    borrowed = sources.load("wic", "train", data_dir=str(folder), max_length=16, tokenizer="rte", vocab_size=50)
    own = sources.load("wic", "train", data_dir=str(folder), max_length=16, vocab_size=50)
    assert not np.array_equal(borrowed.inputs, own.inputs)


@needs_tokenizers
def test_a_tokenizer_file_is_used(folder, tmp_path):
    made = text.make_tokenizer("rte", data_dir=str(folder), vocab_size=60)
    made.save(str(tmp_path / "tokenizer.json"))
    options = {"data_dir": str(folder), "max_length": 16}
    from_file = sources.load("rte", "dev", tokenizer=str(tmp_path / "tokenizer.json"), **options)
    np.testing.assert_array_equal(from_file.inputs, sources.load("rte", "dev", vocab_size=60, **options).inputs)
    with pytest.raises(FileNotFoundError, match="tokenizer must be the path"):
        sources.load("rte", "dev", tokenizer=str(tmp_path / "none.json"), **options)


@needs_tokenizers
def test_robertas_padding_is_its_own():
    import tokenizers

    words = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    assert text.encode(made, [("a b",)], 8)[0, :, 0].tolist() == [5, 6, 1, 1, 1, 1, 1, 1]
    assert text.special_ids(made) == (1, 3, 0, 2, 4)
    with pytest.raises(ValueError, match="must have the special tokens"):
        text.special_ids(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")))


def test_smoke_tokens_are_tokens():
    split = sources.smoke(sources.info("mrpc", max_length=9), 6, 0)
    assert split.inputs.shape == (6, 9, 2) and split.inputs.dtype == np.int32
    assert 0 <= split.inputs[..., 0].min() and 50 < split.inputs[..., 0].max() < 100 and set(np.unique(split.inputs[..., 1])) == {0, 1}


def masked(fraction=0.2, copies=3, seed=0, rows=200):
    rng = np.random.default_rng(9)
    ids = rng.integers(5, 50, (rows, 20))
    ids[:, 0], ids[:, 12], ids[:, 13:] = 2, 3, 0
    inputs = np.stack([ids, np.zeros_like(ids)], -1).astype(np.int32)
    return inputs, text.mask_tokens(inputs, vocab_size=50, special=range(5), copies=copies, fraction=fraction, seed=seed)


def test_masked_tokens_are_words_with_their_labels():
    inputs, split = masked()
    whole = np.concatenate([inputs] * 3)[..., 0]
    chosen = split.labels >= 0
    assert split.inputs.shape == (600, 20, 2) and (chosen.sum(1) == 2).all()  # a fifth of eleven words, rounded
    np.testing.assert_array_equal(split.labels[chosen], whole[chosen])
    np.testing.assert_array_equal(split.inputs[..., 0][~chosen], whole[~chosen])
    assert (whole[chosen] >= 5).all()
    shown = split.inputs[..., 0][chosen]
    assert abs((shown == 4).mean() - 0.8) < 0.04 and abs((shown == whole[chosen]).mean() - 0.1) < 0.03
    assert set(np.unique(shown)) <= {4, *range(5, 50)}
    assert not np.array_equal(split.labels[:200], split.labels[200:400])  # copies have their own draws


def test_masking_is_a_function_of_its_seed():
    np.testing.assert_array_equal(masked(seed=1)[1].inputs, masked(seed=1)[1].inputs)
    assert not np.array_equal(masked(seed=1)[1].inputs, masked(seed=2)[1].inputs)
    with pytest.raises(ValueError, match="copies must be at least 1"):
        masked(copies=0)
