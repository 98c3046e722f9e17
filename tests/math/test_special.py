"""edd.math.special against 60-digit mpmath values at the rounded inputs."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from edd.math import special

MP = mp.MPContext()
MP.dps = 90

ZEROS = [1.0, 1.0000001, 0.9999999, 1.00001, 2.0, 1.9999999, 2.0000002, 2.00001, 1.4616321, 1.4616, 1.4617, 1.461632144968362341]
WIDE = [1e-30, 1e-20, 1e-10, 1e-4, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9, 1.1, 1.3, 1.7, 2.5, 2.9, 3.0, 3.1, 5, 10, 100, 1e4, 1e6, 1e8, 1e15, 1e30]
POINTS = WIDE + ZEROS + list(np.exp(np.random.default_rng(0).uniform(-12, 12, 40)))


def exact(value):
    return MP.mpf(float(value))


def d(x):
    return MP.log(x) - MP.digamma(x)


# name: (function, derivative)
SINGLE = {
    "log_gamma": (MP.loggamma, MP.digamma),
    "digamma": (MP.digamma, lambda x: MP.psi(1, x)),
    "trigamma": (lambda x: MP.psi(1, x), lambda x: MP.psi(2, x)),
    "tetragamma": (lambda x: MP.psi(2, x), lambda x: MP.psi(3, x)),
    "log_minus_digamma": (d, lambda x: 1 / x - MP.psi(1, x)),
    "x_log_minus_digamma": (lambda x: x * d(x), lambda x: d(x) + 1 - x * MP.psi(1, x)),
    "digamma_next_minus_log": (lambda x: 1 / x - d(x), lambda x: MP.psi(1, x + 1) - 1 / x),
    "x_digamma_next_minus_log": (lambda x: 1 - x * d(x), lambda x: x * MP.psi(1, x) - 1 - d(x)),
    "x_trigamma_minus_one": (lambda x: x * MP.psi(1, x) - 1, lambda x: MP.psi(1, x) + x * MP.psi(2, x)),
    "one_minus_x_trigamma_next": (lambda x: 1 - x * MP.psi(1, x + 1), lambda x: -MP.psi(1, x + 1) - x * MP.psi(2, x + 1)),
    "entropy_term": (lambda x: MP.loggamma(x) - (x - 1) * MP.digamma(x) + x, lambda x: 1 - (x - 1) * MP.psi(1, x)),
    "log_gamma_remainder": (lambda x: MP.loggamma(x) - x * MP.log(x) + x, lambda x: -d(x)),
}
CHANGES_SIGN = {"entropy_term", "log_gamma_remainder"}  # by a zero that no sum over classes depends on


def worst_error(values, references, dtype, floor=0.0):
    """Largest relative error; results beyond the type's range must be infinite, below it anything tiny passes."""
    info = np.finfo(dtype)
    worst = 0.0
    for value, reference in zip(np.asarray(values), references):
        assert not np.isnan(value)
        if abs(reference) > float(info.max):
            assert np.isinf(value) and np.sign(value) == MP.sign(reference)
        elif abs(reference) > 4 * float(info.tiny):
            worst = max(worst, float(abs(exact(value) - reference) / max(abs(reference), floor)))
    return worst


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 5e-6), ("float64", 3e-11)])
def test_value_and_derivative(name, dtype, tolerance):
    function, (value, derivative) = getattr(special, name), SINGLE[name]
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(POINTS, dtype)
        values = jax.jit(function)(x)
        slopes = jax.jit(jax.vmap(jax.grad(function)))(x)
        assert values.dtype == dtype
    exact_points = [exact(v) for v in np.asarray(x)]
    floor = 0.1 if name in CHANGES_SIGN else 0.0
    assert worst_error(values, [value(v) for v in exact_points], dtype, floor) < tolerance / 5
    assert worst_error(slopes, [derivative(v) for v in exact_points], dtype) < tolerance


@pytest.mark.parametrize("name", SINGLE)
def test_second_derivative(name):
    x = [1e-3, 0.4, 0.99, 1.0, 1.5, 2.0, 2.99, 3.0, 7.0, 1e3]
    derivative = SINGLE[name][1]
    got = jax.vmap(jax.grad(jax.grad(getattr(special, name))))(jnp.asarray(x, jnp.float32))
    references = [MP.diff(derivative, exact(np.float32(v))) for v in x]
    # relative to the largest value in a neighbourhood of one: second derivatives cross zero
    for value, reference in zip(np.asarray(got), references):
        assert abs(exact(value) - reference) < 2e-4 * abs(reference) + 1e-6


def test_third_and_fourth_derivative_of_digamma():
    third = jax.grad(jax.grad(jax.grad(special.digamma)))
    for x in (0.3, 1.0, 20.0):
        assert np.isclose(float(third(jnp.float32(x))), float(MP.psi(3, exact(np.float32(x)))), rtol=1e-5)
        assert np.isclose(float(jax.grad(third)(jnp.float32(x))), float(MP.psi(4, exact(np.float32(x)))), rtol=1e-5)


@pytest.mark.parametrize(
    "name, at_zero, at_infinity",
    [
        ("log_gamma", np.inf, np.inf),
        ("digamma", -np.inf, np.inf),
        ("trigamma", np.inf, 0.0),
        ("tetragamma", -np.inf, 0.0),
        ("log_minus_digamma", np.inf, 0.0),
        ("x_log_minus_digamma", 1.0, 0.5),
        ("digamma_next_minus_log", np.inf, 0.0),
        ("x_digamma_next_minus_log", 0.0, 0.5),
        ("x_trigamma_minus_one", np.inf, 0.0),
        ("one_minus_x_trigamma_next", 1.0, 0.0),
        ("entropy_term", -np.inf, np.inf),
        ("log_gamma_remainder", np.inf, -np.inf),
    ],
)
def test_limits(name, at_zero, at_infinity):
    function = getattr(special, name)
    assert function(jnp.float32(0.0)) == pytest.approx(at_zero, abs=1e-30)
    assert function(jnp.float32(np.inf)) == pytest.approx(at_infinity)


def test_no_nan_and_no_overflow_over_the_whole_range():
    x = jnp.asarray(10.0 ** np.arange(-37, 38.5, 0.5), jnp.float32)

    @jax.jit
    def everything(x):
        functions = [getattr(special, name) for name in SINGLE]
        return [jax.vmap(g)(x) for f in functions for g in (f, jax.grad(f), jax.grad(jax.grad(f)))]

    for index, values in enumerate(everything(x)):
        assert not np.isnan(values).any(), (list(SINGLE)[index // 3], index % 3)


def bregman(x, y):
    return MP.loggamma(y) - MP.loggamma(x) - (y - x) * MP.digamma(x)


PAIRED = {
    "digamma_difference": lambda x, y: MP.digamma(x) - MP.digamma(y),
    "log_gamma_bregman": bregman,
    "log_gamma_bregman_remainder": lambda x, y: bregman(x, y) - y * MP.log(y / x) + (y - x),
}
SLOPES = {
    "digamma_difference": (lambda x, y: MP.psi(1, x), lambda x, y: -MP.psi(1, y)),
    "log_gamma_bregman": (lambda x, y: -(y - x) * MP.psi(1, x), lambda x, y: MP.digamma(y) - MP.digamma(x)),
    "log_gamma_bregman_remainder": (lambda x, y: -(y - x) * (MP.psi(1, x) - 1 / x), lambda x, y: d(x) - d(y)),
}


def pairs():
    base = [1e-4, 1e-3, 0.1, 0.5, 0.999, 1.0, 1.3, 2.0, 7.0, 100.0, 1e4, 1e8]
    far = [(x, y) for x in [*base, 1e-30, 1e30] for y in [*base, 1e-30, 1e30]]
    near = [(x, x * (1 + r)) for x in base for r in (1e-6, 1e-4, 1e-2, 0.2, 0.49, 0.51, -1e-6, -1e-3, -0.3, -0.6)]
    return np.array(far + near).T


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("float64", 2e-11)])
def test_pairs_near_and_far(name, dtype, tolerance):
    MP.dps = 150
    function, reference = getattr(special, name), PAIRED[name]
    with jax.enable_x64(dtype == "float64"):
        x, y = (jnp.asarray(part, dtype) for part in pairs())
        values = jax.jit(function)(x, y)
        slopes = jax.jit(jax.vmap(jax.grad(function, argnums=(0, 1))))(x, y)
    exact_pairs = [(exact(u), exact(v)) for u, v in zip(np.asarray(x), np.asarray(y))]
    assert worst_error(values, [reference(u, v) for u, v in exact_pairs], dtype) < tolerance
    assert not np.isnan(slopes).any()
    for index, slope in enumerate(SLOPES[name]):
        for value, (u, v) in zip(np.asarray(slopes[index]), exact_pairs):
            target = slope(u, v)
            if abs(target) > float(np.finfo(dtype).max):
                assert np.isinf(value)
                continue
            scale = max(abs(target), d(u) if name.endswith("remainder") and index else 0)
            assert abs(exact(value) - target) <= 2 * tolerance * scale + float(np.finfo(dtype).tiny)
    MP.dps = 90


def test_pairs_vanish_where_equal():
    x = jnp.asarray([1e-30, 1e-4, 0.5, 1.0, 3.0, 1e8, 1e30], jnp.float32)
    for name in PAIRED:
        assert np.array_equal(getattr(special, name)(x, x), np.zeros(7))


def test_a_difference_known_better_than_the_arguments():
    x = jnp.float32(1e8)
    tiny = 1e-4
    for sign in (1, -1):  # arguments that round to the same number
        got = special.digamma_difference(x, x, sign * tiny)
        assert float(got) == pytest.approx(sign * tiny * float(MP.psi(1, exact(1e8))), rel=1e-5)
    above = jnp.float32(1e8) + 8
    got = special.digamma_difference(above, x, 8 + tiny)
    true = MP.digamma(exact(1e8) + 8 + exact(tiny)) - MP.digamma(exact(1e8))
    assert abs(exact(got) - true) / true < 1e-6
    near = float(special.log_gamma_bregman_remainder(x, x, 1.0))
    true = bregman(exact(1e8), exact(1e8) + 1) - (exact(1e8) + 1) * MP.log1p(exact(1e-8)) + 1
    assert near == pytest.approx(float(true), rel=1e-3)


def test_x_minus_log1p():
    points = [-0.999, -0.6, -0.5, -0.49, -0.1, -1e-3, -1e-6, 1e-7, 1e-3, 0.1, 0.49, 0.5, 0.51, 1.0, 10.0, 1e8, 1e30]
    v = jnp.asarray(points, jnp.float32)
    reference = [exact(u) - MP.log1p(exact(u)) for u in np.asarray(v)]
    assert worst_error(special.x_minus_log1p(v), reference, "float32") < 1e-6
    slopes = jax.vmap(jax.grad(special.x_minus_log1p))(v)
    assert worst_error(slopes, [exact(u) / (1 + exact(u)) for u in np.asarray(v)], "float32") < 1e-6
    assert special.x_minus_log1p(jnp.float32(0.0)) == 0 and np.isposinf(special.x_minus_log1p(jnp.float32(-1.0)))


def test_half_precision_is_computed_in_float32_and_complex_is_refused():
    assert special.log_gamma(jnp.bfloat16(3.0)).dtype == jnp.float32
    assert special.digamma(3).dtype == jnp.float32
    with pytest.raises(TypeError, match="x must be real"):
        special.log_gamma(jnp.complex64(1.0))
    with pytest.raises(TypeError, match="y must be a numeric array"):
        special.digamma_difference(1.0, "two")


def test_derivatives_do_not_call_a_generic_polygamma():
    def text(function):
        return jax.jit(jax.grad(jax.grad(function))).lower(1.5).as_text()

    generic = ("chlo.", "lgamma(", "polygamma(", "zeta(")
    assert any(word in text(jax.scipy.special.gammaln) for word in generic)
    ours = text(lambda x: special.log_gamma(x) + special.entropy_term(x))
    assert not any(word in ours for word in generic)
