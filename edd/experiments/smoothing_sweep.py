"""What label smoothing of the teachers does to an ensemble's diversity, to its proxy precision, and to distribution-distilled students."""

import dataclasses
import pathlib

import jax

from edd.experiments import build, distillation, record, smoothing_sweep_report
from edd.experiments import settings as settings_lib

MEASURES = ("total", "mutual_information", "expected_pairwise_kl", "reverse_mutual_information")
KEPT = ("Single", "Ensemble", "Proxy Dirichlet")  # rows beside the students'


@dataclasses.dataclass(frozen=True)
class SmoothingSweep:
    """One distillation run for each smoothing of the teachers' labels.

    Attributes:
      name: of the run.
      base: fields of `settings.Settings` without name, seed and smoke; the ensemble's smoothing is replaced.
      smoothings: of the teachers' labels, each in [0, 1].
      seed: root of everything random; all smoothings share it, so that their teachers start alike.
      smoke: two steps on invented data, the first and the last smoothing.
    """

    name: str
    base: dict
    smoothings: list[float]
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        settings_lib.check_smoothings(self.smoothings)
        taken = [key for key in ("name", "seed", "smoke") if key in self.base]
        if taken:
            raise ValueError(f"base.{taken[0]} is the study's own: give it outside base")


def run(config: dict, workdir: pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Runs every smoothing in a folder of its own (resumable, with its own full report), then writes the report that compares them.

    Args:
      config: nested plain dictionary with the fields of `SmoothingSweep`.
      workdir: run directory.
      data_dir: TFDS directory, overrides the config's.
      progress: show progress bars.

    Raises:
      ValueError: bad settings (before anything is written), or a directory that holds another run.
    """
    settings = settings_lib.from_dict(SmoothingSweep, config)
    smoothings = settings.smoothings
    if settings.smoke:
        smoothings = [smoothings[0], smoothings[-1]]
    programs = {smoothing: at_smoothing(settings, smoothing) for smoothing in smoothings}
    parsed = [settings_lib.from_dict(settings_lib.Settings, each) for each in programs.values()]
    distillation.ready(*(build.shrink(each) if settings.smoke else each for each in parsed), data_dir=data_dir)
    description = record.open_run(workdir, config, {"run": settings.seed})
    parts = []
    for smoothing, program in programs.items():
        name = f"smoothing-{smoothing:g}"
        found = distillation.run(program, workdir / name, data_dir=data_dir, progress=progress)
        if not jax.process_index():
            parts.append(part(settings, smoothing, program, found))
    if jax.process_index():
        return {}
    return smoothing_sweep_report.finish(workdir, parts, config, record.for_report(description))


def at_smoothing(settings: SmoothingSweep, smoothing: float) -> dict:
    """The plain settings of one smoothing's run."""
    ensemble = {**settings.base.get("ensemble", {}), "smoothing": smoothing}
    return {**settings.base, "name": settings.name, "seed": settings.seed, "smoke": settings.smoke, "ensemble": ensemble}


def part(settings: SmoothingSweep, smoothing: float, program: dict, found: dict) -> dict:
    """What the comparison needs of one run's results: a number for each seed of a row, None where a row has no such quantity."""
    rows: dict = {}
    for entry in found["rows"]:
        if entry["name"] in KEPT or entry["group"] == "student":
            row = rows.setdefault(entry["name"], {"group": entry["group"], "seeds": []})
            row["seeds"].append(numbers(entry["metrics"]))
    methods = {name: student["method"] for name, student in program["students"].items()}
    data = program["data"]["name"]
    return {"smoothing": smoothing, "data": data, "run_seed": settings.seed, "methods": methods, "rows": rows}


def numbers(metrics: dict) -> dict:
    """Prediction quality, uncertainty and precision on every set, and detection of every out-of-distribution set, of one network."""
    value = lambda tree: None if tree is None else tree["value"]  # noqa: E731
    sets = metrics.get("uncertainty", {})
    return {
        **{name: value(metrics["classification"].get(name)) for name in ("accuracy", "nll", "ece")},
        "uncertainty": {name: {m: value(each.get(m)) for m in MEASURES} for name, each in sets.items()},
        "precision": {name: value(each) for name, each in metrics.get("precision", {}).items()},
        "auroc": {name: {m: value(each[m]["auroc"]) for m in MEASURES if m in each} for name, each in metrics["detection"].items()},
        "kept": {
            name: value(each["mutual_information"]["ratio_of_means"])
            for name, each in metrics.get("fidelity", {}).items()
            if "mutual_information" in each
        },
    }
