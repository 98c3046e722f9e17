"""Teachers that are not Gaussian: functions drawn from a known law with two modes, and what a Gaussian student makes of them.

A teacher is f(x) = a s g(x) + b h(x): s = +-1 with even odds, g fixed, h drawn from a Gaussian process of unit variance, and
a^2 + b^2 = 1. The separation a / b sweeps from one mode (0) to two; mean, variance and covariance of the law are known at every
separation, and so is its marginal, an even mixture of N(+-a g(x), b^2). A latent factor student can match the moments and no more.
"""

import dataclasses
import functools
import pathlib
import time

import numpy as np

from edd.distillers import dlf
from edd.distillers.regression import PredictiveMixture
from edd.ensembles import members as ensembles
from edd.experiments import build, function_laws_report, record, regression, stages
from edd.experiments import settings as settings_lib
from edd.metrics import laws

NOISE = 1e-2  # variance of the teachers' observation noise: the laws are of functions, without it
SHOWN = 3  # inputs whose marginals are drawn


@dataclasses.dataclass(frozen=True)
class FunctionLaws:
    """A sweep over the separation of two modes of functions of one variable on [-2, 2].

    Attributes:
      name: of the run.
      separations: a / b, each >= 0; 0 is a Gaussian process.
      students: name -> distilled networks.
      num_teachers: functions drawn, >= 2.
      num_points: design points, evenly spaced, >= 2; as many test points lie half-way between them.
      length: length scale of h's squared-exponential kernel, > 0.
      repeats: draws of the teachers at each separation, >= 1.
      seed: root of everything random.
      smoke: two steps, few teachers, two separations.
    """

    name: str
    separations: list
    students: dict[str, settings_lib.Student]
    num_teachers: int = 200
    num_points: int = 65
    length: float = 0.7
    repeats: int = 1
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        if not self.separations or min(self.separations) < 0:
            raise ValueError(f"separations must hold numbers >= 0, got {self.separations}")
        for name, least in (("num_teachers", 2), ("num_points", 2), ("repeats", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        taken = {"Teachers", "Gaussian of the true moments"} & set(self.students)
        if taken or any(student.seeds != 1 for student in self.students.values()):
            raise ValueError(f"students must not be named as another row and have one seed each, got {list(self.students)}")
        if not self.length > 0:
            raise ValueError(f"length must be positive, got {self.length}")
        settings_lib.check_starts(self.students, None)


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Runs every separation and repeat that has no finished part yet, then writes results.json, report.md, report.html and figures.

    Args:
      config: nested plain dictionary with the fields of `FunctionLaws`.
      workdir: run directory; a part is finished or done again, never half.
      data_dir: unused, there is no data set.
      progress: print a line for each part.

    Raises:
      ValueError: bad settings, or a directory that holds another run.
    """
    del data_dir
    settings = settings_lib.from_dict(FunctionLaws, config)
    settings = shrink(settings) if settings.smoke else settings
    for student in settings.students.values():
        build.regression_distiller(student, settings.num_teachers).student(build.backbone(student.training.model))
        stages.make_optimizer(student.training, 10**6, 10**3)
    description = record.open_run(workdir, config, {"run": settings.seed})
    parts = []
    for repeat in range(settings.repeats):
        for index, separation in enumerate(settings.separations):
            began = time.perf_counter()
            parts.append(
                record.finished(workdir / "parts" / f"{index}-{repeat}.json", functools.partial(one_part, settings, separation, repeat))
            )
            if progress:
                print(f"separation {separation}, repeat {repeat}: {time.perf_counter() - began:.0f} s", flush=True)
    return function_laws_report.finish(workdir, parts, config, record.for_report(description))


def shrink(settings: FunctionLaws) -> FunctionLaws:
    """The smoke version."""

    def small(student):
        training = dataclasses.replace(student.training, max_steps=regression.SMOKE_STEPS, batch_size=4)
        return dataclasses.replace(student, training=training, seeds=1, options=regression.few_latents(student.options))

    ends = [settings.separations[0], settings.separations[-1]]
    students = {name: small(each) for name, each in settings.students.items()}
    return dataclasses.replace(settings, separations=ends, students=students, num_teachers=4, num_points=5, repeats=1)


def shape(points: np.ndarray) -> np.ndarray:
    """g: a wave through zero at about +-1.05, so that the modes meet there and part elsewhere."""
    return np.cos(1.5 * points)


def mode_sizes(separation: float) -> tuple[float, float]:
    """(a, b) with a / b = separation and a^2 + b^2 = 1."""
    return separation / np.hypot(1.0, separation), 1.0 / np.hypot(1.0, separation)


def covariance(points: np.ndarray, separation: float, length: float) -> np.ndarray:
    """Cov(f(x), f(x')) of the law, a^2 g(x) g(x') + b^2 k(x, x')."""
    a, b = mode_sizes(separation)
    kernel = np.exp(-0.5 * np.square((points[:, None] - points[None]) / length))
    return a**2 * np.outer(shape(points), shape(points)) + b**2 * kernel


def draw(points: np.ndarray, separation: float, length: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` functions of the law at `points`, [count, n].

    Examples:
      >>> functions = draw(np.zeros(1), 1e9, 1.0, 4, np.random.default_rng(0))  # all separation: +-1 at 0
      >>> sorted(set(np.abs(functions).round(6).ravel().tolist()))
      [1.0]
    """
    a, b = mode_sizes(separation)
    values, basis = np.linalg.eigh(covariance(points, 0.0, length))
    signs = rng.choice([-1.0, 1.0], size=count)
    smooth = rng.normal(size=(count, len(points))) @ (basis * np.sqrt(np.maximum(values, 0))[None]).T
    return a * signs[:, None] * shape(points)[None] + b * smooth


def marginal(points: np.ndarray, separation: float) -> tuple[np.ndarray, np.ndarray]:
    """The law of f(x) at each point as a mixture: means and variances [2, n]."""
    a, b = mode_sizes(separation)
    return np.stack([a * shape(points), -a * shape(points)]), np.full((2, len(points)), b**2)


def one_part(settings: FunctionLaws, separation: float, repeat: int) -> dict:
    """Teachers, students and the exact Gaussian at one separation: distances of their marginals and covariances to the law's."""
    grid = np.linspace(-2, 2, 2 * settings.num_points - 1)
    design, test = np.arange(0, len(grid), 2), np.arange(1, len(grid), 2)
    rng = np.random.default_rng([settings.seed, repeat])  # the same signs and smooth parts at every separation
    functions = draw(grid, separation, settings.length, settings.num_teachers, rng)
    points = grid[test]
    truth, moments = marginal(points, separation), covariance(points, separation, settings.length)
    zeros = np.zeros_like(points)
    found = {
        "Teachers": (_atoms(functions[:, test]), np.cov(functions[:, test].T, bias=True)),
        "Gaussian of the true moments": ((zeros[None], np.diag(moments)[None]), moments),
    }
    inputs, at = grid[design, None].astype(np.float32), points[:, None].astype(np.float32)
    outputs = np.stack([functions[:, design], np.full((settings.num_teachers, len(design)), NOISE)], -1).astype(np.float32)
    for name, student in settings.students.items():
        distiller = build.regression_distiller(student, settings.num_teachers)
        mixtures, _, trained = regression.distil(name, student, distiller, inputs, outputs, at, settings.seed + repeat)
        found[name] = _law(trained, mixtures[0], at)
    rows = {}
    for name, (law, spread) in found.items():
        rows[name] = {
            "energy": float(laws.energy_distance(truth, law).mean()),
            "wasserstein": float(laws.wasserstein(truth, law).mean()),
            "covariance": float(np.linalg.norm(spread - moments) / np.linalg.norm(moments)),
        }
    places = np.linspace(len(points) // 2, len(points) - 1, SHOWN).astype(int)
    shown = {
        "points": points[places].tolist(),
        "laws": {
            name: [each[:, places].tolist() for each in law]
            for name, law in {"truth": truth, **{k: v[0] for k, v in found.items()}}.items()
        },
    }
    return {"separation": separation, "repeat": repeat, "rows": rows, "marginals": shown}


def _atoms(functions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return functions, np.zeros_like(functions)


def _law(trained, mixture: PredictiveMixture, points: np.ndarray) -> tuple[tuple, np.ndarray]:
    """A student's law of functions at `points`, its marginals and its covariance: exact for latent factors, else its functions as atoms."""
    if "posterior" not in trained.state:
        functions = np.asarray(mixture.means, np.float64)
        return _atoms(functions), np.cov(functions.T, bias=True)
    outputs = ensembles.apply(trained.model, trained.variables, points)
    mean, loading = (np.asarray(each[0], np.float64) for each in dlf.function_law(outputs, trained.state))
    return (mean[None], np.square(loading).sum(-1)[None]), loading @ loading.T
