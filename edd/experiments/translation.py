"""Translation: an ensemble of autoregressive networks, its students, and what their uncertainty knows about foreign and broken sources."""

import dataclasses
import functools
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd.data import translation
from edd.data.base import Split
from edd.decoding import beam, model_average
from edd.distillers import base, masked_tokens
from edd.ensembles import members
from edd.experiments import build, predict, record, stages, translation_report
from edd.experiments import settings as settings_lib
from edd.metrics import calibration, detection, rejection
from edd.metrics import sequence as metrics
from edd.uncertainty import sequence

SUBWORDS = "subwords.model"
MEASURES = ("total", "mutual_information", "expected_pairwise_kl", "reverse_mutual_information", "data")
NUM_EXAMPLES = 6  # sentences shown, best and worst together


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What is translated.

    Attributes:
      folder: of SPLIT.LANGUAGE files, relative to the data directory; "" with `tfds`.
      tfds: a translation set of TFDS in place of the folder, for instance "wmt17_translate/de-en".
      languages: from, to.
      train_split, test_split: of either.
      foreign: out-of-distribution sources: name -> language of the test files.
      speech: file of transcripts relative to the data directory, a further such set; "" for none.
      vocab_size: of the joint subword model learnt from the training text.
      source_length, target_length: tokens of the longest sentences, start or end id included.
      num_train, num_test: the first so many sentences; 0 takes all. `num_test` bounds the out-of-distribution sets too.
    """

    folder: str = "multi30k"
    tfds: str = ""
    languages: list = dataclasses.field(default_factory=lambda: ["en", "de"])
    train_split: str = "train"
    test_split: str = "test_2016_flickr"
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


@dataclasses.dataclass(frozen=True)
class Translation:
    """A study of translation.

    Attributes:
      name: of the run.
      corpus: what is translated.
      ensemble: the teachers, trained on references.
      students: row name -> student, a method of `build.SEQUENCE_METHODS`; its targets are evaluated in every step.
      beam: hypotheses of each source, all of which are scored.
      batch_size: sources in one pass of decoding and scoring.
      reference: the paper's AUROC in percent, set -> row -> {measure: value}, printed beside ours.
      seed: root of everything random.
      smoke: two steps on an invented language.
    """

    name: str
    corpus: Corpus
    ensemble: settings_lib.Ensemble
    students: dict[str, settings_lib.Student]
    beam: int = 5
    batch_size: int = 20
    reference: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        if self.beam < 1 or self.batch_size < 1:
            raise ValueError(f"beam and batch_size must be at least 1, got {self.beam} and {self.batch_size}")
        for name, student in self.students.items():
            if student.targets != "online":
                raise ValueError(f"students.{name}.targets must be 'online': the teachers read the student's own batch, got 'cache'")
        settings_lib.check_starts(self.students, self.ensemble.training.model)


class Sets(NamedTuple):
    """Everything a run reads: `ood` name -> source ids [N, S]."""

    subwords: translation.Subwords
    train: Split
    test: Split
    references: tuple[str, ...]
    ood: dict[str, np.ndarray]


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
    for student in settings.students.values():
        build.distiller(student, 1, 2, 1, build.SEQUENCE_METHODS)
    pairs, others = texts(settings, data_dir)
    description = record.open_run(workdir, config, {"run": settings.seed})
    sets = encode(settings, pairs, others, workdir)
    began = time.perf_counter()
    teacher = pretrain(settings, sets, workdir, progress=progress)
    seconds = {"Ensemble": time.perf_counter() - began}
    seconds["Single"] = seconds["Ensemble"] / len(teacher.alive)
    teacher = predict.survivors(teacher, "ensemble members")
    rows = {"Single": predict.take(teacher, np.array([0])), "Ensemble": teacher}
    for name, student in settings.students.items():
        began = time.perf_counter()
        trained = distil(name, student, teacher, settings, sets, workdir, progress=progress)
        rows[name] = predict.take(predict.survivors(trained, f"seeds of {name!r}"), np.array([0]))
        seconds[name] = time.perf_counter() - began
    parts = []
    for name, trained in rows.items():
        make = functools.partial(one_part, settings, name, trained, sets, seconds[name])
        parts.append(record.finished(workdir / "parts" / f"{name}.json", make))
    return translation_report.finish(workdir, parts, config, record.for_report(description))


def shrink(settings: Translation) -> Translation:
    """The smoke version: two members, two steps, tiny networks, an invented language."""

    def small(training):
        options = {**training.model.options, **build.SMOKE_OPTIONS[training.model.name]}
        model = dataclasses.replace(training.model, options=options)
        return dataclasses.replace(training, model=model, batch_size=4, epochs=1.0, max_steps=2, strategy="vmap")

    students = {name: dataclasses.replace(each, seeds=1, training=small(each.training)) for name, each in settings.students.items()}
    ensemble = dataclasses.replace(settings.ensemble, num_members=2, training=small(settings.ensemble.training))
    corpus = dataclasses.replace(settings.corpus, vocab_size=300, source_length=40, target_length=40, num_train=0, num_test=0)
    return dataclasses.replace(settings, corpus=corpus, ensemble=ensemble, students=students, beam=2, batch_size=4)


def texts(settings: Translation, data_dir: str | None) -> tuple[dict[str, translation.Parallel], dict[str, tuple[str, ...]]]:
    """({"train", "test"} -> sentence pairs, out-of-distribution name -> sentences)."""
    corpus, languages = settings.corpus, tuple(settings.corpus.languages)
    if settings.smoke:
        pairs = {"train": translation.invented(40, settings.seed), "test": translation.invented(8, settings.seed + 1)}
        return pairs, {name: pairs["test"].target for name in corpus.foreign}
    root = pathlib.Path(data_dir or translation.default_folder()).expanduser()
    if corpus.tfds:
        read = functools.partial(translation.read_tfds, corpus.tfds, data_dir=data_dir)
    else:
        read = functools.partial(translation.read_folder, root / corpus.folder)
    pairs = {"train": _first(read(corpus.train_split, languages), corpus.num_train)}
    pairs["test"] = _first(read(corpus.test_split, languages), corpus.num_test)
    others = {}
    for name, language in corpus.foreign.items():
        others[name] = _first(read(corpus.test_split, (language, languages[1])), corpus.num_test).source
    if corpus.speech:
        others["speech"] = translation.read_transcripts(root / corpus.speech)[: corpus.num_test or len(pairs["test"].source)]
    return pairs, others


def _first(pairs: translation.Parallel, count: int) -> translation.Parallel:
    return translation.Parallel(*(each[: count or len(each)] for each in pairs))


def encode(settings: Translation, pairs: dict, others: dict, workdir: pathlib.Path) -> Sets:
    """Subwords (learnt once and kept in the run directory) and arrays; out-of-distribution sources that are too long are cut."""
    corpus, path = settings.corpus, workdir / SUBWORDS
    if not path.exists():
        made = translation.learn([*pairs["train"].source, *pairs["train"].target], corpus.vocab_size)
        translation.Subwords(made).save(path)
    subwords = translation.Subwords(path)
    lengths = (corpus.source_length, corpus.target_length)
    train = translation.encode(subwords, pairs["train"], *lengths, too_long="drop")
    test = translation.encode(subwords, pairs["test"], *lengths, too_long="cut")
    one = functools.partial(translation.sources, subwords, length=corpus.source_length, too_long="cut")
    ood = {"permuted": one(pairs["test"].source, permutation=settings.seed), **{name: one(each) for name, each in others.items()}}
    return Sets(subwords, train, test, pairs["test"].target, ood)


def pretrain(settings: Translation, sets: Sets, workdir: pathlib.Path, *, progress: bool) -> predict.Trained:
    """The teachers."""
    spec = settings.ensemble
    distiller = masked_tokens.make(sets.subwords.size, smoothing=spec.smoothing)
    return fit(stages.TEACHER, spec.training, distiller, settings, sets, workdir, spec.num_members, None, progress)


def distil(name, student, teacher: predict.Trained, settings: Translation, sets: Sets, workdir, *, progress: bool) -> predict.Trained:
    """One student (all its seeds); the teachers read every batch under the same prefixes."""
    per_epoch = len(sets.train.labels) // student.training.batch_size
    distiller = build.distiller(student, len(teacher.alive), sets.subwords.size, per_epoch, build.SEQUENCE_METHODS)
    online = (teacher.model, teacher.variables)
    start = stages.beginning(student, teacher)
    return fit(name, student.training, distiller, settings, sets, workdir, student.seeds, online, progress, start)


def fit(name, training, distiller, settings, sets: Sets, workdir, num_replicas: int, online, progress: bool, start=None) -> predict.Trained:
    """`stages.fit` on sentence pairs."""
    return stages.fit(
        name,
        training,
        distiller.student(build.backbone(training.model)),
        distiller,
        sets.train._asdict(),
        lambda x: x,
        num_replicas=num_replicas,
        seed=settings.seed,
        workdir=workdir,
        online_targets=online,
        start=start,
        progress=progress,
    )


def prediction(trained: predict.Trained):
    """Jitted inputs -> Prediction [B, L, ...]: of the ensemble where there are several networks, else of the one by its method."""

    @jax.jit
    def predicted(variables, params, state, inputs):
        outputs = members.apply(trained.model, variables, inputs)
        if len(trained.alive) > 1:
            return base.ensemble_prediction(outputs.logits)
        first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)  # noqa: E731
        return trained.distiller.predict(first(outputs), first(params), first(state), jax.random.key(0))

    return functools.partial(predicted, *jax.device_put((trained.variables, trained.params, trained.state)))


def one_part(settings: Translation, name: str, trained: predict.Trained, sets: Sets, seconds: float) -> dict:
    """Every score of one row."""
    began = time.perf_counter()
    predicted = prediction(trained)
    rules = {"start": translation.START, "end": translation.END, "padding": translation.PAD}
    forbidden = (translation.PAD, translation.START, translation.UNKNOWN)
    search = beam.make(trained.model, beam=settings.beam, length=settings.corpus.target_length, forbidden=forbidden, **rules)
    decode = functools.partial(search, jax.device_put(trained.variables))
    found = {
        "row": name,
        "parameters": predict.num_parameters(trained.variables),
        "seconds": seconds,
        **teacher_forced(predicted, sets.test),
    }
    own = uncertainty(predicted, decode, sets.test.inputs["source"], settings.batch_size)
    texts = [sets.subwords.decode(tokens) for tokens in own["tokens"]]
    bleu = metrics.bleu(texts, sets.references)
    errors = metrics.rejection_errors(texts, sets.references)
    scores = {measure: own[measure] for measure in MEASURES if measure in own}
    found |= {"bleu": float(bleu.score), "signature": bleu.signature}
    found["prr"] = {measure: float(rejection.prediction_rejection_ratio(values, errors)) for measure, values in scores.items()}
    found["auroc"] = {}
    for label, source in sets.ood.items():
        other = uncertainty(predicted, decode, source, settings.batch_size)
        positive = np.repeat([True, False], [len(other["total"]), len(own["total"])])
        found["auroc"][label] = {
            measure: float(detection.auroc(np.concatenate([other[measure], values]), positive)) for measure, values in scores.items()
        }
    found["examples"] = examples(sets, own, texts)
    return {**found, "seconds_of_evaluation": time.perf_counter() - began}


def teacher_forced(predicted, test: Split, batch_size: int = 50) -> dict[str, float]:
    """Mean token NLL in nats and ECE (15 bins) of the next tokens of the references."""

    def tops(inputs):
        log_probs = predicted(inputs["own"]).log_probs
        nll = -jnp.take_along_axis(log_probs, jnp.maximum(inputs["labels"], 0)[..., None], -1)[..., 0]
        return nll, jnp.exp(log_probs.max(-1)), log_probs.argmax(-1) == inputs["labels"]

    nll, confidence, correct = predict.stream(tops, {"own": test.inputs, "labels": test.labels}, batch_size, 0)
    kept = test.labels >= 0
    confidence = confidence[kept].astype(np.float64)  # [tokens, V] probabilities would be the largest array of all: the bins need only this
    gaps = np.bincount(calibration.bin_index(confidence, 15), confidence - correct[kept], 15)
    return {"nll": float(nll[kept].mean()), "ece": float(np.abs(gaps).sum() / kept.sum()), "tokens": int(kept.sum())}


def uncertainty(predicted, decode, sources: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """Beam search and every measure of each source: mean over tokens, then over hypotheses; the best one's tokens and their measures."""

    def one(source):
        found = decode({"source": source})
        inputs = model_average.hypothesis_inputs({"source": source}, found.tokens, translation.START)
        return measured(found, predicted(inputs))

    return predict.stream(one, sources, batch_size, 0)


@jax.jit
def measured(found, given) -> dict:
    """Measures of an n-best [B, N, L] by the teacher-forced predictions of its hypotheses [B N, L]."""
    count, length = found.tokens.shape[1:]
    mask = jnp.arange(length)[None] < found.lengths.reshape(-1, 1)
    result = {"tokens": found.tokens[:, 0]}
    for measure in MEASURES:
        value = getattr(given, measure)
        if value is not None:
            rates = sequence.rate(value, mask).reshape(-1, count)
            result[measure] = jnp.where(found.lengths > 0, rates, 0).sum(1) / jnp.maximum((found.lengths > 0).sum(1), 1)
            result[f"{measure}_tokens"] = value.reshape(-1, count, length)[:, 0]
    return result


def examples(sets: Sets, own: dict, texts: list[str]) -> list[dict]:
    """The most and the least certain translations by each of two measures, with the uncertainty of each token."""
    chosen = []
    for measure in ("total", "expected_pairwise_kl"):
        if measure not in own:
            continue
        order = np.argsort(own[measure], kind="stable")
        half = NUM_EXAMPLES // 2
        for index in [*order[:half], *order[-half:]]:
            ids = own["tokens"][index]
            stop = int((ids == translation.END).argmax())
            chosen.append(
                {
                    "measure": measure,
                    "value": float(own[measure][index]),
                    "source": sets.subwords.decode(sets.test.inputs["source"][index]),
                    "reference": sets.references[index],
                    "text": texts[index],
                    "pieces": [sets.subwords.piece(token) for token in ids[:stop]],
                    "uncertainty": [float(value) for value in own[f"{measure}_tokens"][index][:stop]],
                }
            )
    return chosen
