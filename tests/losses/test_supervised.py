"""Cross-entropy and label smoothing: closed forms of the optimum, and digits where one class dominates."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from edd.losses import softmax, supervised

OPTIMA = [  # K, smoothing, gap of the label's logit, minimum cross-entropy
    (10, 0.1, 4.5109, 0.5003),
    (10, 0.05, 5.2523, 0.2824),
    (10, 0.3, 3.1918, 1.1765),
    (10, 0.6, 2.0369, 1.8764),
    (100, 0.1, 6.8035, 0.7778),
    (1000, 0.1, 9.1051, 1.0148),
]


@pytest.mark.parametrize("num_classes, smoothing, gap, minimum", OPTIMA)
def test_the_optimum_has_its_closed_form(num_classes, smoothing, gap, minimum):
    exact = np.log(num_classes * (1 - smoothing) / smoothing + 1)
    np.testing.assert_allclose(exact, gap, atol=5e-5)
    logits = jnp.zeros(num_classes).at[3].set(exact)
    loss = jax.jit(jax.value_and_grad(supervised.label_smoothed_cross_entropy), static_argnums=2)
    value, slope = loss(logits, jnp.array(3), smoothing)
    np.testing.assert_allclose(value, minimum, atol=6e-5)
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    assert loss(logits + 0.1 * jnp.eye(num_classes)[3], jnp.array(3), smoothing)[0] > value
    divergence = supervised.label_smoothed_cross_entropy(logits, jnp.array(3), smoothing, subtract_entropy=True)
    np.testing.assert_allclose(divergence, 0, atol=2e-6)


def test_the_two_variants_are_one_family():
    logits = jax.random.normal(jax.random.key(0), (3, 5))
    labels = jnp.array([0, 4, 2])
    others = supervised.label_smoothed_cross_entropy(logits, labels, 0.2, variant="others")
    uniform = supervised.label_smoothed_cross_entropy(logits, labels, 0.2 * 5 / 4)
    np.testing.assert_allclose(others, uniform, rtol=1e-5)
    target = jnp.full((3, 5), 0.05).at[jnp.arange(3), labels].set(0.8)
    np.testing.assert_allclose(others, -(target * jax.nn.log_softmax(logits)).sum(-1), rtol=1e-5)
    plain = supervised.label_smoothed_cross_entropy(logits, labels, 0.0)
    np.testing.assert_allclose(plain, supervised.cross_entropy(logits, labels), rtol=1e-6)


@pytest.mark.parametrize("logits", [(20.0, 0.0, -3.0), (80.0, -80.0, 79.0), (0.0, 0.0, 0.0), (-80.0, 80.0, 80.0)])
def test_cross_entropy_keeps_its_digits(logits):
    values = jnp.array(logits)
    exps = [mp.exp(mp.mpf(x)) for x in logits]
    for label in range(3):
        loss, slope = jax.jit(jax.value_and_grad(supervised.cross_entropy))(values, jnp.array(label))
        np.testing.assert_allclose(loss, float(mp.log(mp.fsum(exps) / exps[label])), rtol=2e-6)
        np.testing.assert_allclose(slope, np.array([float(e / mp.fsum(exps)) for e in exps]) - np.eye(3)[label], atol=1e-6)


def test_log_softmax_equals_jax_in_float64(x64):
    logits = 5 * jax.random.normal(jax.random.key(1), (4, 6), jnp.float64)
    logits = logits.at[0].set(1.0).at[1, 2].set(-jnp.inf)
    np.testing.assert_allclose(softmax.log_softmax(logits), jax.nn.log_softmax(logits), rtol=1e-12)
    weights = jnp.arange(24.0).reshape(4, 6)
    slope, expected = (jax.grad(lambda z, f=f: (weights * f(z))[2:].sum())(logits) for f in (softmax.log_softmax, jax.nn.log_softmax))
    np.testing.assert_allclose(slope, expected, atol=1e-10)


@pytest.mark.parametrize(
    "logits, labels, error, message",
    [
        (jnp.zeros((2, 3)), jnp.array([0, 3]), ValueError, "labels"),
        (jnp.zeros((2, 3)), jnp.array([0.0, 1.0]), TypeError, "labels"),
        (jnp.zeros((2, 3)), jnp.array([0]), ValueError, "labels"),
        (jnp.zeros((2, 1)), jnp.array([0, 0]), ValueError, "logits"),
        (jnp.full((2, 3), jnp.nan), jnp.array([0, 1]), ValueError, "logits"),
    ],
)
def test_bad_arguments_are_refused(logits, labels, error, message):
    with pytest.raises(error, match=message):
        supervised.cross_entropy(logits, labels)


def test_smoothing_towards_a_prior():
    logits, labels = jax.random.normal(jax.random.key(0), (3, 4)), jnp.array([0, 3, 2])
    smoothed = supervised.label_smoothed_cross_entropy
    np.testing.assert_allclose(smoothed(logits, labels, 0.2, prior=jnp.full(4, 0.25)), smoothed(logits, labels, 0.2), rtol=1e-6)
    prior = np.array([0.7, 0.1, 0.2, 0.0])
    target = 0.9 * np.eye(4)[np.asarray(labels)] + 0.1 * prior
    np.testing.assert_allclose(smoothed(logits, labels, 0.1, prior=prior), -(target * jax.nn.log_softmax(logits)).sum(-1), rtol=1e-5)
    near = jnp.log(jnp.asarray(target)).at[0, 3].set(-40.0).at[2, 3].set(-40.0)
    np.testing.assert_allclose(smoothed(near, labels, 0.1, prior=prior, subtract_entropy=True), 0, atol=1e-6)
    slope = jax.grad(lambda z: smoothed(z, labels, 0.1, prior=prior).sum())(near)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


@pytest.mark.parametrize(
    "prior, message",
    [((0.5, 0.4, 0.2), "sums to 1"), ((0.5, 0.5), "prior"), ((1.5, -0.5, 0.0), "sums to 1")],
)
def test_a_prior_that_is_no_distribution_is_refused(prior, message):
    with pytest.raises(ValueError, match=message):
        supervised.label_smoothed_cross_entropy(jnp.zeros(3), jnp.array(0), 0.1, prior=jnp.array(prior))
    with pytest.raises(ValueError, match="takes the place"):
        supervised.label_smoothed_cross_entropy(jnp.zeros(3), jnp.array(0), 0.1, variant="others", prior=jnp.full(3, 1 / 3))


def test_bad_smoothing_is_refused():
    with pytest.raises(ValueError, match="smoothing"):
        supervised.label_smoothed_cross_entropy(jnp.zeros(3), jnp.array(0), -0.1)
    with pytest.raises(ValueError, match="smoothing"):
        supervised.label_smoothed_cross_entropy(jnp.zeros(3), jnp.array(0), 1.5)
    with pytest.raises(ValueError, match="variant"):
        supervised.label_smoothed_cross_entropy(jnp.zeros(3), jnp.array(0), 0.5, variant="t2t")
