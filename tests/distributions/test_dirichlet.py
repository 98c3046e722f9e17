"""edd.distributions.dirichlet against 60-digit mpmath values at the rounded concentrations."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.experimental import checkify

from edd.distributions import dirichlet

MP = mpmath.MPContext()
MP.dps = 60
LG, PSI = MP.loggamma, MP.digamma


def PSI1(x):
    return MP.psi(1, x)


def exact(value):
    return MP.mpf(float(value))


class Counted:
    """A concentration of few distinct values with multiplicities: the oracle's cost does not grow with K."""

    def __init__(self, values, counts, dtype):
        self.array = np.repeat(np.asarray(np.float32(values), dtype), counts)
        self.values, self.counts = [exact(np.float32(v)) for v in values], [int(c) for c in counts]
        self.first = np.cumsum([0, *counts])[:-1]
        self.total, self.size = self.sum(lambda i: self.values[i]), sum(self.counts)

    def sum(self, term):
        return MP.fsum(count * term(i) for i, count in enumerate(self.counts))


def entropy(a):
    total = PSI(a.total)
    value = a.sum(lambda i: LG(a.values[i]) - (a.values[i] - 1) * (PSI(a.values[i]) - total)) - LG(a.total)
    parts = [a.counts[i] * abs((x - 1) * (PSI(x) - total)) for i, x in enumerate(a.values)] + [LG(a.total)]
    terms = [(-(x - 1) * PSI1(x), (a.total - a.size) * PSI1(a.total)) for x in a.values]
    return value, max(abs(part) for part in parts), terms


def divergence(a, b):
    value = LG(a.total) - LG(b.total)
    value += a.sum(lambda i: LG(b.values[i]) - LG(a.values[i]) + (a.values[i] - b.values[i]) * (PSI(a.values[i]) - PSI(a.total)))
    by_a = [((x - y) * PSI1(x), -(a.total - b.total) * PSI1(a.total)) for x, y in zip(a.values, b.values)]
    by_b = [(PSI(y) - PSI(x), PSI(a.total) - PSI(b.total)) for x, y in zip(a.values, b.values)]
    return value, by_a, by_b


def check(got, true, scale, tolerance, absolute):
    assert np.isfinite(got)
    assert abs(exact(got) - true) <= max(tolerance * abs(scale), absolute), (got, MP.nstr(true, 9), MP.nstr(scale, 3))


def check_gradient(gradient, case, terms, tolerance):
    assert np.isfinite(gradient).all()
    for position, parts in zip(case.first, terms):
        check(gradient[position], sum(parts), max(abs(part) for part in parts), tolerance, 1e-30)


SIZES = [2, 3, 10, 100, 1000, 32_000, 256_000]


def vectors(size):
    rng = np.random.default_rng(size)
    flat = [([value], [size]) for value in (1e-4, 0.3, 1.0, 3.0, 1e2, 1e4, 1e8)]
    peaked = [([high, low], [1, size - 1]) for high in (1e8, 1e4, 1.0) for low in (1e-4, 0.1, 30.0)]
    mixed = [(np.exp(rng.uniform(np.log(1e-4), np.log(1e8), 5)), [*[1] * 4, size - 4]) for _ in range(3)] if size > 5 else []
    return flat + peaked + mixed


def vector_pairs(size):
    rng = np.random.default_rng(size)
    counts = [1, size - 1]
    levels = (1e-4, 0.1, 1.0, 30.0, 1e4, 1e8)
    yield from (([x, x], [y, y], counts) for x in levels for y in levels[::2])
    for x in levels:
        for r in (1e-6, 1e-3, 0.1):
            yield [x, x], [x * (1 + r), x], counts
            yield [x, x], [x * (1 + r), x * (1 - r / 3)], counts
            yield [x, x], [x * (1 + r), x * (1 + r * (1 + 1e-4))], counts
            yield [1e8, x], [1e8 * (1 + r), x * (1 - r)], counts
    for _ in range(4):
        first = np.exp(rng.uniform(np.log(1e-4), np.log(1e8), 2))
        yield first, np.exp(rng.uniform(np.log(1e-4), np.log(1e8), 2)), counts
        yield first, first * np.exp(0.01 * rng.normal(size=2)), counts


@pytest.mark.parametrize("size", SIZES)
def test_entropy(size):
    cases = [Counted(values, counts, np.float32) for values, counts in vectors(size)]
    function = jax.jit(jax.vmap(jax.value_and_grad(dirichlet.entropy)))
    for case, value, gradient in zip(cases, *map(np.asarray, function(np.stack([case.array for case in cases])))):
        true, scale, terms = entropy(case)
        check(value, true, scale, 1e-5, 1e-7)
        check_gradient(gradient, case, terms, 1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_kl_divergence(size):
    pairs = list(vector_pairs(size))
    pairs = pairs if size <= 1000 else pairs[::5]
    first = [Counted(a, counts, np.float32) for a, _, counts in pairs]
    second = [Counted(b, counts, np.float32) for _, b, counts in pairs]
    function = jax.jit(lambda a, b: (dirichlet.kl_divergence(a, b), jax.grad(lambda *x: dirichlet.kl_divergence(*x).sum(), (0, 1))(a, b)))
    values, (by_a, by_b) = function(np.stack([case.array for case in first]), np.stack([case.array for case in second]))
    for index, (a, b) in enumerate(zip(first, second)):
        true, terms_a, terms_b = divergence(a, b)
        check(np.asarray(values)[index], true, true, 1e-5, 1e-12)  # the absolute slack is far below the promised 1e-7
        check_gradient(np.asarray(by_a)[index], a, terms_a, 1e-5)
        check_gradient(np.asarray(by_b)[index], b, terms_b, 1e-5)


def test_float64(x64):
    size = 1000
    cases = [Counted(values, counts, np.float64) for values, counts in vectors(size)]
    stacked = np.stack([case.array for case in cases])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(dirichlet.entropy)))(stacked)
    assert values.dtype == np.float64
    for case, value, gradient in zip(cases, np.asarray(values), np.asarray(gradients)):
        true, scale, terms = entropy(case)
        check(value, true, scale, 1e-12, 0)
        check_gradient(gradient, case, terms, 1e-12)
    pairs = [(Counted(a, c, np.float64), Counted(b, c, np.float64)) for a, b, c in vector_pairs(size)]
    values = jax.jit(dirichlet.kl_divergence)(*(np.stack([pair[i].array for pair in pairs]) for i in (0, 1)))
    for (a, b), value in zip(pairs, np.asarray(values)):
        check(value, divergence(a, b)[0], divergence(a, b)[0], 1e-9, 0)


def test_the_textbook_form_fails_where_this_does_not():
    def textbook(a, b):
        lg, psi = jax.scipy.special.gammaln, jax.scipy.special.digamma
        inner = lg(b) - lg(a) + (a - b) * (psi(a) - psi(a.sum()))
        return lg(a.sum()) - lg(b.sum()) + inner.sum()

    for value, factor in ((1.0, 1.001), (1e4, 1 + 1e-6)):
        a = jnp.full(1000, value, jnp.float32)
        b = a.at[::2].multiply(factor)
        case = [Counted(np.asarray(x)[:2], [500, 500], np.float32) for x in (a, b)]
        true = divergence(*case)[0]
        assert abs(float(textbook(a, b)) - true) > 0.5 * true
        assert abs(float(dirichlet.kl_divergence(a, b)) - true) < 1e-5 * true


def test_kl_of_equal_concentrations_is_exactly_zero_with_zero_gradient():
    a = jnp.asarray(np.exp(np.random.default_rng(0).uniform(-9, 18, (5, 7))), jnp.float32)
    assert np.array_equal(jax.jit(dirichlet.kl_divergence)(a, a), np.zeros(5))
    for gradient in jax.jit(jax.grad(lambda x, y: dirichlet.kl_divergence(x, y).sum(), (0, 1)))(a, a):
        assert np.array_equal(gradient, np.zeros((5, 7)))


def test_kl_beyond_the_largest_number_is_infinite():
    assert np.isposinf(dirichlet.kl_divergence(jnp.full(2, 1e-30, jnp.float32), jnp.full(2, 1e15, jnp.float32)))


@pytest.mark.parametrize("size", [2, 10, 256_000])
def test_expected_log_probs_and_means(size):
    for values, counts in vectors(size)[::2]:
        case = Counted(values, counts, np.float32)
        got, log_means = np.asarray(dirichlet.expected_log_probs(case.array)), np.asarray(dirichlet.log_mean(case.array))
        mean = np.asarray(dirichlet.mean(case.array))
        check(np.float32(dirichlet.precision(case.array)), case.total, case.total, 1e-5, 0)
        for position, value in zip(case.first, case.values):
            true = PSI(value) - PSI(case.total)
            check(got[position], true, true, 1e-5, 0)
            true = MP.log(value / case.total)
            check(log_means[position], true, true, 1e-5, 1e-7)
            check(mean[position], value / case.total, value / case.total, 1e-5, 0)


def test_expected_log_probs_gradient_is_the_fisher_matrix():
    a = jnp.array([0.5, 3.0, 40.0], jnp.float32)
    got = jax.jacobian(dirichlet.expected_log_probs)(a)
    expected = np.diag([float(PSI1(exact(x))) for x in a]) - float(PSI1(exact(43.5)))
    assert np.allclose(got, expected, rtol=1e-5)


def log_density(a, log_probs):
    """Reference that renormalises the rounded log-probs."""
    a, total = [exact(x) for x in a], MP.log(MP.fsum(MP.exp(exact(x)) for x in log_probs if np.isfinite(x)))
    parts = [LG(MP.fsum(a)), *(-LG(x) for x in a), *((x - 1) * (exact(y) - total) for x, y in zip(a, log_probs))]
    return MP.fsum(parts)


@pytest.mark.parametrize("size", [2, 3, 10, 100, 1000])
def test_log_prob(size):
    rng = np.random.default_rng(size)
    a = np.stack(
        [np.exp(rng.uniform(np.log(lo), np.log(hi), size)) for lo, hi in ((1e-4, 1e-4), (0.1, 3), (1e-4, 1e8), (1e4, 1e4), (1e8, 1e8))]
    )
    a = np.concatenate([a, a]).astype(np.float32)
    near = np.log(np.maximum([rng.dirichlet(np.maximum(row.astype(float), 0.02)) for row in a[:5]], 1e-30))
    log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(np.concatenate([near, rng.normal(size=(5, size)) * 5]), jnp.float32)))
    values = np.asarray(jax.jit(dirichlet.log_prob)(a, log_probs))
    for row in range(10):
        true = log_density(a[row], log_probs[row])
        check(values[row], true, true, 1e-5, 1e-6)
    slopes = jax.jit(jax.grad(lambda x, y: dirichlet.log_prob(x, y).sum(), (0, 1)))(a, log_probs)
    for row in (0, 2, 4):
        total = PSI(MP.fsum(exact(x) for x in a[row]))
        for k in (0, size - 1):
            parts = (total - PSI(exact(a[row, k])), exact(log_probs[row, k]))
            check(np.asarray(slopes[0])[row, k], sum(parts), max(map(abs, parts)), 1e-5, 0)
    assert np.allclose(slopes[1], a - 1, rtol=1e-6)


@pytest.mark.parametrize("excess", [1e-5, -1e-5, 3e-3, -0.2])
def test_two_classes_near_the_uniform_density(excess):
    """Entropy and log-density vanish there: 1e-7 absolute, which the parts of the general form (of order 1) do not give."""
    concentration = np.array([1 + excess, 1 + 0.7 * excess], np.float32)
    log_probs = np.array(jax.nn.log_softmax(np.array([0.3, -0.4], np.float32)))
    a = Counted(concentration, (1, 1), np.float32)
    true = entropy(a)[0]
    assert abs(float(dirichlet.entropy(concentration)) - float(true)) <= 1e-7 + 1e-5 * abs(float(true))
    true = log_density(concentration, log_probs)
    assert abs(float(dirichlet.log_prob(concentration, log_probs)) - float(true)) <= 1e-7 + 1e-5 * abs(float(true))


@pytest.mark.parametrize(
    "p, q", [((1.0, 1e-4), (1e8, 1e-4)), ((1e4, 1e-4), (1e8, 1e-4)), ((1e8, 1e-4), (1e4, 1e-4)), ((0.3, 8e-3), (1e6, 3e-3))]
)
def test_kl_where_one_class_holds_nearly_all_of_both(p, q):
    p, q = np.array(p, np.float32), np.array(q, np.float32)
    true = divergence(Counted(p, (1, 1), np.float32), Counted(q, (1, 1), np.float32))[0]
    np.testing.assert_allclose(dirichlet.kl_divergence(p, q), float(true), rtol=1e-5)


def test_log_prob_at_zero_probabilities():
    corner = jnp.array([0.0, -jnp.inf])
    for last, expected in ((1.0, np.log(2.0)), (0.5, np.inf), (2.0, -np.inf)):
        a = jnp.array([2.0, last])
        assert float(dirichlet.log_prob(a, corner)) == pytest.approx(expected)
        assert np.isfinite(jax.grad(dirichlet.log_prob, (0, 1))(a, corner)).all()
    both = jnp.array([0.0, -jnp.inf, -jnp.inf])
    assert np.isneginf(dirichlet.log_prob(jnp.array([1.0, 0.5, 2.0]), both))


def test_second_derivatives_are_finite_and_right():
    a, b = jnp.array([0.01, 1.0, 2.0, 1e4]), jnp.array([0.02, 1.5, 1.0, 1e5])
    log_probs = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    p1 = [float(PSI1(exact(x))) for x in a]
    total = float(PSI1(MP.fsum(exact(x) for x in a)))
    assert np.allclose(jax.jit(jax.hessian(dirichlet.log_prob))(a, log_probs), total - np.diag(p1), rtol=1e-5)
    q1 = [float(PSI1(exact(x))) for x in b]
    q_total = float(PSI1(MP.fsum(exact(x) for x in b)))
    assert np.allclose(jax.jit(jax.hessian(dirichlet.kl_divergence, 1))(a, b), np.diag(q1) - q_total, rtol=1e-5)
    for hessian in (jax.jit(jax.hessian(dirichlet.entropy))(a), jax.jit(jax.hessian(dirichlet.kl_divergence))(a, b)):
        assert np.isfinite(hessian).all() and np.allclose(hessian, hessian.T, rtol=1e-4)


def test_samples_have_the_right_moments_and_survive_tiny_concentrations():
    a = jnp.array([[0.5, 2.0, 8.0], [1e-4, 1e-4, 1e-4], [1e8, 1.0, 1e8]])
    log_probs = dirichlet.sample_log_probs(jax.random.key(0), a, 20_000)
    assert log_probs.shape == (20_000, 3, 3) and not np.isnan(log_probs).any()
    draws = np.asarray(dirichlet.sample(jax.random.key(0), a, 20_000))
    assert np.allclose(draws, np.exp(log_probs)) and np.allclose(draws.sum(-1), 1, atol=1e-5)
    assert np.allclose(draws.mean(0), dirichlet.mean(a), atol=0.012)
    assert np.allclose(np.asarray(log_probs)[:, 0].mean(0), dirichlet.expected_log_probs(a)[0], atol=0.03)
    assert np.isfinite(np.asarray(log_probs)[:, 1]).all() and (draws[:, 1].max(-1) > 0.999).mean() > 0.99
    p = 0.5 / 10.5
    assert np.var(draws[:, 0, 0]) == pytest.approx(p * (1 - p) / 11.5, rel=0.1)


def test_errors_name_the_argument():
    good = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="concentration must be positive everywhere, got 0.0 at index"):
        dirichlet.entropy(good.at[0, 1].set(0))
    with pytest.raises(ValueError, match="concentration must be finite"):
        dirichlet.mean(good.at[0, 1].set(jnp.inf))
    with pytest.raises(ValueError, match="at least 2 classes"):
        dirichlet.precision(jnp.ones((4, 1)))
    with pytest.raises(ValueError, match="p_concentration .* q_concentration"):
        dirichlet.kl_divergence(good, jnp.ones(3))
    with pytest.raises(ValueError, match="log_probs must be log-probabilities"):
        dirichlet.log_prob(good, jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="num_samples"):
        dirichlet.sample(jax.random.key(0), good, 0)
    with pytest.raises(TypeError, match="concentration must be real"):
        dirichlet.entropy(good.astype(jnp.complex64))


def test_validate_concentration_inside_jit():
    checked = jax.jit(checkify.checkify(dirichlet.validate_concentration))
    checked(jnp.ones(3))[0].throw()
    for bad in (0.0, -1.0, jnp.nan, jnp.inf):
        error, _ = checked(jnp.array([1.0, bad, 1.0]))
        with pytest.raises(checkify.JaxRuntimeError, match="concentration must be positive and finite"):
            error.throw()
