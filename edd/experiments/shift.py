"""Distribution shift: classes are renamed, a student's body is frozen, and a head on it learns the new names from few labels.

Class y becomes K - 1 - y. Labels are those of the first half of the test set, which no body has seen; scores are those on the other.
"""

import dataclasses
import functools
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd.data import augment
from edd.ensembles import members, subsets
from edd.experiments import build, distillation, predict, record, shift_report, stages
from edd.experiments import settings as settings_lib
from edd.metrics import classification
from edd.models import latent_head, mlp
from edd.models.base import Model


@dataclasses.dataclass(frozen=True)
class Shift:
    """A study of frozen bodies under renamed classes.

    Attributes:
      name: of the run.
      base: data, teachers and students; each student (first seed) is a body. Without targets ("supervised") it is a plain network.
      counts: numbers of new labels.
      num_subsets: draws of the labels.
      head: how every head is trained, its model aside.
      seed: root of everything random.
      smoke: two steps on invented data.
    """

    name: str
    base: settings_lib.Settings
    counts: list
    head: settings_lib.Training
    num_subsets: int = 5
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        if not self.counts or min(self.counts) < 1 or self.num_subsets < 1:
            raise ValueError(f"counts must be >= 1 and num_subsets too, got {self.counts} and {self.num_subsets}")


class Head(NamedTuple):
    """A head to train: its model, and its inputs for the labelled pool and for the test half."""

    model: Model
    pool: np.ndarray
    test: np.ndarray


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Trains teachers and bodies (resumable), then every head at every number of labels; writes results.json, report and a figure.

    Args:
      config: nested plain dictionary with the fields of `Shift`.
      workdir: run directory.
      data_dir: TFDS directory, overrides the config's.
      progress: show progress bars.

    Raises:
      ValueError: bad settings (before anything is written), more labels than half the test set, or a directory that holds another run.
    """
    settings = settings_lib.from_dict(Shift, config)
    base = dataclasses.replace(settings.base, seed=settings.seed, smoke=settings.smoke)
    if settings.smoke:
        base = build.shrink(base)
        head = dataclasses.replace(settings.head, max_steps=2, batch_size=4)
        settings = dataclasses.replace(settings, counts=[4, 8], num_subsets=2, head=head)
    if base.body is not None or base.baselines:
        raise ValueError("base must have no body and no baselines: this study trains teachers and students alone")
    if settings.head.keep != "last" or settings.head.augment != "none":
        raise ValueError(f"head must keep the last weights and augment nothing, got {settings.head.keep!r} and {settings.head.augment!r}")
    stages.make_optimizer(settings.head, 10**6, 10**3)
    sets = distillation.ready(base, data_dir=data_dir)
    half = len(sets.test.labels) // 2
    if max(settings.counts) > half:
        raise ValueError(f"counts must be at most {half}, half the test examples, got {max(settings.counts)}")
    description = record.open_run(workdir, config, {"run": settings.seed})
    teacher = stages.pretrain(base, sets, workdir, progress=progress)
    parts = []
    for name, student in base.students.items():
        trained = stages.distil(name, student, teacher, base, sets, workdir, progress=progress)
        trained = predict.survivors(trained, f"seeds of student {name!r}")
        for label, head in heads(trained, sets, base).items():
            make = functools.partial(one_part, settings, f"{name}: {label}", head, sets)
            parts.append(record.finished(workdir / "parts" / f"{name}-{label}.json", make))
    return shift_report.finish(workdir, parts, config, record.for_report(description))


def heads(trained: predict.Trained, sets: build.Sets, base: settings_lib.Settings) -> dict[str, Head]:
    """The heads that a body can carry: linear ones on its activations and on its outputs, and the latent of a latent factor student."""
    preprocess, num_classes = augment.preprocess(sets.info), sets.info.num_classes
    first = jax.device_put(jax.tree.map(lambda leaf: leaf[0], trained.variables))

    @jax.jit
    def body(variables, inputs):
        outputs, _ = trained.model.apply(variables, preprocess(inputs), train=False, rngs=None)
        return outputs.penultimate, outputs.logits

    found = predict.stream(functools.partial(body, first), sets.test.inputs, base.evaluation.batch_size, 0)
    half = len(sets.test.labels) // 2
    linear = mlp.make(num_classes, widths=())
    carried = {label: Head(linear, each[:half], each[half:]) for label, each in zip(("activations", "outputs"), found)}
    params = jax.tree.map(lambda leaf: leaf[0], trained.params)
    if "class_factor" in params:
        latent = latent_head.make(jnp.tril(jnp.asarray(params["class_factor"])))
        carried["latent"] = carried["outputs"]._replace(model=latent)
    return carried


def one_part(settings: Shift, row: str, head: Head, sets: build.Sets) -> dict:
    """Scores of one head after every number of labels, one value for each draw of the labels."""
    began, num_classes = time.perf_counter(), sets.info.num_classes
    labels = num_classes - 1 - sets.test.labels
    half, scores = len(head.pool), {}
    supervised = build.METHODS["supervised"](0, num_classes)
    arrays = {"inputs": head.pool, "labels": labels[:half]}
    for count in settings.counts:
        chosen = subsets.overlapping(half, settings.num_subsets, fraction=count / half, common=0.0, seed=settings.seed)
        training = dataclasses.replace(settings.head, batch_size=min(settings.head.batch_size, chosen.shape[1]))
        trained = stages.fit(
            f"{row}, {count}",
            training,
            head.model,
            supervised,
            arrays,
            lambda x: x,
            num_replicas=settings.num_subsets,
            seed=settings.seed,
            subsets=chosen,
            progress=False,
        )
        logits = members.apply(head.model, jax.device_put(trained.variables), jnp.asarray(head.test)).logits
        log_probs = jax.nn.log_softmax(logits)
        each = [(classification.accuracy(jnp.exp(p), labels[half:]), classification.nll(p, labels[half:])) for p in log_probs]
        scores[str(count)] = {"accuracy": [float(a) for a, _ in each], "nll": [float(n) for _, n in each]}
    weights = predict.num_parameters(jax.tree.map(lambda leaf: leaf[0], trained.variables))
    return {"row": row, "scores": scores, "weights": weights, "seconds": time.perf_counter() - began}
