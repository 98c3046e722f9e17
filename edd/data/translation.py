"""Parallel text for translation: files that match line by line, subwords learnt from them, padded arrays, shifted sources.

`Split.inputs` is {"source": [N, S], "target": [N, L]}: the target is what the decoder reads, a start id and all tokens but the last;
`Split.labels` [N, L] is what it must say next, the end id last and -1 at padding. Ids 0 to 3 are `PAD`, `START`, `END` and `UNKNOWN`
in both languages, which share one vocabulary. Subwords need the package sentencepiece (`pip install 'edd[sequences]'`).
"""

import gzip
import io
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from edd.data import files
from edd.data.base import Split

PAD, START, END, UNKNOWN = range(4)
IGNORED = -1  # label of a step that does not count
NUM_BYTES = 256  # pieces that spell characters the training text lacks


class Parallel(NamedTuple):
    """Sentences that translate each other, in the order of the files."""

    source: tuple[str, ...]
    target: tuple[str, ...]


def default_folder() -> pathlib.Path:
    """Where data lies if nobody says: TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def lines(file: str | pathlib.Path) -> tuple[str, ...]:
    """The lines of a text file (gzip where its name ends in .gz), ends stripped, empty ones kept.

    Raises:
      FileNotFoundError: there is no such file; ValueError: it is not UTF-8, or holds nothing.
    """
    file = pathlib.Path(file).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: a text file with one sentence a line is expected there")
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        text = data.decode("utf-8")
    except (UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise ValueError(f"{file} must be text in UTF-8: {error}") from error
    if not text.strip():
        raise ValueError(f"{file} holds no sentence")
    return tuple(line.strip() for line in text.removesuffix("\n").split("\n"))


def read(source: str | pathlib.Path, target: str | pathlib.Path) -> Parallel:
    """Two files whose lines translate each other.

    Raises:
      ValueError: different numbers of lines; else as `lines`.
    """
    found = Parallel(lines(source), lines(target))
    if len(found.source) != len(found.target):
        raise ValueError(f"{source} and {target} must match line by line, got {len(found.source)} and {len(found.target)} lines")
    return found


def read_folder(folder: str | pathlib.Path, split: str, languages: tuple[str, str] = ("en", "de")) -> Parallel:
    """FOLDER/SPLIT.LANGUAGE of two languages, for instance multi30k/train.en and multi30k/train.de."""
    return read(*(pathlib.Path(folder).expanduser() / f"{split}.{language}" for language in languages))


def read_tfds(name: str, split: str, languages: tuple[str, str] = ("en", "de"), *, data_dir: str | None = None) -> Parallel:
    """A translation set of TFDS, such as wmt17_translate/de-en, prepared in `data_dir` (array_record; nothing is downloaded).

    Raises:
      ValueError: its examples lack a language.
    """
    import tensorflow_datasets as tfds

    pairs = []
    for example in tfds.data_source(name, split=split, data_dir=data_dir, download=False):
        missing = [language for language in languages if language not in example]
        if missing:
            raise ValueError(f"{name} has no language {', '.join(missing)}, it has {', '.join(sorted(example))}")
        pairs.append(tuple(_text(example[language]) for language in languages))
    return Parallel(*zip(*pairs))


def read_transcripts(file: str | pathlib.Path) -> tuple[str, ...]:
    """Transcribed speech: a line is an utterance's name, a tab and what was said.

    Raises:
      ValueError: a line without exactly one tab, by its number; else as `lines`.
    """
    found = []
    for number, line in enumerate(lines(file), 1):
        parts = line.split("\t")
        if line and len(parts) != 2:
            raise ValueError(f"{file} line {number}: must be an utterance's name, a tab and its transcript, got {line[:60]!r}")
        found += parts[1:]
    return tuple(found)


def learn(sentences: Iterable[str], vocab_size: int, *, byte_fallback: bool = True) -> bytes:
    """A subword model (byte-pair merges) of sentences, as sentencepiece writes it: save it beside what was trained on it.

    Args:
      sentences: of both languages: the vocabulary is joint.
      vocab_size: V at most; a small text gives fewer.
      byte_fallback: spell unknown characters by their UTF-8 bytes, so that nothing is lost; False makes them `UNKNOWN`.

    Raises:
      ValueError: a vocabulary too small for the special ids (and bytes), or no text; ImportError: sentencepiece is not installed.

    References:
      Sennrich, Haddow & Birch 2016; Kudo & Richardson 2018, "SentencePiece".
    """
    least = len((PAD, START, END, UNKNOWN)) + (NUM_BYTES if byte_fallback else 0) + 1
    if vocab_size < least:
        raise ValueError(f"vocab_size must be at least {least}{' with byte_fallback' if byte_fallback else ''}, got {vocab_size}")
    sentences = [sentence for sentence in sentences if sentence.strip()]
    if not sentences:
        raise ValueError("sentences must hold at least one that is not empty")
    made = io.BytesIO()
    _package().SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=made,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0 if not byte_fallback else 0.9999,
        byte_fallback=byte_fallback,
        pad_id=PAD,
        bos_id=START,
        eos_id=END,
        unk_id=UNKNOWN,
        num_threads=1,
        minloglevel=2,
    )
    return made.getvalue()


class Subwords:
    """The ids of sentences and back; `model` is what `learn` returns or the path where that was written."""

    def __init__(self, model: bytes | str | pathlib.Path):
        self.model = model if isinstance(model, bytes) else pathlib.Path(model).expanduser().read_bytes()
        self._processor = _package().SentencePieceProcessor(model_proto=self.model)
        special = [getattr(self._processor, f"{name}_id")() for name in ("pad", "bos", "eos", "unk")]
        if special != [PAD, START, END, UNKNOWN]:
            raise ValueError(f"the subword model must have padding, start, end and unknown as ids 0 to 3, got {special}")

    @property
    def size(self) -> int:
        """V, the special ids included."""
        return self._processor.vocab_size()

    def encode(self, sentence: str) -> list[int]:
        """Ids without start and end; an empty sentence has none."""
        return self._processor.encode(sentence)

    def decode(self, ids: Iterable[int]) -> str:
        """The sentence up to the first end id; padding, start and ids below 0 are left out."""
        kept = []
        for token in map(int, ids):
            if token == END:
                break
            if token > START:
                kept.append(token)
        return self._processor.decode(kept)

    def piece(self, token: int) -> str:
        """What a token looks like."""
        return self._processor.id_to_piece(int(token))

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the model, whole or not at all."""
        files.write_atomically(path, self.model)


def pad(rows: Sequence[Sequence[int]], length: int, *, fill: int = PAD, what: str = "sentence") -> np.ndarray:
    """Rows of ids as one array [N, length] int32.

    Raises:
      ValueError: a row that is longer, by its number.

    Examples:
      >>> pad([[5, 2], [2]], 3).tolist()
      [[5, 2, 0], [2, 0, 0]]
    """
    found = np.full((len(rows), length), fill, np.int32)
    for number, row in enumerate(rows):
        if len(row) > length:
            raise ValueError(f"{what} {number} has {len(row)} tokens with its end, more than the {length} there is room for")
        found[number, : len(row)] = row
    return found


def sources(
    subwords: Subwords, sentences: Sequence[str], length: int, *, too_long: str = "error", permutation: int | None = None
) -> np.ndarray:
    """Source ids [N, length], each ended by `END`.

    An empty sentence is its end alone.

    Args:
      subwords: the joint vocabulary.
      sentences: N of them.
      length: S >= 2.
      too_long: "error" names the first sentence that does not fit, "cut" keeps its first length - 1 tokens.
      permutation: a seed: the tokens of each sentence are shuffled and its full stop put at the end again; None leaves them.

    Raises:
      ValueError: options out of range, a sentence too long.

    References:
      Ryabinin, Malinin & Gales 2021, appendix D (permuted sources).
    """
    if length < 2 or too_long not in ("error", "cut"):
        raise ValueError(f'length must be at least 2 and too_long "error" or "cut", got {length} and {too_long!r}')
    rows = []
    for number, sentence in enumerate(sentences):
        row = subwords.encode(sentence)
        if permutation is not None:
            row = permute(row, np.random.default_rng([permutation, number]), keep_last=sentence.endswith("."))
        rows.append([*(row[: length - 1] if too_long == "cut" else row), END])
    return pad(rows, length, what="source sentence")


def fits(subwords: Subwords, sentences: Sequence[str], length: int) -> np.ndarray:
    """Whether each sentence [N] has a token and room for its end among `length`.

    Args:
      subwords: the joint vocabulary.
      sentences: N of them.
      length: tokens, the end id included.
    """
    return np.array([0 < len(subwords.encode(sentence)) < length for sentence in sentences], bool)


def permute(ids: Sequence[int], rng: np.random.Generator, *, keep_last: bool) -> list[int]:
    """The ids in random order; the last one stays the last where it is a full stop.

    Examples:
      >>> sorted(permute([5, 6, 7, 9], np.random.default_rng(0), keep_last=True)[:-1])
      [5, 6, 7]
    """
    count = len(ids) - 1 if keep_last and ids else len(ids)
    return [*(ids[index] for index in rng.permutation(count)), *ids[count:]]


def encode(subwords: Subwords, pairs: Parallel, source_length: int, target_length: int, *, too_long: str = "error") -> Split:
    """Sentence pairs as inputs {"source", "target"} and labels.

    Args:
      subwords: the joint vocabulary.
      pairs: N sentence pairs.
      source_length: S >= 2, the end id included.
      target_length: L >= 2, start or end id included.
      too_long: "error"; "drop" leaves out pairs that do not fit or have an empty side (for training); "cut" cuts sources and targets,
        and what is cut from a target is no label: nothing says that the sentence ends there.

    Raises:
      ValueError: options out of range, a sentence too long, no pair left.
    """
    if min(source_length, target_length) < 2 or too_long not in ("error", "drop", "cut"):
        raise ValueError(
            f'lengths must be at least 2 and too_long "error", "drop" or "cut", got {source_length}, {target_length}, {too_long!r}'
        )
    rows = [(subwords.encode(source), subwords.encode(target)) for source, target in zip(*pairs, strict=True)]
    if too_long == "drop":
        rows = [(a, b) for a, b in rows if 0 < len(a) < source_length and 0 < len(b) < target_length]
    if not rows:
        raise ValueError("no sentence pair is left: they are empty or longer than the lengths allow")
    source, labels, target = ([[*a, END] for a, _ in rows], [[*b, END] for _, b in rows], [[START, *b] for _, b in rows])
    if too_long == "cut":
        source = [[*row[: source_length - 1], END] if len(row) > source_length else row for row in source]
        labels, target = ([row[:target_length] for row in each] for each in (labels, target))
    source = pad(source, source_length, what="source sentence")
    labels = pad(labels, target_length, fill=IGNORED, what="target sentence")
    target = pad(target, target_length)
    return Split({"source": source, "target": target}, labels)


def invented(num_examples: int, seed: int) -> Parallel:
    """A toy language and its word-by-word translation with the order turned round, for runs without data.

    Examples:
      >>> invented(1, 0).source[0].endswith(".")
      True
    """
    if num_examples < 1 or seed < 0:
        raise ValueError(f"num_examples must be at least 1 and seed at least 0, got {num_examples} and {seed}")
    words, theirs = ("bird tree runs green house sings old slow".split(), "vogel baum rennt gruen haus singt alt langsam".split())
    rng = np.random.default_rng([seed, 3])
    chosen = [rng.integers(0, len(words), rng.integers(2, 6)) for _ in range(num_examples)]
    sources = tuple(" ".join(words[i] for i in row) + "." for row in chosen)
    return Parallel(sources, tuple(" ".join(theirs[i] for i in row[::-1]) + "." for row in chosen))


def _text(value) -> str:
    return re.sub(r"\s+", " ", value.decode("utf-8") if isinstance(value, bytes) else str(value)).strip()


def _package():
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError("subwords need the package sentencepiece: pip install 'edd[sequences]'") from error
    return sentencepiece
