"""Distances between mixtures against scipy on samples, closed forms of two Gaussians, and the CRPS they are the excess of."""

import numpy as np
import pytest
import scipy.stats

from edd.metrics import laws, regression

RNG = np.random.default_rng(0)


def mixture(components, inputs=3, spread=1.0):
    return RNG.normal(size=(components, inputs)), spread * RNG.uniform(0.1, 1.0, size=(components, inputs))


def draw(law, index, count=100_000):
    means, variances = law[0][:, index], law[1][:, index]
    which = RNG.integers(len(means), size=count)
    return means[which] + np.sqrt(variances[which]) * RNG.normal(size=count)


def test_against_samples():
    first, second = mixture(2), mixture(5)
    energy, moved = laws.energy_distance(first, second), laws.wasserstein(first, second)
    for index in range(3):
        ours, theirs = draw(first, index), draw(second, index)
        assert moved[index] == pytest.approx(scipy.stats.wasserstein_distance(ours, theirs), abs=0.01)
        assert energy[index] == pytest.approx(scipy.stats.energy_distance(ours, theirs) ** 2, abs=0.01)


def test_atoms_are_exact():
    points, others = RNG.normal(size=(40, 1)), RNG.normal(size=(30, 1))
    atoms = lambda values: (values, np.zeros_like(values))  # noqa: E731
    expected = scipy.stats.energy_distance(points[:, 0], others[:, 0]) ** 2
    np.testing.assert_allclose(laws.energy_distance(atoms(points), atoms(others)), expected, rtol=1e-9)
    expected = scipy.stats.wasserstein_distance(points[:, 0], others[:, 0])
    np.testing.assert_allclose(laws.wasserstein(atoms(points), atoms(others)), expected, atol=2e-3)


def test_two_gaussians_in_closed_form():
    one, other = ((np.array([[0.0]]), np.array([[1.0]])), (np.array([[0.7]]), np.array([[1.0]])))
    assert laws.wasserstein(one, other) == pytest.approx(0.7, abs=1e-6)
    wide = (np.array([[0.0]]), np.array([[4.0]]))
    assert laws.wasserstein(one, wide) == pytest.approx(np.sqrt(2 / np.pi), abs=1e-5)  # |sigma - tau| E|Z|
    expected = np.sqrt(2 / np.pi) * (2 * np.sqrt(5) - np.sqrt(2) - np.sqrt(8))
    assert laws.energy_distance(one, wide) == pytest.approx(expected, rel=1e-9)


def test_it_is_twice_the_excess_crps_and_zero_for_a_law_itself():
    truth, forecast = mixture(3, inputs=1), mixture(4, inputs=1)
    values = draw(truth, 0)[None]
    crps = [
        regression.gaussian_mixture_crps(np.repeat(law[0], 4_000, 1), np.repeat(law[1], 4_000, 1), values[0, :4_000])
        for law in (truth, forecast)
    ]
    assert laws.energy_distance(truth, forecast) == pytest.approx(2 * (crps[1] - crps[0]), abs=0.06)
    np.testing.assert_allclose(laws.energy_distance(truth, truth), 0, atol=1e-12)


def test_bad_laws():
    good = mixture(2)
    for bad in ((good[0], -good[1]), (good[0], good[1][:1]), (good[0] * np.nan, good[1]), (good[0][:, :2], good[1][:, :2])):
        with pytest.raises(ValueError):
            laws.energy_distance(good, bad)
