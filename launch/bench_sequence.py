"""Benchmarks of sequence distillation over a large vocabulary, run by launch/bench.py; on its own, compiled memory at translation's sizes.

python launch/bench.py --only=sequence_loss_32000,sequence_states_32000
python launch/bench_sequence.py
"""

import functools
import math
import re
import sys

UNIT = "units of one [B, L, V] buffer"


def _proxy_loss(logits, target):
    from edd.losses import proxy

    return proxy.reverse_kl(logits, target, prior="authors")


def _proxy_target(logits):
    import jax

    from edd.losses import proxy

    return proxy.proxy_target(jax.nn.log_softmax(logits))


def _mean(losses, mask):
    return (losses * mask).sum() / mask.sum()


def loss(make, batch: int = 4, length: int = 32, words: int = 32_000):
    """PD-SEnD2's masked loss and gradient in the logits beside softmax cross-entropy's, with soft targets and with labels."""
    import jax
    import jax.numpy as jnp
    import optax

    from edd.distillers import sequence
    from edd.losses import proxy
    from edd.models.base import Outputs

    keys = jax.random.split(jax.random.key(0), 4)
    logits = 2 * jax.random.normal(keys[0], (batch, length, words))
    log_probs = jax.nn.log_softmax(3 * jax.random.normal(keys[1], (batch, length, words)))
    precision = jnp.exp(8 * jax.random.uniform(keys[2], (batch, length)))
    tokens = jax.random.randint(keys[3], (batch, length), 0, words)
    mask = jnp.arange(length)[None] < jnp.array([length, length - 4])[jnp.arange(batch) % 2][:, None]
    labels, mask = jnp.where(mask, tokens, -1), mask.astype(jnp.float32)
    distiller = sequence.make_proxy(10, words)

    def soft(logits, probs):
        return _mean(optax.softmax_cross_entropy(logits, probs), mask)

    def hard(logits, tokens):
        return _mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens), mask)

    def proxy_loss(logits, log_probs, precision):
        return _mean(_proxy_loss(logits, proxy.ProxyTarget(log_probs, precision)), mask)

    def distilled(logits, log_probs, precision):
        return distiller.loss(Outputs(logits, None), proxy.ProxyTarget(log_probs, precision), {}, {}, labels, None).mean()

    sides = {
        "softmax cross-entropy": (jax.value_and_grad(soft), (logits, jnp.exp(log_probs))),
        "cross-entropy, labels": (jax.value_and_grad(hard), (logits, tokens)),
        "PD-SEnD2 loss": (jax.value_and_grad(proxy_loss), (logits, log_probs, precision)),
        "PD-SEnD2 distiller": (jax.value_and_grad(distilled), (logits, log_probs, precision)),
    }
    limits = {"PD-SEnD2 loss": 3.5, "PD-SEnD2 distiller": 3.5}
    return make(sides, "softmax cross-entropy", limits, 4 * logits.size)


def states(make, batch: int = 4, length: int = 32, words: int = 32_000, width: int = 256, chunk_size: int = 4):
    """The same from hidden states and an output layer, whole and in chunks over time."""
    import jax
    import jax.numpy as jnp
    import optax

    from edd.losses import chunked, proxy

    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (batch, length, width))
    weights = jax.random.normal(keys[1], (words, width)) / width**0.5
    log_probs = jax.nn.log_softmax(3 * jax.random.normal(keys[2], (batch, length, words)))
    precision = jnp.exp(8 * jax.random.uniform(keys[3], (batch, length)))

    def soft(hidden, weights, probs):
        return optax.softmax_cross_entropy(hidden @ weights.T, probs).mean()

    def whole(hidden, weights, log_probs, precision):
        return _proxy_loss(hidden @ weights.T, proxy.ProxyTarget(log_probs, precision)).mean()

    def in_chunks(hidden, weights, log_probs, precision):
        target = proxy.ProxyTarget(log_probs, precision)
        return chunked.from_states(_proxy_loss, hidden, weights, target, chunk_size=chunk_size).mean()

    def differentiated(function):
        return jax.value_and_grad(function, (0, 1))

    sides = {
        "softmax cross-entropy": (differentiated(soft), (hidden, weights, jnp.exp(log_probs))),
        "PD-SEnD2 whole": (differentiated(whole), (hidden, weights, log_probs, precision)),
        "PD-SEnD2 in chunks": (differentiated(in_chunks), (hidden, weights, log_probs, precision)),
    }
    limits = {"PD-SEnD2 whole": 3.5, "PD-SEnD2 in chunks": 3.5}
    return make(sides, "softmax cross-entropy", limits, 4 * log_probs.size)


def benchmarks(make) -> dict:
    """The table that launch/bench.py adds to its own; `make` builds its `Benchmark`."""
    return {"sequence_loss_32000": lambda: loss(make), "sequence_states_32000": lambda: states(make)}


def memory(members: int = 10, batch: int = 32, length: int = 64, words: int = 32_000, width: int = 512) -> dict[str, tuple[float, float]]:
    """(temporaries, results) of compiled programs that are not run, in units of one [B, L, V] buffer; all members' logits would be M."""
    import jax
    import jax.numpy as jnp

    from edd.losses import chunked, proxy

    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    def loss(logits, log_probs, precision):
        return _proxy_loss(logits, proxy.ProxyTarget(log_probs, precision)).mean()

    def stored(hidden, weights, log_probs, precision):
        return chunked.from_states(_proxy_loss, hidden, weights, proxy.ProxyTarget(log_probs, precision)).mean()

    def fused(hidden, weights, member_states, member_weights):
        return chunked.distillation_from_states(_proxy_loss, _proxy_target, hidden, weights, member_states, member_weights).mean()

    student, target = (shape(batch, length, width), shape(words, width)), (shape(batch, length, words), shape(batch, length))
    teacher = shape(members, batch, length, width), shape(members, words, width)
    programs = {
        "targets from the members' states": (functools.partial(chunked.member_targets, _proxy_target), teacher),
        "loss and gradient in the logits": (jax.value_and_grad(loss), (target[0], *target)),
        "loss and gradient from states": (jax.value_and_grad(stored, (0, 1)), (*student, *target)),
        "both in one pass": (jax.value_and_grad(fused, (0, 1)), (*student, *teacher)),
    }
    unit, found = 4 * batch * length * words, {}
    for name, (function, arguments) in programs.items():
        analysis = jax.jit(function).lower(*arguments).compile().memory_analysis()
        found[name] = analysis.temp_size_in_bytes / unit, analysis.output_size_in_bytes / unit
    return found


def targets_memory(members: int = 10, batch: int = 32, length: int = 64, words: int = 32_000) -> dict[str, tuple[float, float, bool]]:
    """As `memory`, of what a training step does for PD-SEnD2's targets: the teachers (Transformer base) read the batch, targets are made.

    The third number says whether the program holds any array of all members' logits.
    """
    import jax
    import jax.numpy as jnp

    from edd.distillers import sequence
    from edd.ensembles import members as ensembles
    from edd.models import transformer

    model = transformer.make(words, size="base")
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    x = {"source": tokens, "target": tokens}
    variables = jax.eval_shape(lambda key, x: ensembles.init(model, key, members, x), jax.random.key(0), x)
    unit, found = 4 * batch * length * words, {}
    programs = {
        "whole": (None, None, "vmap"),
        "in chunks": (1, None, "vmap"),
        "in chunks, 100 classes kept": (1, 100, "vmap"),
        "in chunks, members read in turn": (1, 100, "scan"),
    }
    for name, (chunk_size, top_k, strategy) in programs.items():
        method = sequence.make_proxy(members, words, chunk_size=chunk_size, top_k=top_k)
        function = functools.partial(ensembles.targets, model, function=method.targets, chunk_size=chunk_size, strategy=strategy)
        compiled = jax.jit(lambda variables, x, function=function: function(variables, x)).lower(variables, x).compile()
        analysis = compiled.memory_analysis()
        sizes = {math.prod(map(int, dims.split(","))) for dims in re.findall(r"f32\[([\d,]+)\]", compiled.as_text())}
        found[name] = analysis.temp_size_in_bytes / unit, analysis.output_size_in_bytes / unit, max(sizes) >= members * unit / 4
    return found


def main() -> int:
    """Prints `memory` and `targets_memory`; 1 if a program of the first needs more than two buffers, or chunks hold all logits."""
    found, targets = memory(), targets_memory()
    print(f"{UNIT}: temporaries, results (M = 10, B = 32, L = 64, V = 32,000)")
    for name, (temporary, result) in found.items():
        print(f"  {name:<36}{temporary:>6.2f}{result:>6.2f}")
    print("targets of a training step, ten Transformers (base) included: temporaries, results, is there an array [M, B, L, V]?")
    for name, (temporary, result, all_logits) in targets.items():
        print(f"  {name:<36}{temporary:>6.2f}{result:>6.2f}  {'yes' if all_logits else 'no'}")
    return int(any(temporary > 2 for temporary, _ in found.values()) or any(targets[name][2] for name in targets if name != "whole"))


if __name__ == "__main__":
    sys.exit(main())
