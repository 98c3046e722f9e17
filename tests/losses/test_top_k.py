"""Compressed targets: what comes back, the bounds of its error, and losses through it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.losses import distillation, proxy, top_k

K = 40


def rows(scale, count=50, seed=0):
    return jax.nn.log_softmax(scale * jnp.asarray(np.random.default_rng(seed).normal(size=(count, K)), jnp.float32))


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("k", [1, 5, 39])
def test_errors_are_within_their_bounds(scale, k):
    log_probs = rows(scale)
    compressed = top_k.compress(log_probs, k)
    back = top_k.expand(compressed, K)
    p, q = (np.exp(np.asarray(x, np.float64)) for x in (log_probs, back))
    np.testing.assert_allclose(q.sum(-1), 1, rtol=1e-5)
    rest = np.exp(np.asarray(compressed.log_rest, np.float64))
    divergence = (p * (np.log(p) - np.log(q))).sum(-1)
    bound = np.asarray(top_k.error_bound(compressed, K))
    assert (np.abs(p - q).sum(-1) / 2 <= rest + 1e-6).all()
    assert (divergence <= bound + 1e-6).all() and (bound <= rest * np.log(K - k) + 1e-6).all()
    assert (divergence > 1e-4).any() or k == 39  # there is something to bound
    np.testing.assert_allclose(np.sort(p, -1)[:, ::-1][:, :k], np.exp(compressed.log_probs), rtol=1e-6)


def test_the_rest_keeps_its_digits_where_one_class_dominates():
    logits = jnp.asarray(np.r_[30.0, np.zeros(K - 1)], jnp.float32)
    compressed = top_k.compress(jax.nn.log_softmax(logits), 1)
    np.testing.assert_allclose(jnp.exp(compressed.log_rest), (K - 1) * np.exp(-30.0), rtol=1e-5)
    np.testing.assert_allclose(top_k.expand(compressed, K), jax.nn.log_softmax(logits), rtol=1e-6, atol=1e-12)


def test_excluded_classes():
    log_probs = jnp.log(jnp.array([0.5, 0.5, 0.0, 0.0, 0.0]))
    compressed = top_k.compress(log_probs, 2)
    assert jnp.isneginf(compressed.log_rest) and top_k.error_bound(compressed, 5) == 0
    np.testing.assert_array_equal(top_k.expand(compressed, 5), log_probs)
    np.testing.assert_array_equal(top_k.expand(top_k.compress(log_probs, 3), 5), log_probs)


def test_losses_through_a_compressed_target_are_off_by_what_the_docstring_says():
    log_probs, logits = rows(3.0, seed=1), 2 * rows(1.0, seed=2) + 1
    compressed = top_k.compress(log_probs, 8)
    back, rest = top_k.expand(compressed, K), np.exp(np.asarray(compressed.log_rest))
    slopes = [jax.grad(lambda z, t=target: distillation.end_from_log_mean_probs(z, t).sum())(logits) for target in (log_probs, back)]
    assert (jnp.abs(slopes[0] - slopes[1]).sum(-1) <= 2 * rest + 1e-5).all()
    precision = jnp.full(len(log_probs), 50.0)
    values = [proxy.reverse_kl(logits, proxy.ProxyTarget(target, precision)) for target in (log_probs, back)]
    left_out = np.ones(log_probs.shape, bool)
    np.put_along_axis(left_out, np.asarray(compressed.classes), False, -1)
    digamma = np.asarray(jax.scipy.special.digamma(jnp.exp(logits) + 1))
    spread = np.where(left_out, digamma, -np.inf).max(-1) - np.where(left_out, digamma, np.inf).min(-1)
    difference = np.abs(np.asarray(values[0] - values[1]))
    assert (difference <= rest * spread + 1e-5).all() and difference.max() > 1e-3


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"k must be an integer in \[1, 39\], got 40"):
        top_k.compress(rows(1.0), 40)
    with pytest.raises(ValueError, match="log_probs must be log-probabilities"):
        top_k.compress(rows(1.0) - 1, 3)
    with pytest.raises(ValueError, match="num_classes must be above the 3 classes"):
        top_k.expand(top_k.compress(rows(1.0), 3), 3)
