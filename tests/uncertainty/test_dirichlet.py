"""edd.uncertainty.dirichlet against 60-digit mpmath values at the rounded concentrations."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from edd.uncertainty import dirichlet

MP = mpmath.MPContext()
MP.dps = 60
NAMES = ["total_uncertainty", "data_uncertainty", "mutual_information", "reverse_mutual_information", "expected_pairwise_kl"]


def measures(values, counts):
    """The five textbook values, and per distinct entry the derivatives with the largest term of each."""
    v = [MP.mpf(float(np.float32(x))) for x in values]
    a0, size = MP.fsum(c * x for c, x in zip(counts, v)), int(sum(counts))

    def over(term):
        return MP.fsum(int(c) * term(x, x / a0) for c, x in zip(counts, v))

    psi, psi1 = MP.digamma, lambda x: MP.psi(1, x)
    total = -over(lambda x, p: p * MP.log(p))
    data = over(lambda x, p: p * (psi(a0 + 1) - psi(x + 1)))
    reverse = over(lambda x, p: p * (MP.log(p) - psi(x) + psi(a0)))
    pairwise = (size - 1) / a0
    values = [total, data, total - data, reverse, pairwise]
    slopes = []
    for x in v:
        p = x / a0
        totals = [-MP.log(p), -total]
        datas = [psi(a0 + 1) - psi(x + 1), -x * psi1(x + 1), a0 * psi1(a0 + 1), -data]
        reverses = [MP.log(p) - psi(x) + psi(a0), 1 - x * psi1(x), -1 + a0 * psi1(a0), -reverse]
        rows = [totals, datas, totals + [-t for t in datas], reverses, [-pairwise]]
        slopes.append([(MP.fsum(row) / a0, max(abs(t) for t in row) / a0) for row in rows])
    return values, slopes


def vectors(size):
    rng = np.random.default_rng(size)
    flat = [([value], [size]) for value in (1e-4, 0.3, 1.0, 3.0, 1e2, 1e4, 1e8)]
    peaked = [([high, low], [1, size - 1]) for high in (1e8, 1e4, 1.0, 0.5, 1e-3) for low in (1e-4, 0.1, 30.0)]
    mixed = [(np.exp(rng.uniform(np.log(1e-4), np.log(1e8), 5)), [*[1] * 4, size - 4]) for _ in range(3)] if size > 5 else []
    return flat + peaked + mixed


def evaluate(array):
    functions = [getattr(dirichlet, name) for name in NAMES]
    return [f(array) for f in functions], [jax.grad(lambda x, f=f: f(x).sum())(array) for f in functions]


def compare(size, dtype, tolerance, gradient_tolerance):
    cases = vectors(size)
    array = np.stack([np.repeat(np.float32(values), counts) for values, counts in cases]).astype(dtype)
    got, gradients = (np.asarray(part) for part in jax.jit(evaluate)(array))
    assert np.isfinite(got).all() and np.isfinite(gradients).all() and got.dtype == dtype
    for row, (values, counts) in enumerate(cases):
        true, slopes = measures(values, counts)
        for index, name in enumerate(NAMES):
            assert abs(got[index, row] - true[index]) <= tolerance * true[index], (name, values, got[index, row], MP.nstr(true[index], 9))
            for position, slope in zip(np.cumsum([0, *counts])[:-1], slopes):
                value, scale = slope[index]
                error = abs(MP.mpf(float(gradients[index, row, position])) - value)
                assert error <= gradient_tolerance * scale, (name, values, gradients[index, row, position], MP.nstr(value, 9))


@pytest.mark.parametrize("size", [2, 3, 10, 100, 1000, 32_000, 256_000])
def test_float32_is_within_1e_5(size):
    compare(size, np.float32, 1e-5, 1e-5)


@pytest.mark.parametrize("size", [2, 1000])
def test_float64_is_within_1e_12(size, x64):
    compare(size, np.float64, 1e-12, 1e-11)


def test_uniform_dirichlet_tends_to_euler_gamma():
    a = jnp.ones(100_000)
    assert float(dirichlet.mutual_information(a)) == pytest.approx(1 - np.euler_gamma, abs=1e-5)
    assert float(dirichlet.reverse_mutual_information(a)) == pytest.approx(np.euler_gamma, abs=2e-5)
    assert float(dirichlet.expected_pairwise_kl(a)) == pytest.approx(1.0, abs=2e-5)
    small = jnp.ones(4)
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4
    assert float(dirichlet.data_uncertainty(small)) == pytest.approx(harmonic - 1, rel=1e-6)
    assert float(dirichlet.reverse_mutual_information(small)) == pytest.approx(harmonic - 1 / 4 - np.log(4), rel=1e-6)


def test_identities():
    a = jnp.asarray(np.exp(np.random.default_rng(0).uniform(-9, 18, (3, 4, 6))), jnp.float32)
    total, data, mutual, reverse, pairwise = jax.jit(evaluate)(a)[0]
    assert total.shape == (3, 4)
    assert np.allclose(mutual + reverse, pairwise, rtol=2e-6)
    assert np.allclose(total - data, mutual, atol=1e-6)


def test_monte_carlo(x64):
    from edd.distributions import dirichlet as distribution
    from edd.uncertainty import ensemble

    a = jnp.array([0.5, 2.0, 3.0])
    members = distribution.sample_log_probs(jax.random.key(0), a, 100_000)
    for name in NAMES:
        assert float(getattr(ensemble, name)(members)) == pytest.approx(float(getattr(dirichlet, name)(a)), rel=0.02), name


def test_high_precision_is_stirlings():
    a = jnp.full(10, 1e8, jnp.float32)
    for name in ("mutual_information", "reverse_mutual_information"):
        assert float(getattr(dirichlet, name)(a)) == pytest.approx(9 / 2e9, rel=1e-6)


def test_second_derivatives_are_finite():
    a = jnp.array([1e-4, 0.5, 1.0, 30.0, 1e8])
    for name in NAMES:
        hessian = jax.jit(jax.hessian(getattr(dirichlet, name)))(a)
        assert np.isfinite(hessian).all(), name
    # I + M = K holds for second derivatives too
    b = jnp.array([0.5, 1.0, 30.0])
    sums = jax.jit(jax.hessian(lambda x: dirichlet.mutual_information(x) + dirichlet.reverse_mutual_information(x)))(b)
    assert np.allclose(sums, jax.jit(jax.hessian(dirichlet.expected_pairwise_kl))(b), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_errors(name):
    function = getattr(dirichlet, name)
    with pytest.raises(ValueError, match="concentration must be positive"):
        function(jnp.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="concentration must be finite"):
        function(jnp.array([1.0, jnp.inf]))
    with pytest.raises(ValueError, match="at least 2 classes"):
        function(jnp.ones(1))
