"""The proxy losses against 50-digit mpmath, closed forms and obvious reference formulas."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from edd.losses import proxy, proxy_kernel, proxy_tables

mp.mp.dps = 50


# --- the oracle: classes in groups of equal (logit, log-probability), so that K = 256,000 costs a handful of polygammas ---


@functools.lru_cache(maxsize=None)
def _polygamma(order: int, x: mp.mpf) -> mp.mpf:
    return mp.loggamma(x) if order < 0 else mp.psi(order, x)


def oracle_reverse(groups, precision, offset, target_offset, prior):
    """Loss, its largest part, and per group the gradient and its largest term. groups: [(z, log prob, count)], renormalised here."""
    num_classes = sum(count for _, _, count in groups)
    norm = sum(count * mp.exp(mp.mpf(log_prob)) for _, log_prob, count in groups)
    e = [mp.exp(mp.mpf(z)) for z, _, _ in groups]
    pb = [mp.exp(mp.mpf(log_prob)) / norm for _, log_prob, _ in groups]
    counts = [count for _, _, count in groups]
    s, alpha = mp.mpf(offset), [x + offset for x in e]
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
    del s
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


def worst_errors(num_classes, offset, target_offset, prior, dtype):
    """Worst value error and gradient error over all cases, in units of the tolerance, and where."""
    names, rows = zip(*cases(num_classes))
    z = np.concatenate([arrays(g, dtype)[0] for g in rows for _ in PRECISIONS])
    log_probs = np.concatenate([arrays(g, dtype)[1] for g in rows for _ in PRECISIONS])
    precision = np.tile(np.array(PRECISIONS, dtype), len(rows))

    @jax.jit
    def run(z, log_probs, precision):
        def total(z):
            loss = proxy.reverse_kl(z, proxy.ProxyTarget(log_probs, precision), offset, target_offset, prior)
            return jnp.sum(loss), loss

        (_, loss), gradient = jax.value_and_grad(total, has_aux=True)(z)
        return loss, gradient

    loss, gradient = jax.device_get(run(z, log_probs, precision))
    relative, absolute, floor = (1e-5, 1e-7, 1e-6) if dtype == np.float32 else (1e-9, 1e-12, 1e-12)
    worst = {"value": (0.0, ""), "gradient": (0.0, "")}
    for i, (name, groups) in enumerate(zip(names, rows)):
        for j, value in enumerate(PRECISIONS):
            row = i * len(PRECISIONS) + j
            exact, slopes, sizes = oracle_reverse(rounded(groups, dtype), float(dtype(value)), offset, target_offset, prior)
            limit = float(np.finfo(dtype).max)
            if exact < limit:
                error = float(abs(mp.mpf(float(loss[row])) - exact) / (relative * exact + absolute))
            else:
                error = 0.0 if np.isinf(loss[row]) else np.inf
            worst["value"] = max(worst["value"], (error, f"{name} precision {value}: {loss[row]} exact {mp.nstr(exact, 10)}"))
            for index, slope, size in zip(arrays(groups)[2], slopes, sizes):
                got = float(gradient[row, index])
                tolerance = max(relative * size, mp.mpf(floor))
                error = float(abs(mp.mpf(got) - slope) / tolerance) if np.isfinite(got) else (0.0 if abs(slope) > limit else np.inf)
                note = f"{name} precision {value} class {index}: {got} exact {mp.nstr(slope, 10)} size {mp.nstr(size, 4)}"
                worst["gradient"] = max(worst["gradient"], (error, note))
    return worst


VARIANTS = [
    (1.0, 1.0, "paper"),
    (1.0, 1.0, "authors"),
    (0.0, 0.0, "paper"),
    (0.0, 1.0, "authors"),
    (0.5, 0.0, "authors"),
    (3.0, 1.0, "paper"),
]


@pytest.mark.parametrize("offset, target_offset, prior", VARIANTS)
@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000])
def test_reverse_kl_is_accurate_in_float32(num_classes, offset, target_offset, prior):
    worst = worst_errors(num_classes, offset, target_offset, prior, np.float32)
    assert worst["value"][0] <= 1, worst["value"]
    assert worst["gradient"][0] <= 1, worst["gradient"]
