"""Tiles: torch's adaptive bins, tested against the specification's tables, and what averaging does and does not keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.ensembles import tiles

SEVEN = {
    2: [(0, 4), (3, 7)],
    3: [(0, 3), (2, 5), (4, 7)],
    4: [(0, 2), (1, 4), (3, 6), (5, 7)],
    5: [(0, 2), (1, 3), (2, 5), (4, 6), (5, 7)],
    6: [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)],
    7: [(i, i + 1) for i in range(7)],
}
SIXTEEN = {  # lengths
    3: "666",
    5: "44444",
    6: "343343",
    7: "3334333",
    9: "233323332",
    10: "2323223232",
    11: "22323232322",
    12: "2" * 12,
    13: "2222322232222",
    14: "2" * 14,
    15: "2" * 15,
    16: "1" * 16,
}
MEANS = {2: [1.5, 4.5], 3: [1, 3, 5], 4: [0.5, 2, 4, 5.5], 5: [0.5, 1.5, 3, 4.5, 5.5], 6: [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]}


@pytest.mark.parametrize("count", SEVEN)
def test_bins_of_seven(count):
    assert list(tiles.bins(7, count)) == SEVEN[count]


@pytest.mark.parametrize("count", SIXTEEN)
def test_bins_of_sixteen(count):
    assert [stop - start for start, stop in tiles.bins(16, count)] == [int(length) for length in SIXTEEN[count]]


@pytest.mark.parametrize("count", MEANS)
def test_means_along_either_axis(count):
    line = jnp.arange(7.0)
    for values in (line[:, None, None] * jnp.ones((1, 7, 1)), jnp.ones((7, 1, 1)) * line[None, :, None]):
        found = tiles.adaptive_average_pool(values, count)
        assert found.shape == (count, count, 1)
        along = found[:, 0, 0] if values[1, 0, 0] == 1 and values[0, 1, 0] == 0 else found[0, :, 0]
        np.testing.assert_allclose(along, MEANS[count], atol=1e-6)


def test_the_two_dimensional_mean_is_over_the_box():
    values = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)
    found = tiles.adaptive_average_pool(jnp.asarray(values), 3)
    for i, (top, bottom) in enumerate(tiles.bins(7, 3)):
        for j, (left, right) in enumerate(tiles.bins(5, 3)):
            np.testing.assert_allclose(found[:, i, j], values[:, top:bottom, left:right].mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize(("length", "size", "kept"), [(7, 1, True), (7, 7, True), (7, 3, False), (16, 4, True), (16, 5, False)])
def test_the_mean_is_kept_where_the_size_divides(length, size, kept):
    positions = jax.random.normal(jax.random.key(0), (2, length * length, 4))
    found = tiles.members(positions, size)
    assert found.shape == (size * size, 2, 4)
    assert np.allclose(found.mean(0), positions.mean(1), atol=1e-5) is kept


def test_members_are_row_after_row():
    positions = jnp.arange(12.0).reshape(1, 12, 1)
    assert tiles.members(positions, 2, (2, 6))[:, 0, 0].tolist() == [1, 4, 7, 10]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tiles.bins(7, 8), "between 1 and 7 bins"),
        (lambda: tiles.bins(7, 0), "between 1 and 7 bins"),
        (lambda: tiles.members(jnp.zeros((1, 12, 1)), 2), "grid must have 12 positions, got 3 x 3"),
        (lambda: tiles.members(jnp.zeros((12, 1)), 2), r"positions must be \[B, P, K\]"),
        (lambda: tiles.adaptive_average_pool(jnp.zeros((2, 2)), 1), "values must be"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
