"""Implicit ensembles by tiles of one trained image network: does what its positions disagree on say more than its own entropy?

The network gives logits at every position; averaged to s x s tiles they are the s * s members of an ensemble. Its mutual information is set
against the entropy of the network itself, in ranking errors and in finding out-of-distribution images.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from edd import metrics
from edd.data import augment, sources
from edd.data.base import Info
from edd.ensembles import tiles
from edd.experiments import build, predict, record, tile_study_report
from edd.experiments import settings as settings_lib
from edd.models.base import Model, bind
from edd.models.imports import vision
from edd.uncertainty import hierarchy

TEST, ORIGINAL = "test", "network"
WEIGHTINGS = ("uniform", "per_input_lse", "per_input_sum")
TEMPERATURES = ("one", "fitted")
CURVES = ("accuracy", "nll", "calibration_error")


@dataclasses.dataclass(frozen=True)
class Tiles:
    """A study of one network's positions.

    Attributes:
      name: of the run.
      data: test set and out-of-distribution sets; nothing is trained.
      model: backbone and options, one that gives `positions`; "weights" among the options is the file to load (see `imports.vision`).
      sizes: s of the s x s tiles; the largest the network has is its own grid.
      weightings: of the tiles: "uniform", or the mutual information's weightings of `uncertainty.hierarchy` but "global".
      temperatures: "one", or "fitted": the T of least likelihood of the network's own logits on the test set, for every tile.
      mean, std: of the network's inputs in [0, 1], per channel; empty: the data set's.
      num_quantiles: of the curves.
      x_scale: of the covariances, as `metrics.quantiles.neg_cov`.
      batch_size: images in a batch: no more tiles than its are ever held.
      reference: the paper's numbers, row of the tables -> {column: number}.
      seed: of the random weights where none are loaded.
      smoke: random weights and invented images.
    """

    name: str
    data: settings_lib.Data
    model: settings_lib.Model
    sizes: list
    weightings: list = dataclasses.field(default_factory=lambda: ["uniform", "per_input_lse"])
    temperatures: list = dataclasses.field(default_factory=lambda: ["one", "fitted"])
    mean: list = dataclasses.field(default_factory=list)
    std: list = dataclasses.field(default_factory=list)
    num_quantiles: int = 20
    x_scale: str = "zscore"
    batch_size: int = 100
    reference: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        for field, values, known in (("weightings", self.weightings, WEIGHTINGS), ("temperatures", self.temperatures, TEMPERATURES)):
            if not values or not set(values) <= set(known):
                raise ValueError(f"{field} must be among {', '.join(known)}, got {values}")
        if not self.sizes or min(self.sizes) < 2 or len(set(self.sizes)) < len(self.sizes):
            raise ValueError(f"sizes must be at least 2 and differ, got {self.sizes}")
        if self.x_scale not in metrics.quantiles.X_SCALES or self.num_quantiles < 2 or self.batch_size < 1:
            raise ValueError(f"x_scale must be one of {', '.join(metrics.quantiles.X_SCALES)}, num_quantiles >= 2 and batch_size >= 1")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must have one entry per channel each, got {self.mean} and {self.std}")


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Reads the network at every tile size and writes results.json, report.md, report.html and figures.

    Args:
      config: nested plain dictionary with the fields of `Tiles`.
      workdir: run directory; a part (one image set) is finished or done again, never half.
      data_dir: TFDS directory, overrides the config's.
      progress: print a line for each set.

    Raises:
      ValueError: bad settings, a network without positions, more tiles than positions (before anything is written), or a directory that
        holds another run.
    """
    settings = settings_lib.from_dict(Tiles, config)
    base = settings_lib.Settings(settings.name, settings.data, _no_ensemble(settings.model), {}, seed=settings.seed, smoke=settings.smoke)
    info = sources.info(settings.data.name, **settings.data.options)
    if settings.mean:
        info = info._replace(mean=tuple(settings.mean), std=tuple(settings.std))
    model, variables = network(settings, info)
    side = grid(model, variables, info)
    if max(settings.sizes) > side:
        raise ValueError(f"sizes must be at most {side}, the network's positions along a side, got {settings.sizes}")
    sets = build.data(base, data_dir)
    description = record.open_run(workdir, config, {"run": settings.seed})
    look = functools.partial(stream, model, variables, augment.preprocess(info), batch_size=settings.batch_size)
    inputs = {TEST: sets.test.inputs, **{name: split.inputs for name, split in sets.ood.items()}}
    own = look(inputs[TEST], own_logits)
    rescaled = {"one": 1.0}
    if "fitted" in settings.temperatures:
        rescaled["fitted"] = float(metrics.calibration.fit_temperature(own, sets.test.labels))
    parts = []
    for kind in settings.temperatures:
        function = functools.partial(read, sizes=tuple(settings.sizes), weightings=tuple(settings.weightings), temperature=rescaled[kind])
        found = {}
        for name, values in inputs.items():
            found[name] = look(values, function)
            if progress:
                print(f"temperature {rescaled[kind]:.3g}, {name}: {len(values)} images", flush=True)
        parts += [
            {"temperature": kind, "T": rescaled[kind], **part}
            for part in score(found, sets.test.labels, settings.num_quantiles, settings.x_scale)
        ]
    return tile_study_report.finish(workdir, parts, config, record.for_report(description))


def _no_ensemble(model: settings_lib.Model) -> settings_lib.Ensemble:
    return settings_lib.Ensemble(1, settings_lib.Training(model))


def network(settings: Tiles, info: Info) -> tuple[Model, dict]:
    """The network and its weights, loaded or (without a file) random."""
    options = dict(settings.model.options) | {"positions": True}
    weights = options.pop("weights", "")
    if settings.smoke:
        options |= build.SMOKE_OPTIONS.get(settings.model.name, {})
    if weights and not settings.smoke:
        return vision.load(weights, settings.model.name, **options)
    model = build.backbone(settings_lib.Model(settings.model.name, options))(info.num_classes)
    example = jnp.zeros((1, *info.input_shape))
    return model, jax.jit(model.init)(jax.random.key(settings.seed), example)


def grid(model: Model, variables: dict, info: Info) -> int:
    """Positions along a side of the network's square grid; ValueError where it has none."""
    example = jax.ShapeDtypeStruct((1, *info.input_shape), "float32")
    outputs, _ = jax.eval_shape(lambda v, x: model.apply(v, x, train=False, rngs=None), variables, example)
    if outputs.positions is None:
        raise ValueError("the network gives no logits at its positions: take a backbone with the option positions")
    side = round(outputs.positions.shape[1] ** 0.5)
    if side * side != outputs.positions.shape[1]:
        raise ValueError(f"the network's positions must make a square, got {outputs.positions.shape[1]}")
    return side


def stream(model: Model, variables: dict, preprocess: Callable, inputs: np.ndarray, function: Callable, *, batch_size: int):
    """`function` of the network's outputs over all images, batch by batch; what it returns is all that is kept."""

    @jax.jit
    def batch(shared, variables, images):
        outputs, _ = bind(model, shared).apply(variables, preprocess(images), train=False, rngs=None)
        return function(outputs)

    return predict.stream(functools.partial(batch, model.shared, variables), inputs, batch_size, 0)


def own_logits(outputs):
    """The network's own logits."""
    return outputs.logits


def read(outputs, *, sizes: tuple[int, ...], weightings: tuple[str, ...], temperature: float) -> dict:
    """row -> {"log_probs" [B, K], "uncertainty" [B], "entropy" [B]} of the network itself and of every size and weighting of its tiles."""
    own = jax.nn.log_softmax(outputs.logits / temperature)
    rows = {ORIGINAL: {"log_probs": own, "uncertainty": entropy(own), "entropy": entropy(own)}}
    for size in sizes:
        logits = tiles.members(outputs.positions, size) / temperature
        log_probs = jax.nn.log_softmax(logits)
        for weighting in weightings:
            if weighting == "uniform":
                weights = jnp.full(logits.shape[:-1], 1 / len(logits))
            else:
                weights = hierarchy.member_weights(logits, weighting)
            mixed = jax.nn.logsumexp(log_probs + jnp.log(weights)[..., None], 0)
            mixed = mixed - jax.nn.logsumexp(mixed, -1, keepdims=True)
            within = (weights * entropy(log_probs)).sum(0)
            row = {"log_probs": mixed, "uncertainty": jnp.maximum(entropy(mixed) - within, 0.0), "entropy": entropy(mixed)}
            rows[f"{size}x{size} {weighting}"] = row
    return rows


def entropy(log_probs):
    """Of the last axis, nats."""
    return -jnp.sum(jnp.where(jnp.isneginf(log_probs), 0.0, jnp.exp(log_probs) * log_probs), -1)


def score(found: dict, labels: np.ndarray, num_quantiles: int, x_scale: str) -> list[dict]:
    """Per row: its own prediction, curves and covariances by its uncertainty, errors ranked, and every out-of-distribution set detected.

    "reranked": the network's own prediction in the order of the row's uncertainty, so that rows differ in that order alone.
    """
    own = np.asarray(found[TEST][ORIGINAL]["log_probs"], np.float64)
    parts = []
    for row in sorted(found[TEST], key=lambda name: name != ORIGINAL):  # the network first
        values = found[TEST][row]
        log_probs, uncertainty = (np.asarray(values[name], np.float64) for name in ("log_probs", "uncertainty"))
        probs = np.exp(log_probs)
        part = {
            "row": row,
            "accuracy": metrics.classification.accuracy(probs, labels),
            "nll": metrics.classification.nll(log_probs, labels),
            "calibration_error": metrics.calibration.confidence_gap(probs, labels),
            "mean_uncertainty": {name: float(np.mean(each[row]["uncertainty"])) for name, each in found.items()},
            "own": curves(uncertainty, log_probs, labels, num_quantiles, x_scale),
            "reranked": curves(uncertainty, own, labels, num_quantiles, x_scale),
            "errors": {
                "own": _error_auroc(uncertainty, log_probs, labels),
                "reranked": _error_auroc(uncertainty, own, labels),
                "entropy": _error_auroc(np.asarray(values["entropy"], np.float64), log_probs, labels),
            },
            "detection": {},
        }
        for name, other in found.items():
            if name != TEST:
                part["detection"][name] = {measure: _auroc(values[measure], other[row][measure]) for measure in ("uncertainty", "entropy")}
        parts.append(part)
    return parts


def curves(uncertainty: np.ndarray, log_probs: np.ndarray, labels: np.ndarray, num_quantiles: int, x_scale: str) -> dict:
    """Acceptance curves, their areas, and the negative covariances of the tables."""
    found = metrics.quantiles.prediction_curves(uncertainty, log_probs, labels, num_quantiles)
    each = {name: getattr(found, name) for name in CURVES}
    return {
        "quantile": found.accuracy.quantile.tolist(),
        "acceptance": {name: curve.acceptance.tolist() for name, curve in each.items()},
        "bucket": {name: curve.bucket.tolist() for name, curve in each.items()},
        "area": {name: metrics.quantiles.curve_area(curve.quantile, curve.acceptance) for name, curve in each.items()},
        "neg_cov": {
            "calibration_error": metrics.quantiles.neg_cov(found.calibration_error.uncertainty, found.calibration_error.bucket, x_scale),
            "accuracy": metrics.quantiles.neg_cov(found.accuracy.uncertainty, found.accuracy.acceptance, x_scale),
            "nll": metrics.quantiles.neg_cov(found.nll.uncertainty, found.nll.acceptance, x_scale),
        },
    }


def _error_auroc(uncertainty: np.ndarray, log_probs: np.ndarray, labels: np.ndarray) -> float:
    return metrics.detection.auroc(uncertainty, log_probs.argmax(-1) != labels)


def _auroc(inside, outside) -> float:
    both = np.concatenate([np.asarray(inside, np.float64), np.asarray(outside, np.float64)])
    return metrics.detection.auroc(both, np.arange(len(both)) >= len(inside))
