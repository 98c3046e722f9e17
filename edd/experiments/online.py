"""A distilled student goes on learning: new labels move its latent in closed form, beside teachers weighted anew and networks trained anew.

The labels come from rows that neither the teachers nor the student has seen. The student's functions are mean(x) + loading(x)^T z with
z ~ N(0, I), and a label adds its noise, so that z stays Gaussian: O(q^2) for each label, in any order, one by one or together.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from edd.data import tabular
from edd.distillers import dlf
from edd.distillers.regression import PredictiveMixture, mean_and_variance
from edd.distributions import latent_factor_online
from edd.ensembles import members as ensembles
from edd.experiments import build, design, online_report, predict, record, regression, stages
from edd.experiments import settings as settings_lib
from edd.experiments.regression_settings import Regression, Tables

COMPONENTS = 400  # of the equal-weight mixture that stands for weighted teachers
BATCH = 10  # labels at once, where they come in batches


@dataclasses.dataclass(frozen=True)
class Online:
    """An online study; one part for each set and split.

    Attributes:
      name: of the run.
      data: tables and splits; `teacher_fraction` leaves the rows whose labels come later.
      ensemble: the teachers.
      student: a latent factor student ("dlf").
      counts: numbers of new labels after which everything is scored, from 0; those beyond the rows left are cut to all of them.
      refit_counts: of these, where the ensemble is trained anew on old and new rows together.
      seed: root of everything random.
      smoke: two steps on an invented table.
    """

    name: str
    data: Tables
    ensemble: settings_lib.Ensemble
    student: settings_lib.Student
    counts: list
    refit_counts: list = dataclasses.field(default_factory=list)
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        if not self.counts or min(self.counts) < 0 or not set(self.refit_counts) <= set(self.counts):
            raise ValueError(f"counts must be >= 0 and hold all refit_counts, got {self.counts} and {self.refit_counts}")
        if self.student.method != "dlf":
            raise ValueError(f"student.method must be 'dlf', the law with a latent to update, got {self.student.method!r}")
        if self.data.teacher_fraction in (None, 1):
            raise ValueError(f"data.teacher_fraction must be given and below 1: later labels need rows, got {self.data.teacher_fraction}")

        if self.data.design.endswith("new") or self.data.member_fraction != 1:
            raise ValueError(
                "data.design must be 'train' or 'mixup_train' and data.member_fraction 1: the rows left over are the labels that come "
                f"later, which the student must not have seen; got {self.data.design!r} and {self.data.member_fraction}"
            )

    def as_regression(self) -> Regression:
        """The regression study it starts from."""
        return Regression(self.name, self.data, self.ensemble, {"DLF": self.student}, seed=self.seed, smoke=self.smoke)


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Runs every set and split that has no finished part yet, then writes results.json, report.md, report.html and figures.

    Args and Raises as `regression.run`; the config holds the fields of `Online`.
    """
    settings = settings_lib.from_dict(Online, config)
    study = settings.as_regression()
    if settings.smoke:
        study = regression.shrink(study)
        counts = settings.counts[:3]
        changes = {"data": study.data, "ensemble": study.ensemble, "student": study.students["DLF"]}
        settings = dataclasses.replace(settings, counts=counts, refit_counts=counts[-1:], **changes)
    regression.check(study)
    tables = {(name, split): regression.load(study, name, split, data_dir) for name in study.data.sets for split in study.data.splits}
    regression.check_design(study, tables)
    description = record.open_run(workdir, config, {"run": settings.seed})
    parts = []
    for (name, split), (train, test) in tables.items():
        label, began = pathlib.Path(name).stem, time.perf_counter()
        make = functools.partial(one_part, settings, label, split, train, test)
        parts.append(record.finished(workdir / "parts" / f"{label}-{split}.json", make))
        if progress:
            print(f"{label}, split {split}: {time.perf_counter() - began:.0f} s", flush=True)
    return online_report.finish(workdir, parts, config, record.for_report(description))


def one_part(settings: Online, label: str, split: int, train: tabular.Table, test: tabular.Table) -> dict:
    """Scores of every row after every number of labels on one split."""
    seed = stages.stage_seed(settings.seed, f"{label}-{split}")
    dealt = design.deal(settings.data, train, settings.ensemble.num_members, seed)
    inputs, labels = tabular.scale(dealt.spare, dealt.scaling)
    order = np.random.default_rng([seed, 5]).permutation(len(labels))
    inputs, labels = inputs[order], labels[order]
    at = tabular.scale(test, dealt.scaling)[0]
    counts = sorted({min(count, len(labels)) for count in settings.counts})
    refits = sorted({min(count, len(labels)) for count in settings.refit_counts})
    score = functools.partial(regression.scores, test=test, scaling=dealt.scaling)

    arrays = {"inputs": dealt.inputs, "labels": dealt.labels}
    teacher, _ = regression.train_members(settings.ensemble, "teacher", arrays, seed, dealt.members)
    outputs = _outputs(teacher, np.concatenate([inputs, at]))
    distiller = build.regression_distiller(settings.student, len(outputs))
    seen = _outputs(teacher, dealt.points)
    _, _, trained = regression.distil("DLF", dataclasses.replace(settings.student, seeds=1), distiller, dealt.points, seen, at, seed)
    student = student_law(trained, inputs, seed), student_law(trained, at, seed)

    rows: dict = {"DLF, latent updated": {}, "Teachers, weighted anew": {}, "Ensemble, trained anew": {}}
    members = outputs[:, : len(labels)], outputs[:, len(labels) :]
    mixtures, spent = timed(lambda: dict(updated(*student, labels, counts)))
    rows["DLF, latent updated"] = {str(count): score(mixture) for count, mixture in mixtures.items()}
    seconds = {"DLF, latent updated": spent / len(counts)}
    for count in counts:
        mixture, effective = reweighted(members[0][:, :count], labels[:count], members[1])
        rows["Teachers, weighted anew"][str(count)] = score(mixture) | {"effective": effective}
    for count in refits:
        both = {"inputs": np.concatenate([dealt.inputs, inputs[:count]]), "labels": np.concatenate([dealt.labels, labels[:count]])}
        again, seconds["Ensemble, trained anew"] = regression.train_members(settings.ensemble, "again", both, seed)
        found = _outputs(again, at)
        rows["Ensemble, trained anew"][str(count)] = score(PredictiveMixture(found[..., 0], found[..., 1]))
    facts = {"num_train": len(dealt.labels), "num_new": len(labels), "num_test": len(at)}
    return {"set": label, "split": split, "rows": rows, "order": disagreement(student[0], labels), "seconds": seconds, **facts}


class Law(tuple):
    """(mean [n], loading [n, q], noise variance [n]) of a student at n inputs, float64."""


def student_law(trained: predict.Trained, inputs: np.ndarray, seed: int) -> Law:
    """What the first seed of a latent factor student says at `inputs`; the noise is the mean of its law over draws."""
    key = jax.random.key(stages.stage_seed(seed, "predict"))
    mixture = jax.device_get(predict.replica_function(trained, lambda x: x, key)(inputs))
    raw = ensembles.apply(trained.model, trained.variables, inputs)
    mean, loading = (np.asarray(each[0], np.float64) for each in dlf.function_law(raw, trained.state))
    return Law((mean, loading, np.asarray(mixture.variances[0], np.float64).mean(0)))


def updated(stream: Law, test: Law, labels: np.ndarray, counts: list[int]):
    """(count, mixture of one Gaussian at the test inputs) after each number of labels, added from one count to the next."""
    with jax.enable_x64(True):
        belief, done = latent_factor_online.prior(stream[1].shape[1]), 0
        for count in counts:
            belief, done = observe(belief, stream, labels, done, count), count
            mean, spread = latent_factor_online.predict(belief, test[0], test[1])
            yield count, PredictiveMixture(np.asarray(mean)[None], np.asarray(spread + test[2])[None])


def timed(function: Callable[[], dict]) -> tuple[dict, float]:
    """What it returns and the seconds of its second call: of the work alone, not of compiling it."""
    function()
    began = time.perf_counter()
    return function(), time.perf_counter() - began


def observe(belief, stream: Law, labels: np.ndarray, start: int, stop: int):
    """The belief after the labels from `start` to `stop`; unchanged where there is none."""
    if start == stop:
        return belief
    mean, loading, noise = (each[start:stop] for each in stream)
    return latent_factor_online.observe(belief, labels[start:stop].astype(np.float64) - mean, loading, noise)


def disagreement(stream: Law, labels: np.ndarray) -> float:
    """Largest relative difference of the latent's moments between labels one by one, in batches of 10, and all together."""
    total, found = len(labels), []
    with jax.enable_x64(True):
        for size in (1, BATCH, total):
            belief = latent_factor_online.prior(stream[1].shape[1])
            for start in range(0, total, size):
                belief = observe(belief, stream, labels, start, min(start + size, total))
            found.append([np.asarray(each) for each in latent_factor_online.moments(belief)])
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for other in found[:2] for a, b in zip(other, found[2]))


def reweighted(stream: np.ndarray, labels: np.ndarray, test: np.ndarray) -> tuple[PredictiveMixture, float]:
    """Teachers weighted by the likelihood of the labels, as an equal-weight mixture, and how many of them are left in effect.

    Args:
      stream: their (mean, variance) at the labels' inputs, [M, n, 2].
      labels: [n]; none: equal weights.
      test: at the test inputs, [M, N, 2].

    Returns:
      `COMPONENTS` teachers, each as often as its weight says (systematic resampling at the middle of each step), and 1 / sum of squared
      weights.
    """
    stream, test = stream.astype(np.float64), test.astype(np.float64)
    errors = np.square(labels[None] - stream[..., 0]) / stream[..., 1]
    logs = -0.5 * (errors + np.log(stream[..., 1])).sum(1)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    chosen = np.searchsorted(np.cumsum(weights), (np.arange(COMPONENTS) + 0.5) / COMPONENTS)
    picked = test[np.minimum(chosen, len(weights) - 1)]
    return PredictiveMixture(picked[..., 0], picked[..., 1]), float(1 / np.square(weights).sum())


def _outputs(trained: predict.Trained, inputs: np.ndarray) -> np.ndarray:
    function = predict.member_logits_function(trained.model, trained.variables, lambda x: x, mean_and_variance)
    return predict.stream(function, inputs, len(inputs), 1)
