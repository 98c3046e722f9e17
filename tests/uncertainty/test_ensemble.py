"""Ensemble measures against 50-digit arithmetic, closed forms and the pairwise definition."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from edd.uncertainty import ensemble

mp.mp.dps = 50
NAMES = ("total_uncertainty", "data_uncertainty", "mutual_information", "reverse_mutual_information", "expected_pairwise_kl")
KNOWLEDGE = NAMES[2:]


def exact(log_probs):
    """The five measures of one example [M, K] and the mean log-probabilities, by definition, rows renormalised, 50 digits."""
    rows = []
    for row in np.asarray(log_probs):
        probs = [mp.e ** mp.mpf(float(x)) if np.isfinite(x) else mp.mpf(0) for x in row]
        norm = mp.fsum(probs)
        rows.append([p / norm for p in probs])
    num_members, num_classes = len(rows), len(rows[0])
    mean = [mp.fsum(row[k] for row in rows) / num_members for k in range(num_classes)]

    def entropy(probs):
        return -mp.fsum(p * mp.log(p) for p in probs if p > 0)

    def kl(p, q):
        if any(a > 0 and b == 0 for a, b in zip(p, q)):
            return mp.inf
        return mp.fsum(a * mp.log(a / b) for a, b in zip(p, q) if a > 0)

    total, data = entropy(mean), mp.fsum(entropy(row) for row in rows) / num_members
    mutual = mp.fsum(kl(row, mean) for row in rows) / num_members
    reverse = mp.fsum(kl(mean, row) for row in rows) / num_members
    return dict(zip(NAMES, map(float, (total, data, mutual, reverse, mutual + reverse)))), rows, mean


def textbook(log_probs):
    """The measures as differences of entropies, float64 numpy."""
    probs = np.exp(log_probs)
    mean = probs.mean(0)
    total = -(mean * np.log(mean)).sum(-1)
    data = -(probs * log_probs).sum(-1).mean(0)
    cross = -(mean * log_probs.mean(0)).sum(-1)
    return dict(zip(NAMES, (total, data, total - data, cross - total, cross - data)))


def random_log_probs(shape, scale=2.0, seed=0, dtype=np.float32):
    logits = np.random.default_rng(seed).normal(size=shape) * scale
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(dtype)


def near_members(num_members, num_classes, spread, seed=1, scale=2.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(1, num_classes)) * scale + spread * rng.normal(size=(num_members, num_classes))
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)


def extreme(seed=3):
    logits = np.random.default_rng(seed).uniform(-80, 80, size=(5, 10))
    return (logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)).astype(
        np.float32
    )


CASES = {
    "two classes": random_log_probs((4, 2)),
    "three classes": random_log_probs((3, 3), scale=8.0),
    "ten classes": random_log_probs((10, 10), scale=5.0),
    "thousand classes": random_log_probs((10, 1000)),
    "uniform": np.full((3, 1000), -np.log(1000), np.float32),
    "logits to 80": extreme(),
    "members 1e-5 apart, K=2": near_members(5, 2, 1e-5),
    "members 1e-5 apart, K=10": near_members(10, 10, 1e-5),
    "members 1e-5 apart, K=1000": near_members(10, 1000, 1e-5),
    "members 1e-3 apart": near_members(10, 100, 1e-3),
    "members 0.3 apart": near_members(10, 100, 0.3),
    "nearly certain": near_members(4, 10, 0.1, scale=30.0),
    "rounded to certainty": np.array([[0.0, np.log(1e-6)], [0.0, np.log(2e-6)]], np.float32),
    "one outlier": np.concatenate([near_members(9, 100, 1e-4), random_log_probs((1, 100), 6.0)]),
}


@pytest.mark.parametrize("case", CASES)
def test_float32_is_within_1e5_of_fifty_digits(case):
    log_probs = CASES[case]
    want = exact(log_probs)[0]
    got = ensemble.measures(jnp.asarray(log_probs)[:, None])
    for name, short in zip(NAMES, ("total", "data", "mutual_information", "reverse_mutual_information", "expected_pairwise_kl")):
        # relative for the knowledge measures however small: the proxy precision divides by them
        floor = 0.0 if name in KNOWLEDGE else 1e-7
        np.testing.assert_allclose(getattr(got, short)[0], want[name], rtol=1e-5, atol=floor, err_msg=f"{case}: {name}")


@pytest.mark.parametrize("case", ["ten classes", "logits to 80", "members 1e-5 apart, K=10", "one outlier"])
def test_float64_is_within_1e9(case, x64):
    log_probs = CASES[case].astype(np.float64)
    log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True))
    want = exact(log_probs)[0]
    for name in NAMES:
        got = getattr(ensemble, name)(jnp.asarray(log_probs))
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, want[name], rtol=1e-9, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("num_classes", [32_000, 256_000])
def test_many_classes_in_float32(num_classes):
    flat = random_log_probs((3, num_classes))
    peaked = np.random.default_rng(5).normal(size=(3, num_classes)).astype(np.float32)
    peaked[:, 7] += 15.0  # log-probabilities as float32 log_softmax rounds them, one class dominant
    peaked = np.asarray(jax.nn.log_softmax(jnp.asarray(peaked)))
    uniform = np.full((3, num_classes), -np.log(num_classes), np.float32)
    together = np.stack([flat, peaked, uniform], 1)
    got = ensemble.measures(jnp.asarray(together))
    probs = np.exp(together.astype(np.float64))
    probs /= probs.sum(-1, keepdims=True)
    want = textbook(np.log(probs))
    np.testing.assert_allclose(got.total, want["total_uncertainty"], rtol=1e-5)
    np.testing.assert_allclose(got.data, want["data_uncertainty"], rtol=1e-5)
    np.testing.assert_allclose(got.mutual_information[:2], want["mutual_information"][:2], rtol=1e-5)
    np.testing.assert_allclose(got.reverse_mutual_information[:2], want["reverse_mutual_information"][:2], rtol=1e-5)
    assert got.expected_pairwise_kl[2] == 0


def test_identical_members_and_a_single_member_give_exact_zeros():
    row = random_log_probs((1, 4, 50), scale=6.0)
    row[0, 0, 3] = -np.inf
    row[0] -= np.log(np.exp(row[0]).sum(-1, keepdims=True))
    for num_members in (1, 3, 10):
        got = ensemble.measures(jnp.asarray(np.repeat(row, num_members, 0)))
        assert bool(jnp.all(got.mutual_information == 0))
        assert bool(jnp.all(got.reverse_mutual_information == 0))
        assert bool(jnp.all(got.expected_pairwise_kl == 0))
        np.testing.assert_array_equal(ensemble.log_mean_probs(jnp.asarray(np.repeat(row, num_members, 0))), row[0])


def test_exact_zeros_give_infinities_where_mathematics_has_them():
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array([[[1, 0, 0], [0.5, 0.5, 0], [1, 0, 0]], [[0, 1, 0], [0.25, 0.75, 0], [1, 0, 0]]], np.float32))
    got = ensemble.measures(jnp.asarray(log_probs))
    np.testing.assert_allclose(got.total[0], np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(got.data[jnp.array([0, 2])], 0)
    np.testing.assert_allclose(got.mutual_information[0], np.log(2), rtol=1e-6)
    assert np.isposinf(got.reverse_mutual_information[0]) and np.isposinf(got.expected_pairwise_kl[0])
    want = exact(log_probs[:, 1])[0]
    np.testing.assert_allclose(got.expected_pairwise_kl[1], want["expected_pairwise_kl"], rtol=1e-5)
    np.testing.assert_array_equal([got.mutual_information[2], got.reverse_mutual_information[2]], 0)


def test_a_class_below_float32_that_a_member_excludes_is_still_infinite():
    log_probs = jnp.array([[0.0, -200.0], [0.0, -jnp.inf]])
    assert np.isposinf(ensemble.reverse_mutual_information(log_probs))
    assert ensemble.mutual_information(log_probs) == 0  # 5e-90


def reference_gradients(log_probs):
    """d measure / d log_probs [M, K] of the displayed formulas, 50 digits."""
    _, rows, mean = exact(log_probs)
    num_members = len(rows)
    out = {name: np.zeros((num_members, len(mean))) for name in NAMES}
    for k, pb in enumerate(mean):
        slope = mp.log(pb) - mp.fsum(mp.log(row[k]) for row in rows) / num_members
        for m, row in enumerate(rows):
            p = row[k]
            mutual = p * (mp.log(p) - mp.log(pb))
            reverse = p * slope + p - pb
            values = (-p * (mp.log(pb) + 1), -p * (mp.log(p) + 1), mutual, reverse, mutual + reverse)
            for name, value in zip(NAMES, values):
                out[name][m, k] = float(value / num_members)
    return out


@pytest.mark.parametrize("case", ["two classes", "ten classes", "logits to 80", "members 1e-5 apart, K=10", "one outlier"])
def test_float32_gradients(case):
    log_probs = CASES[case]
    want = reference_gradients(log_probs)
    for name in NAMES:
        got = jax.jit(jax.grad(getattr(ensemble, name)))(jnp.asarray(log_probs))
        assert bool(jnp.all(jnp.isfinite(got)))
        np.testing.assert_allclose(got, want[name], rtol=0, atol=1e-5 * np.abs(want[name]).max(), err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_with_exact_zeros_are_finite(name):
    with np.errstate(divide="ignore"):
        log_probs = jnp.log(jnp.array([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0]]))
    for take in (jax.grad, jax.jacfwd):
        gradient = jax.jit(take(getattr(ensemble, name)))(log_probs)
        assert bool(jnp.all(jnp.isfinite(gradient)))
        assert float(jnp.max(jnp.abs(gradient))) > 1e-3
    through_logits = jax.jit(jax.grad(lambda z: getattr(ensemble, name)(jax.nn.log_softmax(z))))(jnp.array([[800.0, 0.0], [0.0, 800.0]]))
    assert bool(jnp.all(jnp.isfinite(through_logits)))


def test_derivatives_match_finite_differences_in_both_modes(x64):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
    weights = (1.0, -0.7, 2.0, 0.4, 1.5)

    @jax.jit
    def mixture(log_probs):
        return sum(weight * value for weight, value in zip(weights, ensemble.measures(log_probs)))

    check_grads(mixture, (jax.nn.log_softmax(logits),), order=2, modes=("fwd", "rev"))
    check_grads(jax.jit(lambda z: ensemble.log_mean_probs(jax.nn.log_softmax(z))), (logits,), order=1, modes=("fwd", "rev"))


def test_pairwise_kl_is_the_mean_over_all_ordered_pairs(x64):
    log_probs = random_log_probs((5, 3, 6), dtype=np.float64)
    probs = np.exp(log_probs)
    pairs = [(probs[i] * (log_probs[i] - log_probs[j])).sum(-1) for i in range(5) for j in range(5)]
    np.testing.assert_allclose(ensemble.expected_pairwise_kl(log_probs), np.mean(pairs, 0), rtol=1e-12)


def test_measures_agree_with_each_other_and_with_the_textbook(x64):
    log_probs = random_log_probs((6, 2, 3, 7), dtype=np.float64)
    want = textbook(log_probs)
    together = ensemble.measures(jnp.asarray(log_probs))
    assert together.total.shape == (2, 3)
    for name in NAMES:
        alone = getattr(ensemble, name)(jnp.asarray(log_probs))
        np.testing.assert_allclose(alone, want[name], rtol=1e-11)
        np.testing.assert_allclose(getattr(together, name.removesuffix("_uncertainty")), alone, rtol=1e-14)
    assert bool(jnp.all(together.mutual_information <= jnp.log(6.0)))
    np.testing.assert_allclose(ensemble.log_mean_probs(jnp.asarray(log_probs)), np.log(np.exp(log_probs).mean(0)), rtol=1e-11)


@pytest.mark.parametrize("num_examples, num_classes, batch_size", [(23, 3000, None), (23, 3000, 4), (5, 4097, 5), (0, 3, None), (7, 11, 3)])
def test_tiles_streams_and_ragged_tails_change_nothing(num_examples, num_classes, batch_size):
    log_probs = random_log_probs((4, num_examples, num_classes))
    log_probs[0, : num_examples // 2, 0] = -np.inf
    log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True)).astype(np.float32)
    got = ensemble.measures(jnp.asarray(log_probs), batch_size=batch_size)
    plain = [np.asarray(ensemble.measures(jnp.asarray(log_probs[:, [i]])).reverse_mutual_information[0]) for i in range(num_examples)]
    assert got.total.shape == (num_examples,)
    np.testing.assert_allclose(got.reverse_mutual_information, np.asarray(plain, np.float32), rtol=3e-6)
    with np.errstate(divide="ignore", invalid="ignore"):
        want = textbook(log_probs.astype(np.float64))
    np.testing.assert_allclose(got.total, want["total_uncertainty"], rtol=3e-6)


def test_order_of_members_and_classes_does_not_matter():
    log_probs = random_log_probs((6, 4, 9), scale=4.0)
    members, classes = np.random.default_rng(0).permutation(6), np.random.default_rng(1).permutation(9)
    for one, other in zip(ensemble.measures(log_probs), ensemble.measures(log_probs[members][..., classes])):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)


def test_under_jit_vmap_and_half_precision():
    log_probs = jnp.asarray(random_log_probs((3, 4, 5)))
    eager = ensemble.measures(log_probs)
    mapped = jax.jit(jax.vmap(ensemble.measures, in_axes=1))(log_probs)
    for one, other in zip(eager, mapped):
        np.testing.assert_allclose(one, other, rtol=2e-6)
    half = ensemble.measures(log_probs.astype(jnp.bfloat16))
    assert half.total.dtype == jnp.float32
    np.testing.assert_allclose(half.total, eager.total, rtol=2e-2)


def test_temporaries_stay_small_when_streaming():
    shape = jax.ShapeDtypeStruct((10, 512, 1000), jnp.float32)
    compiled = jax.jit(functools.partial(ensemble.measures, batch_size=16)).lower(shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10 * 512 * 1000 * 4 / 4


@pytest.mark.parametrize(
    "value, error, message",
    [
        (np.zeros((3,), np.float32), ValueError, "members first"),
        (np.zeros((0, 4, 3), np.float32), ValueError, "at least one member"),
        (np.zeros((2, 4, 1), np.float32), ValueError, "at least 2 classes"),
        (np.full((2, 4, 3), 0.2, np.float32), ValueError, "log_softmax"),
        (np.full((2, 4, 3), np.nan, np.float32), ValueError, "log_probs"),
        ("text", TypeError, "log_probs"),
    ],
)
def test_bad_input_is_named(value, error, message):
    for name in (*NAMES, "measures", "log_mean_probs"):
        with pytest.raises(error, match=message):
            getattr(ensemble, name)(value)


def test_bad_batch_size_is_named():
    with pytest.raises(ValueError, match="batch_size"):
        ensemble.measures(random_log_probs((2, 3, 4)), batch_size=0)
