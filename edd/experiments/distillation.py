"""The main experiment: an ensemble, its students, and the report that compares them."""

import pathlib

import jax
import numpy as np

from edd.data import augment
from edd.distillers.base import softmax_prediction
from edd.experiments import build, heatmaps, predict, record, report, stages
from edd.experiments import settings as settings_lib
from edd.experiments.predictions import Row


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Trains, distils, evaluates and reports; every stage resumes where an earlier call stopped.

    Args:
      config: nested plain dictionary with the fields of `settings.Settings`.
      workdir: run directory.
      data_dir: TFDS directory, overrides the config's.
      progress: show progress bars.

    Returns:
      The results, as in `results.json`.

    Raises:
      ValueError: bad settings (before anything is written), or a directory that holds another run.
    """
    settings = settings_lib.from_dict(settings_lib.Settings, config)
    if settings.smoke:
        settings = build.shrink(settings)
    check(settings)
    sets = build.data(settings, data_dir)
    description = record.open_run(workdir, config)
    teacher = stages.pretrain(settings, sets, workdir, progress=progress)
    students = {
        name: stages.distil(name, student, teacher, settings, sets, workdir, progress=progress)
        for name, student in settings.students.items()
    }
    if jax.process_index():
        return {}
    rows = make_rows(teacher, students, sets, settings)
    return report.finish(
        workdir,
        rows,
        sets.test.labels,
        grid=make_grid(teacher, students, sets, settings),
        settings=config,
        run={key: description[key] for key in description if key != "settings"},
        reference=settings.evaluation.reference,
        num_resamples=settings.evaluation.num_resamples,
        num_bins=settings.evaluation.num_bins,
        seed=settings.seed,
    )


def check(settings: settings_lib.Settings) -> None:
    """Builds every model and method of a run without data, so that a wrong name or option is found before any work.

    Raises:
      ValueError: naming what is wrong.
    """
    for training in (settings.ensemble.training, *(student.training for student in settings.students.values())):
        build.backbone(training.model)(2)
        stages.make_optimizer(training, 10**6, 10**3)
        augment.make(training.augment)
    for name, student in settings.students.items():
        if name in (stages.TEACHER, "Ensemble", "Single", "Proxy Dirichlet"):
            raise ValueError(f"students.{name}: this name is taken by a row of the report, choose another")
        build.distiller(student, settings.ensemble.num_members, 2, 1)


def make_rows(
    teacher: predict.Trained, students: dict[str, predict.Trained], sets: build.Sets, settings: settings_lib.Settings
) -> list[Row]:
    """Every row of the report with its predictions on the test set and the out-of-distribution sets, and its costs."""
    preprocess, batch_size = augment.preprocess(sets.info), settings.evaluation.batch_size
    inputs = {"test": sets.test.inputs, **{name: split.inputs for name, split in sets.ood.items()}}
    key = jax.random.key(stages.stage_seed(settings.seed, "evaluation"))
    member_logits = predict.member_logits_function(teacher.model, teacher.variables, preprocess)
    logits = {name: predict.stream(member_logits, values, batch_size, 1) for name, values in inputs.items()}
    rows = teacher_rows(logits, batch_size)
    one_member = jax.tree.map(lambda leaf: leaf[0], teacher.variables)
    size = predict.num_parameters(one_member)
    functions = {
        "Single": predict.first_replica_function(teacher, preprocess, key),
        "Ensemble": jax.jit(lambda batch: predict.ensemble_prediction(member_logits(batch))),
    }
    for name, student in students.items():
        functions[name] = predict.first_replica_function(student, preprocess, key)
        function = predict.replica_function(student, preprocess, key)
        found = {each: predict.stream(function, values, batch_size, 1) for each, values in inputs.items()}
        one = jax.tree.map(lambda leaf: leaf[0], (student.variables, student.params))
        for seed in range(len(student.alive)):
            mine = {each: jax.tree.map(lambda leaf, seed=seed: leaf[seed], prediction) for each, prediction in found.items()}
            rows.append(Row(name, seed, mine, predict.num_parameters(*one)))
    costs = predict.costs(functions, inputs["test"][: min(1000, len(inputs["test"]))])
    sizes = {"Single": size, "Ensemble": size * len(teacher.alive), "Proxy Dirichlet": size * len(teacher.alive)}
    return [
        row._replace(
            parameters=sizes.get(row.name, row.parameters),
            milliseconds_per_1000=costs.get("Ensemble" if row.name == "Proxy Dirichlet" else row.name),
        )
        for row in rows
    ]


def teacher_rows(member_logits: dict[str, np.ndarray], batch_size: int) -> list[Row]:
    """Rows of each member, of the ensemble and of its proxy Dirichlet, from members' logits [M, N, K] on every set."""

    def over(function, logits):
        batches = [jax.device_get(function(logits[:, start : start + batch_size])) for start in range(0, logits.shape[1], batch_size)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)

    num_members = len(next(iter(member_logits.values())))
    single, whole, proxy = map(jax.jit, (softmax_prediction, predict.ensemble_prediction, predict.proxy_prediction))
    rows = [
        Row(
            "Single", member, {name: over(lambda x: single(x[0]), logits[member : member + 1]) for name, logits in member_logits.items()}
        )._replace(group="single")
        for member in range(num_members)
    ]
    rows.append(Row("Ensemble", 0, {name: over(whole, logits) for name, logits in member_logits.items()}, group="ensemble"))
    rows.append(Row("Proxy Dirichlet", 0, {name: over(proxy, logits) for name, logits in member_logits.items()}, group="proxy"))
    return rows


def make_grid(teacher: predict.Trained, students: dict[str, predict.Trained], sets: build.Sets, settings: settings_lib.Settings):
    """Predictions over a square of 2-D inputs for the heat maps, or None where the inputs are not 2-D or no square is asked for."""
    half, points = settings.evaluation.heat_map, settings.evaluation.heat_map_points
    if not half or sets.info.input_shape != (2,):
        return None
    extent, preprocess, key = (-half, half, -half, half), augment.preprocess(sets.info), jax.random.key(0)
    inputs = heatmaps.grid_points(extent, (points, points))
    member_logits = predict.member_logits_function(teacher.model, teacher.variables, preprocess)
    functions = {
        "Ensemble": jax.jit(lambda batch: predict.ensemble_prediction(member_logits(batch))),
        **{name: predict.first_replica_function(student, preprocess, key) for name, student in students.items()},
    }
    found = {name: predict.stream(function, inputs, settings.evaluation.batch_size, 0) for name, function in functions.items()}
    return heatmaps.Grid(extent, (points, points), found, sets.test.inputs, sets.test.labels)
