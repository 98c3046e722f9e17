"""What studies of sequences share: teachers on references, students of every step, and the scores of their rows."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from edd.data import translation
from edd.data.base import Split
from edd.decoding import beam, model_average
from edd.distillers import base, masked_tokens
from edd.distillers.sequence import valid_steps
from edd.ensembles import members
from edd.experiments import build, predict, stages
from edd.experiments import settings as settings_lib
from edd.losses import chunked
from edd.metrics import calibration, detection, rejection
from edd.models.base import Model, Outputs
from edd.uncertainty import sequence

MEASURES = ("total", "mutual_information", "expected_pairwise_kl", "reverse_mutual_information", "data")
AVERAGES = ("tokens", "sentences")
SUBWORDS = "subwords.model"  # of a run directory
NUM_EXAMPLES = 4  # sequences shown by each measure, best and worst together
MANY_CLASSES = 1 << 31  # stands for a vocabulary that is not known yet: no option is too large for it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Settings of every study of sequences.

    Attributes:
      name: of the run.
      ensemble: the teachers, trained on references.
      students: row name -> student, a method of `build.SEQUENCE_METHODS`; its targets are evaluated in every step.
      average: of the loss over a batch: "tokens", all alike, or "sentences", each the mean of its tokens.
      beam: hypotheses of each source, all of which are scored.
      batch_size: sources in one pass of decoding and scoring.
      chunk_size: time steps whose logits exist at once in scoring; None: all.
      weighting, temperature: of the hypotheses in a source's uncertainty, as `edd.uncertainty.sequence.over_hypotheses`.
      seed: root of everything random.
      smoke: two steps on invented data.
    """

    name: str
    ensemble: settings_lib.Ensemble
    students: dict[str, settings_lib.Student]
    average: str = "tokens"
    beam: int = 5
    batch_size: int = 20
    chunk_size: int | None = None
    weighting: str = "uniform"
    temperature: float = 1.0
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        if self.beam < 1 or self.batch_size < 1:
            raise ValueError(f"beam and batch_size must be at least 1, got {self.beam} and {self.batch_size}")
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1 or None, got {self.chunk_size}")
        if self.average not in AVERAGES:
            raise ValueError(f"average must be one of {AVERAGES}, got {self.average!r}")
        sequence.check_weighting(self.weighting)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        for name, student in self.students.items():
            if student.targets != "online":
                raise ValueError(f"students.{name}.targets must be 'online': the teachers read the student's own batch, got 'cache'")
        settings_lib.check_starts(self.students, self.ensemble.training.model)


def check_methods(settings: Study) -> None:
    """Raises ValueError for a student of an unknown method or with an option that it does not take."""
    for student in settings.students.values():
        build.distiller(student, 1, MANY_CLASSES, 1, build.SEQUENCE_METHODS)


def check_sizes(settings: Study, size: int, train: Split, *others: Split) -> None:
    """Raises ValueError for a batch of more than the training examples, and what methods and networks of `size` words raise for them."""
    for student in settings.students.values():
        per_epoch = len(train.labels) // student.training.batch_size
        build.distiller(student, settings.ensemble.num_members, size, per_epoch, build.SEQUENCE_METHODS)
    programs = {"ensemble": settings.ensemble, **{f"students.{name}": student for name, student in settings.students.items()}}
    for name, each in programs.items():
        if each.training.batch_size > len(train.labels):
            count = len(train.labels)
            raise ValueError(f"{name}.training.batch_size must be at most {count}, the training examples, got {each.training.batch_size}")
        model = build.backbone(each.training.model)(size)
        for split in (train, *others):
            example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), split.inputs)
            jax.eval_shape(model.init, jax.random.key(0), example)


def shrink(settings: Study, **changes) -> Study:
    """The smoke version of a study: two members, two steps, tiny networks; `changes` are fields of its own."""

    def small(training):
        options = {**training.model.options, **build.SMOKE_OPTIONS[training.model.name]}
        model = dataclasses.replace(training.model, options=options)
        return dataclasses.replace(training, model=model, batch_size=4, epochs=1.0, max_steps=2, strategy="vmap")

    students = {name: dataclasses.replace(each, seeds=1, training=small(each.training)) for name, each in settings.students.items()}
    ensemble = dataclasses.replace(settings.ensemble, num_members=2, training=small(settings.ensemble.training))
    return dataclasses.replace(settings, ensemble=ensemble, students=students, beam=2, batch_size=4, **changes)


def train(
    settings: Study, examples: Split, size: int, workdir: pathlib.Path, *, progress: bool
) -> dict[str, tuple[predict.Trained, float]]:
    """Row name -> (networks, seconds of their training): Single (the first living teacher), Ensemble, every student. Resumable.

    Args:
      settings: of the study.
      examples: what teachers and students train on.
      size: V, of the vocabulary.
      workdir: run directory.
      progress: show progress bars.
    """
    began = time.perf_counter()
    teacher = pretrain(settings, examples, size, workdir, progress=progress)
    seconds = time.perf_counter() - began
    each = seconds / len(teacher.alive)
    teacher = predict.survivors(teacher, "ensemble members")
    rows = {"Single": (predict.take(teacher, np.array([0])), each), "Ensemble": (teacher, seconds)}
    for name, student in settings.students.items():
        began = time.perf_counter()
        trained = distil(name, student, teacher, settings, examples, size, workdir, progress=progress)
        one = predict.take(predict.survivors(trained, f"seeds of {name!r}"), np.array([0]))
        rows[name] = (one, time.perf_counter() - began)
    return rows


def pretrain(settings: Study, examples: Split, size: int, workdir: pathlib.Path, *, progress: bool) -> predict.Trained:
    """The teachers."""
    spec = settings.ensemble
    distiller = masked_tokens.make(size, smoothing=spec.smoothing)
    return _fit(stages.TEACHER, spec.training, distiller, settings, examples, workdir, spec.num_members, None, progress)


def distil(
    name: str, student, teacher: predict.Trained, settings: Study, examples: Split, size: int, workdir: pathlib.Path, *, progress: bool
) -> predict.Trained:
    """One student (all its seeds); the teachers read every batch under the same prefixes."""
    per_epoch = len(examples.labels) // student.training.batch_size
    distiller = build.distiller(student, len(teacher.alive), size, per_epoch, build.SEQUENCE_METHODS)
    online = (teacher.model, teacher.variables)
    start = stages.beginning(student, teacher)
    return _fit(name, student.training, distiller, settings, examples, workdir, student.seeds, online, progress, start)


def _fit(
    name, training, distiller, settings, examples: Split, workdir, num_replicas: int, online, progress: bool, start=None
) -> predict.Trained:
    weights = {"mask": np.asarray(valid_steps(examples.labels))} if settings.average == "tokens" else {}
    return stages.fit(
        name,
        training,
        distiller.student(build.backbone(training.model)),
        distiller,
        examples._asdict() | weights,
        lambda x: x,
        num_replicas=num_replicas,
        seed=settings.seed,
        workdir=workdir,
        online_targets=online,
        start=start,
        progress=progress,
    )


def prediction(trained: predict.Trained, chunk_size: int | None = None) -> Callable:
    """Jitted (inputs, labels [B, L]) -> `scores` of the ensemble where there are several networks, else of the one by its method.

    With `chunk_size` logits exist for so many time steps at once, as in `chunked.over_time`.
    """
    first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)  # noqa: E731

    def of_logits(logits, params, state) -> base.Prediction:
        if len(trained.alive) > 1:
            return base.ensemble_prediction(logits)
        return trained.distiller.predict(Outputs(logits[0], None), first(params), first(state), jax.random.key(0))

    @jax.jit
    def predicted(variables, params, state, inputs, labels):
        if chunk_size is None:
            return scores(of_logits(members.apply(trained.model, variables, inputs).logits, params, state), labels)
        states, *layer = members.output_layers(trained.model, variables, inputs)

        def chunk(parts):
            return scores(of_logits(chunked.member_logits(parts[0], *layer), params, state), parts[1])

        return chunked.over_time(chunk, (states, labels), chunk_size, axes=(2, 1))

    return functools.partial(predicted, *jax.device_put((trained.variables, trained.params, trained.state)))


def search(model: Model, settings: Study, length: int) -> Callable:
    """(variables, inputs without "target") -> n-best of the study's beam, at most `length` tokens; special ids are never said."""
    rules = {"start": translation.START, "end": translation.END, "padding": translation.PAD}
    forbidden = (translation.PAD, translation.START, translation.UNKNOWN)
    return beam.make(model, beam=settings.beam, length=length, forbidden=forbidden, **rules)


def decoder(trained: predict.Trained, settings: Study, length: int) -> Callable:
    """Inputs without "target" -> n-best by trained networks, as `search`."""
    return functools.partial(search(trained.model, settings, length), jax.device_put(trained.variables))


def scores(given: base.Prediction, labels: jax.Array) -> dict[str, jax.Array]:
    """What references and hypotheses are scored by, in one program: arrays [B, L], in nats where they have a unit.

    "nll" of the labels, "confidence", "correct" (the most probable token is the label), and those of `MEASURES` that there are.
    """
    nll = -jnp.take_along_axis(given.log_probs, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
    found = {"nll": nll, "confidence": jnp.exp(given.log_probs.max(-1)), "correct": given.log_probs.argmax(-1) == labels}
    return found | {name: getattr(given, name) for name in MEASURES if getattr(given, name) is not None}


def teacher_forced(predicted: Callable, test: Split, batch_size: int = 50) -> dict[str, float]:
    """Mean token NLL in nats and ECE (15 bins) of the next tokens of the references; `predicted` as from `prediction`."""
    one = lambda inputs: predicted(inputs["own"], inputs["labels"])  # noqa: E731
    found = predict.stream(one, {"own": test.inputs, "labels": test.labels}, batch_size, 0)
    kept = test.labels >= 0
    # [tokens, V] probabilities would be the largest array of all: the bins need only the largest of each
    confidence = found["confidence"][kept].astype(np.float64)
    gaps = np.bincount(calibration.bin_index(confidence, 15), confidence - found["correct"][kept], 15)
    return {"nll": float(found["nll"][kept].mean()), "ece": float(np.abs(gaps).sum() / kept.sum()), "tokens": int(kept.sum())}


def check_decoded(tokens: np.ndarray, what: str) -> None:
    """Raises FloatingPointError unless every source of `what` has a hypothesis: the best ones, `tokens` [N, L], end if they exist."""
    empty = np.flatnonzero(~(tokens == translation.END).any(-1))
    if empty.size:
        raise FloatingPointError(
            f"{what}: {empty.size} of {len(tokens)} sources, the first of them number {empty[0]}, have no hypothesis of a finite score: "
            "the network, or one of the ensemble's, gives NaN there. Look for ids outside the vocabulary, or train it again with a lower "
            "learning rate or clipped gradients"
        )


def uncertainty(predicted: Callable, decode: Callable, inputs: dict, settings: Study, what: str = "decoding") -> dict[str, np.ndarray]:
    """Beam search and every measure of each source: mean over tokens, then over hypotheses; the best one's tokens and their measures.

    Args:
      predicted: from `prediction`.
      decode: from `decoder`.
      inputs: of the model; "target" is not looked at.
      settings: `batch_size` sources go in one pass; `weighting` and `temperature` of the hypotheses.
      what: network and set, for the message of an error.

    Raises:
      FloatingPointError: as `check_decoded`.
    """
    over = functools.partial(measured, weighting=settings.weighting, temperature=settings.temperature)

    def one(sources):
        found = decode(sources)
        taught = model_average.hypothesis_inputs(sources, found.tokens, translation.START)
        return over(found, predicted(taught, found.tokens.reshape(-1, found.tokens.shape[-1])))

    found = predict.stream(one, {name: leaf for name, leaf in inputs.items() if name != "target"}, settings.batch_size, 0)
    check_decoded(found["tokens"], what)
    return found


@functools.partial(jax.jit, static_argnames=("weighting", "temperature"))
def measured(found, given: dict, *, weighting: str, temperature: float) -> dict:
    """Measures of an n-best [B, N, L] from the `scores` of its hypotheses [B N, L]; NaN for a source without a hypothesis."""
    count, length = found.tokens.shape[1:]
    mask = jnp.arange(length)[None] < found.lengths.reshape(-1, 1)
    result = {"tokens": found.tokens[:, 0]}
    for measure in (name for name in MEASURES if name in given):
        value = given[measure]
        rates = sequence.rate(value, mask).reshape(-1, count)
        over = functools.partial(sequence.over_hypotheses, weighting=weighting, temperature=temperature)
        result[measure] = jax.vmap(over)(rates, found.log_probs)
        result[f"{measure}_tokens"] = value.reshape(-1, count, length)[:, 0]
    return result


def rejection_ratios(own: dict, errors: np.ndarray) -> dict[str, float]:
    """Prediction rejection ratio of each measure against errors [N] in [0, 1]; NaN where nothing is wrong."""
    return {measure: float(rejection.prediction_rejection_ratio(own[measure], errors)) for measure in MEASURES if measure in own}


def detection_areas(own: dict, other: dict) -> dict[str, float]:
    """AUROC of each measure, the sources of `other` being positive."""
    positive = np.repeat([True, False], [len(other["total"]), len(own["total"])])
    scores = {measure: np.concatenate([other[measure], own[measure]]) for measure in MEASURES if measure in own}
    return {measure: float(detection.auroc(values, positive)) for measure, values in scores.items()}


def examples(own: dict, texts: Sequence[str], references: Sequence[str], source: Callable[[int], str], vocabulary) -> list[dict]:
    """The most and the least certain hypotheses by each measure, with the uncertainty of each token.

    Args:
      own: from `uncertainty`.
      texts: the best hypotheses.
      references: what was wanted.
      source: number of a sequence -> what stands for its source.
      vocabulary: names tokens.
    """
    chosen = []
    for measure in MEASURES:
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
                    "source": source(int(index)),
                    "reference": references[index],
                    "text": texts[index],
                    "pieces": [vocabulary.piece(token) for token in ids[:stop]],
                    "uncertainty": [float(value) for value in own[f"{measure}_tokens"][index][:stop]],
                }
            )
    return chosen
