"""Spirals against an independent generator, the exact posterior against brute force, and the ring."""

import numpy as np
import pytest

from edd.data import synthetic


def reference_arm(u, normal_x, normal_y, turn, noise):
    """The generator of the specification, point by point."""
    points = []
    for a, b, c in zip(u, normal_x, normal_y, strict=True):
        n = a**0.5 * 6 * np.pi
        points.append((-np.cos(n + turn) * n**2 + b * noise * n**1.5, np.sin(n + turn) * n**2 + c * noise * n**1.5))
    return np.array(points)


def test_legacy_order_is_the_authors():
    np.random.seed(100)
    expected = []
    for arm in range(3):
        u, x, y = np.random.rand(5), np.random.randn(5), np.random.randn(5)
        expected.append(reference_arm(u, x, y, 2 * np.pi * arm / 3, 0.1))
    split = synthetic.spirals(arms=3, points=5, noise=0.1, scale=1.0, legacy_seed=100)
    np.testing.assert_allclose(split.inputs, np.concatenate(expected), rtol=1e-6)
    np.testing.assert_array_equal(split.labels, np.repeat(np.arange(3), 5))


def test_noiseless_points_lie_on_their_arm():
    split = synthetic.spirals(arms=6, points=50, noise=0.0, scale=1.0)
    radius = np.linalg.norm(split.inputs.astype(np.float64), axis=1)
    angle = np.arctan2(split.inputs[:, 1], -split.inputs[:, 0])
    turn = (angle - np.sqrt(radius)) % (2 * np.pi)
    assert radius.max() <= (6 * np.pi) ** 2 + 1e-3
    difference = (turn - 2 * np.pi * split.labels / 6 + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(difference, 0.0, atol=1e-3)


def test_radius_squared_root_is_uniform():
    radius = np.linalg.norm(synthetic.spirals(arms=2, points=20_000, noise=0.0, scale=1.0).inputs, axis=1)
    u = np.sort(radius / (6 * np.pi) ** 2)  # n^2 / (6 pi)^2 ~ U(0, 1)
    assert np.abs(u - np.arange(len(u)) / len(u)).max() < 1.63 / len(u) ** 0.5  # Kolmogorov-Smirnov at 1 %


def test_shape_dtype_balance_and_scale():
    split, raw = (synthetic.spirals(arms=10, points=7, noise=0.05, scale=scale) for scale in (100.0, 1.0))
    assert split.inputs.shape == (70, 2) and split.inputs.dtype == np.float32 and split.labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(split.labels), np.full(10, 7))
    np.testing.assert_allclose(split.inputs * 100, raw.inputs, rtol=1e-5)
    assert len(np.unique(split.labels[:10])) > 2, "the rows must be in random order"


def test_seeds_and_splits_are_reproducible_and_independent():
    draws = {(split, seed): synthetic.spirals(split, points=40, seed=seed).inputs for split in synthetic.SPLITS for seed in (0, 1)}
    for (split, seed), inputs in draws.items():
        np.testing.assert_array_equal(inputs, synthetic.spirals(split, points=40, seed=seed).inputs)
    everything = np.concatenate([np.unique(inputs) for inputs in draws.values()])
    assert len(np.unique(everything)) == len(everything)


def test_test_points_apply_outside_training():
    sizes = {split: len(synthetic.spirals(split, points=4, test_points=9).labels) for split in synthetic.SPLITS}
    assert sizes == {"train": 12, "validation": 27, "test": 27}


@pytest.mark.parametrize(("arms", "noise", "lowest", "highest"), [(3, 0.2, 0.25, 0.65), (3, 0.4, 11.7, 13.0), (6, 0.1, 0.3, 0.75)])
def test_bayes_error_is_the_specifications(arms, noise, lowest, highest):
    split = synthetic.spirals("test", arms=arms, points=6000 // arms, noise=noise)
    probs = synthetic.posterior(split.inputs, arms=arms, noise=noise, num_nodes=1500)
    np.testing.assert_allclose(probs.sum(1), 1.0, rtol=1e-12)
    error = 100 * (probs.argmax(1) != split.labels).mean()
    assert lowest < error < highest
    expected = 100 * (1 - probs.max(1)).mean()  # a calibrated posterior predicts its own error
    assert abs(error - expected) < 4 * (error * 100 / 6000) ** 0.5


def test_posterior_is_the_average_over_random_positions():
    point = np.array([[-1.2, 0.9]])
    rng = np.random.default_rng(0)
    n = np.sqrt(rng.random(400_000)) * 6 * np.pi
    densities = []
    for arm in range(3):
        turned = n + 2 * np.pi * arm / 3
        squared = (100 * point[0, 0] + np.cos(turned) * n**2) ** 2 + (100 * point[0, 1] - np.sin(turned) * n**2) ** 2
        densities.append(np.mean(np.exp(-squared / (2 * 0.4**2 * n**3)) / (2 * np.pi * 0.4**2 * n**3)))
    expected = np.array(densities) / np.sum(densities)
    found = synthetic.posterior(point, arms=3, noise=0.4)[0]
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.005)
    assert found.max() < 0.99, "the test point must be ambiguous"


def test_ring_lies_outside_the_spirals():
    ring = synthetic.ring(points=500, radius=410.0, noise=1.0, scale=1.0)
    radius = np.linalg.norm(ring.inputs, axis=1)
    assert abs(radius.mean() - 410) < 0.3 and 0.8 < radius.std() < 1.2
    assert ring.inputs.shape == (500, 2) and set(ring.labels) == {-1}
    assert np.abs(ring.inputs.mean(0)).max() < 60, "all directions must occur"
    np.testing.assert_array_equal(ring.inputs, synthetic.ring(points=500, scale=1.0).inputs)
    assert not np.array_equal(ring.inputs, synthetic.ring(points=500, scale=1.0, seed=1).inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": 1}, "arms must be at least 2, got 1"),
        ({"points": 0}, "points must be at least 1"),
        ({"noise": -0.1}, "noise must be at least 0"),
        ({"noise": float("nan")}, "noise must be at least 0"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"split": "valid"}, "splits train, validation, test"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        synthetic.spirals(**options)


def test_bad_ring_and_posterior_are_refused():
    with pytest.raises(ValueError, match="radius must be positive"):
        synthetic.ring(radius=0.0)
    for inputs, noise in ((np.zeros((3, 3)), 0.1), (np.zeros((3, 2)), 0.0)):
        with pytest.raises(ValueError, match=r"inputs must be \[N, 2\] and noise positive"):
            synthetic.posterior(inputs, arms=3, noise=noise)
