"""Benchmarks of the ensemble measures, run by launch/bench.py; on its own, what `import edd` costs.

python launch/bench.py --only=measures,measures_textbook
python launch/bench_measures.py
"""

import os
import statistics
import subprocess
import sys

IMPORT_LIMIT = 1.15  # `import edd` over `import jax`


def textbook(log_probs):
    """All five measures as differences of entropies, members unrolled: the formulas as people write them."""
    import jax.numpy as jnp

    num_members = log_probs.shape[0]
    mean = sum(jnp.exp(row) for row in log_probs) / num_members
    total = -jnp.sum(mean * jnp.log(mean), -1)
    data = -sum(jnp.sum(jnp.exp(row) * row, -1) for row in log_probs) / num_members
    cross = -jnp.sum(mean * (sum(row for row in log_probs) / num_members), -1)
    return total, data, total - data, cross - data, cross - total


def naive(log_probs):
    """The definitions, mapped over examples: KL of each member to the mean and of all pairs of members."""
    import jax
    import jax.numpy as jnp

    def one(rows):
        probs = jnp.exp(rows)
        mean = jnp.mean(probs, 0)
        log_mean = jnp.log(mean)
        data = -jnp.mean(jnp.sum(probs * rows, -1))
        mutual = jnp.mean(jnp.sum(probs * (rows - log_mean[None]), -1))
        reverse = jnp.mean(jnp.sum(mean[None] * (log_mean[None] - rows), -1))
        pairs = jax.vmap(lambda p, lp: jax.vmap(lambda other: jnp.sum(p * (lp - other)))(rows))(probs, rows)
        return -jnp.sum(mean * log_mean), data, mutual, jnp.mean(pairs), reverse

    return jax.vmap(one, in_axes=1)(log_probs)


def measures(make, reference: str, limit: float, others: dict, shape: tuple[int, int, int] = (10, 2000, 1000)):
    """All five measures of [M, B, K] log-probabilities against a reference side, among `others` or the exp-and-sum pass."""
    import jax
    import jax.numpy as jnp

    from edd.uncertainty import ensemble

    log_probs = jax.nn.log_softmax(2 * jax.random.normal(jax.random.key(0), shape))
    sides = {
        "exp and sum": (lambda x: jnp.sum(jnp.exp(x), -1), (log_probs,)),
        "measures": (ensemble.measures, (log_probs,)),
        "mutual information alone": (ensemble.mutual_information, (log_probs,)),
        **{name: (function, (log_probs,)) for name, function in others.items()},
    }
    return make(sides, reference, {"measures": limit}, log_probs.size * 4)


def benchmarks(make) -> dict:
    """The table that launch/bench.py adds to its own; `make` builds its `Benchmark`."""
    return {
        "measures": lambda: measures(make, "exp and sum", 12.0, {}),
        "measures_textbook": lambda: measures(make, "textbook", 1.0, {"textbook": textbook}),
        "measures_definitions": lambda: measures(make, "definitions", 1.0, {"definitions": naive}),  # seconds per call
    }


def import_seconds(statement: str) -> float:
    """CPU seconds of a fresh interpreter that runs one import statement, start-up of the interpreter left out."""
    script = f"import time; start = time.process_time(); {statement}; print(time.process_time() - start)"
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return float(run.stdout)


def main(repeats: int = 20) -> int:
    """Medians of `import jax` and `import edd`, sides interleaved; 1 if edd costs more than its limit."""
    times = {"import jax": [], "import edd": []}
    for _ in range(repeats):
        for statement, seconds in times.items():
            seconds.append(import_seconds(statement))
    jax_alone, with_edd = (statistics.median(seconds) for seconds in times.values())
    print(f"import jax {jax_alone:.3f} s, import edd {with_edd:.3f} s: {with_edd / jax_alone:.3f} (limit {IMPORT_LIMIT})")
    return int(with_edd > IMPORT_LIMIT * jax_alone)


if __name__ == "__main__":
    sys.exit(main())
