"""The proxy losses: reference formulas, limits, transformations, targets and errors (accuracy: test_proxy_kernel.py)."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from edd.distributions import dirichlet
from edd.losses import proxy

mp.mp.dps = 50


def textbook_reverse_kl(logits, target, offset, target_offset, prior):
    """The displayed formulas, differentiated by JAX."""
    from jax.scipy.special import digamma, gammaln

    alpha = jnp.exp(logits) + offset
    total = alpha.sum(-1, keepdims=True)
    expected = digamma(alpha) - digamma(total)
    recon = -(jnp.exp(target.log_mean_probs) * expected).sum(-1)
    entropy = gammaln(alpha).sum(-1) - gammaln(total[..., 0]) - ((alpha - 1) * expected).sum(-1)
    num_classes = logits.shape[-1]
    if prior == "paper":
        return recon + (-entropy - gammaln(float(num_classes))) / target.precision
    return recon - entropy / (target.precision + target_offset * num_classes)


def random_problem(key, shape, dtype=None):
    keys = jax.random.split(key, 3)
    logits = 3 * jax.random.normal(keys[0], shape, dtype)
    log_probs = jax.nn.log_softmax(2 * jax.random.normal(keys[1], shape, dtype))
    return logits, proxy.ProxyTarget(log_probs, jnp.exp(3 * jax.random.normal(keys[2], shape[:-1], dtype)))


@pytest.mark.parametrize("offset, target_offset, prior", [(1.0, 1.0, "paper"), (0.25, 2.0, "authors")])
def test_reverse_kl_equals_the_textbook_formula(offset, target_offset, prior, x64):
    logits, target = random_problem(jax.random.key(0), (4, 3, 7), jnp.float64)

    def both(function):
        return jax.jit(lambda z: (function(z), jax.grad(lambda z: function(z).sum())(z)))(logits)

    got = both(lambda z: proxy.reverse_kl(z, target, offset, target_offset, prior))
    expected = both(lambda z: textbook_reverse_kl(z, target, offset, target_offset, prior))
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-9)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-7, atol=1e-9)


def test_the_paper_loss_has_the_gradient_of_the_scaled_divergence(x64):
    logits, target = random_problem(jax.random.key(1), (5, 6), jnp.float64)
    beta = target.precision[:, None] * jnp.exp(target.log_mean_probs) + 1

    def divergence(z):
        return (dirichlet.kl_divergence(jnp.exp(z) + 1, beta) / target.precision).sum()

    gradient = jax.grad(lambda z: proxy.reverse_kl(z, target).sum())(logits)
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(divergence))(logits), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("prior, target_offset", [("paper", 1.0), ("authors", 1.0), ("authors", 0.0)])
def test_the_minimiser_has_the_ensembles_mean_as_softmax(prior, target_offset):
    _, target = random_problem(jax.random.key(2), (5, 6))
    divisor = target.precision + (target_offset * 6 if prior == "authors" else 0)
    optimum = jnp.log(divisor)[:, None] + target.log_mean_probs
    gradient = jax.grad(lambda z: proxy.reverse_kl(z, target, 1.0, target_offset, prior).sum())
    np.testing.assert_allclose(gradient(optimum), 0, atol=2e-6)
    assert np.abs(gradient(optimum + 0.1)).max() > 1e-3


def test_limits_of_the_precision():
    logits = jnp.array([[0.0, 0.0, 0.0], [2.0, -1.0, 0.5]])
    log_probs = jax.nn.log_softmax(jnp.array([[1.0, 0.0, -jnp.inf], [0.0, 0.0, 1.0]]))
    value = jax.value_and_grad(lambda z, p, **k: proxy.reverse_kl(z, proxy.ProxyTarget(log_probs, p), **k).sum())
    reconstruction = -(jnp.exp(log_probs) * dirichlet.expected_log_probs(jnp.exp(logits) + 1)).sum()
    certain, slope = value(logits, jnp.full(2, jnp.inf))
    np.testing.assert_allclose(certain, reconstruction, rtol=1e-6)
    assert np.isfinite(slope).all()
    at_zero = proxy.reverse_kl(logits, proxy.ProxyTarget(log_probs, jnp.zeros(2)))
    assert np.isposinf(at_zero).all()
    assert not np.isnan(value(logits, jnp.zeros(2))[1]).any()
    uniform = proxy.reverse_kl(logits, proxy.ProxyTarget(log_probs, jnp.zeros(2)), offset=0.0)
    assert np.isfinite(uniform[0]) and np.isposinf(uniform[1])  # exp(0) + 0 = 1: the prior's own minimum
    authors, slope = value(logits, jnp.zeros(2), prior="authors")
    assert np.isfinite(authors) and np.isfinite(slope).all()


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_extreme_inputs_never_give_nan(offset):
    extremes = jnp.array([-80.0, 0.0, 80.0] if offset == 0 else [-1e4, -80.0, 0.0, 80.0, 100.0, 1e4])
    logits = jnp.stack(jnp.meshgrid(extremes, extremes, extremes, indexing="ij"), -1)
    log_probs = jnp.broadcast_to(jnp.array([0.0, -jnp.inf, -jnp.inf]), logits.shape)
    for precision in (0.0, 1e-30, 1.0, 1e30, jnp.inf):
        target = proxy.ProxyTarget(log_probs, jnp.full(logits.shape[:-1], precision))
        loss, slope = jax.value_and_grad(lambda z, t=target: proxy.reverse_kl(z, t, offset).sum())(logits)
        assert not np.isnan(loss) and not np.isnan(slope).any()
        if offset == 1 and precision >= 1:
            assert np.isfinite(loss) and np.isfinite(slope).all()


def test_classes_and_examples_may_be_permuted_and_mapped():
    logits, target = random_problem(jax.random.key(3), (4, 5, 9))
    loss = proxy.reverse_kl(logits, target)
    order = jnp.array([3, 1, 4, 0, 5, 8, 2, 6, 7])
    permuted = proxy.reverse_kl(logits[..., order], proxy.ProxyTarget(target.log_mean_probs[..., order], target.precision))
    np.testing.assert_allclose(permuted, loss, rtol=1e-6)
    gradient = jax.grad(lambda z, t: proxy.reverse_kl(z, t).sum())
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(logits, target), gradient(logits, target), rtol=1e-6, atol=1e-6)


def test_sharded_map_equals_one_device():
    logits, target = random_problem(jax.random.key(4), (8, 6))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")

    def mean_loss(z, t):
        return jax.lax.pmean(proxy.reverse_kl(z, t).mean(), "data")

    mapped = jax.shard_map(mean_loss, mesh=mesh, in_specs=(spec, spec), out_specs=jax.sharding.PartitionSpec())
    value, slope = jax.jit(jax.value_and_grad(mapped))(logits, target)
    expected = jax.value_and_grad(lambda z: proxy.reverse_kl(z, target).mean())(logits)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-5, atol=1e-7)


def test_value_and_grad_allocates_at_most_two_extra_arrays():
    logits, target = random_problem(jax.random.key(5), (64, 2000))
    compiled = jax.jit(jax.value_and_grad(lambda z, t: proxy.reverse_kl(z, t).mean())).lower(logits, target).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 2.1 * logits.nbytes


def test_clipping_stops_the_gradient_and_is_off_by_default():
    logits = jnp.array([8.0, 0.0])
    target = proxy.ProxyTarget(jnp.log(jnp.array([0.5, 0.5])), jnp.array(4.0))
    for loss in (proxy.reverse_kl, proxy.forward_kl):
        clipped = jax.grad(lambda z, loss=loss: loss(z, target, max_concentration=11.0))(logits)
        assert clipped[0] == 0 and clipped[1] != 0
        assert jax.grad(lambda z, loss=loss: loss(z, target))(logits)[0] != 0
        inside = jnp.array([jnp.log(10.0), 0.0])
        np.testing.assert_allclose(loss(logits, target, max_concentration=11.0), loss(inside, target), rtol=1e-6)


def test_half_precision_is_computed_in_float32():
    logits, target = random_problem(jax.random.key(6), (3, 4))
    loss = proxy.reverse_kl(logits.astype(jnp.bfloat16), target)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, proxy.reverse_kl(logits.astype(jnp.bfloat16).astype(jnp.float32), target), rtol=1e-6)


# --- the target ---


def oracle_target(member_log_probs):
    """(RMI, EPKL) of one example in 50 digits, members renormalised."""
    members = [[mp.exp(mp.mpf(float(x))) for x in row] for row in member_log_probs]
    members = [[x / mp.fsum(row) for x in row] for row in members]
    mean = [mp.fsum(column) / len(members) for column in zip(*members)]
    logs = [mp.fsum(mp.log(x) for x in column) / len(members) for column in zip(*members)]
    rmi = mp.fsum(p * (mp.log(p) - g) for p, g in zip(mean, logs))
    epkl = mp.fsum(x * mp.log(x) for row in members for x in row) / len(members) - mp.fsum(p * g for p, g in zip(mean, logs))
    return rmi, epkl


@pytest.mark.parametrize("spread", [1e-5, 1e-2, 1.0, 20.0])
def test_proxy_target_is_exact_down_to_nearly_identical_members(spread):
    keys = jax.random.split(jax.random.key(7), 2)
    base = 2 * jax.random.normal(keys[0], (50,))
    logits = base[None] + spread * jax.random.normal(keys[1], (5, 50))
    log_probs = jax.nn.log_softmax(logits)
    rmi, epkl = oracle_target(np.asarray(log_probs))
    # members 1e-5 apart are held by float32 log-probabilities to two digits only: the target is exact for the numbers given
    tolerance = 1e-5
    stirling, pairwise = (proxy.proxy_target(log_probs[:, None], estimator) for estimator in proxy.ESTIMATORS)
    np.testing.assert_allclose(stirling.precision[0], float(49 / (2 * rmi)), rtol=tolerance)
    np.testing.assert_allclose(pairwise.precision[0], float(49 / epkl), rtol=tolerance)
    np.testing.assert_allclose(jnp.exp(stirling.log_mean_probs[0]), jnp.exp(log_probs).mean(0), rtol=1e-5)


def test_proxy_target_of_a_true_dirichlet():
    concentration = jnp.array([30.0, 10.0, 5.0, 5.0])
    draws = jnp.log(jax.random.dirichlet(jax.random.key(8), concentration, (20000,)))
    np.testing.assert_allclose(proxy.proxy_target(draws, "epkl").precision, 50.0, rtol=0.05)
    np.testing.assert_allclose(proxy.proxy_target(draws).precision, 50.0, rtol=0.1)


def test_proxy_target_limits():
    same = jnp.log(jnp.array([[0.7, 0.3, 0.0]] * 3))
    disagree = jnp.log(jnp.eye(3))
    for estimator in proxy.ESTIMATORS:
        identical = proxy.proxy_target(same, estimator)
        assert np.isposinf(identical.precision)
        assert (identical.log_mean_probs == same[0]).all()
        assert np.isposinf(proxy.proxy_target(same[:1], estimator).precision)
        assert proxy.proxy_target(disagree, estimator).precision == 0
        np.testing.assert_allclose(jnp.exp(proxy.proxy_target(disagree, estimator).log_mean_probs), 1 / 3, rtol=1e-6)


# --- forward KL ---


def test_forward_kl_limits():
    log_probs = jnp.log(jnp.array([0.75, 0.25, 0.0]))
    logits = jnp.array([0.5, 0.0, -1.0])
    assert np.isposinf(proxy.forward_kl(logits, proxy.ProxyTarget(log_probs, jnp.array(jnp.inf))))
    assert np.isposinf(proxy.forward_kl(logits, proxy.ProxyTarget(log_probs, jnp.array(2.0)), target_offset=0.0))
    excluded = proxy.ProxyTarget(log_probs, jnp.array(jnp.inf))
    np.testing.assert_array_equal(jax.grad(proxy.forward_kl)(jnp.array([80.0, 0.0, -80.0]), excluded, target_offset=0.0), 0)
    assert np.isposinf(proxy.forward_kl(jnp.array([1e3, 0.0, 89.0]), proxy.ProxyTarget(log_probs, jnp.array(2.0))))
    alone = proxy.forward_kl(logits, proxy.ProxyTarget(log_probs, jnp.array(0.0)))
    np.testing.assert_allclose(alone, dirichlet.kl_divergence(jnp.ones(3), jnp.exp(logits) + 1), rtol=1e-6)
    target = proxy.ProxyTarget(log_probs, jnp.array(8.0))
    assert abs(proxy.forward_kl(jnp.log(jnp.array([6.0, 2.0, 1e-30])), target)) < 1e-7


# --- errors ---


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"prior": "code"}, ValueError, "prior"),
        ({"offset": -1.0}, ValueError, "offset"),
        ({"offset": jnp.ones(2)}, TypeError, "offset"),
        ({"target_offset": -1.0}, ValueError, "target_offset"),
        ({"max_concentration": 1.0}, ValueError, "max_concentration"),
        ({"logits": jnp.zeros((2, 4))}, ValueError, "logits"),
        ({"logits": jnp.full((2, 3), jnp.nan)}, ValueError, "logits"),
        ({"logits": jnp.zeros((2, 1)), "log_probs": jnp.zeros((2, 1))}, ValueError, "logits"),
        ({"logits": jnp.zeros((2, 3), complex)}, TypeError, "logits"),
        ({"log_probs": jnp.zeros((2, 3))}, ValueError, "log_mean_probs"),
        ({"precision": jnp.ones((2, 1))}, ValueError, "precision"),
        ({"precision": jnp.array([1.0, -1.0])}, ValueError, "precision"),
        ({"precision": jnp.array([1.0, jnp.nan])}, ValueError, "precision"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    arguments = {"logits": jnp.zeros((2, 3)), "log_probs": jnp.full((2, 3), -jnp.log(3.0)), "precision": jnp.ones(2)} | change
    target = proxy.ProxyTarget(arguments.pop("log_probs"), arguments.pop("precision"))
    with pytest.raises(error, match=message):
        proxy.reverse_kl(arguments.pop("logits"), target, **arguments)


def test_bad_targets_are_refused():
    with pytest.raises(ValueError, match="estimator"):
        proxy.proxy_target(jnp.log(jnp.full((2, 3), 1 / 3)), "moments")
    with pytest.raises(ValueError, match="member_log_probs"):
        proxy.proxy_target(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="member"):
        proxy.proxy_target(jnp.zeros((0, 3)))
