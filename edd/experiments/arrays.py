"""Distilling an ensemble that exists as arrays: inputs and its members' predictions, made in any framework."""

import dataclasses
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from edd.data import augment, sources
from edd.distillers.base import Prediction
from edd.experiments import build, distillation, predict, record, report, settings, stages, targets
from edd.experiments.predictions import Row

STUDENT = "student"
LABELLED = ("supervised", "mimo")  # methods without teachers
KINDS = ("logits", "log_probs", "probs")


class Student(NamedTuple):
    """A distilled network, ready to predict.

    Attributes:
      trained: the network as shipped, with its method; the replica axis holds its seeds.
      info: description of its inputs.
    """

    trained: predict.Trained
    info: sources.Info

    def predict(self, inputs, batch_size: int = 500, seed: int = 0) -> Prediction:
        """Predictions for inputs [N, *S], as numpy arrays.

        Args:
          inputs: as the training inputs: the same shape behind the first axis, the same scale.
          batch_size: inputs per step; bounds the memory.
          seed: which of the student's seeds, where several were trained.

        Returns:
          `Prediction` with log_probs [N, K] and measures [N] in nats.

        Raises:
          ValueError: inputs of another shape, bytes for floats or the reverse, or not finite; a seed that does not exist.
        """
        split = sources.arrays(inputs)
        if split.inputs.shape[1:] != tuple(self.info.input_shape):
            raise ValueError(f"inputs must be [N, {', '.join(map(str, self.info.input_shape))}], got shape {split.inputs.shape}")
        check_scale(split.inputs, self.info.dtype, "inputs")
        if not 0 <= seed < len(self.trained.alive):
            raise ValueError(f"seed must lie in [0, {len(self.trained.alive)}), got {seed}")
        one = jax.tree.map(lambda leaf: leaf[seed : seed + 1], self.trained[2:5])
        trained = self.trained._replace(variables=one[0], params=one[1], state=one[2])
        function = predict.first_replica_function(trained, augment.preprocess(self.info), jax.random.key(0))
        return predict.stream(function, split.inputs, batch_size, 0)


def check_scale(inputs: np.ndarray, trained_on, name: str) -> None:
    """ValueError if bytes meet floats: uint8 images are scaled to [0, 1] on their way into the network, floats are not."""
    kinds = [np.dtype(inputs.dtype) == np.uint8, np.dtype(trained_on) == np.uint8]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{name} must be {np.dtype(trained_on)} as the training inputs (only uint8 is scaled to [0, 1]), got {inputs.dtype}"
        )


def member_logits_of(members, kind: str = "logits", name: str = "member_logits") -> np.ndarray:
    """Checks members' predictions [M, N, K] and returns them as float32 logits.

    Args:
      members: [M, N, K], M >= 1, N >= 1, K >= 2.
      kind: "logits" (finite numbers), "log_probs" (exp sums to 1; -inf allowed) or "probs" (non-negative, sums to 1).
      name: for the error texts.

    Returns:
      [M, N, K] float32; probabilities become their logarithms, exact zeros -inf.

    Raises:
      ValueError: wrong shape, K = 1, M = 0, non-finite logits (naming member and example), unnormalised probabilities.

    Examples:
      >>> member_logits_of([[[0.5, 0.5]]], kind="probs").shape
      (1, 1, 2)
    """
    if kind not in KINDS:
        raise ValueError(settings.unknown_name("kind", kind, KINDS))
    try:
        members = np.asarray(members, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers [M, N, K]: {error}") from None
    if members.ndim != 3:
        raise ValueError(f"{name} must be [M, N, K] (members, examples, classes), got shape {members.shape}")
    if members.shape[0] < 1 or members.shape[1] < 1 or members.shape[2] < 2:
        raise ValueError(f"{name} must have at least 1 member, 1 example and 2 classes, got [M, N, K] = {list(members.shape)}")
    if kind == "probs":
        good = (members >= 0) & (members <= 1 + 1e-3)
    else:
        good = np.isfinite(members) if kind == "logits" else members < np.inf
    if not good.all():
        member, example, k = np.argwhere(~good)[0]
        raise ValueError(f"{name} must be valid {kind}, got {members[member, example, k]} at member {member}, example {example}, class {k}")
    if kind == "logits":
        return members.astype(np.float32)
    with np.errstate(divide="ignore"):
        logits = np.log(members) if kind == "probs" else members
    sums = np.exp(logits).sum(-1)
    bad = np.abs(sums - 1.0) > 1e-3
    if bad.any():
        member, example = np.argwhere(bad)[0]
        raise ValueError(f"{name} must sum to 1 over classes, got {sums[member, example]:.6g} at member {member}, example {example}")
    return logits.astype(np.float32)


def _matching(inputs, labels, logits: np.ndarray, method: str) -> sources.Split:
    split = sources.arrays(inputs, labels)
    if len(split.labels) != logits.shape[1]:
        raise ValueError(
            f"inputs and member_logits must have the same examples, got {len(split.labels)} inputs and {logits.shape[1]} predictions"
        )
    if labels is None and method in LABELLED:
        raise ValueError(f"method {method!r} trains on labels: give labels")
    return split


def distill(
    inputs,
    member_logits,
    *,
    method: str = "proxy",
    model: str = "mlp",
    kind: str = "logits",
    labels=None,
    method_options: dict | None = None,
    model_options: dict | None = None,
    epochs: float = 100.0,
    batch_size: int = 128,
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    schedule: str = "cosine",
    clip_norm: float | None = None,
    seeds: int = 1,
    seed: int = 0,
    workdir: str | pathlib.Path | None = None,
    progress: bool = False,
) -> Student:
    """Distils an ensemble given by its members' predictions into one network.

    Args:
      inputs: [N, *S]; uint8 images are scaled to [0, 1], floats are taken as they are.
      member_logits: [M, N, K], the members' predictions on `inputs`, of the given `kind`.
      method: a name in `build.METHODS`: "proxy" (default), "forward_proxy", "end", "end2", "supervised" and "mimo" (need labels).
      model: a name in `build.MODELS`: "mlp", "cnn", "wide_resnet", "cifar_resnet", "resnet", "mobilenet_v2", "maxvit".
      kind: "logits", "log_probs" or "probs".
      labels: integers [N] in [0, K), for methods that use them.
      method_options, model_options: passed to the method's and the model's `make`.
      epochs, batch_size, optimizer, learning_rate, schedule, clip_norm: of the training; batches are cut to N.
      seeds: how many students to train side by side.
      seed: of everything random.
      workdir: run directory: checkpoints, metrics, `run.json`; resumed if it holds the same run. None keeps nothing.
      progress: show a progress bar.

    Returns:
      A `Student`: `.predict(x)` gives a `Prediction`.

    Raises:
      ValueError: arrays that do not fit together or hold bad values, unknown names or options, a directory of another run.

    Examples:
      >>> rng = np.random.default_rng(0)
      >>> student = distill(rng.normal(size=(64, 2)), rng.normal(size=(5, 64, 3)), epochs=1, model_options={"widths": [8]})
      >>> student.predict(rng.normal(size=(4, 2))).log_probs.shape
      (4, 3)
    """
    logits = member_logits_of(member_logits, kind)
    for name, value, least in (("seed", seed, 0), ("seeds", seeds, 1), ("batch_size", batch_size, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    split = _matching(inputs, labels, logits, method)
    info = sources.describe(split, num_classes=logits.shape[-1])
    training = settings.Training(
        settings.Model(model, dict(model_options or {})),
        settings.Optimizer(optimizer, float(learning_rate), schedule, clip_norm=clip_norm),
        float(epochs),
        batch_size=min(batch_size, len(split.labels)),
    )
    spec = settings.Student(method, training, dict(method_options or {}), seeds)
    distiller = build.distiller(spec, len(logits), info.num_classes, len(split.labels) // training.batch_size)
    network = distiller.student(build.backbone(training.model))
    directory = None if workdir is None else pathlib.Path(workdir)
    if directory is not None:
        shapes = {"input_shape": list(info.input_shape), "dtype": info.dtype, "members": len(logits), "classes": info.num_classes}
        hashed = targets.fingerprint(split.inputs, split.labels, logits)
        seeds_used = {"run": seed, STUDENT: stages.stage_seed(seed, STUDENT)}
        record.open_run(directory, {"student": dataclasses.asdict(spec), "seed": seed, "arrays": hashed, **shapes}, seeds_used)
    arrays = split._asdict()
    if distiller.targets is not None:
        rows = np.ascontiguousarray(np.moveaxis(logits, 0, 1))
        function = jax.jit(lambda batch: distiller.targets(batch.swapaxes(0, 1)))
        arrays["targets"] = targets.compute(function, rows, batch_size=min(500, len(rows)))
    trained = stages.fit(
        STUDENT,
        training,
        network,
        distiller,
        arrays,
        augment.preprocess(info),
        num_replicas=seeds,
        seed=seed,
        workdir=directory,
        progress=progress,
    )
    return Student(predict.survivors(trained, "seeds of the student"), info)


def load_student(workdir: str | pathlib.Path) -> Student:
    """The student that `distill(..., workdir=...)` trained, read back from its run directory.

    Raises:
      ValueError: the directory holds no such run. OSError: its checkpoints cannot be read.
    """
    directory = pathlib.Path(workdir)
    values = record.read(directory)["settings"]
    if "student" not in values:
        raise ValueError(f"{directory} is not a run of `distill`: its run.json names no student")
    spec = settings.from_dict(settings.Student, values["student"])
    info = sources.Info("arrays", values["classes"], tuple(values["input_shape"]), dtype=values["dtype"], splits=())
    distiller = build.distiller(spec, values["members"], values["classes"], 1)
    network = distiller.student(build.backbone(spec.training.model))
    raw = jax.ShapeDtypeStruct((1, *info.input_shape), info.dtype)
    trained = stages.load(
        STUDENT, spec.training, network, distiller, raw, augment.preprocess(info), num_replicas=spec.seeds, workdir=directory
    )
    return Student(predict.survivors(trained, "seeds of the student"), info)


def report_fidelity(
    student: Student,
    inputs,
    member_logits,
    workdir: str | pathlib.Path,
    *,
    kind: str = "logits",
    labels=None,
    out_of_distribution: dict | None = None,
) -> dict:
    """Compares a student with its ensemble on test arrays and writes predictions, results.json and the report.

    Args:
      student: from `distill` or `load_student`.
      inputs: [N, *S] test inputs.
      member_logits: [M, N, K], the members' predictions there, of the given `kind`.
      workdir: run directory; its `run.json`, where there is one, goes into the report.
      kind: "logits", "log_probs" or "probs".
      labels: integers [N] in [0, K).
      out_of_distribution: name -> (inputs, member_logits) of further sets.

    Returns:
      The results, as in `results.json`.

    Raises:
      ValueError: arrays that do not fit together or hold bad values.
    """
    sets = {"test": (inputs, member_logits), **(out_of_distribution or {})}
    num_classes = student.info.num_classes
    shapes = {"input_shape": student.info.input_shape, "dtype": student.info.dtype, "num_classes": num_classes}
    logits = check_test(sets, labels, kind=kind, **shapes)
    rows = distillation.teacher_rows(logits, 500, range(len(logits["test"])))
    variables, params = jax.tree.map(lambda leaf: leaf[0], (student.trained.variables, student.trained.params))
    size = predict.num_parameters(variables, params) + predict.shared_parameters(student.trained.model, variables)
    function = predict.first_replica_function(student.trained, augment.preprocess(student.info), jax.random.key(0))
    time = predict.costs({STUDENT: function}, sources.arrays(inputs).inputs[:1000])[STUDENT]
    for position, number in enumerate(student.trained.seeds):
        found = {name: student.predict(values, seed=position) for name, (values, _) in sets.items()}
        rows.append(Row(STUDENT, int(number), found, size, time))
    known = (pathlib.Path(workdir) / "run.json").is_file()
    description = record.read(workdir) if known else record.describe({})
    labels = sources.arrays(inputs, labels).labels
    run = record.for_report(description)
    if "student" in description["settings"]:
        run["methods"] = {STUDENT: build.method_in_words(settings.from_dict(settings.Student, description["settings"]["student"]))}
    return report.finish(workdir, rows, labels, settings=description["settings"], run=run)


def check_test(sets: dict, labels, *, kind: str, input_shape: tuple[int, ...], num_classes: int, dtype="float32") -> dict[str, np.ndarray]:
    """Checks test arrays, so that a mistake in them is found before a student is trained; members' logits [M, N, K] of every set.

    Args:
      sets: name -> (inputs [N, *S], the members' predictions [M, N, K]); "test" among them.
      labels: integers [N] in [0, K) of "test".
      kind: as for `member_logits_of`.
      input_shape, num_classes, dtype: S, K and the inputs' type of what the student is trained on.

    Raises:
      ValueError: arrays that do not fit together or hold bad values, naming the set. TypeError: labels that are no integers.
    """
    logits = {name: member_logits_of(members, kind, f"member_logits of {name!r}") for name, (_, members) in sets.items()}
    for name, (values, _) in sets.items():
        split = sources.arrays(values, labels if name == "test" else None)
        if len(split.inputs) != logits[name].shape[1]:
            raise ValueError(f"set {name!r} has {len(split.inputs)} inputs but {logits[name].shape[1]} predictions")
        if split.inputs.shape[1:] != tuple(input_shape):
            raise ValueError(f"set {name!r} has inputs of shape {split.inputs.shape[1:]}, the training inputs have {tuple(input_shape)}")
        check_scale(split.inputs, dtype, f"inputs of set {name!r}")
        if logits[name].shape[2] != num_classes or len(logits[name]) != len(logits["test"]):
            wanted = f"[{len(logits['test'])}, N, {num_classes}]"
            raise ValueError(f"member_logits of {name!r} must be {wanted}, as the other sets' are, got {list(logits[name].shape)}")
        if name == "test" and (labels is None or split.labels.max() >= num_classes):
            raise ValueError(f"labels of 'test' must be given and lie in [0, {num_classes}), the largest is {split.labels.max()}")
    return logits
