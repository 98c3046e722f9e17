"""The proxy losses in float32 and float64 against 50-digit mpmath, values and gradients; the kernel's tables."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from edd.losses import proxy, proxy_tables

mp.mp.dps = 50


# --- the oracle: classes in groups of equal (logit, log-probability), so that K = 256,000 costs a handful of polygammas ---


@functools.cache
def _polygamma(order: int, x: mp.mpf) -> mp.mpf:
    return mp.loggamma(x) if order < 0 else mp.psi(order, x)


def oracle_reverse(groups, precision, offset, target_offset, prior):
    """Loss, its largest part, and per group the gradient and its largest term. groups: [(z, log prob, count)], renormalised here."""
    num_classes = sum(count for _, _, count in groups)
    norm = sum(count * mp.exp(mp.mpf(log_prob)) for _, log_prob, count in groups)
    e = [mp.exp(mp.mpf(z)) for z, _, _ in groups]
    pb = [mp.exp(mp.mpf(log_prob)) / norm for _, log_prob, _ in groups]
    counts = [count for _, _, count in groups]
    alpha = [x + mp.mpf(offset) for x in e]
    total = sum(n * a for n, a in zip(counts, alpha))
    divisor = mp.mpf(precision) + (target_offset * num_classes if prior == "authors" else 0)
    psi_total = _polygamma(0, total)
    recon = sum(n * p * (psi_total - _polygamma(0, a)) for n, p, a in zip(counts, pb, alpha))
    entropy = sum(n * (_polygamma(-1, a) - (a - 1) * (_polygamma(0, a) - psi_total)) for n, a in zip(counts, alpha))
    divergence = -(entropy - _polygamma(-1, total)) - _polygamma(-1, mp.mpf(num_classes))
    extra = _polygamma(-1, mp.mpf(num_classes)) if prior == "authors" else 0
    loss = recon + (divergence + extra) / divisor
    slope_total = _polygamma(1, total)
    mass = sum(n * x for n, x in zip(counts, e))
    factor = (total - num_classes) / divisor - 1
    gradients, sizes = [], []
    for x, a, p in zip(e, alpha, pb):
        slope = _polygamma(1, a)
        gradients.append(x * (slope * ((a - 1) / divisor - p) - slope_total * factor))
        # the terms of the stable form (at offset 1: e (1 - w) / D, e (1 - W) / D, pb w, softmax W), the strictest reading
        own, common = (a - 1) * slope, (total - num_classes) * slope_total
        shift = 1 if common > 0.5 else 0
        sizes.append(
            max(abs(x * (own - shift) / divisor), abs(x * (common - shift) / divisor), p * x * slope, x / mass * mass * slope_total)
        )
    return loss, gradients, sizes


def arrays(groups, dtype=np.float32):
    """([1, K] logits, [1, K] log-probs, index of the first class of each group); inputs are rounded to `dtype` first."""
    counts = [count for _, _, count in groups]
    z = np.repeat(np.array([g[0] for g in groups], dtype), counts)[None]
    log_probs = np.repeat(np.array([g[1] for g in groups], dtype), counts)[None]
    return z, log_probs, np.concatenate([[0], np.cumsum(counts)[:-1]])


def rounded(groups, dtype=np.float32):
    return tuple((float(dtype(z)), float(dtype(lp)), n) for z, lp, n in groups)


def targets_of(kind: str, num_classes: int) -> list[tuple[float, int]]:
    """Normalised [(log prob, count)] over K classes in at most three groups."""
    if kind == "uniform":
        return [(-np.log(num_classes), 1), (-np.log(num_classes), num_classes - 1)]
    if kind == "peaked":
        return [(np.log(0.9), 1), (np.log(0.1 / (num_classes - 1)), num_classes - 1)]
    if kind == "onehot":
        return [(0.0, 1), (-np.inf, num_classes - 1)]
    if kind == "sharp":
        return [(np.log1p(-1e-4), 1), (np.log(1e-4 / (num_classes - 1)), num_classes - 1)]
    raise AssertionError(kind)


LOGITS = {  # (head, tail, one other tail class)
    "zero": (0.0, 0.0, 0.0),
    "small": (1e-3, 1e-3, -1e-3),
    "low": (-80.0, -80.0, -80.0),
    "high": (80.0, 80.0, 79.5),
    "spread": (80.0, -80.0, 0.3),
    "dominant": (8.0, 0.0, -2.0),
    "wide": (18.0, -3.0, 5.0),
    "second": (0.3, -1.0, 12.0),
    "negative": (-2.0, -5.0, -3.0),
    "warm": (3.0, 2.9, 3.1),
    "huge": (30.0, 29.0, 30.0),
}
PRECISIONS = (1e-2, 3.0, 1e4, 1e8)


def cases(num_classes: int):
    for logit_name, (head, tail, odd) in LOGITS.items():
        for target_name in ("uniform", "peaked", "sharp", "onehot"):
            (first, _), (rest, count) = targets_of(target_name, num_classes)
            groups = [(head, first, 1), (odd, rest, 1)] + ([(tail, rest, count - 1)] if count > 1 else [])
            yield f"{logit_name}-{target_name}", groups


def worst_errors(num_classes, offset, target_offset, prior, dtype, precisions=PRECISIONS, only=None):
    """Worst value error and gradient error over all cases, in units of the tolerance, and where."""
    chosen = [(name, groups) for name, groups in cases(num_classes) if only is None or name in only]
    rows = [(name, groups, precision) for name, groups in chosen for precision in precisions]
    stacked = [arrays(groups, dtype)[:2] for _, groups, _ in rows]
    z, log_probs = (np.concatenate(part) for part in zip(*stacked))

    @jax.jit
    def run(z, log_probs, precision):
        def total(z):
            loss = proxy.reverse_kl(z, proxy.ProxyTarget(log_probs, precision), offset, target_offset, prior)
            return jnp.sum(loss), loss

        (_, loss), gradient = jax.value_and_grad(total, has_aux=True)(z)
        return loss, gradient

    loss, gradient = jax.device_get(run(z, log_probs, np.array([precision for _, _, precision in rows], dtype)))
    relative, absolute, floor = (1e-5, 1e-7, 1e-6) if dtype == np.float32 else (1e-9, 1e-12, 1e-12)
    limit = float(np.finfo(dtype).max)
    worst = {"value": (0.0, ""), "gradient": (0.0, "")}
    for row, (name, groups, precision) in enumerate(rows):
        where = f"{name}, precision {precision}"
        exact, slopes, sizes = oracle_reverse(rounded(groups, dtype), float(dtype(precision)), offset, target_offset, prior)
        note = f"{where}: {loss[row]}, exactly {mp.nstr(exact, 10)}"
        worst["value"] = max(worst["value"], (in_tolerances(loss[row], exact, relative * exact + absolute, limit), note))
        for index, slope, size in zip(arrays(groups)[2], slopes, sizes):
            got = gradient[row, index]
            note = f"{where}, class {index}: {got}, exactly {mp.nstr(slope, 10)}, largest term {mp.nstr(size, 4)}"
            worst["gradient"] = max(worst["gradient"], (in_tolerances(got, slope, max(relative * size, mp.mpf(floor)), limit), note))
    return worst


def in_tolerances(got, exact, tolerance, limit) -> float:
    """|got - exact| in units of the tolerance; 0 where both are infinite, inf where only one is (or for NaN)."""
    if not np.isfinite(got):
        return 0.0 if np.isinf(got) and abs(exact) > limit and (got > 0) == (exact > 0) else np.inf
    return float(abs(mp.mpf(float(got)) - exact) / tolerance)


@pytest.mark.parametrize(
    "num_classes, offset, target_offset, prior",
    [(k, 1.0, 1.0, "paper") for k in (2, 3, 100, 1000)]
    + [(10, 1.0, 1.0, "authors"), (2, 0.0, 0.0, "paper"), (1000, 0.0, 1.0, "authors")]
    + [(10, 0.5, 0.0, "authors"), (3, 3.0, 1.0, "paper")],
)
def test_reverse_kl_is_accurate_in_float32(num_classes, offset, target_offset, prior):
    worst = worst_errors(num_classes, offset, target_offset, prior, np.float32)
    assert worst["value"][0] <= 1, worst["value"]
    assert worst["gradient"][0] <= 1, worst["gradient"]


@pytest.mark.parametrize("num_classes, offset", [(32000, 0.0), (256000, 1.0)])
def test_reverse_kl_is_accurate_over_many_classes(num_classes, offset):
    only = {"zero-peaked", "small-uniform", "high-uniform", "spread-peaked", "dominant-onehot", "warm-sharp", "second-uniform"}
    worst = worst_errors(num_classes, offset, 1.0, "paper", np.float32, precisions=(3e3,), only=only)
    assert worst["value"][0] <= 1, worst["value"]
    assert worst["gradient"][0] <= 1, worst["gradient"]


@pytest.mark.parametrize("num_classes, offset, target_offset, prior", [(2, 1.0, 1.0, "paper"), (1000, 0.0, 1.0, "authors")])
def test_reverse_kl_is_accurate_in_float64(num_classes, offset, target_offset, prior, x64):
    worst = worst_errors(num_classes, offset, target_offset, prior, np.float64)
    assert worst["value"][0] <= 1, worst["value"]
    assert worst["gradient"][0] <= 1, worst["gradient"]


# --- forward KL ---


def oracle_forward(z, log_probs, precision, offset, target_offset):
    norm = mp.fsum(mp.exp(mp.mpf(float(x))) for x in log_probs)
    beta = [precision * mp.exp(mp.mpf(float(x))) / norm + target_offset for x in log_probs]
    e = [mp.exp(mp.mpf(float(x))) for x in z]
    alpha = [x + offset for x in e]
    b0, a0 = mp.fsum(beta), mp.fsum(alpha)
    value = mp.loggamma(b0) - mp.loggamma(a0) + mp.fsum(mp.loggamma(a) - mp.loggamma(b) for a, b in zip(alpha, beta))
    expected = [mp.psi(0, b) - mp.psi(0, b0) for b in beta]
    value += mp.fsum((b - a) * x for a, b, x in zip(alpha, beta, expected))
    slopes = [x * (mp.psi(0, a) - mp.psi(0, a0) - own) for x, a, own in zip(e, alpha, expected)]
    sizes = [x * max(abs(mp.psi(0, a) - mp.psi(0, a0)), abs(own)) for x, a, own in zip(e, alpha, expected)]
    return value, slopes, sizes


@pytest.mark.parametrize("offset, target_offset", [(1.0, 1.0), (0.0, 0.5)])
def test_forward_kl_is_accurate_in_float32(offset, target_offset):
    rows = []
    for head, tail, odd in LOGITS.values():
        for precision in PRECISIONS:
            for kind in ("peaked", "onehot"):
                (first, _), (rest, _) = targets_of(kind, 4)
                rows.append(((head, odd, tail, tail), (first, rest, rest, rest), precision))
    z, log_probs, precision = (np.array(column, np.float32) for column in zip(*rows))
    target = proxy.ProxyTarget(log_probs, precision)

    @jax.jit
    def run(z):
        loss, pullback = jax.vjp(lambda z: proxy.forward_kl(z, target, offset, target_offset), z)
        return loss, pullback(jnp.ones_like(loss))[0]

    loss, slope = jax.device_get(run(z))
    limit = float(np.finfo(np.float32).max)
    for i in range(len(rows)):
        value, slopes, sizes = oracle_forward(z[i], log_probs[i], mp.mpf(float(precision[i])), mp.mpf(offset), mp.mpf(target_offset))
        assert in_tolerances(loss[i], value, 1e-5 * value + 1e-7, limit) <= 1, (rows[i], loss[i], mp.nstr(value, 9))
        for got, exact, size in zip(slope[i], slopes, sizes):
            assert in_tolerances(got, exact, max(1e-5 * size, mp.mpf("1e-6")), limit) <= 1, (rows[i], got, mp.nstr(exact, 9))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("offset, target_offset", [(1.0, 1.0), (0.0, 0.0), (2.0, 0.0)])
def test_forward_kl_near_its_optimum(offset, target_offset, bits):
    """Students within 1e-3 of ln beta, where the loss is a difference of nearly equal Dirichlets."""
    rng = np.random.default_rng(int(offset))
    dtype, tight = (np.float32, 1) if bits == 32 else (np.float64, 1e-4)
    with jax.enable_x64(bits == 64):
        run = jax.jit(jax.value_and_grad(lambda z, target: proxy.forward_kl(z, target, offset, target_offset)))
        for classes in (2, 3, 10):
            for _ in range(60 if classes < 10 else 10):
                logits = rng.normal(size=classes)
                log_probs = (logits - np.logaddexp.reduce(logits)).astype(dtype)
                precision = dtype(10 ** rng.uniform(2, 8))
                z = (np.log(precision) + log_probs + rng.normal(size=classes) * 1e-3).astype(dtype)
                loss, slope = jax.device_get(run(z, proxy.ProxyTarget(log_probs, precision)))
                at = (z, log_probs, mp.mpf(float(precision)), mp.mpf(offset), mp.mpf(target_offset))
                value, slopes, sizes = oracle_forward(*at)
                assert abs(mp.mpf(float(loss)) - value) <= max(1e-5 * tight * value, mp.mpf(1e-7 * tight)), (z, log_probs, precision, loss)
                for got, exact, size in zip(slope, slopes, sizes):
                    assert abs(mp.mpf(float(got)) - exact) <= max(1e-5 * tight * size, mp.mpf(1e-6 * tight)), (z, log_probs, precision)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_forward_kl_beyond_the_range_of_exp_is_right_or_infinite_never_nan(offset):
    """Logits of untrained networks on unscaled inputs: e^z underflows to zero or passes float32's largest number."""
    rng = np.random.default_rng(3)
    log_probs = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    run = jax.jit(jax.value_and_grad(lambda z, precision: proxy.forward_kl(z, proxy.ProxyTarget(log_probs, precision), offset, 1.0)))
    rows = [
        (-300.0, 1.0, 2.0),
        (-100.0, -90.0, -95.0),
        (-300.0, -300.0, -300.0),
        (95.0, 0.0, -200.0),
        (300.0, 299.0, 10.0),
        (400.0, 400.0, 400.0),
    ]
    rows += [tuple(rng.normal(size=3) * scale) for scale in (60, 150, 400) for _ in range(8)]
    limit = float(np.finfo(np.float32).max)
    for z in np.array(rows, np.float32):
        for precision in np.array([2.0, 1e5], np.float32):
            loss, slope = jax.device_get(run(z, precision))
            with mp.workdps(400):
                value, slopes, sizes = oracle_forward(z, log_probs, mp.mpf(float(precision)), mp.mpf(offset), mp.mpf(1))
            assert in_tolerances(loss, value, 1e-5 * value + 1e-7, limit) <= 1, (z, precision, loss, mp.nstr(value, 9))
            for got, exact, size in zip(slope, slopes, sizes):
                assert in_tolerances(got, exact, max(1e-5 * size, mp.mpf("1e-6")), limit) <= 1, (z, precision, got, mp.nstr(exact, 9))


FORWARD_EXTREMES = {  # logits, unnormalised target log-probabilities, precision
    "equal means, one huge": ((80.0,) * 4, (0.0,) * 4, 1e12),
    "equal means, close": ((14.91, 14.91, 14.91, 14.91), (0.0,) * 4, 1.2e7),
    "near its optimum": ((18.1979, 16.8116, 9.9, 9.9), (-0.22314, -1.6094, -8.5, -8.5), 1e8),
    "target underflows": ((60.0, 40.0, -60.0, -60.0), (0.0, -20.0, -120.0, -120.0), 1.0),
    "one class dominates both": ((80.0, -80.0, -80.0, -80.0), (0.0, -30.0, -30.0, -30.0), 1e-4),
    "another class dominates": ((80.0, -50.0, 0.0, 0.0), (-60.0, 0.0, -9.0, -9.0), 1e8),
}


@pytest.mark.parametrize("offset, target_offset", [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_forward_kl_of_extreme_and_nearly_equal_dirichlets(offset, target_offset):
    z, log_probs, precision = (np.array(column, np.float32) for column in zip(*FORWARD_EXTREMES.values()))
    log_probs = np.array(jax.nn.log_softmax(log_probs))
    target = proxy.ProxyTarget(log_probs, precision)
    loss, pullback = jax.vjp(jax.jit(lambda z: proxy.forward_kl(z, target, offset, target_offset)), z)
    slope = pullback(jnp.ones_like(loss))[0]
    limit = float(np.finfo(np.float32).max)
    for i, name in enumerate(FORWARD_EXTREMES):
        with mp.workdps(100):
            value, slopes, sizes = oracle_forward(z[i], log_probs[i], mp.mpf(float(precision[i])), mp.mpf(offset), mp.mpf(target_offset))
        assert in_tolerances(loss[i], value, 1e-5 * value + 1e-7, limit) <= 1, (name, loss[i], mp.nstr(value, 9))
        for got, exact, size in zip(slope[i], slopes, sizes):
            assert in_tolerances(got, exact, max(1e-5 * size, mp.mpf("1e-6")), limit) <= 1, (name, got, mp.nstr(exact, 9))


def test_forward_kl_over_very_many_classes_where_the_total_overflows():
    num_classes = 32_000
    target = proxy.ProxyTarget(jnp.full(num_classes, -jnp.log(num_classes)), jnp.array(1e9))
    loss, slope = jax.value_and_grad(proxy.forward_kl)(jnp.full(num_classes, 80.0), target)  # alpha_0 = 2e39
    with mp.workdps(100):
        a, b = mp.exp(80) + 1, mp.mpf(10**9) / num_classes + 1
    value = forward_of_equal_classes(a, b, num_classes)
    np.testing.assert_allclose(loss, float(value), rtol=1e-5)
    assert np.isfinite(slope).all()


def test_forward_kl_where_the_offsets_hold_nearly_all_of_both():
    """alpha - beta = 1e-3 beside 1, in many classes that all round alike."""
    target = proxy.ProxyTarget(np.full(32_000, -np.log(32_000), np.float32), jnp.array(30.0))
    loss = proxy.forward_kl(jnp.full(32_000, -30.0), target)
    with mp.workdps(100):
        value = forward_of_equal_classes(1 + mp.exp(-30), 1 + mp.mpf(30) / 32_000, 32_000)
    np.testing.assert_allclose(loss, float(value), rtol=1e-5)


def forward_of_equal_classes(a, b, count):
    with mp.workdps(100):
        value = mp.loggamma(count * b) - mp.loggamma(count * a) + count * (mp.loggamma(a) - mp.loggamma(b))
        return value + count * (b - a) * (mp.psi(0, b) - mp.psi(0, count * b))


# --- the tables ---


def trigamma(b, t):
    return (mp.psi(1, 1 + b) / t - 1) / t


def digamma(b, t):
    return mp.psi(0, 1 + b) + mp.log(t)


def entropy(b, t):
    return mp.loggamma(1 + b) - b * mp.psi(0, 1 + b) + 1 + b + mp.log(t) / 2


def bregman(b, t):
    return mp.psi(1, 1) / 2 if abs(b) < 1e-20 else (b * mp.psi(0, 1 + b) - mp.loggamma(1 + b)) / b**2


@pytest.mark.parametrize("bits, tolerance", [(32, 1.5e-7), (64, 2e-13)])
@pytest.mark.parametrize("function", [trigamma, digamma, entropy, bregman])
def test_tables_reach_their_accuracy(function, bits, tolerance):
    shift = mp.mpf(proxy_tables.SHIFT)
    table = [mp.mpf(c) for c in getattr(proxy_tables, function.__name__.upper())[bits]]
    low, high = (1 / (1 + shift), 1 / (shift - 0.5)) if function is bregman else (mp.mpf(10) ** -12, 1 / shift)
    for i in range(301):
        t = low + (high - low) * i / 300
        b = 1 / t - shift
        assert abs(mp.fsum(c * t**n for n, c in enumerate(table)) - function(b, t)) < tolerance
