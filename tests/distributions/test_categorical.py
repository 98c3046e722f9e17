"""edd.distributions.categorical against mpmath values of the renormalised rounded log-probabilities."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.experimental import checkify

from edd.distributions import categorical

MP = mpmath.MPContext()
MP.dps = 50
INF = np.inf


def renormalised(log_probs):
    values = [MP.mpf(float(x)) for x in log_probs]
    total = MP.log(MP.fsum(MP.exp(x) for x in values))
    return [x - total for x in values]


@pytest.mark.parametrize("size", [2, 10, 1000])
def test_kl_divergence_of_near_and_far_distributions(size):
    rng = np.random.default_rng(size)
    steps = np.array([0, 1e-7, 1e-5, 1e-3, 0.1, 1, 10, 80])[:, None]
    logits = rng.normal(size=size) * 3
    p, q = (jax.nn.log_softmax(jnp.asarray(z, jnp.float32)) for z in (logits + 0 * steps, logits + steps * rng.normal(size=size)))
    got = np.asarray(jax.jit(categorical.kl_divergence)(p, q))
    assert got[0] == 0.0
    for row in range(1, len(steps)):
        first, second = renormalised(p[row]), renormalised(q[row])
        true = MP.fsum(MP.exp(x) * (x - y) for x, y in zip(first, second))
        assert abs(got[row] - true) <= 1e-5 * true + 1e-15


def test_float64_agrees_with_float32(x64):
    rng = np.random.default_rng(0)
    p, q = (jax.nn.log_softmax(jnp.asarray(rng.normal(size=(4, 7)), jnp.float32)) for _ in range(2))
    wide = [x.astype(jnp.float64) for x in (p, q)]
    for name in ("kl_divergence", "cross_entropy"):
        function = getattr(categorical, name)
        assert function(*wide).dtype == jnp.float64
        assert np.allclose(function(p, q), function(*wide), rtol=2e-6)
    assert np.allclose(categorical.entropy(p), categorical.entropy(wide[0]), rtol=2e-6)


def test_known_values():
    uniform, one_hot = jnp.log(jnp.full(8, 1 / 8)), jnp.array([0.0] + [-INF] * 7)
    assert float(categorical.entropy(uniform)) == pytest.approx(np.log(8))
    assert float(categorical.entropy(one_hot)) == 0.0
    assert float(categorical.kl_divergence(one_hot, uniform)) == pytest.approx(np.log(8))
    assert float(categorical.cross_entropy(one_hot, uniform)) == pytest.approx(np.log(8))
    assert float(categorical.kl_divergence(one_hot, one_hot)) == 0.0
    assert float(categorical.cross_entropy(one_hot, one_hot)) == 0.0
    for function in (categorical.kl_divergence, categorical.cross_entropy):
        assert np.isposinf(function(uniform, one_hot))


def test_gradients_are_textbook_and_finite_at_zeros():
    logits = np.random.default_rng(1).normal(size=(2, 3, 5))
    p, q = (jax.nn.log_softmax(jnp.asarray(z, jnp.float32)) for z in logits)
    by_p, by_q = jax.grad(lambda a, b: categorical.kl_divergence(a, b).sum(), (0, 1))(p, q)
    assert np.allclose(by_p, np.exp(p) * (p - q + 1), rtol=1e-5) and np.allclose(by_q, -np.exp(p), rtol=1e-5)
    assert np.allclose(jax.grad(lambda a: categorical.entropy(a).sum())(p), -np.exp(p) * (p + 1), rtol=1e-5, atol=1e-6)
    zeros, other = jnp.array([0.0, -INF, -INF]), jnp.array([-INF, np.log(0.5), np.log(0.5)])
    for a, b in ((zeros, other), (other, zeros), (zeros, zeros)):
        for function in (categorical.kl_divergence, categorical.cross_entropy, lambda a, b: categorical.entropy(a)):
            for gradient in jax.grad(function, (0, 1))(a, b):
                assert np.isfinite(gradient).all()
    hessian = jax.hessian(lambda z: categorical.kl_divergence(p[0], jax.nn.log_softmax(z)))(jnp.zeros(5))
    assert np.allclose(hessian, np.eye(5) / 5 - 1 / 25, atol=1e-6)


def test_log_mean_probs():
    members = jax.nn.log_softmax(jnp.asarray(np.random.default_rng(2).normal(size=(4, 2, 3)) * 5))
    assert np.allclose(categorical.log_mean_probs(members), np.log(np.exp(members).mean(0)), rtol=1e-5)
    with pytest.raises(ValueError, match="at least one member"):
        categorical.log_mean_probs(jnp.zeros((0, 2, 3)))


def test_sample_follows_the_probabilities():
    log_probs = jnp.log(jnp.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]))
    labels = np.asarray(categorical.sample(jax.random.key(0), log_probs, 20_000))
    assert labels.shape == (20_000, 2) and labels.dtype == np.int32 and (labels[:, 1] == 1).all()
    assert np.allclose(np.bincount(labels[:, 0]) / 20_000, [0.2, 0.3, 0.5], atol=0.02)


def test_errors_name_the_argument():
    good = jnp.log(jnp.full((2, 4), 0.25))
    with pytest.raises(ValueError, match="log_probs must be log-probabilities whose exp sums to 1"):
        categorical.entropy(good + 0.1)
    with pytest.raises(ValueError, match="q_log_probs must be log-probabilities"):
        categorical.kl_divergence(good, good.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="p_log_probs .* q_log_probs .* same shape"):
        categorical.cross_entropy(good, good[:1])
    with pytest.raises(ValueError, match="at least 2 classes"):
        categorical.entropy(jnp.zeros(1))
    with pytest.raises(ValueError, match="num_samples"):
        categorical.sample(jax.random.key(0), good, 0)


def test_validate_logits_and_labels():
    logits, labels = (
        jax.jit(checkify.checkify(each)) for each in (categorical.validate_logits, lambda x: categorical.validate_labels(x, 3))
    )
    logits(jnp.zeros(3))[0].throw(), labels(jnp.arange(3))[0].throw()
    for checked, bad, message in (
        (logits, jnp.array([0.0, jnp.inf]), "logits must be finite"),
        (labels, jnp.array([0, 3]), r"labels must lie in \[0, 3\)"),
        (labels, jnp.array([-1]), "labels must lie"),
    ):
        with pytest.raises(checkify.JaxRuntimeError, match=message):
            checked(bad)[0].throw()
    with pytest.raises(ValueError, match=r"must lie in \[0, 3\)"):
        categorical.validate_labels(jnp.array([3]), 3)
    with pytest.raises(TypeError, match="integers"):
        categorical.validate_labels(jnp.array([1.0]), 3)


def test_validate_log_probs_inside_jit():
    checked = jax.jit(checkify.checkify(categorical.validate_log_probs))
    checked(jnp.log(jnp.full(4, 0.25)))[0].throw()
    for bad in (jnp.zeros(4), jnp.full(4, jnp.nan)):
        error, _ = checked(bad)
        with pytest.raises(checkify.JaxRuntimeError, match="log_probs must be log-probabilities"):
            error.throw()
