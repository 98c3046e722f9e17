"""Beam search of edd beside a plain PyTorch one: the same Transformer, weights, sources, rules and cores, in one run.

python launch/bench_decoding.py [--size=small] [--batch=16] [--beam=5] [--length=48] [--members=1] [--threads=1] [--repeats=7]

The PyTorch side keeps keys and values in caches that grow with the hypotheses, computes the source's once for all steps, runs the whole
batch at once, reorders its caches by the surviving hypotheses and stops when all sources are done. Both sides are first compared
hypothesis by hypothesis, then timed in turn; the ratio is PyTorch's time over edd's (above 1: edd is faster), the median over rounds,
of wall time and of the process's CPU time (which other programs on a busy machine disturb less). Weights are random, so that few
hypotheses end early and both sides take all steps. Needs PyTorch: pip install torch.
"""

import functools
import json
import math
import os
import statistics
import sys
import time

from absl import app, flags

_SIZE = flags.DEFINE_enum("size", "small", ["tiny", "small", "base"], "Preset of the Transformer.")
_VOCABULARY = flags.DEFINE_integer("vocabulary", 8000, "Words.", lower_bound=4)
_BATCH = flags.DEFINE_integer("batch", 16, "Sources decoded together.", lower_bound=1)
_SOURCE = flags.DEFINE_integer("source", 32, "Tokens of the longest source.", lower_bound=4)
_BEAM = flags.DEFINE_integer("beam", 5, "Hypotheses per source.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 48, "Steps.", lower_bound=1)
_MEMBERS = flags.DEFINE_integer("members", 1, "Ensemble members.", lower_bound=1)
_STRATEGY = flags.DEFINE_enum("strategy", "vmap", ["vmap", "unroll", "scan"], "How edd runs the members.")
_THREADS = flags.DEFINE_integer("threads", 1, "Cores the process is pinned to.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Rounds; the median counts.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "Also write the results to this file.")
START, END = 1, 2
EPSILON = 1e-6


class Reference:
    """One member in PyTorch; weights are the tree of `transformer.make`, as tensors."""

    def __init__(self, torch, weights, heads: int):
        self.torch, self.weights, self.heads = torch, weights, heads
        self.table = weights["words"]["embedding"]
        self.width = self.table.shape[1]

    def embed(self, ids, positions):
        torch, half = self.torch, self.width // 2
        rates = 1e4 ** (-torch.arange(half) / (half - 1))
        angles = positions[:, None].float() * rates
        return torch.nn.functional.embedding(ids, self.table) * math.sqrt(self.width) + torch.cat([angles.sin(), angles.cos()], -1)

    def norm(self, x, p):
        return self.torch.nn.functional.layer_norm(x, (self.width,), p["scale"], p["bias"], EPSILON)

    def split(self, x):
        return x.view(*x.shape[:-1], self.heads, self.width // self.heads).transpose(1, 2)

    def memory(self, x, p):
        return self.split(x @ p["key"]["kernel"]), self.split(x @ p["value"]["kernel"])

    def attend(self, x, memory, p, mask=None):
        attended = self.torch.nn.functional.scaled_dot_product_attention(self.split(x @ p["query"]["kernel"]), *memory, attn_mask=mask)
        return attended.transpose(1, 2).reshape(x.shape) @ p["output"]["kernel"]

    def feed(self, x, p):
        addmm = self.torch.nn.functional.linear
        inner = addmm(x, p["inner"]["kernel"].T, p["inner"]["bias"]).relu_()
        return addmm(inner, p["outer"]["kernel"].T, p["outer"]["bias"])

    def layers(self, stack):
        return [self.weights[stack][f"layer_{index}"] for index in range(len(self.weights[stack]) - 1)]

    def encode(self, source, beam):
        """Per decoder layer the source's keys and values, and the mask, rows repeated for the hypotheses."""
        mask = (source != 0)[:, None, None]
        x = self.embed(source, self.torch.arange(source.shape[1]))
        for p in self.layers("encoder"):
            normed = self.norm(x, p["attention_norm"])
            x = x + self.attend(normed, self.memory(normed, p["attention"]), p["attention"], mask)
            x = x + self.feed(self.norm(x, p["feed_forward_norm"]), p["feed_forward"])
        x = self.norm(x, self.weights["encoder"]["norm"])
        repeat = lambda leaf: leaf.repeat_interleave(beam, 0)  # noqa: E731
        sources = [tuple(repeat(leaf) for leaf in self.memory(x, p["source_attention"])) for p in self.layers("decoder")]
        return sources, repeat(mask)

    def step(self, tokens, index, caches, sources, mask):
        """(log-probabilities [B N, V], caches one position longer)."""
        torch, grown = self.torch, []
        x = self.embed(tokens[:, None], torch.tensor([index]))
        for p, source, cache in zip(self.layers("decoder"), sources, caches or [None] * len(sources)):
            normed = self.norm(x, p["attention_norm"])
            fresh = self.memory(normed, p["attention"])
            cache = fresh if cache is None else tuple(torch.cat(pair, 2) for pair in zip(cache, fresh))
            grown.append(cache)
            x = x + self.attend(normed, cache, p["attention"])
            x = x + self.attend(self.norm(x, p["source_attention_norm"]), source, p["source_attention"], mask)
            x = x + self.feed(self.norm(x, p["feed_forward_norm"]), p["feed_forward"])
        hidden = self.norm(x, self.weights["decoder"]["norm"])[:, 0]
        return torch.log_softmax(hidden @ self.table.T, -1), grown


def torch_search(torch, members: list, source, beam: int, length: int, forbidden: tuple[int, ...]):
    """(tokens [B, N, L], log_probs [B, N]) under the rules of `edd.decoding.beam.search`, product of expectations, length penalty 1."""
    batch = source.shape[0]
    encoded, caches = [member.encode(source, beam) for member in members], [None] * len(members)
    running = torch.full((batch, beam), -math.inf)
    running[:, 0] = 0
    tokens, last = torch.zeros(batch, beam, 0, dtype=torch.long), torch.full((batch * beam,), START)
    finished = [[] for _ in range(batch)]
    done, rows = [False] * batch, torch.arange(batch)[:, None]
    for index in range(length):
        found = []
        for place, member in enumerate(members):
            log_probs, caches[place] = member.step(last, index, caches[place], *encoded[place])
            found.append(log_probs)
        log_probs = found[0] if len(found) == 1 else torch.stack(found).logsumexp(0) - math.log(len(found))
        log_probs[:, list(forbidden)] = -math.inf
        if index == length - 1:
            kept = log_probs[:, END].clone()
            log_probs.fill_(-math.inf)
            log_probs[:, END] = kept
        vocabulary = log_probs.shape[-1]
        best, flat = (running[..., None] + log_probs.view(batch, beam, vocabulary)).view(batch, -1).topk(2 * beam)
        parents, chosen = flat // vocabulary, flat % vocabulary
        paths = torch.cat([tokens[rows, parents], chosen[..., None]], -1)
        ends = chosen == END
        for b, rank in torch.nonzero(ends[:, :beam] & (best[:, :beam] > -math.inf)).tolist():
            if not done[b]:
                finished[b].append((best[b, rank].item() / (index + 1), best[b, rank].item(), paths[b, rank]))
        for b in range(batch):
            finished[b] = sorted(finished[b], key=lambda each: -each[0])[:beam]
            done[b] = done[b] or len(finished[b]) == beam
        if all(done):
            break
        running, order = best.masked_fill(ends, -math.inf).topk(beam)
        tokens, last = paths[rows, order], chosen[rows, order].view(-1)
        moved = (parents[rows, order] + rows * beam).view(-1)
        caches = [[tuple(leaf.index_select(0, moved) for leaf in layer) for layer in cache] for cache in caches]
    return finished


def sides(torch):
    """name -> function without arguments, and what each found in the same form, for comparison."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from edd.decoding import beam
    from edd.ensembles import members
    from edd.models import transformer

    model = transformer.make(_VOCABULARY.value, size=_SIZE.value)
    rng = np.random.default_rng(0)
    source = rng.integers(3, _VOCABULARY.value, (_BATCH.value, _SOURCE.value)).astype(np.int32)
    lengths = rng.integers(_SOURCE.value // 2, _SOURCE.value + 1, (_BATCH.value, 1))
    source = np.where(np.arange(_SOURCE.value)[None] < lengths, source, 0)
    variables = members.init(model, jax.random.key(0), _MEMBERS.value, {"source": source, "target": source})
    variables = jax.tree.map(lambda leaf: leaf * (1.5 if leaf.ndim == 3 else 1.0), variables)  # sharper, so that no two hypotheses tie
    forbidden = (0, START)
    mapped = functools.partial(members.map_members, strategy=_STRATEGY.value)
    search = beam.make(
        model, map_members=mapped, start=START, end=END, beam=_BEAM.value, length=_LENGTH.value, forbidden=forbidden, length_penalty=1.0
    )
    inputs = {"source": jnp.asarray(source)}

    def ours():
        return jax.block_until_ready(search(variables, inputs))

    heads, weights = transformer.SIZES[_SIZE.value].heads, jax.tree.map(np.asarray, variables["params"])
    as_tensors = lambda index: jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf[index])), weights)  # noqa: E731
    networks = [Reference(torch, as_tensors(index), heads) for index in range(_MEMBERS.value)]
    long = torch.from_numpy(source).long()

    def theirs():
        with torch.inference_mode():
            return torch_search(torch, networks, long, _BEAM.value, _LENGTH.value, forbidden)

    return ours, theirs


def agreement(ours, theirs) -> float:
    """The share of hypotheses that are equal token by token; raises if the log-probabilities of equal ones differ by more than 1e-3."""
    equal = total = 0
    for b, hypotheses in enumerate(theirs):
        for rank, (_, log_prob, tokens) in enumerate(hypotheses):
            total += 1
            if ours.tokens[b, rank, : len(tokens)].tolist() == tokens.tolist():
                equal += 1
                if abs(float(ours.log_probs[b, rank]) - log_prob) > 1e-3:
                    raise ValueError(f"hypothesis {rank} of source {b}: log-probabilities {float(ours.log_probs[b, rank])} and {log_prob}")
    return equal / total


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: _THREADS.value])
    try:
        import torch
    except ImportError:
        sys.exit("error: this benchmark compares with PyTorch, which is not installed: pip install torch")
    torch.set_num_threads(_THREADS.value)
    ours, theirs = sides(torch)
    first, second = ours(), theirs()
    steps, same = int(first.lengths.max()), agreement(first, second)
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    times = {clock: {"edd": [], "torch": []} for clock in clocks}
    for _ in range(_REPEATS.value):
        for name, run in (("edd", ours), ("torch", theirs)):
            start = {clock: now() for clock, now in clocks.items()}
            run()
            for clock, now in clocks.items():
                times[clock][name].append(now() - start[clock])
    ratios = {clock: [slow / fast for fast, slow in zip(each["edd"], each["torch"])] for clock, each in times.items()}
    medians = {clock: {name: statistics.median(seconds) for name, seconds in each.items()} for clock, each in times.items()}
    print(f"{_SIZE.value}, {_MEMBERS.value} member(s), batch {_BATCH.value}, beam {_BEAM.value}, longest hypothesis {steps} tokens")
    print(f"the same hypotheses: {100 * same:.1f} %")
    for clock, each in medians.items():
        for name, seconds in each.items():
            print(f"  {clock:<5} {name:<6} {1e3 * seconds:9.1f} ms   {_BATCH.value / seconds:8.1f} sources/s")
        found = ratios[clock]
        print(f"  {clock:<5} throughput of edd over torch: {statistics.median(found):.2f} (rounds {min(found):.2f} to {max(found):.2f})")
    if _JSON.value:
        options = flags.FLAGS.flag_values_dict()
        found = {"seconds": medians, "ratios": ratios, "same": same, "flags": options}
        with open(_JSON.value, "w") as file:
            json.dump(found, file, indent=1, default=str)


if __name__ == "__main__":
    app.run(main)
