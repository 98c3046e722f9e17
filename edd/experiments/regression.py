"""Regression studies: teachers, students and baselines on tables, scored as predictive mixtures in the targets' own unit."""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from edd.data import dimension, tabular
from edd.distillers import dlf, gaussian
from edd.distillers.base import Distiller
from edd.distillers.regression import PredictiveMixture, mean_and_variance
from edd.ensembles import members as ensembles
from edd.experiments import build, collapse, design, predict, record, regression_figures, regression_report, results, stages, teachers
from edd.experiments import settings as settings_lib
from edd.experiments.regression_settings import Regression
from edd.metrics import regression as metrics

SMOKE_STEPS = 2
MOST_ROWS = 5_000  # of a table whose dimension is estimated: the cost is quadratic


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Runs every set and split that has no finished part yet, then writes results.json, report.md, report.html and figures.

    Args:
      config: nested plain dictionary with the fields of `regression_settings.Regression`.
      workdir: run directory; a part (one set and split) is finished or done again, never half.
      data_dir: folder that holds uci/, overrides the config's.
      progress: print a line for each part.

    Raises:
      ValueError: bad settings or tables (before anything is written), or a directory that holds another run.
    """
    settings = settings_lib.from_dict(Regression, config)
    settings = shrink(settings) if settings.smoke else settings
    check(settings)
    tables = {(name, split): load(settings, name, split, data_dir) for name in settings.data.sets for split in settings.data.splits}
    check_design(settings, tables)
    description = record.open_run(workdir, config, {"run": settings.seed})
    parts = []
    for (name, split), (train, test) in tables.items():
        label = pathlib.Path(name).stem
        path = workdir / "parts" / f"{label}-{split}.json"
        if path.exists():
            parts.append(results.decode(json.loads(path.read_text())))
            continue
        began = time.perf_counter()
        part = {"set": label, "split": split, **one_part(settings, label, split, train, test)}
        path.parent.mkdir(parents=True, exist_ok=True)
        results.write_atomically(path, json.dumps(results.encode(part), allow_nan=False))
        parts.append(part)
        if progress:
            print(f"{label}, split {split}: {time.perf_counter() - began:.0f} s", flush=True)
    return regression_report.finish(workdir, parts, config, record.for_report(description), settings.reference)


def load(settings: Regression, name: str, split: int, data_dir: str | None) -> tuple[tabular.Table, tabular.Table]:
    """Training and test table of one split; invented ones in a smoke run."""
    if settings.smoke:
        return tabular.smoke(seed=1), tabular.smoke(seed=2)
    return tabular.load(name, split, data_dir or settings.data.data_dir)


def check(settings: Regression) -> None:
    """Builds every model and method without data, so that a wrong name or option is found before any work."""
    num_members = settings.ensemble.num_members
    for ensemble in (settings.ensemble, *settings.baselines.values()):
        teachers.plan(ensemble)
    for training in (settings.ensemble.training, *(each.training for each in settings.baselines.values())):
        build.backbone(training.model)(2)
        stages.make_optimizer(training, 10**6, 10**3)
    for name, student in settings.students.items():
        distiller = build.regression_distiller(student, num_members)
        stages.make_optimizer(student.training, 10**6, 10**3)
        try:
            distiller.student(build.backbone(student.training.model))
        except ValueError as error:
            raise ValueError(f"students.{name}: {error}") from None


def check_design(settings: Regression, tables: dict) -> None:
    """ValueError, before any network is trained, if a split leaves too few rows or a student too few design points."""
    for (name, split), (train, _) in tables.items():
        seed = stages.stage_seed(settings.seed, f"{pathlib.Path(name).stem}-{split}")
        found = len(design.deal(settings.data, train, settings.ensemble.num_members, seed).points)
        for label, student in settings.students.items():
            least = build.regression_distiller(student, settings.ensemble.num_members).least_points
            if found < least:
                raise ValueError(f"{name}, split {split}: {label} needs at least {least} design points, this study gives it {found}")


def shrink(settings: Regression) -> Regression:
    """The smoke version: one invented table, two members, two steps."""

    def small(training):
        model = dataclasses.replace(training.model, options={**training.model.options, "widths": [4]})
        return dataclasses.replace(training, model=model, batch_size=8, epochs=1.0, max_steps=SMOKE_STEPS)

    data = dataclasses.replace(settings.data, sets=settings.data.sets[:1], splits=[0], design_fraction=1.0)

    def shorten(ensemble):
        options = {"chains": 1, "every": 1} if ensemble.source == "langevin" else ensemble.options
        return dataclasses.replace(ensemble, num_members=2, training=small(ensemble.training), options=options)

    def tiny(student):
        return dataclasses.replace(student, seeds=1, training=small(student.training), options=few_latents(student.options))

    students = {name: tiny(each) for name, each in settings.students.items()}
    baselines = {name: shorten(each) for name, each in settings.baselines.items()}
    return dataclasses.replace(settings, data=data, ensemble=shorten(settings.ensemble), students=students, baselines=baselines)


def few_latents(options: dict) -> dict:
    """A method's options with a latent dimension that a few design points determine."""
    return {**options, "latent_dim": min(options["latent_dim"], 3)} if "latent_dim" in options else options


def one_part(
    settings: Regression, label: str, split: int, train: tabular.Table, test: tabular.Table, teach: Callable | None = None
) -> dict:
    """Everything on one split: {"rows": {name: scores}, "curves": {name: coverage at `regression_figures.LEVELS`}, ...}.

    `teach` makes the teachers, as `train_members`; None: that.
    """
    teach = teach or train_members
    seed = stages.stage_seed(settings.seed, f"{label}-{split}")
    dealt = design.deal(settings.data, train, settings.ensemble.num_members, seed)
    scaling = dealt.scaling
    test_inputs = tabular.scale(test, scaling)[0]
    score = functools.partial(scores, test=test, scaling=scaling)
    arrays = {"inputs": dealt.inputs, "labels": dealt.labels}
    rows, mixtures, latents = {}, {}, {}

    teacher, seconds = teach(settings.ensemble, "teacher", arrays, seed, dealt.members)
    function = predict.member_logits_function(teacher.model, teacher.variables, lambda x: x, mean_and_variance)
    outputs = predict.stream(function, test_inputs, len(test_inputs), 1)
    size = predict.num_parameters(jax.tree.map(lambda leaf: leaf[0], teacher.variables))
    alone = [score(PredictiveMixture(member[None, :, 0], member[None, :, 1])) for member in outputs]
    rows["Single"] = {name: float(np.mean([each[name] for each in alone])) for name in alone[0]} | {"parameters": size}
    mixtures["Teachers"] = PredictiveMixture(outputs[..., 0], outputs[..., 1])
    rows["Teachers"] = score(mixtures["Teachers"]) | {"parameters": size * _networks(settings.ensemble, outputs), "seconds": seconds}

    for name, ensemble in settings.baselines.items():
        members, seconds = train_members(ensemble, name, arrays, seed)
        function = predict.member_logits_function(members.model, members.variables, lambda x: x, mean_and_variance)
        found = predict.stream(function, test_inputs, len(test_inputs), 1)
        mixtures[name] = PredictiveMixture(found[..., 0], found[..., 1])
        total = predict.num_parameters(jax.tree.map(lambda leaf: leaf[0], members.variables)) * _networks(ensemble, found)
        rows[name] = score(mixtures[name]) | {"parameters": total, "seconds": seconds}

    function = predict.member_logits_function(teacher.model, teacher.variables, lambda x: x, mean_and_variance)
    seen = predict.stream(function, dealt.points, len(dealt.points), 1)
    for name, student in settings.students.items():
        distiller = build.regression_distiller(student, len(seen))
        mixture, extra, trained = distil(name, student, distiller, dealt.points, seen, test_inputs, seed)
        if "posterior" in trained.state:
            latents[name] = _leading(trained.state["posterior"].mean)
            extra["loading_norm"] = loading_norm(trained, test_inputs)
        each = [score(one) for one in mixture]
        rows[name] = {key: float(np.mean([row[key] for row in each])) for key in each[0]} | extra
        if len(mixture[0].means) > 1:
            rows[name]["variance_ratio"] = float(np.mean([one.means.var(0).mean() for one in mixture]) / outputs[..., 0].var(0).mean())
        collapse.warn(name, rows[name].get("variance_ratio"), f"{label}, split {split}")
        mixtures[name] = mixture[0]
    curves = {name: _curve(mixture, test, scaling) for name, mixture in mixtures.items()}
    shown = {name: mixtures[name] for name in ("Teachers", *(latents or settings.students)) if name in mixtures}
    extra = {"intervals": _intervals(shown, test, scaling), "latents": latents}
    sizes = {"num_train": len(dealt.labels), "num_design": len(dealt.points), "num_features": dealt.inputs.shape[1]}
    return {"rows": rows, "curves": curves, **extra, **sizes, "dimension": _dimensions(dealt.inputs, seen[..., 0])}


def _networks(ensemble: settings_lib.Ensemble, outputs: np.ndarray) -> int:
    """How many networks make the members: masks of dropout share one."""
    return 1 if ensemble.source == "mc_dropout" else len(outputs)


def _dimensions(inputs: np.ndarray, functions: np.ndarray) -> dict[str, float]:
    """Estimates of the dimension of the inputs [n, d], and of the members' functions [M, m] at the design points."""
    inputs = inputs[np.random.default_rng(0).permutation(len(inputs))[:MOST_ROWS]]
    return {
        "two_nn": dimension.two_nn(inputs) if len(np.unique(inputs, axis=0)) >= 4 else float("nan"),
        "inputs": dimension.participation_ratio(inputs),
        "functions": dimension.participation_ratio(functions),
    }


def _intervals(mixtures: dict[str, PredictiveMixture], test: tabular.Table, scaling: tabular.Scaling, count: int = 60) -> dict:
    """Lower end, mean and upper end of the central 95 % intervals at evenly spaced test points in order of the target."""
    order = np.argsort(test.targets)[np.linspace(0, len(test.targets) - 1, min(count, len(test.targets))).astype(int)]
    rows = {}
    for name, mixture in mixtures.items():
        means, variances = (each[:, order] for each in _own_unit(mixture, scaling))
        ends = [metrics.gaussian_mixture_quantile(means, variances, probability) for probability in (0.025, 0.975)]
        rows[name] = np.stack([ends[0], means.mean(0), ends[1]], -1).tolist()
    return {"targets": test.targets[order].tolist(), "rows": rows}


def _leading(latents: np.ndarray) -> list:
    """The latents [M, q] of the first seed on the two directions in which they vary most."""
    first = np.asarray(latents)[0]
    _, _, directions = np.linalg.svd(first - first.mean(0), full_matrices=False)
    return (first @ directions[:2].T).tolist() if len(directions) > 1 else np.pad(first[:, :1], ((0, 0), (0, 1))).tolist()


def train_members(
    ensemble: settings_lib.Ensemble, name: str, arrays: dict, seed: int, subsets: np.ndarray | None = None
) -> tuple[predict.Trained, float]:
    """An ensemble trained on labels (each network on its rows of `subsets` [M, n], or on all), and the seconds that took."""
    plan = teachers.plan(ensemble)
    subsets = None if subsets is None else subsets[: plan.networks]
    trained, seconds = _fit(name, ensemble.training, gaussian.make_teacher(), arrays, plan.networks, seed, subsets, plan.snapshots)
    return plan.members(trained, seed), seconds


def loading_norm(trained: predict.Trained, inputs: np.ndarray) -> float:
    """Mean over inputs and seeds of |loading(x)|, the standard deviation of a latent factor student's functions in training units."""
    outputs = ensembles.apply(trained.model, trained.variables, inputs)
    return float(jnp.linalg.norm(dlf.function_law(outputs, trained.state)[1], axis=-1).mean())


def _fit(
    name: str,
    training: settings_lib.Training,
    distiller: Distiller,
    arrays: dict,
    num_replicas: int,
    seed: int,
    subsets: np.ndarray | None = None,
    snapshots: tuple[int, int] | None = None,
) -> tuple[predict.Trained, float]:
    """Networks trained side by side on a table, diverged ones left out, and the seconds that took; batches no larger than the table."""
    began = time.perf_counter()
    count = len(arrays["inputs"]) if subsets is None else subsets.shape[1]
    trained = stages.fit(
        name,
        dataclasses.replace(training, batch_size=min(training.batch_size, count)),
        distiller.student(build.backbone(training.model)),
        distiller,
        arrays,
        lambda x: x,
        num_replicas=num_replicas,
        seed=seed,
        subsets=subsets,
        snapshots=snapshots,
        progress=False,
    )
    return predict.survivors(trained, f"networks of {name!r}"), time.perf_counter() - began


def distil(
    name: str, student: settings_lib.Student, distiller: Distiller, inputs: np.ndarray, members: np.ndarray, test: np.ndarray, seed: int
) -> tuple[list[PredictiveMixture], dict, predict.Trained]:
    """Trains a student on members' (mean, variance) [M, n, 2] at `inputs`: its mixture at `test` for each seed, costs, the networks."""
    arrays = {"inputs": inputs, "labels": np.zeros(len(inputs), np.float32)}
    if distiller.targets is not None:
        arrays["targets"] = jax.device_get(jax.jit(distiller.targets)(jnp.asarray(members)))
    trained, seconds = _fit(name, student.training, distiller, arrays, student.seeds, seed)
    function = predict.replica_function(trained, lambda x: x, jax.random.key(stages.stage_seed(seed, "predict")))
    found = jax.device_get(function(test))
    one = jax.tree.map(lambda leaf: leaf[0], (trained.variables, trained.params))
    mixtures = [jax.tree.map(lambda leaf, at=at: leaf[at], found) for at in range(len(trained.seeds))]
    return mixtures, {"parameters": predict.num_parameters(*one), "seconds": seconds}, trained


def scores(mixture: PredictiveMixture, *, test: tabular.Table, scaling: tabular.Scaling) -> dict[str, float]:
    """RMSE of the mixture's mean, NLL, CRPS and coverage of the central 95 % interval, in the target's own unit."""
    means, variances = _own_unit(mixture, scaling)
    return {
        "rmse": metrics.rmse(means.mean(0), test.targets),
        "nll": metrics.gaussian_mixture_nll(means, variances, test.targets),
        "crps": metrics.gaussian_mixture_crps(means, variances, test.targets),
        "coverage": metrics.interval_coverage(means, variances, test.targets, 0.95),
    }


def _own_unit(mixture: PredictiveMixture, scaling: tabular.Scaling) -> tuple[np.ndarray, np.ndarray]:
    means, variances = np.asarray(mixture.means, np.float64), np.asarray(mixture.variances, np.float64)
    return scaling.target_mean + scaling.target_deviation * means, scaling.target_deviation**2 * variances


def _curve(mixture: PredictiveMixture, test: tabular.Table, scaling: tabular.Scaling) -> list[float]:
    means, variances = _own_unit(mixture, scaling)
    return [metrics.interval_coverage(means, variances, test.targets, level) for level in regression_figures.LEVELS]
