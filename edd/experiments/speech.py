"""Speech recognition: an ensemble of attention decoders, its students, and what their uncertainty knows of new voices and of noise."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterable
from typing import NamedTuple

import jax

from edd.data import listening, speech, translation
from edd.data.base import Split
from edd.data.listening import FrontEnd
from edd.data.speech import Utterance
from edd.experiments import predict, record, sequence_rows, speech_report
from edd.experiments import settings as settings_lib
from edd.metrics import sequence as metrics

TEST, UNSEEN = "test", "unseen speakers"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What is recognised.

    Attributes:
      digits: folder of DIGIT_SPEAKER_TAKE.wav files relative to the data directory, drawn into strings; "" with `tfds`.
      tfds: a set of TFDS with "speech" and "text" in place of it, such as "librispeech".
      held_out: speakers of the digits that nothing is trained on: the shifted set "unseen speakers".
      strings: fewest and most digits of a string.
      speed: slowest and fastest playback of the training strings.
      train_split, test_split: of `tfds`.
      shifted: shifted sets of `tfds`, name -> split.
      folders: further shifted sets, name -> folder of WAV files (16 bit, at the front end's rate) with transcripts.tsv, relative to the
        data directory.
      noise: signal-to-noise ratios in dB at which the test set is a shifted set once more.
      vocab_size: of the subwords learnt from the training transcripts (`tfds`); digits are words.
      num_train, num_test: strings drawn, or the first so many utterances of each set; 0 takes all (`tfds`).
      seconds: room in training; longer utterances are left out.
      test_seconds: room everywhere else; a longer utterance is an error.
      target_length: tokens of the longest transcript, the end included.
    """

    digits: str = "fsdd/recordings"
    tfds: str = ""
    held_out: list = dataclasses.field(default_factory=list)
    strings: list = dataclasses.field(default_factory=lambda: [1, 5])
    speed: list = dataclasses.field(default_factory=lambda: [1.0, 1.0])
    train_split: str = "train_clean100"
    test_split: str = "test_clean"
    shifted: dict = dataclasses.field(default_factory=dict)
    folders: dict = dataclasses.field(default_factory=dict)
    noise: list = dataclasses.field(default_factory=list)
    vocab_size: int = 1000
    num_train: int = 0
    num_test: int = 0
    seconds: float = 3.0
    test_seconds: float = 5.0
    target_length: int = 6

    def __post_init__(self):
        if bool(self.digits) == bool(self.tfds):
            raise ValueError(f"give a folder of digits or a tfds name, got {self.digits!r} and {self.tfds!r}")
        if min(self.num_train, self.num_test) < (1 if self.digits else 0):
            raise ValueError(f"num_train and num_test must be at least 1 (0: all, of tfds), got {self.num_train} and {self.num_test}")
        if any(len(pair) != 2 for pair in (self.strings, self.speed)):
            raise ValueError(f"strings and speed must be (least, most), got {self.strings} and {self.speed}")
        if self.digits and (not self.held_out or self.shifted):
            raise ValueError(f"digits need held_out speakers and have no other splits, got {self.held_out} and {self.shifted}")
        if self.digits and self.strings[1] >= self.target_length:
            raise ValueError(f"target_length must exceed the {self.strings[1]} digits of a string, got {self.target_length}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speech(sequence_rows.Study):
    """A study of speech recognition, with those of `sequence_rows.Study`.

    Attributes:
      corpus: what is recognised.
      front_end: how sound becomes features.
    """

    corpus: Corpus
    front_end: FrontEnd = FrontEnd()

    def __post_init__(self):
        super().__post_init__()
        if self.corpus.digits and self.front_end.rate != speech.RATE:
            raise ValueError(f"front_end.rate must be {speech.RATE}, at which digits are recorded, got {self.front_end.rate}")


class Sets(NamedTuple):
    """Everything a run reads: `tests` has "test" first, then the shifted sets; `references` its transcripts."""

    vocabulary: speech.Words | translation.Subwords
    train: Split
    tests: dict[str, Split]
    references: dict[str, tuple[str, ...]]
    left_out: int


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Trains teachers and students (resumable), transcribes and scores; writes results.json, report and figures.

    Args:
      config: nested plain dictionary with the fields of `Speech`.
      workdir: run directory.
      data_dir: folder of the recordings, or of TFDS.
      progress: show progress bars.

    Raises:
      ValueError: bad settings, utterances that do not fit, or a directory that holds another run. FileNotFoundError: a file is missing.
    """
    settings = settings_lib.from_dict(Speech, config)
    if settings.smoke:
        settings = shrink(settings)
    sequence_rows.check_methods(settings)
    metrics.word_error_rate(["a"], ["a"])  # the package is there
    sets = read(settings, data_dir, workdir)
    sequence_rows.check_sizes(settings, sets.vocabulary.size, sets.train, sets.tests[TEST])
    description = record.open_run(workdir, config, {"run": settings.seed})
    if isinstance(sets.vocabulary, translation.Subwords) and not jax.process_index():  # the others have learnt the same
        sets.vocabulary.save(workdir / sequence_rows.SUBWORDS)
    rows, parts = sequence_rows.train(settings, sets.train, sets.vocabulary.size, workdir, progress=progress), []
    for name, (trained, seconds) in rows.items():
        make = functools.partial(one_part, settings, name, trained, sets, seconds)
        parts.append(record.finished(workdir / "parts" / f"{name}.json", make))
    return speech_report.finish(workdir, parts, config, record.for_report(description))


def shrink(settings: Speech) -> Speech:
    """The smoke version: two members, two steps, tiny networks, few filters, invented sound."""
    rate = settings.front_end.rate
    front_end = dataclasses.replace(settings.front_end, num_filters=4, window=rate // 50, hop=rate // 50)
    room = {"seconds": 0.6, "test_seconds": 0.6, "num_train": 16, "num_test": 8, "strings": [1, 2], "target_length": 24, "vocab_size": 30}
    return sequence_rows.shrink(settings, corpus=dataclasses.replace(settings.corpus, **room), front_end=front_end)


def read(settings: Speech, data_dir: str | None, workdir: pathlib.Path | None = None) -> Sets:
    """All sets as arrays; subwords are those of the run directory where it has some, else learnt."""
    corpus, path = settings.corpus, workdir and workdir / sequence_rows.SUBWORDS
    train, tests = utterances(settings, data_dir)
    room = {"seconds": corpus.seconds, "too_long": "drop"}
    heard = listening.listen(_plain(train, corpus), settings.front_end, **room)
    if corpus.digits:
        vocabulary = speech.Words(speech.WORDS)
    elif path and path.exists():
        vocabulary = translation.Subwords(path)
    else:
        vocabulary = translation.Subwords(translation.learn(heard.texts, corpus.vocab_size, byte_fallback=False))
    arrays, references = {}, {}
    for label, each in tests.items():
        try:
            own = listening.listen(_plain(each, corpus), settings.front_end, corpus.test_seconds)
            arrays[label] = listening.encode(own, vocabulary, corpus.target_length)
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from None
        references[label] = own.texts
    split = listening.encode(heard, vocabulary, corpus.target_length, too_long="drop")
    return Sets(vocabulary, split, arrays, references, len(heard.texts) + heard.left_out - len(split.labels))


def _plain(found: Iterable[Utterance], corpus: Corpus) -> Iterable[Utterance]:
    return found if corpus.digits else (each._replace(text=speech.plain(each.text)) for each in found)


def utterances(settings: Speech, data_dir: str | None) -> tuple[Iterable[Utterance], dict[str, Iterable[Utterance]]]:
    """(training utterances, set -> utterances); "test" is the first set."""
    corpus, seed = settings.corpus, settings.seed
    root = pathlib.Path(data_dir or translation.default_folder()).expanduser()
    if corpus.digits:
        recordings = speech.invented(seed) if settings.smoke else speech.read_digits(root / corpus.digits)
        held_out = [recordings[-1].speaker] if settings.smoke else corpus.held_out
        part = lambda name: speech.select(recordings, part=name, held_out=held_out)  # noqa: E731
        draw = functools.partial(speech.join, digits=tuple(corpus.strings))
        train = draw(part("train"), corpus.num_train, speed=tuple(corpus.speed), seed=seed)
        tests = {TEST: draw(part("test"), corpus.num_test, seed=seed + 1), UNSEEN: draw(part("unseen"), corpus.num_test, seed=seed + 2)}
    elif settings.smoke:
        draw = functools.partial(speech.join, speech.invented(seed, settings.front_end.rate), digits=(1, 2), rate=settings.front_end.rate)
        train, tests = draw(corpus.num_train, seed=seed), {TEST: draw(corpus.num_test, seed=seed + 1)}
        tests |= {name: draw(corpus.num_test, seed=seed + 2) for name in (*corpus.shifted, *corpus.folders)}
    else:
        load = functools.partial(speech.read_tfds, corpus.tfds, rate=settings.front_end.rate, data_dir=data_dir)
        train, tests = load(corpus.train_split, count=corpus.num_train), {TEST: list(load(corpus.test_split, count=corpus.num_test))}
        tests |= {name: load(split, count=corpus.num_test) for name, split in corpus.shifted.items()}
    for name, folder in {} if settings.smoke else corpus.folders.items():
        tests[name] = speech.read_folder(root / folder, rate=settings.front_end.rate)[: corpus.num_test or None]
    return train, tests | {f"noise {snr} dB": speech.add_noise(tests[TEST], snr, seed) for snr in corpus.noise}


def one_part(settings: Speech, name: str, trained: predict.Trained, sets: Sets, seconds: float) -> dict:
    """Every score of one row: of each set its errors, of each shifted set how well it is told from the test set."""
    began = time.perf_counter()
    predicted = sequence_rows.prediction(trained, settings.chunk_size)
    decode = sequence_rows.decoder(trained, settings, settings.corpus.target_length)
    found = {"row": name, "parameters": predict.num_parameters(trained.variables), "seconds": seconds, "left_out": sets.left_out}
    found |= {"sets": {}, "auroc": {}, "examples": []}
    together = settings.batch_size * settings.beam  # as many as in the scoring of hypotheses: one program
    for label, split in sets.tests.items():
        other = sequence_rows.uncertainty(predicted, decode, split.inputs, settings, f"{name} on {label}")
        texts = [sets.vocabulary.decode(tokens) for tokens in other["tokens"]]
        references = sets.references[label]
        found["sets"][label] = {
            "utterances": len(texts),
            "words": sum(len(text.split()) for text in references),
            "wer": float(metrics.word_error_rate(texts, references)),
            **sequence_rows.teacher_forced(predicted, split, together),
            "prr": sequence_rows.rejection_ratios(other, metrics.rejection_errors(texts, references, "word_error_rate")),
        }
        if label == TEST:
            own = other
            lasts = split.inputs["length"] * settings.front_end.hop / settings.front_end.rate
            told = lambda index, lasts=lasts: f"utterance {index}, {lasts[index]:.2f} s"  # noqa: E731
            found["examples"] = sequence_rows.examples(own, texts, references, told, sets.vocabulary)
        else:
            found["auroc"][label] = sequence_rows.detection_areas(own, other)
    return {**found, "seconds_of_evaluation": time.perf_counter() - began}
