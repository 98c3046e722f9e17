"""Students of smoothed and of hard teachers: every teacher teaches one network of its own, and what both get wrong is compared."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from edd.data import augment
from edd.experiments import build, distillation, predict, record, smoothing_distillation_report, stages
from edd.experiments import settings as settings_lib
from edd.metrics import calibration, classification, softness


@dataclasses.dataclass(frozen=True)
class Pupil:
    """One kind of student and who teaches it.

    Attributes:
      student: how it is trained; `seeds` is not used: there is one network for each of the teachers.
      teacher: name of its teachers; "": trained on labels alone.
      curve: label of the curve over gamma that its point belongs to; "": none.
    """

    student: settings_lib.Student
    teacher: str = ""
    curve: str = ""


@dataclasses.dataclass(frozen=True)
class SmoothingDistillation:
    """A study of teachers and their students.

    Attributes:
      name: of the run.
      data: trained and tested on.
      teachers: name -> networks trained on labels; all have as many members, the study's seeds.
      pupils: name -> `Pupil`.
      batch_size: inputs per prediction batch.
      reference: the paper's test errors, row -> {"errors": number}.
      seed: root of everything random.
      smoke: two steps on invented data.
    """

    name: str
    data: settings_lib.Data
    teachers: dict[str, settings_lib.Ensemble]
    pupils: dict[str, Pupil]
    batch_size: int = 500
    reference: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        counts = {name: spec.num_members for name, spec in self.teachers.items()}
        if not counts or len(set(counts.values())) > 1:
            raise ValueError(f"teachers must be at least one, all with as many members (one per seed), got {counts}")
        for name, pupil in self.pupils.items():
            if pupil.teacher and pupil.teacher not in self.teachers:
                raise ValueError(settings_lib.unknown_name(f"pupils.{name}.teacher", pupil.teacher, self.teachers))
            if name in self.teachers:
                raise ValueError(f"pupils.{name}: this name is taken by a teacher, choose another")
            if bool(pupil.teacher) == (pupil.student.method == "supervised"):
                raise ValueError(f"pupils.{name}: method 'supervised' goes with teacher='', every other method with a teacher")


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Trains teachers and students (resumable), then writes results.json, report.md, report.html and figures.

    Args:
      config: nested plain dictionary with the fields of `SmoothingDistillation`.
      workdir: run directory.
      data_dir: TFDS directory, overrides the config's.
      progress: show progress bars.

    Raises:
      ValueError: bad settings (before anything is written), or a directory that holds another run.
    """
    settings = settings_lib.from_dict(SmoothingDistillation, config)
    bases = {name: base_of(settings, name) for name in settings.teachers}
    sets = distillation.ready(*bases.values(), data_dir=data_dir)
    description = record.open_run(workdir, config, {"run": settings.seed})
    teach = {
        name: functools.cache(functools.partial(stages.train_ensemble, name, base.ensemble, base, sets, workdir, progress=progress))
        for name, base in bases.items()
    }
    parts = []
    for name in bases:
        make = functools.partial(teacher_part, settings, name, teach[name], sets)
        parts.append(record.finished(workdir / "parts" / f"{name}.json", make))
    for name, pupil in settings.pupils.items():
        teacher = pupil.teacher or next(iter(bases))
        make = functools.partial(pupil_part, settings, name, bases[teacher], teach[teacher], sets, workdir, progress)
        parts.append(record.finished(workdir / "parts" / f"{name}.json", make))
    return smoothing_distillation_report.finish(workdir, parts, config, record.for_report(description))


def base_of(settings: SmoothingDistillation, teacher: str) -> settings_lib.Settings:
    """One teacher, its students and the students on labels alone as a run's settings; the smoke version where the study is one."""
    students = {name: pupil.student for name, pupil in settings.pupils.items() if pupil.teacher in (teacher, "")}
    evaluation = settings_lib.Evaluation(batch_size=settings.batch_size)
    ensemble = settings.teachers[teacher]
    common = {"evaluation": evaluation, "seed": settings.seed, "smoke": settings.smoke}
    base = settings_lib.Settings(settings.name, settings.data, ensemble, students, **common)
    return build.shrink(base) if settings.smoke else base


def teacher_part(settings: SmoothingDistillation, name: str, teach: Callable, sets: build.Sets) -> dict:
    """Scores of every seed of one teacher; gamma is the smoothing of its labels."""
    began, smoothing = time.perf_counter(), settings.teachers[name].smoothing
    trained = predict.survivors(teach(), f"seeds of {name!r}")
    seeds = [{**each, "gamma": smoothing} for each in scored(trained, sets, settings)]
    found = {"row": name, "kind": "teacher", "teacher": "", "curve": "", "smoothing": smoothing, "run_seed": settings.seed}
    return {**found, "seeds": seeds, "seconds": time.perf_counter() - began}


def pupil_part(
    settings: SmoothingDistillation, name: str, base: settings_lib.Settings, teach: Callable, sets: build.Sets, workdir, progress: bool
) -> dict:
    """Scores of one kind of student, a network for each teacher, each with the gamma of the targets it saw."""
    began, pupil, student = time.perf_counter(), settings.pupils[name], base.students[name]
    teachers = predict.survivors(teach(), f"seeds of {pupil.teacher!r}")
    seeds = []
    if pupil.teacher:
        for index, seed in enumerate(teachers.seeds):
            own, alone = predict.take(teachers, np.array([index])), dataclasses.replace(student, seeds=1)
            trained = stages.distil(f"{name}-{seed}", alone, own, base, sets, workdir, progress=progress)
            if trained.alive.all():
                gamma = taught(own, student.options.get("teacher_temperature", 1.0), sets, settings.batch_size)
                seeds += [{**each, "seed": int(seed), "gamma": gamma} for each in scored(trained, sets, settings)]
    else:
        together = dataclasses.replace(student, seeds=base.ensemble.num_members)
        trained = stages.distil(name, together, teachers, base, sets, workdir, progress=progress)
        gamma = student.options.get("smoothing", 0.0)
        seeds = [{**each, "gamma": gamma} for each in scored(predict.survivors(trained, f"seeds of {name!r}"), sets, settings)]
    found = {"row": name, "kind": "student", "teacher": pupil.teacher, "curve": pupil.curve, "run_seed": settings.seed}
    return {**found, "options": student.options, "seeds": seeds, "seconds": time.perf_counter() - began}


def scored(trained: predict.Trained, sets: build.Sets, settings: SmoothingDistillation) -> list[dict]:
    """Test errors, accuracy, NLL and ECE of every network."""
    function = predict.member_logits_function(trained.model, trained.variables, augment.preprocess(sets.info), jax.nn.log_softmax)
    found, labels = predict.stream(function, sets.test.inputs, settings.batch_size, 1), sets.test.labels
    return [
        {
            "seed": int(seed),
            "errors": int((log_probs.argmax(-1) != labels).sum()),
            "accuracy": classification.accuracy(np.exp(log_probs), labels),
            "nll": classification.nll(log_probs, labels),
            "ece": calibration.expected_calibration_error(np.exp(log_probs), labels),
        }
        for seed, log_probs in zip(trained.seeds, found)
    ]


def taught(teacher: predict.Trained, temperature: float, sets: build.Sets, batch_size: int) -> float:
    """gamma of one teacher's targets at a temperature, over the training set."""
    softened = lambda logits: jax.nn.softmax(logits[0] / temperature)  # noqa: E731
    function = predict.member_logits_function(teacher.model, teacher.variables, augment.preprocess(sets.info), softened)
    return softness.equivalent_smoothing(predict.stream(function, sets.train.inputs, batch_size, 0), sets.train.labels)
