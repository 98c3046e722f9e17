"""Benchmarks of the library's hot functions: python launch/bench.py [--only=reverse_kl_1000] [--threads=2] [--json=bench.json].

Each benchmark compiles its sides ahead of time, calls them in turn within one run (so that a busy machine slows all alike) and prints
the median of each and the median ratio to its reference side; temporary buffers are read from the compiled memory analysis.
The process is pinned to `--threads` cores before JAX starts.
"""

import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from absl import app, flags

_ONLY = flags.DEFINE_list("only", [], "Names of the benchmarks to run; all by default.")
_REPEATS = flags.DEFINE_integer("repeats", 15, "Calls of each side; the median counts.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 1, "Cores the process is pinned to (0: no pinning).", lower_bound=0)
_JSON = flags.DEFINE_string("json", None, "Also write the results to this file.")


class Benchmark(NamedTuple):
    """What to time.

    Attributes:
      sides: name -> (function of `arguments`, arguments); compiled with jax.jit.
      reference: the side whose time is 1.
      limits: side -> largest acceptable ratio to the reference; shown, and broken ones make the exit status 1.
      unit: bytes of the array that temporary memory is counted in.
    """

    sides: dict[str, tuple[Callable, tuple]]
    reference: str
    limits: dict[str, float]
    unit: int


def reverse_kl(batch: int, num_classes: int, *, textbook: bool = False) -> Benchmark:
    """value_and_grad of the mean loss beside optax's softmax cross-entropy on the same arrays."""
    import jax
    import jax.numpy as jnp
    import optax
    from jax.scipy.special import digamma, gammaln

    from edd.losses import proxy

    keys = jax.random.split(jax.random.key(0), 3)
    logits = 2 * jax.random.normal(keys[0], (batch, num_classes))
    log_probs = jax.nn.log_softmax(3 * jax.random.normal(keys[1], (batch, num_classes)))
    precision = jnp.exp(8 * jax.random.uniform(keys[2], (batch,)))
    probs = jnp.exp(log_probs)

    def cross_entropy(logits, probs, precision):
        del precision
        return optax.softmax_cross_entropy(logits, probs).mean()

    def stable(logits, log_probs, precision, prior="paper"):
        return proxy.reverse_kl(logits, proxy.ProxyTarget(log_probs, precision), prior=prior).mean()

    def textbook_formula(logits, log_probs, precision):
        alpha = jnp.exp(logits) + 1
        total = alpha.sum(-1, keepdims=True)
        expected = digamma(alpha) - digamma(total)
        entropy = gammaln(alpha).sum(-1) - gammaln(total[:, 0]) - ((alpha - 1) * expected).sum(-1)
        prior = (-entropy - gammaln(float(num_classes))) / precision
        return (prior - (jnp.exp(log_probs) * expected).sum(-1)).mean()

    arguments = (logits, log_probs, precision)
    sides = {
        "softmax cross-entropy": (jax.value_and_grad(cross_entropy), (logits, probs, precision)),
        "reverse_kl paper": (jax.value_and_grad(stable), arguments),
        "reverse_kl authors": (jax.value_and_grad(lambda *a: stable(*a, prior="authors")), arguments),
        "reverse_kl value only": (stable, arguments),
        "exp": (lambda logits, *_: jnp.exp(logits), arguments),
    }
    if textbook:
        sides["textbook formula"] = (jax.value_and_grad(textbook_formula), arguments)
    limits = {"reverse_kl paper": 4.0, "reverse_kl authors": 4.0}
    return Benchmark(sides, "softmax cross-entropy", limits, 4 * batch * num_classes)


def matrix_e_step(points: int = 50_000, num_classes: int = 10, latent_dim: int = 10, members: int = 10) -> Benchmark:
    """The matrix-normal E-step over a whole design set beside the two matrix products that it needs."""
    import jax
    import jax.numpy as jnp

    from edd.distributions import latent_factor

    keys = jax.random.split(jax.random.key(0), 3)
    residuals = jax.random.normal(keys[0], (members, points, num_classes))
    loading = jax.random.normal(keys[1], (points, latent_dim))
    factor = jnp.tril(jax.random.normal(keys[2], (num_classes, num_classes)))

    def products(residuals, loading, factor):
        del factor
        return loading.T @ loading, jnp.einsum("mnk,nq->mkq", residuals, loading)

    def e_step(residuals, loading, factor):
        return latent_factor.matrix_posterior(residuals, loading, factor, 0.1)

    arguments = (residuals, loading, factor)
    sides = {"matrix products": (products, arguments), "E-step": (e_step, arguments)}
    return Benchmark(sides, "matrix products", {"E-step": 2.0}, residuals.size * 4)


def benchmarks() -> dict[str, Callable[[], Benchmark]]:
    """Every benchmark by name; the `bench_*.py` files beside this one add theirs through a function of the same name."""
    table = {
        "reverse_kl_1000": lambda: reverse_kl(256, 1000, textbook=True),
        "reverse_kl_32000": lambda: reverse_kl(256, 32000),
        "matrix_e_step": matrix_e_step,
    }
    for name in ("bench_measures", "bench_sequence"):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        table.update(module.benchmarks(Benchmark))
    return table


def measure(benchmark: Benchmark, repeats: int) -> list[dict]:
    """One row per side: median milliseconds, median of the per-round ratios, temporary memory in units."""
    import jax

    compiled = {name: jax.jit(function).lower(*arguments).compile() for name, (function, arguments) in benchmark.sides.items()}
    times = {name: [] for name in compiled}
    for round_number in range(repeats + 1):
        for name, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*benchmark.sides[name][1]))
            if round_number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    rows = []
    for name, function in compiled.items():
        ratios = [own / other for own, other in zip(times[name], times[benchmark.reference])]
        analysis = function.memory_analysis()
        rows.append(
            {
                "side": name,
                "milliseconds": 1e3 * statistics.median(times[name]),
                "ratio": statistics.median(ratios),
                "limit": benchmark.limits.get(name),
                "temporaries": None if analysis is None else analysis.temp_size_in_bytes / benchmark.unit,
            }
        )
    return rows


def show(name: str, rows: list[dict]) -> None:
    print(f"\n{name}\n  {'side':<28}{'ms':>10}{'ratio':>8}{'limit':>8}{'buffers':>9}")
    for row in rows:
        limit = "" if row["limit"] is None else f"{row['limit']:.1f}"
        buffers = "" if row["temporaries"] is None else f"{row['temporaries']:.2f}"
        print(f"  {row['side']:<28}{row['milliseconds']:>10.2f}{row['ratio']:>8.2f}{limit:>8}{buffers:>9}", flush=True)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    if _THREADS.value and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: _THREADS.value])
    table = benchmarks()
    unknown = [name for name in _ONLY.value if name not in table]
    if unknown:
        raise app.UsageError(f"unknown benchmarks {unknown}; known: {sorted(table)}")
    results = {}
    for name in _ONLY.value or table:
        results[name] = measure(table[name](), _REPEATS.value)
        show(name, results[name])
    if _JSON.value:
        with open(_JSON.value, "w") as file:
            json.dump({"threads": _THREADS.value, "repeats": _REPEATS.value, "results": results}, file, indent=1)
    broken = [row["side"] for rows in results.values() for row in rows if row["limit"] is not None and row["ratio"] > row["limit"]]
    if broken:
        sys.exit(f"over their limit: {', '.join(broken)}")


if __name__ == "__main__":
    app.run(main)
