"""Ensembles of ensembles on a toy regression: the spread of sub-ensembles' means collapses as they grow, like one over their size.

y = sin x + noise at inputs in a few clusters. One vmapped program trains all members; for every size they are divided into as many
disjoint ensembles of G sub-ensembles as they fill. Of each the variance between the sub-ensembles' means is the knowledge uncertainty.
"""

import dataclasses
import functools
import pathlib
import time

import numpy as np

from edd.distillers.regression import mean_and_variance
from edd.experiments import build, hierarchy_regression_report, predict, record, regression, stages
from edd.experiments import settings as settings_lib
from edd.uncertainty import hierarchy

GRID = 161  # inputs at which members are compared


@dataclasses.dataclass(frozen=True)
class HierarchyRegression:
    """The study of sub-ensembles on noisy observations of sin x.

    Attributes:
      name: of the run.
      training: of every member, a Gaussian regression network.
      sizes: members per sub-ensemble, ascending, each >= 1; num_groups times the largest are trained.
      num_groups: G, sub-ensembles of one ensemble, >= 2.
      num_points: training inputs, dealt evenly to the clusters, >= 2.
      clusters: [low, high] of each interval that the inputs are drawn from.
      noise: standard deviation of the observations, >= 0.
      extent: members are compared on [-extent, extent], > 0.
      repeats: draws of the observations and of all members, >= 1.
      seed: root of everything random.
      smoke: two steps, few members.
    """

    name: str
    training: settings_lib.Training
    sizes: list = dataclasses.field(default_factory=lambda: [1, 2, 5, 10, 20, 50])
    num_groups: int = 10
    num_points: int = 40
    clusters: list = dataclasses.field(default_factory=lambda: [[-2.5, -0.5], [1.0, 2.5]])
    noise: float = 0.1
    extent: float = 3.0
    repeats: int = 1
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        for name, least in (("num_groups", 2), ("num_points", 2), ("repeats", 1), ("seed", 0), ("noise", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        sizes = self.sizes
        if len(sizes) < 2 or sorted(set(sizes)) != list(sizes) or min(sizes) < 1 or any(not isinstance(size, int) for size in sizes):
            raise ValueError(f"sizes must be two or more ascending integers of at least 1, got {sizes}")
        if not self.clusters or any(len(each) != 2 or not each[0] < each[1] for each in self.clusters):
            raise ValueError(f"clusters must hold intervals [low, high], got {self.clusters}")
        if not self.extent > 0:
            raise ValueError(f"extent must be positive, got {self.extent}")


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Runs every repeat that has no finished part yet, then writes results.json, report.md, report.html and the figure.

    Args:
      config: nested plain dictionary with the fields of `HierarchyRegression`.
      workdir: run directory; a part is finished or done again, never half.
      data_dir: unused, there is no data set.
      progress: print a line for each part.

    Raises:
      ValueError: bad settings, a directory that holds another run, or members that diverged.
    """
    del data_dir
    settings = settings_lib.from_dict(HierarchyRegression, config)
    settings = shrink(settings) if settings.smoke else settings
    build.backbone(settings.training.model)(2)
    stages.make_optimizer(settings.training, 10**6, 10**3)
    description = record.open_run(workdir, config, {"run": settings.seed})
    parts = []
    for repeat in range(settings.repeats):
        began = time.perf_counter()
        parts.append(record.finished(workdir / "parts" / f"{repeat}.json", functools.partial(one_part, settings, repeat)))
        if progress:
            print(f"repeat {repeat}: {time.perf_counter() - began:.0f} s", flush=True)
    return hierarchy_regression_report.finish(workdir, parts, config, record.for_report(description))


def shrink(settings: HierarchyRegression) -> HierarchyRegression:
    """The smoke version."""
    model = dataclasses.replace(settings.training.model, options={**settings.training.model.options, "widths": [4]})
    training = dataclasses.replace(settings.training, model=model, max_steps=regression.SMOKE_STEPS, batch_size=4)
    return dataclasses.replace(settings, training=training, sizes=[1, 2], num_groups=2, num_points=8, repeats=1)


def observations(settings: HierarchyRegression, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [n, 1] drawn evenly from the clusters, ascending, and noisy values of sin [n]; float32."""
    counts = [len(part) for part in np.array_split(np.arange(settings.num_points), len(settings.clusters))]
    points = np.sort(np.concatenate([rng.uniform(*interval, size=count) for interval, count in zip(settings.clusters, counts)]))
    return points[:, None].astype(np.float32), (np.sin(points) + settings.noise * rng.normal(size=len(points))).astype(np.float32)


def one_part(settings: HierarchyRegression, repeat: int) -> dict:
    """Observations, members trained on them, and the variances of every size; curves of the first repeat alone."""
    inputs, labels = observations(settings, np.random.default_rng([settings.seed, repeat]))
    ensemble = settings_lib.Ensemble(settings.num_groups * settings.sizes[-1], settings.training)
    seed = stages.stage_seed(settings.seed, f"repeat-{repeat}")
    trained, seconds = regression.train_members(ensemble, "members", {"inputs": inputs, "labels": labels}, seed)
    if len(trained.alive) < ensemble.num_members:
        raise ValueError(f"{ensemble.num_members - len(trained.alive)} members diverged: lower the learning rate or clip the gradient")
    grid = np.linspace(-settings.extent, settings.extent, GRID)
    function = predict.member_logits_function(trained.model, trained.variables, lambda x: x, mean_and_variance)
    means = np.asarray(function(grid[:, None].astype(np.float32))[..., 0], np.float64)
    variances = {str(size): variance_by_size(means, settings.num_groups, size) for size in settings.sizes}
    part = {"seed": settings.seed, "repeat": repeat, "members": len(means), "seconds": seconds}
    part["variance"] = float(means.var(0, ddof=1).mean())
    part["rows"] = {size: {name: value for name, value in found.items() if name != "curve"} for size, found in variances.items()}
    if repeat == 0:
        part["curves"] = {
            "grid": grid.tolist(),
            "inputs": inputs[:, 0].tolist(),
            "labels": labels.tolist(),
            "between": {size: found["curve"].tolist() for size, found in variances.items()},
            "means": {str(size): sub_ensembles(means, settings.num_groups, size)[0].mean(1).tolist() for size in settings.sizes},
        }
    return part


def sub_ensembles(means: np.ndarray, num_groups: int, size: int) -> np.ndarray:
    """Members [M, n] as disjoint ensembles [E, G, size, n], as many as they fill."""
    count = len(means) // (num_groups * size)
    return means[: count * num_groups * size].reshape(count, num_groups, size, means.shape[1])


def variance_by_size(means: np.ndarray, num_groups: int, size: int) -> dict:
    """Variances of ensembles of G sub-ensembles of one size, means over inputs, and the first one's `curve` over them.

    Returns:
      {"between", "total" (means over all disjoint ensembles), "first" (between of the first ensemble), "ensembles": their number,
      "law": G and size's share, "residual": largest |total - between - within| over total of any ensemble and input, "curve"}.
    """
    divided = sub_ensembles(means, num_groups, size)
    total, between, within = (np.asarray(each, np.float64) for each in hierarchy.variance_decompose(np.moveaxis(divided, 0, 2)))
    return {
        "between": float(between.mean()),
        "total": float(total.mean()),
        "first": float(between[0].mean()),
        "ensembles": len(divided),
        "law": hierarchy.collapse_law(num_groups, size),
        "residual": float((np.abs(total - between - within) / np.maximum(total, np.finfo(np.float64).tiny)).max()),
        "curve": between[0],
    }
