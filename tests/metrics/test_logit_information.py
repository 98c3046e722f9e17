"""The estimator of mutual information: a slow reference, its bounds and limits, its invariances, and what few draws do to it."""

import math

import numpy as np
import pytest

from edd.metrics.logit_information import example_information

N, L = 600, 5


def gaussian(spread, seed=0, draws=L):
    """(draws [L, N], fresh [N]) of Gaussian means with this standard deviation at noise 1."""
    rng = np.random.default_rng(seed)
    means = spread * rng.normal(size=N)
    return means + rng.normal(size=(draws, N)), means + rng.normal(size=N)


def slow(draws, values):
    means = [math.fsum(column) / len(column) for column in np.transpose(draws)]
    variance = math.fsum((y - m) ** 2 for y, m in zip(values, means)) / len(means)
    total = 0.0
    for y, own in zip(values, means):
        mixture = math.fsum(math.exp(-((y - other) ** 2) / (2 * variance)) for other in means) / len(means)
        total += -((y - own) ** 2) / (2 * variance) - math.log(mixture)
    return total / len(means)


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_equals_the_formula_term_by_term(spread):
    draws, fresh = (each[..., :50] for each in gaussian(spread))
    assert example_information(draws) == pytest.approx(slow(draws, draws[0]), abs=1e-12)
    assert example_information(draws, fresh) == pytest.approx(slow(draws, fresh), abs=1e-12)


def test_separated_examples_reach_ln_n_and_nothing_exceeds_it():
    rng = np.random.default_rng(0)
    far = 1e4 * rng.permutation(N) + rng.normal(size=(L, N))
    assert example_information(far) == pytest.approx(math.log(N), abs=1e-12)
    for spread in (0.0, 1.0, 1e3, 1e8):
        draws, fresh = gaussian(spread)
        assert example_information(draws) <= math.log(N) and example_information(draws, fresh) <= math.log(N)


def test_two_far_clusters_hold_ln_2():
    rng = np.random.default_rng(0)
    draws = np.repeat([0.0, 1e4], N // 2) + rng.normal(size=(4000, N))
    assert example_information(draws) == pytest.approx(math.log(2), abs=2e-3)


def test_equal_means_hold_nothing():
    noise = np.random.default_rng(0).normal(size=N)
    draws = np.stack([noise, -noise])  # every mean is exactly 0
    assert example_information(draws) == pytest.approx(0, abs=1e-15)
    assert example_information(np.full((L, N), 7.0)) == 0


def test_without_noise_the_floor_holds():
    means = np.repeat([0.0, 1.0], N // 2)
    assert example_information(np.tile(means, (L, 1))) == pytest.approx(math.log(2), abs=1e-12)
    evenly = np.tile(np.arange(N, dtype=float), (L, 1))
    assert example_information(evenly) == pytest.approx(math.log(N))
    assert example_information(evenly, floor=0.5) < 1


def test_the_first_term_averages_minus_one_half():
    draws, _ = gaussian(2.0)
    means = draws.mean(0)
    variance = np.mean((draws[0] - means) ** 2)
    second = -np.log(np.exp(-((draws[0][:, None] - means) ** 2) / (2 * variance)).mean(1)).mean()
    assert example_information(draws) == pytest.approx(-0.5 + second, abs=1e-12)


@pytest.mark.parametrize("scale,shift", [(-3.0, 0.0), (1e-20, 5e-19), (1e200, -1e201), (0.5, 1e4)])
def test_scaling_and_shifting_change_nothing(scale, shift):
    draws, fresh = gaussian(1.0)
    for one, other in ((None, None), (fresh, scale * fresh + shift)):
        assert example_information(scale * draws + shift, other) == pytest.approx(example_information(draws, one), rel=1e-9)


@pytest.mark.parametrize("spread,truth,high,low", [(0.3, 0.043, 0.154, -0.03), (1.0, 0.347, 0.445, 0.25), (3.0, 1.151, 1.25, 1.05)])
def test_few_draws_bias_the_estimate(spread, truth, high, low):
    """A draw that its mean has seen makes the estimate high, a fresh one low; with the true mean it is right."""
    found = [gaussian(spread, seed) for seed in range(8)]
    assert np.mean([example_information(draws) for draws, _ in found]) == pytest.approx(high, abs=0.04)
    assert np.mean([example_information(draws, fresh) for draws, fresh in found]) == pytest.approx(low, abs=0.04)
    many = [gaussian(spread, seed, draws=2000) for seed in range(4)]
    assert np.mean([example_information(*each) for each in many]) == pytest.approx(truth, abs=0.04)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\[L, N\]"):
        example_information(np.ones(5))
    with pytest.raises(ValueError, match="N >= 2"):
        example_information(np.ones((5, 1)))
    with pytest.raises(ValueError, match="fresh must have 3 entries"):
        example_information(np.ones((5, 3)), np.ones(4))
    with pytest.raises(ValueError, match="finite"):
        example_information([[np.inf, 0.0]])
    with pytest.raises(ValueError, match="finite"):
        example_information([[np.nan, 0.0]])
    with pytest.raises(ValueError, match=r"floor must lie in \(0, 1\)"):
        example_information(np.ones((5, 3)), floor=0.0)
