"""What members have in common: sizes, the exact common part, chance overlap of the rest, independence of the number of members."""

import numpy as np
import pytest

from edd.ensembles import subsets


@pytest.mark.parametrize("common", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_members_share_what_they_are_asked_to_and_the_rest_by_chance(common):
    found = subsets.overlapping(1000, 30, fraction=0.5, common=common, seed=3)
    assert found.shape == (30, 500) and all(len(set(row)) == 500 for row in found.tolist())
    shared = set.intersection(*map(set, found.tolist()))
    assert len(shared) == round(500 * common)
    # of the other 1000 - 500 c examples each member draws 500 (1 - c): two members share their expected product
    rest = 500 * (1 - common)
    expected = 500 * common + rest**2 / (1000 - 500 * common)
    pairs = [len(set(a) & set(b)) for i, a in enumerate(found.tolist()) for b in found.tolist()[:i]]
    assert abs(np.mean(pairs) - expected) < 3


def test_a_members_examples_do_not_depend_on_the_number_of_members():
    few, many = (subsets.overlapping(40, count, fraction=0.5, common=0.2, seed=1) for count in (2, 5))
    np.testing.assert_array_equal(few, many[:2])
    np.testing.assert_array_equal(subsets.overlapping(7, 2, fraction=1.0, common=0.3, seed=0), np.tile(np.arange(7), (2, 1)))


@pytest.mark.parametrize("bad", [{"fraction": 0.0}, {"common": 1.1}, {"num_members": 0}, {"seed": -1}])
def test_bad_shares(bad):
    with pytest.raises(ValueError):
        subsets.overlapping(**{"num_examples": 10, "num_members": 2, "fraction": 0.5, "common": 0.5, "seed": 0, **bad})
