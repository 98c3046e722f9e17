"""The one call that `launch/run.py` makes: a config's plain dictionary to a finished run directory."""

import pathlib

from edd.experiments import (
    ablation,
    distillation,
    function_laws,
    gradient_ratio,
    hierarchy_regression,
    online,
    partitions,
    regression,
    shift,
    smoothing_distillation,
    smoothing_features,
    smoothing_sweep,
    speech,
    tile_study,
    translation,
    translation_smoothing,
    widths,
)
from edd.experiments.settings import unknown_name

EXPERIMENTS = {
    "distillation": distillation.run,
    "gradient_ratio": gradient_ratio.run,
    "regression": regression.run,
    "ablation": ablation.run,
    "function_laws": function_laws.run,
    "hierarchy_regression": hierarchy_regression.run,
    "online": online.run,
    "shift": shift.run,
    "partitions": partitions.run,
    "smoothing_distillation": smoothing_distillation.run,
    "smoothing_features": smoothing_features.run,
    "smoothing_sweep": smoothing_sweep.run,
    "speech": speech.run,
    "tiles": tile_study.run,
    "translation": translation.run,
    "translation_smoothing": translation_smoothing.run,
    "widths": widths.run,
}


def run(config: dict, workdir: str | None = None, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Runs the experiment a config describes and returns its results.

    Args:
      config: nested plain dictionary; "experiment" names the kind ("distillation" when absent), the rest are its settings.
      workdir: run directory; None: runs/NAME under the current directory.
      data_dir: TFDS directory; None: the config's, else TFDS_DATA_DIR, else TFDS's default.
      progress: show progress bars.

    Raises:
      ValueError: an unknown experiment, bad settings, or a directory that holds another run.
    """
    config = dict(config)
    kind = config.pop("experiment", "distillation")
    if kind not in EXPERIMENTS:
        raise ValueError(unknown_name("experiment", kind, EXPERIMENTS))
    directory = pathlib.Path(workdir) if workdir else pathlib.Path("runs") / str(config.get("name", kind))
    results = EXPERIMENTS[kind](config, directory, data_dir=data_dir, progress=progress)
    if progress and (directory / "report.html").exists():
        print(f"report: {directory / 'report.html'} (also report.md, results.json)")
    return results
