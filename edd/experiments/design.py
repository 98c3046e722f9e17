"""Who sees which rows of a table: the teachers' training rows, and the points at which students see the teachers."""

from typing import NamedTuple

import numpy as np

from edd.data import tabular
from edd.ensembles import subsets
from edd.experiments.regression_settings import Tables


class Dealt(NamedTuple):
    """A split's training rows, dealt out.

    Attributes:
      scaling: fitted on the teachers' rows.
      inputs, labels: the teachers' rows, scaled.
      members: [M, n] indices into them of the rows of each teacher; None: all.
      points: design points [m, d], scaled.
      spare: the rows that no teacher saw; may be empty.
    """

    scaling: tabular.Scaling
    inputs: np.ndarray
    labels: np.ndarray
    members: np.ndarray | None
    points: np.ndarray
    spare: tabular.Table


def deal(data: Tables, train: tabular.Table, num_members: int, seed: int) -> Dealt:
    """Deals the training rows of one split as the settings say; everything random depends on `seed` alone.

    Raises:
      ValueError: too few rows for the shares asked for.

    References:
      arXiv 2510.19290, ablation of design points (specification 5.5).
    """
    new = data.design.endswith("new")
    share = data.teacher_fraction or (0.5 if new else 1.0)
    total = len(train.targets)
    count = round(share * total)
    if count < 2 or (new and total - count < 2):
        raise ValueError(f"{total} training rows are too few for teacher_fraction {share} and design {data.design!r}")
    order = np.random.default_rng([seed, 2]).permutation(total) if count < total else np.arange(total)
    seen, left = np.sort(order[:count]), np.sort(order[count:])
    teachers = tabular.Table(train.inputs[seen], train.targets[seen])
    spare = tabular.Table(train.inputs[left], train.targets[left])
    scaling = tabular.fit_scaling(teachers)
    inputs, labels = tabular.scale(teachers, scaling)
    source = tabular.scale(spare, scaling)[0] if new else inputs
    chosen = np.random.default_rng([seed, 3]).permutation(len(source))[: max(2, round(data.design_fraction * len(source)))]
    points = source[np.sort(chosen)]
    if data.design.startswith("mixup"):
        points = tabular.mixup(points, len(points), np.random.default_rng([seed, 4]))
    shares = {"fraction": data.member_fraction, "common": data.common_fraction}
    members = None if data.member_fraction == 1 else subsets.overlapping(count, num_members, **shares, seed=seed)
    return Dealt(scaling, inputs, labels, members, points, spare)
