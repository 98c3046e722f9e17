"""Dealing rows: nobody sees what he must not, fractions, mixup between rows, and the old behaviour where all rows are for all."""

import numpy as np
import pytest

from edd.data import tabular
from edd.experiments import design
from edd.experiments.regression_settings import Tables

TRAIN = tabular.smoke(count=101)


def rows(points, scaling):
    """Scaled points as a set of rows, and the whole table's the same way."""
    return {tuple(row) for row in points.round(4).tolist()}, tabular.scale(TRAIN, scaling)[0]


def deal(**data):
    return design.deal(Tables(["x.csv"], **data), TRAIN, 3, seed=5)


def test_new_points_are_rows_the_teachers_did_not_see():
    dealt = deal()
    assert len(dealt.labels) == 50 and len(dealt.points) == 51 == len(dealt.spare.targets)
    points, whole = rows(dealt.points, dealt.scaling)
    teachers, _ = rows(dealt.inputs, dealt.scaling)
    assert not points & teachers and points | teachers == rows(whole, dealt.scaling)[0]
    first = tabular.scale(TRAIN, dealt.scaling)[0][:50]
    assert 10 < len(teachers & rows(first, dealt.scaling)[0]) < 40  # drawn, not the first half
    np.testing.assert_allclose(dealt.inputs.mean(0), 0, atol=1e-6)  # the scaling knows the teachers' rows alone


def test_training_points_are_the_teachers_own():
    dealt = deal(design="train")
    np.testing.assert_array_equal(dealt.points, dealt.inputs)
    assert len(dealt.labels) == 101 and not len(dealt.spare.targets) and dealt.members is None
    half = deal(design="train", teacher_fraction=0.5, design_fraction=0.2)
    assert len(half.points) == 10 and rows(half.points, half.scaling)[0] <= rows(half.inputs, half.scaling)[0]
    np.testing.assert_array_equal(half.inputs, deal().inputs)  # the same teachers as for new points


@pytest.mark.parametrize("name", ["train", "new"])
def test_mixup_points_lie_between_rows_of_their_source(name):
    plain, mixed = deal(design=name, teacher_fraction=0.5), deal(design="mixup_" + name, teacher_fraction=0.5)
    assert mixed.points.shape == plain.points.shape and mixed.points.dtype == np.float32
    assert not rows(mixed.points, mixed.scaling)[0] & rows(plain.points, plain.scaling)[0]
    assert (mixed.points.max(0) <= plain.points.max(0)).all() and (mixed.points.min(0) >= plain.points.min(0)).all()


def test_members_rows_and_too_few_rows():
    assert deal(member_fraction=0.5, common_fraction=0.5).members.shape == (3, 25)
    with pytest.raises(ValueError, match="too few"):
        deal(teacher_fraction=0.99)
