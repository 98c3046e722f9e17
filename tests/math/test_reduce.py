"""edd.math.reduce against float64 and exact fractions."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.math import reduce


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 1000, 256_000])
def test_class_sum_keeps_float32(size):
    values = np.random.default_rng(size).lognormal(size=(2, size)).astype(np.float32)
    got = jax.jit(reduce.class_sum)(values)
    assert got.shape == (2,)
    assert np.allclose(got, values.astype(np.float64).sum(-1), rtol=3e-6, atol=0)


def test_class_sum_of_equal_numbers_does_not_drift():
    assert float(jax.jit(reduce.class_sum)(jnp.full(256_000, 0.1, jnp.float32))) == pytest.approx(
        256_000 * float(np.float32(0.1)), rel=5e-6
    )


def test_class_sum_has_the_gradient_of_a_sum():
    assert np.array_equal(jax.grad(lambda x: (2 * reduce.class_sum(x)).sum())(jnp.ones((3, 130))), np.full((3, 130), 2.0))


@pytest.mark.parametrize("size", [1, 2, 9, 100, 4097])
def test_compensated_sum_is_exact(size):
    rng = np.random.default_rng(size)
    values = (rng.choice([-1, 1], size) * 10.0 ** rng.uniform(-4, 8, size)).astype(np.float32)
    true = sum(fractions.Fraction(float(v)) for v in values)
    total, lost = jax.jit(reduce.compensated_class_sum)(values)
    got = fractions.Fraction(float(total)) + fractions.Fraction(float(lost))
    scale = sum(abs(fractions.Fraction(float(v))) for v in values)
    assert abs(got - true) <= scale * fractions.Fraction(1, 2**42)
    doubled, _ = reduce.compensated_class_sum(values, values)
    assert float(doubled) == pytest.approx(2 * float(true), rel=1e-6)


def test_compensated_sum_and_product_of_float64(x64):
    total, lost = jax.jit(reduce.compensated_class_sum)(jnp.array([1e16, 1.0, -1e16, 1e-3]))
    assert float(total) + float(lost) == pytest.approx(1.001, rel=1e-15)
    product, lost = jax.jit(reduce.compensated_product)(1 + 2.0**-40, 1 + 2.0**-41)
    true = fractions.Fraction(1 + 2.0**-40) * fractions.Fraction(1 + 2.0**-41)
    assert abs(fractions.Fraction(float(product)) + fractions.Fraction(float(lost)) - true) < fractions.Fraction(1, 2**100)


def test_compensated_product_is_exact_under_jit():
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=200).astype(np.float32) for _ in range(2))
    product, lost = jax.jit(reduce.compensated_product)(first, second)
    assert np.array_equal(np.float64(first) * np.float64(second), np.float64(product) + np.float64(lost))


def test_leave_one_out_sum_sees_what_the_total_forgets():
    values = jnp.array([[1e8, 1e-4, 2e-4], [1.0, 1.0, 1e-4], [3.0, 1.0, 3.0]], jnp.float32)
    exact = np.asarray(values, np.float64)
    expected = np.stack([np.delete(exact, k, -1).sum(-1) for k in range(3)], -1)
    assert np.allclose(jax.jit(reduce.leave_one_out_sum)(values), expected, rtol=3e-7, atol=0)


def test_split_largest_counts_ties():
    largest, count, others = reduce.split_largest(jnp.full((2, 10), 1e-4))
    assert np.array_equal(largest, np.full(2, np.float32(1e-4))) and np.array_equal(count, [10, 10]) and np.array_equal(others, [0, 0])


def test_settle_is_the_identity():
    x = jnp.array([1e-30, 0.1, 3e38, jnp.inf, -jnp.inf, 0.0], jnp.float32)
    assert np.array_equal(jax.jit(reduce.settle)(x), x)
    assert np.array_equal(jax.vmap(jax.grad(reduce.settle))(x[:3]), np.ones(3))


def test_log_mean_exp_against_float64():
    values = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32) * 30
    expected = np.log(np.exp(values.astype(np.float64)).mean(0))
    assert np.allclose(reduce.log_mean_exp(jnp.asarray(values)), expected, rtol=1e-6)


def test_log_mean_exp_extremes_and_gradients():
    values = jnp.array([[0.0, -jnp.inf, -1e30, 1e4], [-jnp.inf, -jnp.inf, -1e30, -1e4]])
    got = reduce.log_mean_exp(values)
    assert np.allclose(got[jnp.array([0, 2, 3])], [-np.log(2), -1e30, 1e4 - np.log(2)]) and np.isneginf(got[1])
    weights = jax.vjp(reduce.log_mean_exp, values)[1](jnp.ones(4))[0]
    assert np.array_equal(weights, [[1, 0, 0.5, 1], [0, 0, 0.5, 0]])
    with pytest.raises(ValueError, match="at least one row"):
        reduce.log_mean_exp(jnp.zeros((0, 3)))


def test_masked_mean():
    values, mask = jnp.array([[1.0, jnp.nan], [3.0, 5.0]]), jnp.array([[1, 0], [1, 1]])
    assert float(reduce.masked_mean(values, mask)) == 3.0
    assert np.array_equal(reduce.masked_mean(values, mask, axis=1), [1.0, 4.0])
    assert np.array_equal(jax.grad(lambda v: reduce.masked_mean(v, mask))(values), np.array([[1, 0], [1, 1]], np.float32) / 3)
    assert float(reduce.masked_mean(values, jnp.zeros((2, 2), bool))) == 0.0
    with pytest.raises(ValueError, match="mask .* values"):
        reduce.masked_mean(values, jnp.ones(2))


def test_masked_class_sum_ignores_the_rest():
    values = jnp.array([[1.0, jnp.nan, 2.0]])
    assert np.array_equal(reduce.masked_class_sum(values, jnp.array([[True, False, True]])), [3.0])
