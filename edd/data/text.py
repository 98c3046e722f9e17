"""Sentence and sentence-pair tasks from tab-separated files, as token ids and token types.

A file `text/NAME_SPLIT.tsv` in the data directory has one example per line: an integer label, a tab, and the task's fields separated by
tabs. Tokenising needs the package tokenizers (`pip install 'edd[interop]'`).
"""

import collections
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from edd.data import wordpiece
from edd.data.base import Info, Split, slice_range

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4 of a tokenizer learnt here
ROBERTA_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
IGNORED = -1  # label of a token that is not to be restored


class Task(NamedTuple):
    """`num_classes`, the `splits` it comes in, the tab-separated `fields` after the label."""

    num_classes: int
    splits: tuple[str, ...]
    fields: tuple[str, ...]


PAIR = ("first", "second")
TASKS = {
    "rte": Task(2, ("train", "dev"), PAIR),  # label 1: the first does not entail the second
    "mrpc": Task(2, ("train", "test"), PAIR),  # label 1: paraphrases
    "wic": Task(2, ("train", "dev"), (*PAIR, "word")),  # label 1: the word has the same sense in both
    "sst2": Task(2, ("train", "dev", "test"), ("first",)),  # label 1: positive
}


def info(name: str, *, max_length: int = 128, tokenizer: str = "", vocab_size: int = 4000) -> Info:
    """Description of a task: inputs [max_length, 2] int32; options as for `load`."""
    if max_length < 8:
        raise ValueError(f"max_length must be at least 8 tokens, got {max_length}")
    if vocab_size < 2 * len(SPECIAL):
        raise ValueError(f"vocab_size must be at least {2 * len(SPECIAL)}, got {vocab_size}")
    if tokenizer and tokenizer not in TASKS and not tokenizer.endswith(".json"):
        raise ValueError(f"tokenizer must be the path of a tokenizer.json or one of {', '.join(TASKS)}, got {tokenizer!r}")
    return Info(name, TASKS[name].num_classes, (max_length, 2), dtype="int32", splits=TASKS[name].splits)


def load(
    name: str,
    split: str,
    bounds: tuple[str, str] = ("", ""),
    *,
    data_dir: str | None = None,
    max_length: int = 128,
    tokenizer: str = "",
    vocab_size: int = 4000,
) -> Split:
    """Reads and tokenises one split of a task.

    A pair becomes one sequence with the tokenizer's separators; of what is too long, the longer sentence loses its end first. WiC's
    word is put before the first sentence, "word: sentence".

    Args:
      name: one of `TASKS`.
      split: one of its splits.
      bounds: a slice of it, as from `edd.data.base.parse_split`.
      data_dir: folder that holds text/NAME_SPLIT.tsv; None: TFDS_DATA_DIR, else ~/tensorflow_datasets.
      max_length: L, tokens per example, separators included; shorter ones are padded.
      tokenizer: path of a tokenizer.json (of the body's folder, say), or the task from whose training text WordPieces are learnt;
        "": this one.
      vocab_size: of WordPieces learnt here, at most; not used with a path.

    Returns:
      `Split` with inputs [N, L, 2] int32 (token id, token type) and labels [N] int32.

    Raises:
      FileNotFoundError: a file is missing; ValueError: a line that does not fit the task, or options out of range; ImportError:
        the package tokenizers is not installed.
    """
    info(name, max_length=max_length, tokenizer=tokenizer, vocab_size=vocab_size)
    labels, fields = read(path(name, split, data_dir), TASKS[name])
    chosen = slice_range(bounds, len(labels))
    encoder = make_tokenizer(name, data_dir=data_dir, tokenizer=tokenizer, vocab_size=vocab_size)
    return Split(encode(encoder, [fields[i] for i in chosen], max_length), labels[chosen.start : chosen.stop])


def path(name: str, split: str, data_dir: str | None) -> pathlib.Path:
    """Where the file of a split is expected."""
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(folder).expanduser() / "text" / f"{name}_{split}.tsv"


def read(file: pathlib.Path, task: Task) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """(labels [N] int32, the texts of each example) of a task's file; errors name the line."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: each line must be a label and {', '.join(task.fields)}, separated by tabs")
    labels, texts = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        label, *fields = line.rstrip("\r").split("\t")
        if not label.isdigit() or int(label) >= task.num_classes or len(fields) != len(task.fields):
            expected = f"a label below {task.num_classes} and {len(task.fields)} field(s): {', '.join(task.fields)}"
            raise ValueError(f"{file}, line {number}: must hold {expected}, separated by tabs; got {line[:80]!r}")
        labels.append(int(label))
        texts.append((f"{fields[2]}: {fields[0]}", fields[1]) if "word" in task.fields else tuple(fields))
    if not labels:
        raise ValueError(f"{file} holds no example")
    return np.array(labels, np.int32), texts


def make_tokenizer(name: str, *, data_dir: str | None = None, tokenizer: str = "", vocab_size: int = 4000):
    """The `tokenizers.Tokenizer` of a task's options; errors as `load`."""
    tokenizers = _package()
    if tokenizer.endswith(".json"):
        file = pathlib.Path(tokenizer).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist: tokenizer must be the path of a tokenizer.json")
        return tokenizers.Tokenizer.from_file(str(file))
    source = tokenizer or name
    _, texts = read(path(source, "train", data_dir), TASKS[source])
    return learn((sentence for example in texts for sentence in example), vocab_size)


def learn(sentences: Iterable[str], vocab_size: int):
    """A lower-casing WordPiece tokenizer learnt from sentences, with BERT's special tokens at ids 0 to 4; the same text, the same ids."""
    tokenizers = _package()
    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    counts = collections.Counter(
        word for sentence in sentences for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(sentence))
    )
    pieces = [*SPECIAL, *wordpiece.learn(counts, vocab_size - len(SPECIAL))]
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token=UNKNOWN))
    made.normalizer, made.pre_tokenizer = normalizer, splitter
    made.post_processor = tokenizers.processors.BertProcessing((SEP, SPECIAL.index(SEP)), (CLS, SPECIAL.index(CLS)))
    made.decoder = tokenizers.decoders.WordPiece()
    made.add_special_tokens(list(SPECIAL))
    return made


def encode(tokenizer, texts: list[tuple[str, ...]], max_length: int) -> np.ndarray:
    """Token ids and types [N, max_length, 2] int32 of sentences or pairs, cut and padded to one length."""
    pad = special_ids(tokenizer)[0]
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    tokenizer.enable_padding(length=max_length, pad_id=pad, pad_token=tokenizer.id_to_token(pad))
    found = tokenizer.encode_batch([example if len(example) > 1 else example[0] for example in texts])
    return np.array([[each.ids, each.type_ids] for each in found], np.int32).reshape(-1, 2, max_length).swapaxes(1, 2)


def special_ids(tokenizer) -> tuple[int, ...]:
    """Ids of padding, unknown, first, separator and mask token, by BERT's names or RoBERTa's; ValueError if one is missing."""
    for known in (SPECIAL, ROBERTA_SPECIAL):
        ids = tuple(tokenizer.token_to_id(token) for token in known)
        if None not in ids:
            return ids
    raise ValueError(f"the tokenizer must have the special tokens {', '.join(SPECIAL)} or {', '.join(ROBERTA_SPECIAL)}")


def mask_tokens(inputs: np.ndarray, *, vocab_size: int, special: tuple[int, ...], copies: int, fraction: float, seed: int) -> Split:
    """Copies of tokenised examples with tokens to restore: masked (80 %), replaced by a random word (10 %) or left (10 %).

    Args:
      inputs: [N, L, 2] int32.
      vocab_size: V; random words are drawn below it.
      special: as from `special_ids`; these tokens are never chosen.
      copies: of each example, each with its own draw, >= 1.
      fraction: of an example's words that are chosen, in (0, 1), and at least one.
      seed: names the draw.

    Returns:
      `Split` with inputs [copies * N, L, 2] and labels [copies * N, L]: the word to restore, -1 elsewhere.

    References:
      Devlin et al. 2019, "BERT", section 3.1 and appendix A.1; ten static copies there.

    Examples:
      >>> split = mask_tokens(np.array([[[2, 0], [7, 0], [3, 0], [0, 0]]]), vocab_size=9, special=range(5), copies=1, fraction=0.15, seed=0)
      >>> split.labels.tolist()
      [[-1, 7, -1, -1]]
    """
    if copies < 1 or not 0 < fraction < 1:
        raise ValueError(f"copies must be at least 1 and fraction lie in (0, 1), got {copies} and {fraction}")
    rng = np.random.default_rng([seed, 2])
    repeated = np.concatenate([inputs] * copies)
    ids, special = repeated[..., 0], np.array(list(special))
    words = ~np.isin(ids, special)
    rank = np.argsort(np.argsort(np.where(words, rng.random(ids.shape), 2.0), -1), -1)
    chosen = words & (rank < np.maximum(1, np.round(fraction * words.sum(-1, keepdims=True))))
    ordinary = np.setdiff1d(np.arange(vocab_size), special)
    draw = rng.random(ids.shape)
    hidden = np.where(draw < 0.8, special[-1], np.where(draw < 0.9, rng.choice(ordinary, ids.shape), ids))
    masked = np.stack([np.where(chosen, hidden, ids), repeated[..., 1]], -1).astype(np.int32)
    return Split(masked, np.where(chosen, ids, IGNORED).astype(np.int32))


def _package():
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError("text needs the package tokenizers: pip install 'edd[interop]'") from error
    return tokenizers
