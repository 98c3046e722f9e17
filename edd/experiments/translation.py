"""Translation: an ensemble of autoregressive networks, its students, and what their uncertainty knows about foreign and broken sources."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from edd.data import translation
from edd.data.base import Split
from edd.experiments import predict, record, sequence_rows, translation_report
from edd.experiments import settings as settings_lib
from edd.metrics import sequence as metrics


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What is translated.

    Attributes:
      folder: of SPLIT.LANGUAGE files, relative to the data directory; "" with `tfds`.
      tfds: a translation set of TFDS in place of the folder, for instance "wmt17_translate/de-en".
      languages: from, to.
      train_split, test_split: of either.
      validation_split: of either, for what is chosen by it; "" for none.
      foreign: out-of-distribution sources: name -> language of the test files.
      speech: file of transcripts relative to the data directory, a further such set; "" for none.
      vocab_size: of the joint subword model learnt from the training text.
      source_length, target_length: tokens of the longest sentences, start or end id included; longer ones are left out everywhere, since
        one that is cut would be told from the others by its cut.
      num_train, num_test: the first so many sentences (tests: of those that fit); 0 takes all. `num_test` bounds all sets but training.
    """

    folder: str = "multi30k"
    tfds: str = ""
    languages: list = dataclasses.field(default_factory=lambda: ["en", "de"])
    train_split: str = "train"
    test_split: str = "test_2016_flickr"
    validation_split: str = ""
    foreign: dict = dataclasses.field(default_factory=dict)
    speech: str = ""
    vocab_size: int = 4000
    source_length: int = 48
    target_length: int = 48
    num_train: int = 0
    num_test: int = 0

    def __post_init__(self):
        if bool(self.folder) == bool(self.tfds) or len(self.languages) != 2:
            raise ValueError(f"give a folder or a tfds name, and two languages; got {self.folder!r}, {self.tfds!r}, {self.languages}")
        if min(self.num_train, self.num_test) < 0:
            raise ValueError(f"num_train and num_test must be at least 0, got {self.num_train} and {self.num_test}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translation(sequence_rows.Study):
    """A study of translation, with those of `sequence_rows.Study`.

    Attributes:
      corpus: what is translated.
      reference: the paper's AUROC in percent, set -> row -> {measure: value}, printed beside ours.
    """

    corpus: Corpus
    reference: dict = dataclasses.field(default_factory=dict)


class Sets(NamedTuple):
    """Everything a run reads.

    Attributes:
      subwords: the joint vocabulary.
      train, test: sentence pairs.
      references: of the test pairs, as text.
      ood: name -> source ids [N, S].
      left_out: set -> [sentences too long or empty, of how many].
      validation: sentence pairs, or None.
    """

    subwords: translation.Subwords
    train: Split
    test: Split
    references: tuple[str, ...]
    ood: dict[str, np.ndarray]
    left_out: dict[str, list[int]]
    validation: Split | None


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Trains teachers and students (resumable), translates and scores; writes results.json, report and figures.

    Args:
      config: nested plain dictionary with the fields of `Translation`.
      workdir: run directory.
      data_dir: folder of the text files, or of TFDS.
      progress: show progress bars.

    Raises:
      ValueError: bad settings, sentences that do not fit, or a directory that holds another run. FileNotFoundError: a file is missing.
    """
    settings = settings_lib.from_dict(Translation, config)
    if settings.smoke:
        settings = shrink(settings)
    sets, description = begin(settings, config, workdir, data_dir)
    rows, parts = sequence_rows.train(settings, sets.train, sets.subwords.size, workdir, progress=progress), []
    for name, (trained, seconds) in rows.items():
        make = functools.partial(one_part, settings, name, trained, sets, seconds)
        parts.append(record.finished(workdir / "parts" / f"{name}.json", make))
    return translation_report.finish(workdir, parts, config, record.for_report(description))


def begin(
    settings: sequence_rows.Study, config: dict, workdir: pathlib.Path, data_dir: str | None, check: Callable = lambda sets: None
) -> tuple[Sets, dict]:
    """(everything read, the run's description) of a study with a `Corpus`; whatever can be wrong, what `check` raises for the sets
    included, is told before anything is written."""
    sequence_rows.check_methods(settings)
    metrics.bleu(["a b"], ["a b"])  # the package is there
    sets = encode(settings, *texts(settings, data_dir), workdir)
    sequence_rows.check_sizes(settings, sets.subwords.size, sets.train, sets.test)
    check(sets)
    description = record.open_run(workdir, config, {"run": settings.seed})
    if not jax.process_index():  # the others have learnt the same
        sets.subwords.save(workdir / sequence_rows.SUBWORDS)
    return sets, description


def shrink(settings: Translation) -> Translation:
    """The smoke version: two members, two steps, tiny networks, an invented language."""
    corpus = dataclasses.replace(settings.corpus, vocab_size=300, source_length=40, target_length=40, num_train=0, num_test=0)
    return sequence_rows.shrink(settings, corpus=corpus)


def texts(settings: Translation, data_dir: str | None) -> tuple[dict[str, translation.Parallel], dict[str, tuple[str, ...]]]:
    """({"train", "test" and, where the corpus has one, "validation"} -> sentence pairs, out-of-distribution name -> sentences)."""
    corpus, languages = settings.corpus, tuple(settings.corpus.languages)
    splits = {"train": corpus.train_split, "test": corpus.test_split, "validation": corpus.validation_split}
    splits = {name: split for name, split in splits.items() if split}
    if settings.smoke:
        pairs = {name: translation.invented(40 if name == "train" else 8, settings.seed + index) for index, name in enumerate(splits)}
        return pairs, {name: pairs["test"].target for name in corpus.foreign}
    root = pathlib.Path(data_dir or translation.default_folder()).expanduser()
    if corpus.tfds:
        read = functools.partial(translation.read_tfds, corpus.tfds, data_dir=data_dir)
    else:
        read = functools.partial(translation.read_folder, root / corpus.folder)
    pairs = {name: read(split, languages) for name, split in splits.items()}
    pairs["train"] = translation.Parallel(*(each[: corpus.num_train or None] for each in pairs["train"]))
    others = {name: read(corpus.test_split, (language, languages[1])).source for name, language in corpus.foreign.items()}
    if corpus.speech:
        others["speech"] = translation.read_transcripts(root / corpus.speech)
    return pairs, others


def encode(settings: Translation, pairs: dict, others: dict, workdir: pathlib.Path) -> Sets:
    """Subwords (those of the run directory where it has some, else learnt) and arrays of the sentences that fit."""
    corpus, path = settings.corpus, workdir / sequence_rows.SUBWORDS
    texts = [*pairs["train"].source, *pairs["train"].target]
    subwords = translation.Subwords(path if path.exists() else translation.learn(texts, corpus.vocab_size))
    lengths, left_out = (corpus.source_length, corpus.target_length), {}

    def fitting(name: str, *sides: tuple[str, ...], most: int = 0) -> list[tuple[str, ...]]:
        kept = np.all([translation.fits(subwords, side, length) for side, length in zip(sides, lengths)], 0)
        left_out[name] = [int((~kept).sum()), len(kept)]
        if not kept.any():
            raise ValueError(f"no sentence of {name} is left: they are empty or longer than the {lengths} tokens of source and target")
        return [tuple(side[index] for index in np.flatnonzero(kept)[: most or None]) for side in sides]

    chosen = {name: translation.Parallel(*fitting(name, *each, most=corpus.num_test * (name != "train"))) for name, each in pairs.items()}
    arrays = {name: translation.encode(subwords, each, *lengths) for name, each in chosen.items()}
    one = functools.partial(translation.sources, subwords, length=corpus.source_length)
    test = chosen["test"]
    ood = {"permuted": one(test.source, permutation=settings.seed)}
    ood |= {name: one(fitting(name, each, most=len(test.source))[0]) for name, each in others.items()}
    return Sets(subwords, arrays["train"], arrays["test"], test.target, ood, left_out, arrays.get("validation"))


def one_part(settings: Translation, name: str, trained: predict.Trained, sets: Sets, seconds: float) -> dict:
    """Every score of one row."""
    began = time.perf_counter()
    predicted = sequence_rows.prediction(trained, settings.chunk_size)
    decode = sequence_rows.decoder(trained, settings, settings.corpus.target_length)
    found = {
        "row": name,
        "left_out": sets.left_out,
        "parameters": predict.num_parameters(trained.variables),
        "seconds": seconds,
        **sequence_rows.teacher_forced(predicted, sets.test, settings.batch_size * settings.beam),  # as hypotheses: one program
    }
    own = sequence_rows.uncertainty(predicted, decode, sets.test.inputs, settings, f"{name} on test")
    texts = [sets.subwords.decode(tokens) for tokens in own["tokens"]]
    bleu = metrics.bleu(texts, sets.references)
    found |= {"bleu": float(bleu.score), "signature": bleu.signature}
    found["prr"] = sequence_rows.rejection_ratios(own, metrics.rejection_errors(texts, sets.references))
    found["auroc"] = {}
    for label, source in sets.ood.items():
        other = sequence_rows.uncertainty(predicted, decode, {"source": source}, settings, f"{name} on {label}")
        found["auroc"][label] = sequence_rows.detection_areas(own, other)
    source = lambda index: sets.subwords.decode(sets.test.inputs["source"][index])  # noqa: E731
    found["examples"] = sequence_rows.examples(own, texts, sets.references, source, sets.subwords)
    return {**found, "seconds_of_evaluation": time.perf_counter() - began}
