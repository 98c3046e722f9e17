"""Settings of a regression study: tables and splits, teachers, label-trained baselines, students."""

import dataclasses

from edd.experiments.settings import Ensemble, Student, check_starts, unknown_name

DESIGNS = ("train", "new", "mixup_train", "mixup_new")


@dataclasses.dataclass(frozen=True)
class Tables:
    """What to train and to test on.

    Attributes:
      sets: UCI names ("boston", "concrete", ...) or paths of CSV files with the target in the last column.
      splits: numbers of the splits, from 0.
      data_dir: folder that holds uci/; None reads TFDS_DATA_DIR.
      design: where the students see the teachers: "new" rows that the teachers did not train on, the teachers' own rows ("train"), or
        as many points between pairs of these ("mixup_new", "mixup_train"). The default is "new": on their own training rows teachers
        agree more than elsewhere. The paper's tables are "train".
      design_fraction: share of those rows that the students see, in (0, 1].
      teacher_fraction: share of a split's training rows that the teachers may train on, in (0, 1]; None: 0.5 where the design is new
        (the paper's 4.5 : 4.5 : 1), else 1.
      member_fraction: share of the teachers' rows that each teacher trains on, in (0, 1].
      common_fraction: share of a teacher's rows that all teachers have in common, in [0, 1]; the rest is drawn for each.
    """

    sets: list = dataclasses.field(default_factory=lambda: ["boston"])
    splits: list = dataclasses.field(default_factory=lambda: [0])
    data_dir: str | None = None
    design: str = "new"
    design_fraction: float = 1.0
    teacher_fraction: float | None = None
    member_fraction: float = 1.0
    common_fraction: float = 1.0

    def __post_init__(self):
        if not self.sets or not self.splits:
            raise ValueError(f"data.sets and data.splits must not be empty, got {self.sets} and {self.splits}")
        if self.design not in DESIGNS:
            raise ValueError(unknown_name("data.design", self.design, DESIGNS))
        for name in ("design_fraction", "teacher_fraction", "member_fraction"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"data.{name} must lie in (0, 1], got {value}")
        if not 0 <= self.common_fraction <= 1:
            raise ValueError(f"data.common_fraction must lie in [0, 1], got {self.common_fraction}")
        if self.design.endswith("new") and self.teacher_fraction == 1:
            raise ValueError(
                f"data.teacher_fraction must be below 1 for design {self.design!r}: no row would be left that the teachers did not see"
            )


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
        check_starts(self.students, None)
