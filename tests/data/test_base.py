"""Split names with slices."""

import numpy as np
import pytest

from edd.data.base import parse_split, slice_range

SPLITS = ("train", "test")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train", range(0, 10)), ("train[:3]", range(0, 3)), ("train[7:]", range(7, 10)), ("train[2:5]", range(2, 5)),
        ("train[:]", range(0, 10)),
        ("train[-3:]", range(7, 10)), ("train[:-3]", range(0, 7)), ("train[90%:]", range(9, 10)), ("train[:25%]", range(0, 2)),
        ("train[-20%:]", range(8, 10)), ("train[:99]", range(0, 10)),
    ],
)  # fmt: skip
def test_slices(text, expected):
    base, bounds = parse_split(text, SPLITS, "x")
    assert base == "train"
    assert list(slice_range(bounds, 10)) == list(expected)


def test_percentages_round_to_the_nearest_example():
    assert slice_range(("", "25%"), 7) == range(0, 2)  # 1.75
    assert slice_range(("", "30%"), 7) == range(0, 2)  # 2.1


@pytest.mark.parametrize("percent", range(0, 101, 7))
def test_complementary_percentages_partition(percent):
    for count in (1, 7, 1797):
        first, second = (slice_range(bounds, count) for bounds in (("", f"{percent}%"), (f"{percent}%", "")))
        np.testing.assert_array_equal([*first, *second], np.arange(count))


@pytest.mark.parametrize(
    "text", ["valid", "train[", "train[3]", "train[a:b]", "train[:5:2]", "train[%:]", "train[-:]", "", "test [:3]", None]
)
def test_unknown_splits_list_the_known_ones(text):
    with pytest.raises(ValueError, match="x has the splits train, test, each also as a slice"):
        parse_split(text, SPLITS, "x")
