"""What smoothed labels do to one network: its penultimate features, its calibration, and what a logit tells about its example."""

import dataclasses
import functools
import math
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd.data import augment, sources
from edd.ensembles import members
from edd.experiments import build, distillation, predict, record, smoothing_features_report, stages
from edd.experiments import settings as settings_lib
from edd.metrics import calibration, classification, projection
from edd.metrics.logit_information import example_information


@dataclasses.dataclass(frozen=True)
class Information:
    """A curve over training of the information that the difference of two logits holds about its example.

    Attributes:
      classes: the two classes: of the examples, and of the logits whose difference is taken.
      per_class: training examples of each.
      snapshots: points of the curve, evenly over training; the last is its end.
      draws: augmented views in an example's mean; one more is drawn for the estimate with a fresh view.
    """

    classes: list[int]
    per_class: int = 300
    snapshots: int = 16
    draws: int = 5

    def __post_init__(self):
        if len(self.classes) != 2 or len(set(self.classes)) < 2:
            raise ValueError(f"information.classes must be two different classes, got {self.classes}")
        if min(self.per_class, self.snapshots, self.draws) < 1:
            raise ValueError("information.per_class, snapshots and draws must be at least 1")


@dataclasses.dataclass(frozen=True)
class SmoothingFeatures:
    """A study of networks trained at several smoothings.

    Attributes:
      name: of the run.
      data: trained and tested on; with `validation` temperatures are fitted on the held-out examples, else on the test set.
      ensemble: training program; its members are the study's seeds, its smoothing is replaced.
      smoothings: of the labels; each in [0, 1].
      triples: three classes each, for a projection of the first seed's penultimate activations.
      per_class: examples of each class in a projection.
      information: a curve over training, or None. It keeps snapshots in memory, so such a run trains without checkpoints.
      temperatures: at which ECE and NLL are drawn.
      num_bins: calibration bins.
      batch_size: inputs per prediction batch.
      reference: the paper's numbers, smoothing in percent ("10 %") -> {column of the report: number}.
      seed: root of everything random.
      smoke: two steps on invented data.
    """

    name: str
    data: settings_lib.Data
    ensemble: settings_lib.Ensemble
    smoothings: list[float]
    triples: list[list[int]] = dataclasses.field(default_factory=list)
    per_class: int = 100
    information: Information | None = None
    temperatures: list[float] = dataclasses.field(default_factory=lambda: [0.5, 0.7, 1.0, 1.4, 2.0, 3.0])
    num_bins: int = 15
    batch_size: int = 500
    reference: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        settings_lib.check_smoothings(self.smoothings)
        bad = [each for each in self.temperatures if not 0 < each < math.inf]
        if bad or not self.temperatures:
            raise ValueError(f"temperatures must be at least one, all above 0 and finite, got {self.temperatures}")
        if self.information is not None and self.ensemble.training.augment == "none":
            raise ValueError("information needs random views of an example: set ensemble.training.augment")


class Networks(NamedTuple):
    """The seeds of one smoothing, and its snapshots over training: (step, networks) each."""

    trained: predict.Trained
    snapshots: list[tuple[int, predict.Trained]]


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Trains the networks of every smoothing, then writes results.json, report.md, report.html and figures.

    Args:
      config: nested plain dictionary with the fields of `SmoothingFeatures`.
      workdir: run directory; a smoothing is finished or done again, and trains from its checkpoints where it keeps some.
      data_dir: TFDS directory, overrides the config's.
      progress: show progress bars.

    Raises:
      ValueError: bad settings or classes (before anything is written), or a directory that holds another run.
    """
    settings = settings_lib.from_dict(SmoothingFeatures, config)
    base = settings_lib.Settings(settings.name, settings.data, settings.ensemble, {}, seed=settings.seed, smoke=settings.smoke)
    check_classes(settings)
    if settings.smoke:
        base, settings = build.shrink(base), shrink(settings)
    sets = distillation.ready(base, data_dir=data_dir)
    check_examples(settings, sets)
    description = record.open_run(workdir, config, {"run": settings.seed})
    parts = []
    for smoothing in settings.smoothings:
        make = functools.partial(one_part, settings, base, smoothing, sets, workdir, progress)
        parts.append(record.finished(workdir / "parts" / f"smoothing-{smoothing:g}.json", make))
    return smoothing_features_report.finish(workdir, parts, config, record.for_report(description))


def check_classes(settings: SmoothingFeatures) -> None:
    """ValueError for a class outside the data."""
    num_classes = sources.info(settings.data.name, **settings.data.options).num_classes
    for triple in settings.triples:
        projection.three_classes(triple, num_classes)
    pair = [] if settings.information is None else settings.information.classes
    outside = [each for each in pair if not 0 <= each < num_classes]
    if outside:
        raise ValueError(f"information.classes must lie in [0, {num_classes}), the data's classes, got {outside[0]}")


def check_examples(settings: SmoothingFeatures, sets: build.Sets) -> None:
    """ValueError for a class that the training or the test set has no example of."""
    for triple in settings.triples:
        for split in (sets.train, sets.test):
            projection.first_of_each(split.labels, triple, settings.per_class)
    if settings.information is not None:
        projection.first_of_each(sets.train.labels, settings.information.classes, settings.information.per_class)


def shrink(settings: SmoothingFeatures) -> SmoothingFeatures:
    """The smoke version: classes that the few invented examples have, two of each, two snapshots."""
    few = None
    if settings.information is not None:
        few = dataclasses.replace(settings.information, classes=[0, 1], per_class=2, snapshots=2, draws=2)
    return dataclasses.replace(settings, triples=[[0, 1, 2]] * bool(settings.triples), per_class=2, information=few)


def train(settings: SmoothingFeatures, base: settings_lib.Settings, smoothing: float, sets: build.Sets, workdir, progress) -> Networks:
    """Every seed at one smoothing, with snapshots where the study asks for a curve."""
    spec, name = dataclasses.replace(base.ensemble, smoothing=smoothing), f"smoothing-{smoothing:g}"
    if settings.information is None:
        return Networks(stages.train_ensemble(name, spec, base, sets, workdir, progress=progress), [])
    steps = build.num_steps(spec.training, len(sets.train.labels) // spec.training.batch_size)
    count = min(settings.information.snapshots, steps)
    every = steps // count
    training = dataclasses.replace(spec.training, max_steps=count * every)
    distiller = build.METHODS["supervised"](0, sets.info.num_classes, smoothing=smoothing)
    both = stages.fit(
        name,
        training,
        distiller.student(build.backbone(training.model)),
        distiller,
        sets.train._asdict(),
        augment.preprocess(sets.info),
        num_replicas=spec.num_members,
        seed=base.seed,
        snapshots=(count, every),
        progress=progress,
    )
    each = [predict.take(both, np.arange(spec.num_members) + index * spec.num_members) for index in range(count)]
    each = [networks._replace(seeds=np.arange(spec.num_members)) for networks in each]
    return Networks(each[-1], [((index + 1) * every, networks) for index, networks in enumerate(each)])


def one_part(settings: SmoothingFeatures, base, smoothing: float, sets: build.Sets, workdir, progress: bool) -> dict:
    """Everything measured at one smoothing."""
    began = time.perf_counter()
    networks = train(settings, base, smoothing, sets, workdir, progress)
    trained = predict.survivors(networks.trained, f"seeds of smoothing {smoothing:g}")
    found = {
        "smoothing": smoothing,
        "seeds": calibrated(trained, sets, settings),
        "projections": [projected(trained, triple, sets, settings) for triple in settings.triples],
        "information": information(networks.snapshots, trained.seeds, sets, settings),
        "parameters": predict.num_parameters(jax.tree.map(lambda leaf: leaf[0], trained.variables)),
        "run_seed": settings.seed,
    }
    return {**found, "seconds": time.perf_counter() - began}


def calibrated(trained: predict.Trained, sets: build.Sets, settings: SmoothingFeatures) -> list[dict]:
    """Accuracy, NLL, ECE and the reliability curve of every seed, as they are and at the temperature of least held-out NLL."""
    function = predict.member_logits_function(trained.model, trained.variables, augment.preprocess(sets.info))
    held = sets.test if sets.validation is None else sets.validation
    logits, held_logits = (predict.stream(function, split.inputs, settings.batch_size, 1) for split in (sets.test, held))
    found = []
    for seed, own, other in zip(trained.seeds, logits, held_logits):
        temperature = calibration.fit_temperature(other, held.labels)
        grid = [scores(own, sets.test.labels, each, settings.num_bins) for each in settings.temperatures]
        found.append(
            {
                "seed": int(seed),
                "plain": scores(own, sets.test.labels, 1.0, settings.num_bins) | reliability(own, sets.test.labels, 1.0, settings.num_bins),
                "temperature": temperature,
                "scaled": scores(own, sets.test.labels, temperature, settings.num_bins)
                | reliability(own, sets.test.labels, temperature, settings.num_bins),
                "grid": {metric: [each[metric] for each in grid] for metric in ("ece", "nll")},
            }
        )
    return found


def scores(logits: np.ndarray, labels: np.ndarray, temperature: float, num_bins: int) -> dict[str, float]:
    """Accuracy, NLL (nats) and ECE of softmax(logits / T)."""
    log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(logits) / temperature))
    probs = np.exp(log_probs)
    return {
        "accuracy": classification.accuracy(probs, labels),
        "nll": classification.nll(log_probs, labels),
        "ece": calibration.expected_calibration_error(probs, labels, num_bins),
    }


def reliability(logits: np.ndarray, labels: np.ndarray, temperature: float, num_bins: int) -> dict[str, list]:
    """Mean confidence, accuracy and count of every bin of softmax(logits / T)."""
    curve = calibration.reliability_curve(np.asarray(jax.nn.softmax(jnp.asarray(logits) / temperature)), labels, num_bins)
    return {"reliability": {name: getattr(curve, name).tolist() for name in ("confidence", "accuracy", "count")}}


def projected(trained: predict.Trained, triple: list, sets: build.Sets, settings: SmoothingFeatures) -> dict:
    """The first seed's activations and templates of three classes in their plane, of training and test examples."""
    classes = projection.three_classes(triple, sets.info.num_classes)
    first, preprocess = jax.tree.map(lambda leaf: leaf[0], trained.variables), augment.preprocess(sets.info)
    weights, _ = trained.model.templates(first)
    templates = np.asarray(weights)[list(classes)]
    plane = projection.template_plane(templates)
    body = jax.jit(lambda variables, inputs: trained.model.apply(variables, preprocess(inputs), train=False, rngs=None)[0].penultimate)
    found = {"classes": list(classes), "templates": projection.project(templates, plane).tolist()}
    for name, split in (("train", sets.train), ("test", sets.test)):
        chosen = projection.first_of_each(split.labels, classes, settings.per_class)
        points = projection.project(predict.stream(functools.partial(body, first), split.inputs[chosen], settings.batch_size, 0), plane)
        labels = split.labels[chosen]
        found[name] = {"points": points.tolist(), "labels": labels.tolist(), "spread": spread(points, labels)}
    return found


def spread(points: np.ndarray, labels: np.ndarray) -> float:
    """Root mean squared distance of points to their class's centre over that of the centres to each other: 0 for three tight clusters."""
    centres = {each: points[labels == each].mean(0) for each in np.unique(labels)}
    within = np.mean([np.square(point - centres[label]).sum() for point, label in zip(points, labels)])
    stacked = np.stack(list(centres.values()))
    between = np.square(stacked[:, None] - stacked).sum(-1)[np.triu_indices(len(stacked), 1)].mean()
    return float(np.sqrt(within / between)) if between > 0 else float("nan")


def information(snapshots: list, seeds: np.ndarray, sets: build.Sets, settings: SmoothingFeatures) -> dict:
    """The curve: step, and for every seed the estimate in sample and with a fresh view; {} without snapshots."""
    if not snapshots:
        return {}
    spec, training = settings.information, settings.ensemble.training
    chosen = projection.first_of_each(sets.train.labels, spec.classes, spec.per_class)
    inputs, preprocess = sets.train.inputs[chosen], augment.preprocess(sets.info)
    view = augment.make(training.augment, padding=training.augment_padding)
    model = snapshots[0][1].model

    @jax.jit
    def difference(variables, inputs, key):
        views = preprocess(view(jax.random.split(key, inputs.shape[0]), inputs))
        logits = members.apply(model, variables, views).logits
        return logits[..., spec.classes[0]] - logits[..., spec.classes[1]]

    curve = {"steps": [step for step, _ in snapshots], "in_sample": [], "fresh": []}
    for step, networks in snapshots:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(settings.seed), step), spec.draws + 1)
        kept = members.take(networks.variables, seeds)
        values = np.stack([np.asarray(difference(kept, inputs, key), np.float64) for key in keys], 1)  # [R, L + 1, N]
        curve["in_sample"].append([example_information(each[:-1]) for each in values])
        curve["fresh"].append([example_information(each[:-1], each[-1]) for each in values])
    return curve
