"""The proxy losses against 50-digit mpmath, closed forms and obvious reference formulas."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from edd.distributions import dirichlet
from edd.losses import proxy

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
    tolerance = 1e-5 if spread > 1e-3 else 1e-3
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


def test_forward_kl_limits():
    log_probs = jnp.log(jnp.array([0.75, 0.25, 0.0]))
    logits = jnp.array([0.5, 0.0, -1.0])
    assert np.isposinf(proxy.forward_kl(logits, proxy.ProxyTarget(log_probs, jnp.array(jnp.inf))))
    assert np.isposinf(proxy.forward_kl(logits, proxy.ProxyTarget(log_probs, jnp.array(2.0)), target_offset=0.0))
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
        ({"offset": jnp.float32(1.0)}, TypeError, "offset"),
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
