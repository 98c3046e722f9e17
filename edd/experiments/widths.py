"""How an ensemble's knowledge uncertainty falls with the width of its networks, and how much of it masks get back out of one of them."""

import dataclasses
import functools
import pathlib
import time

import jax
import numpy as np

from edd.data import augment
from edd.data.base import Split
from edd.distillers import masks as masks_method
from edd.distillers.base import Prediction, ensemble_prediction, softmax_prediction
from edd.ensembles import masks as masks_lib
from edd.experiments import ambiguous as ambiguous_lib
from edd.experiments import build, predict, record, stages, widths_report
from edd.experiments import settings as settings_lib
from edd.metrics import detection

TEST, AMBIGUOUS, DIRTY = "test", "ambiguous", "dirty"
LEVELS = np.linspace(0, 1, 201)  # of the quantiles and the ROC curves that results keep


@dataclasses.dataclass(frozen=True)
class Masks:
    """Sub-models taken out of the first member of one width.

    Attributes:
      width: the member's, one of the study's.
      num_members: sub-models.
      weights: of the masks' diversity in the loss; one extraction for each.
      regularisers: `ensembles.masks.diversity`'s; one extraction for each.
      training: program of the masks (its model is not used).
      mask_inputs: mask the network's inputs too.
      mean: of the initial masks' logits.
    """

    width: float
    training: settings_lib.Training
    num_members: int = 10
    weights: list = dataclasses.field(default_factory=lambda: [2.0])
    regularisers: list = dataclasses.field(default_factory=lambda: ["mean"])
    mask_inputs: bool = True
    mean: float = 0.0


@dataclasses.dataclass(frozen=True)
class Widths:
    """A study of width.

    Attributes:
      name: of the run.
      data: trained on; its out-of-distribution sets are where uncertainty should be larger.
      ensemble: members and training program; the model is an "mlp" whose `widths` are multiplied.
      widths: multipliers, > 0.
      ambiguous: makes a set between the classes, or None.
      masks: implicit ensembles, or None.
      batch_size: inputs per prediction batch.
      reference: the paper's numbers, width as text -> {column of the report: number}.
      seed: root of everything random.
      smoke: two steps on invented data, the first and last width.
    """

    name: str
    data: settings_lib.Data
    ensemble: settings_lib.Ensemble
    widths: list
    ambiguous: ambiguous_lib.Ambiguous | None = None
    masks: Masks | None = None
    batch_size: int = 500
    reference: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        if not self.widths or min(self.widths) <= 0 or len(set(self.widths)) < len(self.widths):
            raise ValueError(f"widths must be positive and differ, got {self.widths}")
        if self.ensemble.training.model.name != "mlp" or not self.ensemble.training.model.options.get("widths"):
            raise ValueError("ensemble.training.model must be an 'mlp' with widths to multiply")
        if self.ensemble.num_members < 2:
            raise ValueError(f"ensemble.num_members must be at least 2, got {self.ensemble.num_members}")
        if not self.data.ood:
            raise ValueError("data.ood must name at least one set")
        if self.masks is not None and self.masks.width not in self.widths:
            raise ValueError(f"masks.width must be one of the widths {self.widths}, got {self.masks.width}")


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Trains the ensembles (resumable), then the masks, and writes results.json, report.md, report.html and figures.

    Args:
      config: nested plain dictionary with the fields of `Widths`.
      workdir: run directory.
      data_dir: TFDS directory, overrides the config's.
      progress: show progress bars.

    Raises:
      ValueError: bad settings (before anything is written), or a directory that holds another run.
    """
    settings = settings_lib.from_dict(Widths, config)
    if settings.smoke:
        settings = shrink(settings)
    for width in settings.widths:
        build.backbone(at_width(settings.ensemble, width).training.model)(2)
    if settings.masks is not None:
        for regulariser in settings.masks.regularisers:
            masks_lib.check_regulariser(regulariser)
    base = settings_lib.Settings(settings.name, settings.data, settings.ensemble, {}, seed=settings.seed, smoke=settings.smoke)
    sets = build.data(base, data_dir)
    description = record.open_run(workdir, config, {"run": settings.seed})
    evaluated = evaluation_sets(settings, sets, workdir, progress)
    parts = []
    for width in settings.widths:
        spec = at_width(settings.ensemble, width)
        teach = functools.partial(stages.train_ensemble, f"width-{width:g}", spec, base, sets, workdir, progress=progress)
        make = functools.partial(width_part, settings, width, teach, sets, evaluated)
        parts.append(record.finished(workdir / "parts" / f"width-{width:g}.json", make))
        if settings.masks is None or settings.masks.width != width:
            continue
        for regulariser in settings.masks.regularisers:
            for weight in settings.masks.weights:
                make = functools.partial(masks_part, settings, teach, sets, evaluated, weight, regulariser)
                parts.append(record.finished(workdir / "parts" / f"masks-{regulariser}-{weight:g}.json", make))
    return widths_report.finish(workdir, parts, config, record.for_report(description))


def at_width(ensemble: settings_lib.Ensemble, width: float) -> settings_lib.Ensemble:
    """The ensemble with its networks' hidden layers `width` times as wide."""
    model = ensemble.training.model
    sizes = [max(1, round(width * size)) for size in model.options["widths"]]
    wide = dataclasses.replace(model, options={**model.options, "widths": sizes})
    return dataclasses.replace(ensemble, training=dataclasses.replace(ensemble.training, model=wide))


def evaluation_sets(settings: Widths, sets: build.Sets, workdir: pathlib.Path, progress: bool) -> dict[str, Split]:
    """Every set that uncertainty is measured on: as many training examples as test ones, test, ambiguous and mixed, and the others."""
    count = len(sets.test.labels)
    found = {"train": Split(sets.train.inputs[:count], sets.train.labels[:count]), TEST: sets.test}
    if settings.ambiguous is not None and settings.ambiguous.files and not settings.smoke:
        found[AMBIGUOUS], found[DIRTY] = ambiguous_lib.released(settings.ambiguous, sets.test, sets.info, seed=settings.seed)
    elif settings.ambiguous is not None:
        made, _ = ambiguous_lib.make(settings.ambiguous, sets.train, sets.test, seed=settings.seed, workdir=workdir, progress=progress)
        found[AMBIGUOUS] = made
        found[DIRTY] = Split(*(np.concatenate(pair) for pair in zip(sets.test, made)))
    return found | sets.ood


def width_part(settings: Widths, width: float, teach, sets: build.Sets, evaluated: dict[str, Split]) -> dict:
    """Scores of one width's ensemble on every set."""
    began = time.perf_counter()
    trained = predict.survivors(teach(), "ensemble members")
    function = predict.member_logits_function(trained.model, trained.variables, augment.preprocess(sets.info), ensemble_prediction)
    size = predict.num_parameters(jax.tree.map(lambda leaf: leaf[0], trained.variables))
    facts = {"kind": "ensemble", "width": width, "parameters": size, "members": len(trained.alive)}
    return facts | scores(function, settings, sets, evaluated) | {"seconds": time.perf_counter() - began}


def masks_part(settings: Widths, teach, sets: build.Sets, evaluated: dict[str, Split], weight: float, regulariser: str) -> dict:
    """Scores of the relaxed and the hard sub-models of one network, and of the network alone."""
    began, spec = time.perf_counter(), settings.masks
    trained = predict.survivors(teach(), "ensemble members")
    single = jax.tree.map(lambda leaf: leaf[0], trained.variables)
    options = {"activation": settings.ensemble.training.model.options.get("activation", "relu"), "mask_inputs": spec.mask_inputs}
    relaxed, hard = (masks_lib.make(single, spec.num_members, hard=each, mean=spec.mean, **options) for each in (False, True))
    method = masks_method.make(spec.num_members, sets.info.num_classes, relaxed, weight=weight, regulariser=regulariser)
    preprocess = augment.preprocess(sets.info)
    common = {"num_replicas": 1, "seed": settings.seed, "progress": False}
    fitted = stages.fit(f"masks-{regulariser}-{weight:g}", spec.training, relaxed, method, sets.train._asdict(), preprocess, **common)
    params = jax.tree.map(lambda leaf: leaf[0], fitted.variables)["params"]
    found = {"kind": "masks", "width": spec.width, "weight": weight, "regulariser": regulariser, "rows": {}}
    for name, model in (("relaxed", relaxed), ("hard", hard)):
        function = predict.first_replica_function(fitted._replace(model=model), preprocess, jax.random.key(0))
        found["rows"][name] = scores(function, settings, sets, evaluated)
    alone = predict.member_logits_function(trained.model, jax.tree.map(lambda leaf: leaf[:1], trained.variables), preprocess, first_member)
    found["rows"]["single"] = scores(alone, settings, sets, evaluated)
    found["kept"] = {f"{layer} {mask}": float((leaf > 0).mean()) for layer, each in params.items() for mask, leaf in each.items()}
    found["diversity"] = float(masks_lib.diversity(params))
    found["diversity_by_mask"] = masks_lib.diversity_by_mask(params)
    return found | {"seconds": time.perf_counter() - began}


def first_member(logits) -> Prediction:
    """A plain network's prediction from logits [1, *B, K]."""
    return softmax_prediction(logits[0])


def scores(function, settings: Widths, sets: build.Sets, evaluated: dict[str, Split]) -> dict:
    """Per set: means, quantiles and, where there are labels, errors; per out-of-distribution set: detection against the test set."""
    predictions = {name: predict.stream(function, split.inputs, settings.batch_size, 0) for name, split in evaluated.items()}
    found: dict = {"sets": {}, "detection": {}}
    for name, prediction in predictions.items():
        values = measures(prediction)
        found["sets"][name] = {
            measure: {"mean": float(each.mean()), "quantiles": np.quantile(each, LEVELS).tolist()} for measure, each in values.items()
        }
        if name not in sets.ood:
            found["sets"][name] |= errors(prediction.log_probs, evaluated[name].labels)
    inside = measures(predictions[TEST])
    for name in sets.ood:
        for measure, outside in measures(predictions[name]).items():
            both = np.concatenate([inside[measure], outside])
            positive = np.arange(len(both)) >= len(inside[measure])
            curve = detection.roc_curve(both, positive)
            found["detection"].setdefault(name, {})[measure] = {
                "auroc": detection.auroc(both, positive),
                "mean_difference": float(outside.mean() - inside[measure].mean()),
                "roc": np.interp(LEVELS, curve.false_positive_rate, curve.true_positive_rate).tolist(),
            }
    return found


def measures(prediction: Prediction) -> dict[str, np.ndarray]:
    """Knowledge uncertainty, where there is one, and total uncertainty of each example in nats."""
    found = {} if prediction.mutual_information is None else {"mutual_information": np.asarray(prediction.mutual_information, np.float64)}
    return found | {"entropy": np.asarray(prediction.total, np.float64)}


def errors(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, and the mean and the median over examples of the negative log-likelihood in nats."""
    own = -np.take_along_axis(np.asarray(log_probs, np.float64), labels[:, None], -1)[:, 0]
    return {"accuracy": float((log_probs.argmax(-1) == labels).mean()), "nll": float(own.mean()), "median_nll": float(np.median(own))}


def shrink(settings: Widths) -> Widths:
    """The smoke version: two members, two steps, tiny networks, the first and the last width."""

    def small(training):
        return dataclasses.replace(training, epochs=1.0, max_steps=2, batch_size=min(8, training.batch_size), keep="last")

    ensemble = settings.ensemble
    model = dataclasses.replace(ensemble.training.model, options={**ensemble.training.model.options, "widths": [4, 4]})
    ensemble = dataclasses.replace(ensemble, num_members=2, training=small(dataclasses.replace(ensemble.training, model=model)))
    widths = list(dict.fromkeys((settings.widths[0], settings.widths[-1])))
    changes: dict = {"ensemble": ensemble, "widths": widths}
    if settings.ambiguous is not None:
        changes["ambiguous"] = dataclasses.replace(
            settings.ambiguous, training=small(settings.ambiguous.training), num_images=8, num_candidates=4
        )
    if settings.masks is not None:
        first = {"width": widths[0], "num_members": 2, "weights": settings.masks.weights[:1]}
        changes["masks"] = dataclasses.replace(
            settings.masks, regularisers=settings.masks.regularisers[:1], training=small(settings.masks.training), **first
        )
    return dataclasses.replace(settings, **changes)
