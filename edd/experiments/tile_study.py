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
from edd.experiments import build, predict, record, tile_scores, tile_study_report
from edd.experiments import settings as settings_lib
from edd.experiments.tile_scores import TEST, WEIGHTINGS
from edd.models.base import Model, bind
from edd.models.imports import vision

TEMPERATURES = ("one", "fitted")


@dataclasses.dataclass(frozen=True)
class Tiles:
    """A study of one network's positions.

    Attributes:
      name: of the run.
      data: test set and out-of-distribution sets; nothing is trained.
      model: backbone and options, one that gives `positions`; "weights" among the options is the file to load (see `imports.vision`).
      sizes: s of the s x s tiles; the largest the network has is its own grid.
      weightings: of the tiles: "uniform", or the mutual information's weightings of `uncertainty.hierarchy`; "global" takes one weight
        for each tile from all test images, in a pass of its own.
      temperatures: "one", or "fitted": the T of least likelihood of the network's own logits on the test set, for every tile.
      mean, std: of the network's inputs in [0, 1], per channel; empty: the data set's.
      first_class: outputs before this one are dropped: 1 where the network's class 0 is a background.
      shared: names of out-of-distribution sets whose labels are the network's classes: their errors are reported too, with probabilities
        normalised over the classes that occur in them, and they are also detected among test images of those classes alone.
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
    first_class: int = 0
    shared: list = dataclasses.field(default_factory=list)
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
        if self.first_class < 0 or not set(self.shared) <= set(self.data.ood):
            raise ValueError(f"first_class must be >= 0 and shared among {', '.join(self.data.ood) or '(no set)'}, got {self.shared}")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must have one entry per channel each, got {self.mean} and {self.std}")


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Reads the network at every tile size and writes results.json, report.md, report.html and figures.

    Args:
      config: nested plain dictionary with the fields of `Tiles`.
      workdir: run directory; an interrupted run begins anew.
      data_dir: TFDS directory, overrides the config's.
      progress: print a line for each set.

    Raises:
      ValueError: bad settings, a network without positions, more tiles than positions (before anything is written), or a directory that
        holds another run.
    """
    settings = settings_lib.from_dict(Tiles, config)
    if settings.smoke:  # programs of a few tiles compile fast
        settings = dataclasses.replace(settings, sizes=sorted({settings.sizes[0], settings.sizes[-1]}))
    base = settings_lib.Settings(settings.name, settings.data, _no_ensemble(settings.model), {}, seed=settings.seed, smoke=settings.smoke)
    info = sources.info(settings.data.name, **settings.data.options)
    if settings.mean:
        info = info._replace(mean=tuple(settings.mean), std=tuple(settings.std))
    model, variables = network(settings, info)
    side = grid(model, info, settings.first_class)
    if max(settings.sizes) > side:
        raise ValueError(f"sizes must be at most {side}, the network's positions along a side, got {settings.sizes}")
    sets = build.data(base, data_dir, train=False)
    if variables is None:
        variables = jax.jit(model.init)(jax.random.key(settings.seed), jnp.zeros((1, *info.input_shape)))
    description = record.open_run(workdir, config, {"run": settings.seed})
    look = functools.partial(stream, compiled(model, variables, augment.preprocess(info), settings.first_class), settings.batch_size)
    temperatures = {"one": 1.0}
    if "fitted" in settings.temperatures:
        own = look(own_logits, sets.test.inputs)
        temperatures["fitted"] = float(metrics.calibration.fit_temperature(own, sets.test.labels))
    shared = {name: tile_scores.labelled(sets.ood[name].labels) for name in settings.shared}
    functions = readers(settings, sets, shared)
    parts = []
    for kind in settings.temperatures:
        found = read_sets(settings, sets, look, functions, temperatures[kind], progress=progress)
        scored = tile_scores.score(found, sets.test.labels, settings.num_quantiles, settings.x_scale, shared)
        parts += [{"temperature": kind, "T": temperatures[kind], **part} for part in scored]
    return tile_study_report.finish(workdir, parts, config, record.for_report(description))


def _no_ensemble(model: settings_lib.Model) -> settings_lib.Ensemble:
    return settings_lib.Ensemble(1, settings_lib.Training(model))


def network(settings: Tiles, info: Info) -> tuple[Model, dict | None]:
    """The network and the weights of its file, None without one."""
    options = dict(settings.model.options) | {"positions": True}
    weights = options.pop("weights", "")
    if settings.smoke:
        options |= build.SMOKE_OPTIONS.get(settings.model.name, {})
    if weights and not settings.smoke:
        return vision.load(weights, settings.model.name, **options)
    return build.backbone(settings_lib.Model(settings.model.name, options))(info.num_classes + settings.first_class), None


def grid(model: Model, info: Info, first_class: int = 0) -> int:
    """Positions along a side of the network's square grid; ValueError where it has none, or other classes than the data."""
    example = jax.ShapeDtypeStruct((1, *info.input_shape), "float32")
    outputs = jax.eval_shape(lambda key, x: model.apply(model.init(key, x), x, train=False, rngs=None)[0], jax.random.key(0), example)
    if outputs.positions is None:
        raise ValueError("the network gives no logits at its positions: take a backbone with the option positions")
    if outputs.logits.shape[-1] != info.num_classes + first_class:
        raise ValueError(
            f"the network must have {info.num_classes} classes and {first_class} (first_class) before them, it has "
            f"{outputs.logits.shape[-1]} in all"
        )
    side = round(outputs.positions.shape[1] ** 0.5)
    if side * side != outputs.positions.shape[1]:
        raise ValueError(f"the network's positions must make a square, got {outputs.positions.shape[1]}")
    return side


def readers(settings: Tiles, sets: build.Sets, shared: dict[str, tile_scores.Labelled]) -> dict[str, Callable]:
    """set -> `tile_scores.read` for it, one function where sets are read alike; probabilities of the test set and of those in `shared`."""
    read = functools.partial(tile_scores.read, sizes=tuple(settings.sizes), weightings=tuple(settings.weightings))
    plain = functools.partial(read, classes=np.empty(0, int))
    labelled = {name: functools.partial(read, classes=each.classes) for name, each in shared.items()}
    return {TEST: read, **{name: labelled.get(name, plain) for name in sets.ood}}


def read_sets(
    settings: Tiles, sets: build.Sets, look: Callable, functions: dict[str, Callable], temperature: float, *, progress: bool
) -> dict:
    """set -> what its function of `readers` keeps of its images."""
    weights = {}
    if "global" in settings.weightings:
        sums = look(functools.partial(tile_scores.sums_of_logits, sizes=tuple(settings.sizes)), sets.test.inputs, temperature)
        weights = tile_scores.global_log_weights(sums)
    found = {}
    for name, inputs in {TEST: sets.test.inputs, **{name: split.inputs for name, split in sets.ood.items()}}.items():
        found[name] = look(functions[name], inputs, temperature, weights)
        if progress:
            print(f"temperature {temperature:.3g}, {name}: {len(inputs)} images", flush=True)
    return found


def compiled(model: Model, variables: dict, preprocess: Callable, first_class: int) -> Callable:
    """function -> the compiled program of a batch that applies it to the network's outputs and further arguments; one for each function."""

    @functools.cache
    def program(function):
        @jax.jit
        def batch(shared, variables, arguments, images):
            outputs, _ = bind(model, shared).apply(variables, preprocess(images), train=False, rngs=None)
            return function(tile_scores.without_background(outputs, first_class), *arguments)

        return lambda arguments, images: batch(model.shared, variables, arguments, images)

    return program


def stream(program: Callable, batch_size: int, function: Callable, inputs: np.ndarray, *arguments):
    """`function` of the network's outputs and `arguments` over all images, batch by batch; what it returns is all that is kept."""
    return predict.stream(functools.partial(program(function), arguments), inputs, batch_size, 0)


def own_logits(outputs):
    """The network's own logits."""
    return outputs.logits
