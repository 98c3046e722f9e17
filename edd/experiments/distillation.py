"""The main experiment: an ensemble, its students, and the report that compares them."""

import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from edd.data import augment, sources
from edd.distillers.base import ensemble_prediction, softmax_prediction
from edd.ensembles import members
from edd.experiments import body, build, collapse, evaluate, heatmaps, predict, record, report, stages
from edd.experiments import settings as settings_lib
from edd.experiments.predictions import Row
from edd.training import loop

EVALUATION = "evaluation"
TAKEN = (body.STAGE, stages.TEACHER, EVALUATION, "Ensemble", "Single", "Proxy Dirichlet")  # stages and rows of every run


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
    sets = ready(settings, data_dir=data_dir)
    if not settings.smoke:  # whose inputs are made up
        body.check_tokens(settings, data_dir)
    first = () if settings.body is None else (body.STAGE,)
    stage_names = (*first, stages.TEACHER, *settings.baselines, *settings.students, EVALUATION)
    seeds = {"run": settings.seed, **{name: stages.stage_seed(settings.seed, name) for name in stage_names}}
    description = record.open_run(workdir, config, seeds)
    settings = body.pretrain(settings, sets, workdir, data_dir=data_dir, progress=progress)
    teacher = stages.pretrain(settings, sets, workdir, progress=progress)
    others, diverged = {}, {stages.TEACHER: frozen(teacher)}
    for name, spec in {**settings.baselines, **settings.students}.items():
        try:
            if name in settings.baselines:
                others[name] = stages.train_ensemble(name, spec, settings, sets, workdir, progress=progress)
            else:
                others[name] = stages.distil(name, spec, teacher, settings, sets, workdir, progress=progress)
            diverged[name] = frozen(others[name])
        except loop.NonFiniteError as error:
            if spec.training.on_nonfinite == "stop":
                raise
            diverged[name] = {str(replica): step for replica, step in error.steps.items()}
    if jax.process_index():
        return {}
    teacher = predict.survivors(teacher, "ensemble members")
    others = {name: predict.survivors(trained, f"networks of {name!r}") for name, trained in others.items()}
    rows = make_rows(teacher, others, sets, settings)
    if not settings.smoke:
        warn_of_collapse(rows)
    norms = loading_norms(others)
    return report.finish(
        workdir,
        rows,
        sets.test.labels,
        grid=make_grid(teacher, others, sets, settings),
        settings=config,
        run={
            **record.for_report(description),
            "methods": {name: build.method_in_words(student) for name, student in settings.students.items()},
            "diverged (replica: step)": {name: steps for name, steps in diverged.items() if steps} or "none",
            **({"loading norm at the last E-step (mean over seeds)": norms} if norms else {}),
        },
        reference=settings.evaluation.reference,
        num_resamples=settings.evaluation.num_resamples,
        num_bins=settings.evaluation.num_bins,
        seed=settings.seed,
    )


def ready(*runs: settings_lib.Settings, data_dir: str | None = None) -> build.Sets:
    """The data of runs that share it, once everything that can be checked before the first network is trained has been.

    Raises:
      ValueError: as `check`, `check_shapes`, `check_sizes` and `build.data`.
    """
    for settings in runs:
        check(settings)
        check_shapes(settings)
    sets = build.data(runs[0], data_dir)
    for settings in runs:
        check_sizes(settings, sets)
    return sets


def warn_of_collapse(rows: list[Row]) -> None:
    """`CollapseWarning` for every row that keeps less than a tenth of the ensemble's mutual information on the test set."""
    whole = next(row for row in rows if row.name == "Ensemble")
    for row in rows:
        if row.group == "student":
            collapse.warn(row.name, evaluate.share(row, whole), f"seed {row.seed}", "mutual information")


def loading_norms(trained: dict[str, predict.Trained]) -> dict[str, float]:
    """Root mean square of the loading of every latent factor student: the standard deviation of an average logit."""
    states = {name: each.state for name, each in trained.items() if isinstance(each.state, dict) and "loading_norm" in each.state}
    return {name: round(float(np.mean(state["loading_norm"])), 4) for name, state in states.items()}


def frozen(trained: predict.Trained) -> dict[str, int]:
    """Replicas that diverged, each with the step at which it was frozen."""
    return {str(replica): int(step) for replica, step in zip(trained.seeds, trained.frozen_at) if step >= 0}


def check(settings: settings_lib.Settings) -> None:
    """Builds every model and method of a run without data, so that a wrong name or option is found before any work.

    Raises:
      ValueError: naming what is wrong.
    """
    body.check(settings)
    for where, training in trainings(settings):
        build.backbone(training.model)(2)
        stages.make_optimizer(training, 10**6, 10**3)
        augment.make(training.augment, padding=training.augment_padding)
        if training.strategy not in members.STRATEGIES:
            raise ValueError(f"{where}: " + settings_lib.unknown_name("strategy", training.strategy, members.STRATEGIES))
        if training.keep == "best" and not (settings.data.validation and training.checkpoint_every):
            raise ValueError(f"{where}: keep='best' chooses by held-out loss: set data.validation and checkpoint_every above 0")
    for row, metrics in settings.evaluation.reference.items():
        if not isinstance(metrics, dict) or not all(isinstance(value, int | float) for value in metrics.values()):
            raise ValueError(f"evaluation.reference.{row} must map metrics to numbers, got {metrics!r}")
    for section, names in (("baselines", settings.baselines), ("students", settings.students)):
        for name in names:
            if not name or name.startswith(".") or set(name) & set("/\\"):
                raise ValueError(f"{section}.{name}: the name is also a folder's, it must not hold a slash or start with a dot")
            if name in TAKEN or (section == "students" and name in settings.baselines):
                raise ValueError(f"{section}.{name}: this name is taken by another row or stage, choose another")
    num_classes = sources.info(settings.data.name, **settings.data.options).num_classes
    for name, student in settings.students.items():
        try:
            layout = build.distiller(student, settings.ensemble.num_members, num_classes, 1).multi_input
            layout is None or layout.num_examples(student.training.batch_size)
        except ValueError as error:
            raise ValueError(f"students.{name}: {error}") from None


def trainings(settings: settings_lib.Settings) -> Iterator[tuple[str, settings_lib.Training]]:
    """(config section, training program) of the body, the ensemble, every baseline and every student."""
    if settings.body is not None:
        yield "body.training", settings.body.training
    yield "ensemble.training", settings.ensemble.training
    for name, baseline in settings.baselines.items():
        yield f"baselines.{name}.training", baseline.training
    for name, student in settings.students.items():
        yield f"students.{name}.training", student.training


def check_sizes(settings: settings_lib.Settings, sets: build.Sets) -> None:
    """ValueError if a batch is larger than the training set, before the first network is trained."""
    for where, training in trainings(settings):
        if training.batch_size > len(sets.train.labels):
            raise ValueError(
                f"{where}.batch_size must be at most {len(sets.train.labels)}, the training examples, got {training.batch_size}"
            )


def make_rows(teacher: predict.Trained, others: dict[str, predict.Trained], sets: build.Sets, settings: settings_lib.Settings) -> list[Row]:
    """Every row of the report with its predictions on the test set and the out-of-distribution sets, and its costs.

    `others` are the baselines and students by name, in the order of their rows.
    """
    preprocess, batch_size = augment.preprocess(sets.info), settings.evaluation.batch_size
    inputs = {"test": sets.test.inputs, **{name: split.inputs for name, split in sets.ood.items()}}
    key = jax.random.key(stages.stage_seed(settings.seed, EVALUATION))
    member_logits = predict.member_logits_function(teacher.model, teacher.variables, preprocess)
    logits = {name: predict.stream(member_logits, values, batch_size, 1) for name, values in inputs.items()}
    rows = teacher_rows(logits, batch_size, teacher.seeds)
    one_member = jax.tree.map(lambda leaf: leaf[0], teacher.variables)
    size, body = predict.num_parameters(one_member), predict.shared_parameters(teacher.model, one_member)
    functions = {
        "Single": predict.first_replica_function(teacher, preprocess, key),
        "Ensemble": predict.member_logits_function(teacher.model, teacher.variables, preprocess, ensemble_prediction),
    }
    for name, trained in others.items():
        functions[name] = row_function(name, trained, preprocess, key, settings)
        variables, params = jax.tree.map(lambda leaf: leaf[0], (trained.variables, trained.params))
        one, shared = predict.num_parameters(variables, params), predict.shared_parameters(trained.model, variables)
        if name in settings.baselines:
            whole = {each: predict.stream(functions[name], values, batch_size, 0) for each, values in inputs.items()}
            rows.append(Row(name, 0, whole, one * len(trained.alive) + shared, group="baseline"))
            continue
        function = predict.replica_function(trained, preprocess, key)
        found = {each: predict.stream(function, values, batch_size, 1) for each, values in inputs.items()}
        group = "baseline" if trained.distiller.targets is None else "student"
        for position, seed in enumerate(trained.seeds):
            mine = {each: jax.tree.map(lambda leaf, at=position: leaf[at], prediction) for each, prediction in found.items()}
            rows.append(Row(name, int(seed), mine, one + shared, group=group))
    timed = np.asarray(inputs["test"][: settings.evaluation.timed_examples])
    costs = predict.costs(functions, timed, repeats=1 if settings.smoke else 7) if len(timed) else {}
    whole = size * len(teacher.alive) + body
    sizes = {"Single": size + body, "Ensemble": whole, "Proxy Dirichlet": whole}
    return [
        row._replace(
            parameters=sizes.get(row.name, row.parameters),
            milliseconds_per_1000=costs.get("Ensemble" if row.name == "Proxy Dirichlet" else row.name),
        )
        for row in rows
    ]


def row_function(name: str, trained: predict.Trained, preprocess: Callable, key, settings: settings_lib.Settings) -> Callable:
    """inputs [B, *S] -> Prediction [B, ...] of one row: the whole of a baseline ensemble, or the first seed of a student."""
    if name in settings.baselines:
        return predict.member_logits_function(trained.model, trained.variables, preprocess, ensemble_prediction)
    return predict.first_replica_function(trained, preprocess, key)


def teacher_rows(member_logits: dict[str, np.ndarray], batch_size: int, numbers) -> list[Row]:
    """Rows of each member (by its number), of the ensemble and of its proxy Dirichlet, from members' logits [M, N, K] on every set."""

    def over(function, logits):
        batches = [jax.device_get(function(logits[:, start : start + batch_size])) for start in range(0, logits.shape[1], batch_size)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)

    single, whole, proxy = map(jax.jit, (softmax_prediction, ensemble_prediction, predict.proxy_prediction))
    rows = []
    for position, number in enumerate(numbers):
        alone = {name: over(lambda x: single(x[0]), logits[position : position + 1]) for name, logits in member_logits.items()}
        rows.append(Row("Single", int(number), alone, group="single"))
    rows.append(Row("Ensemble", 0, {name: over(whole, logits) for name, logits in member_logits.items()}, group="ensemble"))
    rows.append(Row("Proxy Dirichlet", 0, {name: over(proxy, logits) for name, logits in member_logits.items()}, group="proxy"))
    return rows


def make_grid(teacher: predict.Trained, others: dict[str, predict.Trained], sets: build.Sets, settings: settings_lib.Settings):
    """Predictions over a square of 2-D inputs for the heat maps, or None where the inputs are not 2-D or no square is asked for."""
    half, points = settings.evaluation.heat_map, settings.evaluation.heat_map_points
    if not half or sets.info.input_shape != (2,):
        return None
    extent, preprocess, key = (-half, half, -half, half), augment.preprocess(sets.info), jax.random.key(0)
    inputs = heatmaps.grid_points(extent, (points, points))
    functions = {
        "Ensemble": predict.member_logits_function(teacher.model, teacher.variables, preprocess, ensemble_prediction),
        **{name: row_function(name, trained, preprocess, key, settings) for name, trained in others.items()},
    }
    found = {name: predict.stream(function, inputs, settings.evaluation.batch_size, 0) for name, function in functions.items()}
    return heatmaps.Grid(extent, (points, points), found, sets.test.inputs, sets.test.labels)


def check_shapes(settings: settings_lib.Settings) -> dict[str, int]:
    """Every network of a run at its full size, traced but never allocated: parameters of one network of each row.

    Raises:
      ValueError: a loss that is not one number per example, or whatever the models and methods refuse.
    """
    info = sources.info(settings.data.name, **settings.data.options)
    raw = jax.ShapeDtypeStruct((2, *info.input_shape), info.dtype)
    example = jax.eval_shape(augment.preprocess(info), raw)
    labels, key = jax.ShapeDtypeStruct((2,), "int32"), jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.eval_shape(lambda key: jax.random.split(key, 2), key)
    members = jax.ShapeDtypeStruct((settings.ensemble.num_members, 2, info.num_classes), "float32")
    sizes = {}
    ensembles = {stages.TEACHER: settings.ensemble, **settings.baselines}
    supervised = build.METHODS["supervised"](0, info.num_classes)
    programs = {name: (ensemble.training, supervised) for name, ensemble in ensembles.items()}
    for name, student in settings.students.items():
        programs[name] = (student.training, build.distiller(student, settings.ensemble.num_members, info.num_classes, 1))
    for name, (training, distiller) in programs.items():
        model = distiller.student(build.backbone(training.model, axis_name=None))
        variables = jax.eval_shape(model.init, key, example)
        params, state = jax.eval_shape(distiller.init, key)
        outputs, _ = jax.eval_shape(lambda v, x, model=model: model.apply(v, x, train=False, rngs=None), variables, example)
        targets = None if distiller.targets is None else jax.eval_shape(distiller.targets, members)
        loss = jax.eval_shape(distiller.loss, outputs, targets, params, state, labels, keys)
        if loss.shape != (2,):
            raise ValueError(f"{name}: the loss of 2 examples must have shape (2,), got {loss.shape}")
        sizes[name] = predict.num_parameters(variables, params)
    return sizes
