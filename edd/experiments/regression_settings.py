"""Settings of a regression study: tables and splits, teachers, label-trained baselines, students."""

import dataclasses

from edd.experiments.settings import Ensemble, Student


@dataclasses.dataclass(frozen=True)
class Tables:
    """What to train and to test on.

    Attributes:
      sets: UCI names ("boston", "concrete", ...) or paths of CSV files with the target in the last column.
      splits: numbers of the splits, from 0.
      data_dir: folder that holds uci/; None reads TFDS_DATA_DIR.
      design_fraction: share of the training rows that the students see (with the teachers' predictions), in (0, 1].
    """

    sets: list = dataclasses.field(default_factory=lambda: ["boston"])
    splits: list = dataclasses.field(default_factory=lambda: [0])
    data_dir: str | None = None
    design_fraction: float = 1.0

    def __post_init__(self):
        if not self.sets or not self.splits:
            raise ValueError(f"data.sets and data.splits must not be empty, got {self.sets} and {self.splits}")
        if not 0 < self.design_fraction <= 1:
            raise ValueError(f"data.design_fraction must lie in (0, 1], got {self.design_fraction}")


@dataclasses.dataclass(frozen=True)
class Regression:
    """A regression study; one part for each set and split.

    Attributes:
      name: of the run.
      data: tables and splits.
      ensemble: the teachers.
      baselines: name -> ensembles trained on labels without teachers (small ensembles).
      students: name -> distilled networks (`build.REGRESSION_METHODS`); "seeds" of each are averaged in the table.
      levels: levels of central intervals for the calibration figure.
      reference: row -> set -> metric -> the paper's number.
      seed: root of everything random.
      smoke: two steps on an invented table.
    """

    name: str
    data: Tables
    ensemble: Ensemble
    students: dict[str, Student]
    baselines: dict[str, Ensemble] = dataclasses.field(default_factory=dict)
    reference: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be in [0, 2^31), got {self.seed}")
        taken = {"Single", "Teachers"} & {*self.students, *self.baselines}
        if taken or set(self.students) & set(self.baselines):
            names = [*self.students, *self.baselines]
            raise ValueError(f"rows must have different names, none of them Single or Teachers, got {names}")
