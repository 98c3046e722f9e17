"""EnD2 against 50-digit mpmath, the displayed formula and the limits."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from edd.losses import distribution

mp.mp.dps = 50

LOGITS = [
    (0.0, 0.0, 0.0),
    (-80.0, -80.0, -80.0),
    (80.0, 80.0, 79.5),
    (80.0, -80.0, 0.3),
    (8.0, 0.0, -2.0),
    (18.0, -3.0, 5.0),
    (1e-3, -1e-3, 0.0),
    (3.0, 2.9, 3.1),
]
MEANS = [(0.2, -0.5, -1.0), (0.0, 0.0, 0.0), (-1e-4, -12.0, -9.0), (-30.0, -0.01, -50.0)]  # before the offset -ln(K + ...)


def problem(num_classes, dtype=np.float32):
    """Rows [(z head, odd, tail), (g head, odd, tail)], with the tail K - 2 times."""
    rows = []
    for z in LOGITS:
        for shape in MEANS:
            g = np.array(shape) - np.log(sum(np.exp(shape[:2])) + (num_classes - 2) * np.exp(shape[2])) - 0.01
            rows.append((np.array((z[0], z[2], z[1]), dtype), g.astype(dtype)))
    return rows


def expand(values, num_classes):
    return np.concatenate([values[:2], np.full(num_classes - 2, values[2], values.dtype)])


def oracle(z, g, num_classes, offset):
    """Loss and its largest part, gradients and their largest terms, for the head, the odd class and one of the tail."""
    counts = (1, 1, num_classes - 2)
    e = [mp.exp(mp.mpf(float(x))) for x in z]
    g = [mp.mpf(float(x)) for x in g]
    alpha = [x + offset for x in e]
    total = sum(n * a for n, a in zip(counts, alpha))
    parts = [n * mp.loggamma(a) for n, a in zip(counts, alpha)] + [-mp.loggamma(total)]
    parts += [-n * (a - 1) * x for n, a, x in zip(counts, alpha, g)]
    slopes = [x * (mp.psi(0, a) - mp.psi(0, total) - y) for x, a, y in zip(e, alpha, g)]
    sizes = [x * max(abs(mp.psi(0, a) - mp.psi(0, total)), abs(y)) for x, a, y in zip(e, alpha, g)]
    return sum(parts), max(abs(x) for x in parts), slopes, sizes


@pytest.mark.parametrize("num_classes, offset", [(3, 0.0), (3, 1.0), (1000, 0.5), (256000, 0.0)])
def test_value_and_gradient_are_accurate_in_float32(num_classes, offset):
    check(num_classes, offset, np.float32, 1e-5, 1e-6)


def test_value_and_gradient_are_accurate_in_float64(x64):
    check(100, 0.0, np.float64, 1e-9, 1e-12)


def check(num_classes, offset, dtype, relative, floor):
    rows = problem(num_classes, dtype)[:: 1 if num_classes < 10000 else 9]
    z, g = (np.stack([expand(row[i], num_classes) for row in rows]) for i in (0, 1))

    @jax.jit
    def run(z):
        loss, pullback = jax.vjp(lambda z: distribution.end2_from_mean_log_probs(z, g, offset), z)
        return loss, pullback(jnp.ones_like(loss))[0]

    loss, gradient = jax.device_get(run(z))
    limit = float(np.finfo(dtype).max)
    for i, (z_row, g_row) in enumerate(rows):
        value, size, slopes, sizes = oracle(z_row, g_row, num_classes, offset)
        assert not np.isnan(loss[i])
        if abs(value) < limit:
            assert abs(mp.mpf(float(loss[i])) - value) <= relative * size + floor / 10, (z_row, g_row, loss[i], mp.nstr(value, 9))
        for k, slope, term in zip(range(3), slopes, sizes):
            got = gradient[i, k]
            assert np.isinf(got) if abs(slope) > limit else abs(mp.mpf(float(got)) - slope) <= max(relative * term, floor), (
                z_row,
                g_row,
                k,
            )


def reference(logits, log_probs, offset):
    """-mean_m ln Dir(pi^m; alpha), as displayed."""
    from jax.scipy.special import gammaln

    alpha = jnp.exp(logits) + offset
    density = (gammaln(alpha.sum(-1)) - gammaln(alpha).sum(-1))[None] + ((alpha - 1)[None] * log_probs).sum(-1)
    return -density.mean(0)


@pytest.fixture
def members():
    keys = jax.random.split(jax.random.key(0), 2)
    logits = 2 * jax.random.normal(keys[0], (4, 5), jnp.float64)
    return logits, jax.nn.log_softmax(2 * jax.random.normal(keys[1], (3, 4, 5), jnp.float64))


@pytest.mark.parametrize("variant", distribution.VARIANTS)
def test_variants_are_their_formulas(x64, variant, members):
    logits, log_probs = members
    t, c = 2.5, 1e-3
    soft = jax.nn.softmax(log_probs if variant == "student_only" else log_probs / t)
    soft = jnp.log((1 - c) * soft + c / 5)
    student, scale = {"both": (1 / t, t * t), "teacher_only": (1.0, 1.0), "student_only": (1 / t, t * t), "reverse": (t, 1 / t**2)}[variant]

    @jax.jit
    def both(z):
        got = jax.vjp(lambda z: distribution.end2(z, log_probs, 0.5, temperature=t, target_smoothing=c, variant=variant), z)
        expected = jax.vjp(lambda z: scale * reference(z * student, soft, 0.5), z)
        return (got[0], got[1](jnp.ones(4))[0]), (expected[0], expected[1](jnp.ones(4))[0])

    got, expected = both(logits)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-8, atol=1e-9)


def test_cached_means_give_the_same_loss():
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (3, 4, 5)))
    logits = jax.random.normal(jax.random.key(2), (4, 5))
    means = distribution.mean_log_probs(log_probs, target_smoothing=0.01)
    direct = distribution.end2(logits, log_probs, target_smoothing=0.01)
    np.testing.assert_allclose(distribution.end2_from_mean_log_probs(logits, means), direct, rtol=1e-6)


def test_temperature_may_be_traced():
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (3, 4, 5)))
    traces = []

    @jax.jit
    def loss(temperature):
        traces.append(None)
        return distribution.end2(jnp.ones((4, 5)), log_probs, temperature=temperature)

    warm, cold = loss(jnp.float32(10.0)), loss(jnp.float32(1.0))
    assert len(traces) == 1
    np.testing.assert_allclose(cold, distribution.end2(jnp.ones((4, 5)), log_probs), rtol=1e-6)
    assert not np.allclose(warm, cold)


def test_full_smoothing_forgets_the_members():
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (3, 4, 5)))
    np.testing.assert_allclose(distribution.mean_log_probs(log_probs, target_smoothing=1.0), -np.log(5), rtol=1e-6)


def test_excluded_classes_give_the_infinity_of_the_density():
    g = jnp.array([0.0, -jnp.inf])
    loss = jax.jit(distribution.end2_from_mean_log_probs, static_argnums=2)
    assert np.isposinf(loss(jnp.array([0.0, 1.0]), g, 0.0))  # alpha = e > 1: the density is 0 there
    assert np.isneginf(loss(jnp.array([0.0, -1.0]), g, 0.0))  # alpha < 1: the density is infinite
    assert np.isfinite(loss(jnp.array([0.0, 0.0]), g, 0.0))  # alpha = 1: the class drops out
    assert np.isposinf(loss(jnp.array([0.0, -5.0]), g, 1.0))
    slope = jax.grad(distribution.end2_from_mean_log_probs)(jnp.array([0.0, 1.0]), g)
    assert np.isposinf(slope[1]) and np.isfinite(slope[0])
    smoothed = distribution.mean_log_probs(jnp.log(jnp.array([[1.0, 0.0]])), target_smoothing=1e-3)
    assert np.isfinite(smoothed).all()


def test_extreme_logits_never_give_nan():
    extremes = jnp.array([-1e3, -80.0, 0.0, 80.0, 1e3])
    logits = jnp.stack(jnp.meshgrid(extremes, extremes, indexing="ij"), -1)
    loss = jax.jit(jax.value_and_grad(lambda z, g: distribution.end2_from_mean_log_probs(z, g, 0.0).sum()))
    for g in ([-0.7, -0.7], [0.0, -jnp.inf]):
        for row in logits.reshape(-1, 2):
            value, slope = loss(row, jnp.array(g))
            assert not np.isnan(value) and not np.isnan(slope).any(), (row, g)


def test_gradients_beyond_the_largest_number_are_infinite():
    slope = jax.jit(jax.grad(distribution.end2_from_mean_log_probs))
    beyond = slope(jnp.array([200.0, 0.0]), jnp.array([-0.25, -1.5]))
    assert np.isposinf(beyond[0]) and np.isfinite(beyond[1])
    within = slope(jnp.array([89.0, 0.0]), jnp.array([-0.01, -4.6]))  # e^89 overflows, a hundredth of it does not
    np.testing.assert_allclose(within[0], np.float64(np.float32(0.01)) * np.exp(89.0), rtol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"variant": "none"}, "variant"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": jnp.ones(2)}, "temperature"),
        ({"target_smoothing": 1.5}, "target_smoothing"),
        ({"offset": -1.0}, "offset"),
        ({"max_concentration": 0.0}, "max_concentration"),
        ({"logits": jnp.zeros(3)}, "member_log_probs"),
        ({"logits": jnp.full(2, jnp.inf)}, "logits"),
        ({"member_log_probs": jnp.zeros((2, 2))}, "member_log_probs"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"logits": jnp.zeros(2), "member_log_probs": jnp.log(jnp.full((3, 2), 0.5))} | change
    with pytest.raises(ValueError, match=message):
        distribution.end2(**arguments)


def test_positive_means_are_refused():
    with pytest.raises(ValueError, match="mean_log_probs"):
        distribution.end2_from_mean_log_probs(jnp.zeros(2), jnp.ones(2))
