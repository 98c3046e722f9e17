"""From names to functions: the tables of models and methods, and what settings need before a program can be built."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable

import numpy as np

from edd.data import sources, text
from edd.distillers import (
    batch_ensemble,
    dlf,
    dlf_logits,
    edfm,
    end,
    end2,
    gaussian,
    hydra,
    knowledge_distillation,
    members_logits,
    mimo,
    proxy,
    sequence,
    supervised,
)
from edd.distillers.base import Distiller
from edd.experiments import settings as settings_lib
from edd.models import (
    alexnet,
    batch_ensemble_mlp,
    bert,
    cifar_resnet,
    cnn,
    inception_v4,
    maxvit,
    mlp,
    mobilenet_v2,
    resnet,
    speech,
    transformer,
    wide_resnet,
)

MODELS = {
    "mlp": mlp.make,
    "cnn": cnn.make,
    "alexnet": alexnet.make,
    "wide_resnet": wide_resnet.make,
    "cifar_resnet": cifar_resnet.make,
    "resnet": resnet.make,
    "mobilenet_v2": mobilenet_v2.make,
    "maxvit": maxvit.make,
    "inception_v4": inception_v4.make,
    "batch_ensemble_mlp": batch_ensemble_mlp.make,
    "bert": bert.make,
    "bert_language_model": bert.make_language_model,
    "transformer": transformer.make,
    "speech": speech.make,
}

METHODS = {
    "supervised": supervised.make,
    "end": end.make,
    "knowledge_distillation": knowledge_distillation.make,
    "end2": end2.make,
    "proxy": proxy.make,
    "forward_proxy": functools.partial(proxy.make, direction="forward"),
    "dlf": dlf_logits.make,
    "hydra": members_logits.make_hydra,
    "batch_ensemble": members_logits.make_batch_ensemble,
    "edfm": edfm.make,
    "mimo": mimo.make,
}

REGRESSION_METHODS = {
    "dlf": dlf.make,
    "hydra": hydra.make,
    "batch_ensemble": batch_ensemble.make,
    "gaussian_moments": gaussian.make_moments,
}

SEQUENCE_METHODS = {
    "send": sequence.make_end,
    "send2": sequence.make_end2,
    "pd_send2": sequence.make_proxy,
}

TINY_BERT = {
    "vocab_size": 100,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 130,
}

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "relu_dropout": 0.0}

SMOKE_OPTIONS = {
    "mlp": {"widths": (8,)},
    "cnn": {"channels": (4, 8), "hidden": 16},
    "alexnet": {"channels": (4, 8), "hidden": (16, 8)},
    "wide_resnet": {"depth": 10, "widen": 1},
    "cifar_resnet": {"depth": 8},
    "resnet": {"blocks": (1, 1, 1, 1), "channels": 16},
    "mobilenet_v2": {"stages": ((1, 8, 1, 1), (6, 8, 1, 2)), "width": 0.5, "last": 16},
    "maxvit": {"image_size": 32, "channels": (8,), "depths": (1,), "stem": 8, "head_dim": 8},
    "inception_v4": {"blocks": (0, 0, 0), "width": 0.05},
    "bert": {"architecture": TINY_BERT, "weights": "", "rank": 2, "num_hidden_layers": 0},
    "bert_language_model": {"architecture": TINY_BERT},
    "transformer": {"size": "tiny", "width": 8, "num_layers": 1, "num_heads": 2, "hidden": 16, **NO_DROPOUT},
    "speech": {"size": "tiny", "width": 8, "num_layers": 1, "num_heads": 2, "hidden": 16, **NO_DROPOUT},
}


def lookup(table: dict, what: str, name: str) -> Callable:
    """The entry of a table; an unknown name raises ValueError listing the known ones."""
    if name not in table:
        raise ValueError(settings_lib.unknown_name(what, name, table))
    return table[name]


def bind(make: Callable, what: str, options: dict) -> Callable:
    """`make` with options bound, each of its annotated type.

    Raises:
      ValueError: naming the nearest for an option it does not take, the expected type for a value of another.
    """
    parameters = inspect.signature(make, eval_str=True).parameters
    known = {name: parameter.annotation for name, parameter in parameters.items() if parameter.default is not inspect.Parameter.empty}
    for option in options:
        if option not in known:
            raise ValueError(settings_lib.unknown_name(f"{what} option", option, known))
    try:
        return functools.partial(make, **{name: settings_lib.convert(known[name], value, name) for name, value in options.items()})
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def backbone(model: settings_lib.Model, axis_name: str | None = "data") -> Callable:
    """make_backbone: number of outputs -> Model, with BatchNorm statistics averaged over `axis_name` in training.

    Examples:
      >>> make_backbone = backbone(settings_lib.Model("mlp", {"widths": [8]}), axis_name=None)
      >>> type(make_backbone(3)).__name__
      'Model'
    """
    make = lookup(MODELS, "model", model.name)
    return functools.partial(bind(make, f"model {model.name!r}", model.options), axis_name=axis_name)


def distiller(
    student: settings_lib.Student, num_members: int, num_classes: int, steps_per_epoch: int, table: dict | None = None
) -> Distiller:
    """The method of a student, from `METHODS` or another table; `hold_epochs` and `decay_epochs` among its options become steps.

    Raises:
      ValueError: for an unknown method or option, or a value out of the method's range.
    """
    options = dict(student.options)
    for phase in ("hold", "decay"):
        if f"{phase}_epochs" in options:
            options[f"{phase}_steps"] = round(options.pop(f"{phase}_epochs") * steps_per_epoch)
    make = lookup(METHODS if table is None else table, "method", student.method)
    return bind(make, f"method {student.method!r}", options)(num_members, num_classes)


def regression_distiller(student: settings_lib.Student, num_members: int) -> Distiller:
    """The regression method of a student; errors as `distiller`."""
    make = lookup(REGRESSION_METHODS, "method", student.method)
    return bind(make, f"method {student.method!r}", student.options)(num_members)


def method_in_words(student: settings_lib.Student) -> str:
    """A student's method with every option in force, the defaults that its settings leave out included.

    Examples:
      >>> method_in_words(settings_lib.Student("end", settings_lib.Training(settings_lib.Model("mlp"))))
      'end: temperature=1.0'
    """
    parameters = inspect.signature(lookup(METHODS, "method", student.method)).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return f"{student.method}: " + ", ".join(f"{name}={value}" for name, value in {**defaults, **student.options}.items())


def num_steps(training: settings_lib.Training, steps_per_epoch: int) -> int:
    """Steps of a training program, at least 1."""
    steps = max(1, math.ceil(training.epochs * steps_per_epoch))
    return min(steps, training.max_steps) if training.max_steps else steps


@dataclasses.dataclass(frozen=True)
class Sets:
    """A run's data: what it trains on, what it is tested on, and the out-of-distribution sets' inputs."""

    info: sources.Info
    train: sources.Split
    validation: sources.Split | None
    test: sources.Split
    ood: dict[str, sources.Split]


def data(settings: settings_lib.Settings, data_dir: str | None = None, *, train: bool = True) -> Sets:
    """Loads every set of a run (seeded arrays of the same shapes in a smoke run); `data_dir` overrides the settings'.

    Without `train` the training split is not read (some sets have none) and holds no example.

    Raises:
      ValueError: if an out-of-distribution set's inputs have another shape than the training inputs.
    """
    spec = settings.data
    info = sources.info(spec.name, **spec.options)
    if settings.smoke:
        splits = {name: sources.smoke(info, 40, seed) for seed, name in enumerate(("train", "test", *spec.ood))}
    else:
        load = functools.partial(sources.load, data_dir=data_dir or spec.data_dir)
        splits = {"test": _first(load(spec.name, spec.test_split, **spec.options), spec.num_test)}
        if train:
            splits["train"] = _first(load(spec.name, spec.train_split, **spec.options), spec.num_train)
        for name, options in spec.ood.items():
            options = dict(options)
            source, split = options.pop("source", name), options.pop("split", "test")
            if spec.name in text.TASKS:  # the same words as in training
                options = {**spec.options, "tokenizer": spec.options.get("tokenizer") or spec.name, **options}
            splits[name] = _first(load(source, split, **options), spec.num_ood)
    for name in spec.ood:
        if splits[name].inputs.shape[1:] != splits["test"].inputs.shape[1:]:
            raise ValueError(
                f"out-of-distribution set {name!r} has inputs of shape {splits[name].inputs.shape[1:]}, "
                f"but {spec.name!r} has {splits['test'].inputs.shape[1:]}: they must be equal"
            )
    kept = splits["train"] if train else sources.Split(splits["test"].inputs[:0], splits["test"].labels[:0])
    kept, validation = _hold_out(kept, spec.validation if train else 0.0, settings.seed)
    return Sets(info, kept, validation, splits["test"], {name: splits[name] for name in spec.ood})


def _first(split: sources.Split, count: int) -> sources.Split:
    return sources.Split(split.inputs[:count], split.labels[:count]) if count else split


def _hold_out(split: sources.Split, fraction: float, seed: int) -> tuple[sources.Split, sources.Split | None]:
    if not fraction:
        return split, None
    order = np.random.default_rng([seed, 1]).permutation(len(split.labels))
    count = max(1, round(fraction * len(order)))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    return tuple(sources.Split(split.inputs.take(rows, axis=0), split.labels[rows]) for rows in (kept, held))


def shrink(settings: settings_lib.Settings) -> settings_lib.Settings:
    """The smoke version of a run: two members, one seed, two steps, tiny backbones, few resamples; the structure stays.

    Examples:
      >>> training = settings_lib.Training(settings_lib.Model("mlp"), epochs=50.0)
      >>> full = settings_lib.Settings("toy", settings_lib.Data("digits"), settings_lib.Ensemble(10, training), {})
      >>> shrink(full).ensemble.num_members, shrink(full).ensemble.training.max_steps
      (2, 2)
    """

    def small(training):
        options = {**training.model.options, **SMOKE_OPTIONS.get(training.model.name, {})}
        model = dataclasses.replace(training.model, options=options)
        batch_size = min(training.batch_size, 8)
        return dataclasses.replace(training, model=model, batch_size=batch_size, epochs=1.0, max_steps=2, strategy="vmap", keep="last")

    students = {
        name: dataclasses.replace(student, seeds=1, training=small(student.training)) for name, student in settings.students.items()
    }

    def few(ensemble):
        return dataclasses.replace(ensemble, num_members=min(ensemble.num_members, 2), training=small(ensemble.training))

    baselines = {name: few(baseline) for name, baseline in settings.baselines.items()}
    heat_map_points = min(settings.evaluation.heat_map_points, 16)
    evaluation = dataclasses.replace(settings.evaluation, num_resamples=10, heat_map_points=heat_map_points)
    spec = dataclasses.replace(settings.data, validation=0.0)
    body = None if settings.body is None else dataclasses.replace(settings.body, training=small(settings.body.training), copies=1)
    changes = {"students": students, "baselines": baselines, "evaluation": evaluation, "body": body}
    return dataclasses.replace(settings, data=spec, ensemble=few(settings.ensemble), **changes, smoke=True)
