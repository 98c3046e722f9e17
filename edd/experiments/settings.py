"""Settings of a run: frozen dataclasses with range checks, parsed once from a config's plain dictionary.

`from_dict(Settings, config.to_dict())` turns nested dictionaries into these classes. An unknown key raises ValueError
naming the nearest known one; a value of the wrong type or range names its full path.
"""

import dataclasses
import difflib
import math
import types
import typing
from typing import Any

POLICIES = ("stop", "freeze")
TARGETS = ("cache", "online")
STARTS = ("random", "member")
KEEP = ("last", "best")
SHARDINGS = ("replicated", "full")


def _check(condition: bool, field: str, value: Any, expected: str) -> None:
    if not condition:
        raise ValueError(f"{field} must be {expected}, got {value!r}")


@dataclasses.dataclass(frozen=True)
class Data:
    """What to train and to test on.

    Attributes:
      name: a name known to `edd.data.sources`.
      options: passed to the source (for spirals: arms, noise, points_per_arm, scale, ...).
      data_dir: TFDS directory; None reads TFDS_DATA_DIR or TFDS's default.
      train_split, test_split: split names of the source.
      ood: out-of-distribution sets, name -> options.
      num_train, num_test, num_ood: the first so many examples; 0 takes all.
      validation: fraction of the training examples held out for keep-best, in [0, 0.5].
    """

    name: str
    options: dict = dataclasses.field(default_factory=dict)
    data_dir: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    ood: dict = dataclasses.field(default_factory=dict)
    num_train: int = 0
    num_test: int = 0
    num_ood: int = 0
    validation: float = 0.0

    def __post_init__(self):
        _check(0.0 <= self.validation <= 0.5, "data.validation", self.validation, "in [0, 0.5]")
        for field in ("num_train", "num_test", "num_ood"):
            _check(getattr(self, field) >= 0, f"data.{field}", getattr(self, field), ">= 0 (0 takes all)")


@dataclasses.dataclass(frozen=True)
class Model:
    """A backbone by name and its options (see `build.MODELS`)."""

    name: str
    options: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Optimiser and schedule by name; further `options` go to `edd.training.optimizers.make`."""

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    options: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check(0 < self.learning_rate < math.inf, "optimizer.learning_rate", self.learning_rate, "above 0 and finite")
        _check(self.warmup_epochs >= 0, "optimizer.warmup_epochs", self.warmup_epochs, ">= 0")
        _check(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, ">= 0")
        _check(self.clip_norm is None or self.clip_norm > 0, "optimizer.clip_norm", self.clip_norm, "above 0 or None")


@dataclasses.dataclass(frozen=True)
class Training:
    """One training program: how long, on what batches, and what to do when a loss is not finite.

    Attributes:
      epochs: passes over the training examples, > 0; `max_steps` (0: no limit) cuts them short.
      augment: a name known to `edd.data.augment`, "none" by default; `augment_padding` is the largest shift of "crop", in pixels.
      ema_decay: decay of the exponential moving average used at evaluation, in (0, 1), or None.
      on_nonfinite: "freeze" keeps a diverged replica at its last finite state and goes on, "stop" raises.
      checkpoint_every: steps between checkpoints; 0 saves only at the end.
      keep: which checkpoint is shipped: the "last", or the "best" by validation loss (needs data.validation).
      strategy: how replicas run on one device: "auto", "vmap", "lockstep", "unroll" or "scan" (`ensembles.members`).
      sharding: "replicated": each device holds its replicas whole; "full": one large network's weights, gradients and optimiser state
        are spread over the devices (`training.sharded`).
    """

    model: Model
    optimizer: Optimizer = Optimizer()
    epochs: float = 1.0
    max_steps: int = 0
    batch_size: int = 128
    augment: str = "none"
    augment_padding: int = 4
    ema_decay: float | None = None
    on_nonfinite: str = "freeze"
    checkpoint_every: int = 0
    keep: str = "last"
    strategy: str = "auto"
    sharding: str = "replicated"

    def __post_init__(self):
        _check(0 < self.epochs < math.inf, "epochs", self.epochs, "above 0 and finite")
        _check(self.max_steps >= 0, "max_steps", self.max_steps, ">= 0 (0: no limit)")
        _check(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _check(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay", self.ema_decay, "in (0, 1) or None")
        _check(self.on_nonfinite in POLICIES, "on_nonfinite", self.on_nonfinite, f"one of {POLICIES}")
        _check(self.checkpoint_every >= 0, "checkpoint_every", self.checkpoint_every, ">= 0")
        _check(self.keep in KEEP, "keep", self.keep, f"one of {KEEP}")
        _check(self.sharding in SHARDINGS, "sharding", self.sharding, f"one of {SHARDINGS}")


@dataclasses.dataclass(frozen=True)
class Body:
    """A language model pre-trained on masked tokens of the training text, on which the run's encoders then stand.

    Attributes:
      training: its training program; the model is a "bert_language_model".
      copies: masked copies of each training example, >= 1.
      fraction: of an example's words that are masked, in (0, 1).
    """

    training: Training
    copies: int = 4
    fraction: float = 0.15

    def __post_init__(self):
        _check(self.copies >= 1, "body.copies", self.copies, "at least 1")
        _check(0.0 < self.fraction < 1.0, "body.fraction", self.fraction, "in (0, 1)")


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The teachers, or a baseline: members trained on labels.

    Attributes:
      num_members: M.
      training: of the network, or of each of the networks.
      smoothing: of the labels, in [0, 1].
      source: "deep": M networks with their own keys and data orders. Of tables also "mc_dropout": M masks of one network, and "langevin":
        snapshots along chains of stochastic gradient Langevin dynamics (`teachers.SOURCES`).
      options: of the source.
    """

    num_members: int
    training: Training
    smoothing: float = 0.0
    source: str = "deep"
    options: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check(self.num_members >= 1, "ensemble.num_members", self.num_members, "at least 1")
        _check(0.0 <= self.smoothing <= 1.0, "ensemble.smoothing", self.smoothing, "in [0, 1]")


@dataclasses.dataclass(frozen=True)
class Student:
    """One distilled network.

    Attributes:
      method: a name known to `build.METHODS`.
      options: passed to the method's `make`; `hold_epochs` and `decay_epochs` become steps.
      seeds: how many students are trained side by side, each with its own key and data order.
      targets: "cache" evaluates the teachers once, "online" in every step (needed for augmented inputs).
      start: "random" initial weights, or those of the first living "member" of the ensemble (same network), which saves training.
    """

    method: str
    training: Training
    options: dict = dataclasses.field(default_factory=dict)
    seeds: int = 1
    targets: str = "cache"
    start: str = "random"

    def __post_init__(self):
        _check(self.seeds >= 1, "seeds", self.seeds, "at least 1")
        _check(self.start in STARTS, "start", self.start, f"one of {STARTS}")
        _check(self.targets in TARGETS, "targets", self.targets, f"one of {TARGETS}")
        if self.targets == "cache" and self.training.augment != "none":
            raise ValueError(
                f"targets='cache' stores one target per clean input, but augment={self.training.augment!r} changes the inputs; "
                "use targets='online', or augment='none'"
            )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How predictions are made and scored.

    Attributes:
      batch_size: inputs per prediction batch; memory is bounded by it.
      num_bins: calibration bins.
      num_resamples: bootstrap resamples; 0 leaves the intervals out.
      timed_examples: test examples whose prediction is timed, at most; 0 leaves the timing out.
      heat_map: half-width of the square of inputs drawn as uncertainty maps (2-D data only); 0 for none.
      heat_map_points: points per side of that square.
      reference: the paper's numbers, row -> {metric: value}, printed beside ours.
    """

    batch_size: int = 500
    num_bins: int = 15
    num_resamples: int = 200
    timed_examples: int = 1000
    heat_map: float = 0.0
    heat_map_points: int = 200
    reference: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "at least 1")
        _check(self.num_bins >= 1, "evaluation.num_bins", self.num_bins, "at least 1")
        _check(self.num_resamples >= 0, "evaluation.num_resamples", self.num_resamples, ">= 0")
        _check(self.timed_examples >= 0, "evaluation.timed_examples", self.timed_examples, ">= 0")
        _check(self.heat_map >= 0, "evaluation.heat_map", self.heat_map, ">= 0")
        _check(self.heat_map_points >= 2, "evaluation.heat_map_points", self.heat_map_points, "at least 2")


@dataclasses.dataclass(frozen=True)
class Settings:
    """One distillation run.

    Attributes:
      name: of the run.
      data: what to train and to test on.
      ensemble: the teachers.
      students: row name -> distilled network; a method that needs no teachers (supervised, MIMO) is a baseline of one network.
      baselines: row name -> ensemble trained on labels without teachers (small networks of a student's total size, say).
      evaluation: how predictions are made and scored.
      body: a language model pre-trained first, for encoders that name no weights; None: there is none.
      seed: root of everything random.
      smoke: two steps on seeded arrays.
    """

    name: str
    data: Data
    ensemble: Ensemble
    students: dict[str, Student]
    baselines: dict[str, Ensemble] = dataclasses.field(default_factory=dict)
    evaluation: Evaluation = Evaluation()
    body: Body | None = None
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        _check(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")
        for each in (self.ensemble, *self.baselines.values()):
            _check(each.source == "deep", "ensemble.source", each.source, "'deep' (other sources: tables, or saved arrays)")
        check_starts(self.students, self.ensemble.training.model)


def check_smoothings(smoothings: list[float]) -> None:
    """Raises ValueError unless there is at least one, all differ and lie in [0, 1]."""
    if not smoothings or len(set(smoothings)) < len(smoothings):
        raise ValueError(f"smoothings must differ and be at least one, got {smoothings}")
    for each in smoothings:
        if not 0 <= each <= 1:
            raise ValueError(f"smoothings must lie in [0, 1], got {each}")


def check_starts(students: dict[str, Student], network: Model | None) -> None:
    """Raises ValueError for a student that begins from a member but has other weights than the teachers' network (None: none can)."""
    weights = lambda model: (model.name, {key: value for key, value in model.options.items() if not key.endswith("dropout")})  # noqa: E731
    for name, student in students.items():
        if student.start == "member" and (network is None or weights(student.training.model) != weights(network)):
            own = "its training.model is not the teachers'" if network else "no student can begin from a member here"
            raise ValueError(f"students.{name}.start must be 'random' ({own}), got 'member'")


def from_dict(cls: type, values: dict, path: str = "") -> Any:
    """Builds a settings class from nested plain dictionaries.

    Args:
      cls: one of this module's dataclasses.
      values: keys are its field names; lists may stand for tuples, integers for floats.
      path: where `values` stands in the whole config, for the error texts.

    Returns:
      The frozen dataclass.

    Raises:
      ValueError: for an unknown key (naming the nearest), a missing one, or a value of the wrong type or range.

    Examples:
      >>> from_dict(Model, {"name": "mlp", "options": {"widths": [64]}})
      Model(name='mlp', options={'widths': [64]})
      >>> from_dict(Model, {"nam": "mlp"})
      Traceback (most recent call last):
        ...
      ValueError: unknown config key 'nam': did you mean 'name'? known: name, options
    """
    where = path.rstrip(".")
    if not isinstance(values, dict):
        raise ValueError(f"config key '{where}' must hold a mapping with the fields of {cls.__name__}, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise ValueError(unknown_name("config key", f"{path}{key}", [f"{path}{name}" for name in fields]))
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING and name not in values
    ]
    if required:
        raise ValueError(f"config key '{path}{required[0]}' is missing: it has no default")
    converted = {key: convert(hints[key], value, f"{path}{key}") for key, value in values.items()}
    try:
        return cls(**converted)
    except ValueError as error:
        raise ValueError(f"config section '{where or 'top level'}': {error}") from None


def unknown_name(what: str, name: str, known) -> str:
    """The text of every unknown-name error: the nearest known name first, then all of them.

    Examples:
      >>> unknown_name("method", "poxy", ["end", "proxy"])
      "unknown method 'poxy': did you mean 'proxy'? known: end, proxy"
    """
    near = difflib.get_close_matches(name, known, 1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}:{hint} known: {', '.join(known)}"


def convert(hint: Any, value: Any, path: str) -> Any:
    """`value` of a config as a type hint asks (lists may become tuples, integers floats); ValueError names `path` where it cannot be.

    Examples:
      >>> convert(tuple[float, ...] | None, [1, 0.5], "prior")
      (1.0, 0.5)
    """
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, path + ".")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, path)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"config key '{path}' must be a mapping, got {value!r}")
        return {key: convert(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(f"config key '{path}' must be a list, got {value!r}")
        hints = [arguments[0]] * len(value) if origin is list or arguments[1:] == (...,) else arguments
        if len(hints) != len(value):
            raise ValueError(f"config key '{path}' must have {len(hints)} elements, got {value!r}")
        return origin(convert(each, item, f"{path}[{index}]") for index, (each, item) in enumerate(zip(hints, value)))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, dict, bool) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ValueError(f"config key '{path}' must be {hint.__name__}, got {value!r}")
    return value


def _convert_union(hints: tuple, value: Any, path: str) -> Any:
    """As the first of `hints` that takes `value`; where none does, the error of the last."""
    if value is None and type(None) in hints:
        return None
    *others, last = (hint for hint in hints if hint is not type(None))
    for hint in others:
        try:
            return convert(hint, value, path)
        except ValueError:
            pass
    return convert(last, value, path)


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Paths at which two nested dictionaries differ, with both values.

    Examples:
      >>> differences({"a": {"b": 1}}, {"a": {"b": 2}})
      ['a.b: 1 != 2']
    """
    if isinstance(first, dict) and isinstance(second, dict):
        missing = "(absent)"
        keys = sorted(set(first) | set(second))
        return [
            line for key in keys for line in differences(first.get(key, missing), second.get(key, missing), f"{path}.{key}".lstrip("."))
        ]
    return [] if first == second else [f"{path}: {first!r} != {second!r}"]
