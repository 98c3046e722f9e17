"""Beam search as one compiled loop: batched, over one model or an ensemble, every step the same program.

The step function carries its own state and gives every member's next-token log-probabilities; `make` builds it from a sequence model.
A hypothesis is finished by the end token; at the last step nothing else may follow, so that all hypotheses of the result are whole.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edd.decoding.model_average import check_combination, next_scores
from edd.models.base import Model
from edd.typing import Array, Bool, Float, Int, PyTree

LARGEST_EXPONENT = 88.0  # of e in float32


class Hypotheses(NamedTuple):
    """The N best finished hypotheses of each source, best first; where fewer exist the rest have length 0 and log-probability -inf.

    Attributes:
      tokens: [B, N, L] int32, the end token included, padding after it.
      lengths: [B, N] int32, tokens with the end token.
      log_probs: [B, N], ln P(y | x) of the whole sequence under the search's combination, in nats.
      scores: [B, N], log_probs / lengths^length_penalty; what they are ranked by.
      member_token_log_probs: [M, B, N, L], each member's ln P_m(y_l | y_<l, x), 0 after the end.
    """

    tokens: Int[Array, "B N L"]
    lengths: Int[Array, "B N"]
    log_probs: Float[Array, "B N"]
    scores: Float[Array, "B N"]
    member_token_log_probs: Float[Array, "M B N L"]


class Rules(NamedTuple):
    """Static choices of a search, see `search`."""

    start: int
    end: int
    beam: int
    length: int
    combination: str = "product_of_expectations"
    length_penalty: float = 1.0
    forbidden: tuple[int, ...] = ()
    padding: int = 0


class Live(NamedTuple):
    """Hypotheses that go on: the newest token, the path, log-probabilities (combined and members'), the slot each came from."""

    last: Array
    tokens: Array
    log_probs: Array
    cumulative: Array
    member_token_log_probs: Array
    parents: Array


class Carry(NamedTuple):
    """The loop's state; `done` [B] are the sources that have all their hypotheses."""

    index: Array
    live: Live
    finished: Hypotheses
    done: Bool[Array, " B"]
    state: PyTree


def search(step: Callable, state: PyTree, rules: Rules, *, num_members: int, num_sources: int, dtype=jnp.float32) -> Hypotheses:
    """N-best decoding of a batch by beam search; call under jit.

    Each step ranks all continuations of a source's N live hypotheses by their log-probability (no length enters) and looks at the 2 N
    best: those among the first N that end are finished, the first N that do not end live on. A source is done when N hypotheses
    are finished or none lives; the loop stops when all sources are. `length_penalty` enters the final ranking alone. A beam of 1 is
    greedy decoding; a beam no smaller than the number of all sequences is exhaustive. Cost: `length` steps at most.

    Args:
      step: (state, tokens [B, N], parents [B, N], index) -> (log_probs [M, B, N, V], state): hypothesis n is hypothesis parents[b, n] of
        the step before, continued by its newest token (the start id at step 0). All members' distributions over V >= 2 tokens.
      state: what `step` carries; arrays of fixed shape.
      rules: `start` and `end` ids; `beam` N >= 1, which may exceed V; `length` L >= 1, the most tokens, the end included; `combination`
        of the members ("product_of_expectations" or "expectation_of_products"); `length_penalty` >= 0, with L^length_penalty finite in
        float32; `forbidden` ids, never chosen (their probability is not given to the others); `padding` of the result, any id.
      num_members: M >= 1.
      num_sources: B >= 1.
      dtype: of the log-probabilities.

    Returns:
      `Hypotheses`.

    Raises:
      ValueError: rules out of range, log-probabilities of the wrong shape.

    References:
      Malinin & Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction" (the two combinations);
      Graves 2012, "Sequence Transduction with Recurrent Neural Networks" (beam search).

    Examples:
      >>> table = jnp.log(jnp.array([[0.1, 0.3, 0.6], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1]]))  # next token given the last; 1 ends
      >>> step = lambda state, tokens, parents, index: (table[tokens][None], state)
      >>> found = search(step, (), Rules(start=0, end=1, beam=2, length=3), num_members=1, num_sources=1)
      >>> found.tokens[0].tolist(), found.lengths[0].tolist(), [round(float(p), 3) for p in jnp.exp(found.log_probs[0])]
      ([[2, 1, 0], [1, 0, 0]], [2, 1], [0.24, 0.3])
    """
    check(rules, num_members, num_sources)
    carry = _begin(state, rules, num_members, num_sources, dtype)
    going = lambda carry: (carry.index < rules.length) & ~jnp.all(carry.done)  # noqa: E731
    return jax.lax.while_loop(going, functools.partial(_advance, step, rules), carry).finished


def make(model: Model, *, map_members: Callable = jax.vmap, **rules) -> Callable:
    """A compiled beam search of a sequence model's members.

    Args:
      model: with `decoding`.
      map_members: how a function of one member becomes one of all; `ensembles.members.map_members` has others than vmap.
      **rules: the fields of `Rules`, see `search`.

    Returns:
      (stacked variables [M, ...], x) -> `Hypotheses`; `x` are the model's inputs without "target". One program per shape of `x`:
      pad sources to few lengths. For one model give its variables an axis of length 1.

    Raises:
      ValueError: a model that does not decode, rules out of range, an unknown rule.

    Examples:
      >>> from edd.models import transformer
      >>> model = transformer.make(9, size="tiny", width=8, num_layers=1, num_heads=2, hidden=8)
      >>> x = {"source": jnp.array([[4, 5, 2]])}
      >>> variables = model.init(jax.random.key(0), {**x, "target": x["source"]})
      >>> decode = make(model, start=1, end=2, beam=3, length=6, forbidden=(0, 1))
      >>> decode(jax.tree.map(lambda leaf: leaf[None], variables), x).tokens.shape
      (1, 3, 6)
    """
    if model.decoding is None:
        raise ValueError("model must be a sequence model with `decoding`, got one without")
    unknown = sorted(set(rules) - set(Rules._fields))
    if unknown:
        raise ValueError(f"unknown rule {unknown[0]!r}; known: {', '.join(Rules._fields)}")
    chosen = Rules(**rules)
    check(chosen, 1, 1)

    def decode(variables, x):
        leaves = jax.tree.leaves(variables)
        alone = leaves[0].shape[0] == 1  # products of plain matrices are faster than of stacks of one
        mapped = (lambda fn: fn) if alone else map_members
        members = jax.tree.map(lambda leaf: leaf[0], variables) if alone else variables

        def step(caches, tokens, parents, index):
            one = lambda member, cache: model.decoding.decode_step(member, cache, tokens, parents, index)  # noqa: E731
            logits, caches = mapped(one)(members, caches)
            return jax.nn.log_softmax(logits[None] if alone else logits), caches

        encode = functools.partial(model.decoding.encode, x=x, num_hypotheses=chosen.beam, length=chosen.length)
        state = mapped(lambda member: encode(member))(members)
        dtype = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in leaves))
        sources = jax.tree.leaves(x)[0].shape[0]
        return search(step, state, chosen, num_members=leaves[0].shape[0], num_sources=sources, dtype=dtype)

    return jax.jit(decode)


def check(rules: Rules, num_members: int, num_sources: int) -> None:
    """Raises ValueError for a rule or a number out of range."""
    check_combination(rules.combination)
    for name, value in {"beam": rules.beam, "length": rules.length, "num_members": num_members, "num_sources": num_sources}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    # a length to the power of the penalty that overflows would make every score -0.0
    if not (rules.length_penalty >= 0 and rules.length_penalty * math.log(rules.length) < LARGEST_EXPONENT):
        raise ValueError(f"length_penalty must be at least 0, with length^length_penalty finite in float32, got {rules.length_penalty}")
    if min(rules.start, rules.end, *rules.forbidden) < 0 or rules.end in rules.forbidden:
        raise ValueError(f"start, end and forbidden must be ids >= 0, the end not forbidden, got {rules}")


def _begin(state: PyTree, rules: Rules, members: int, sources: int, dtype) -> Carry:
    """One live hypothesis per source, the empty one in slot 0; the other slots are dead, with log-probability -inf."""
    slots, history = (sources, rules.beam), (members, sources, rules.beam, rules.length)
    dead = jnp.full(slots, -jnp.inf, dtype)
    alive = dead.at[:, 0].set(0)
    tokens = jnp.full((*slots, rules.length), rules.padding, jnp.int32)
    cumulative = jnp.broadcast_to(alive[None], (members, *slots))
    none = jnp.zeros(slots, jnp.int32)
    live = Live(none + rules.start, tokens, alive, cumulative, jnp.zeros(history, dtype), none)
    finished = Hypotheses(tokens, none, dead, dead, jnp.zeros(history, dtype))
    return Carry(jnp.zeros((), jnp.int32), live, finished, jnp.zeros(sources, bool), state)


def _advance(step: Callable, rules: Rules, carry: Carry) -> Carry:
    """One token more for every live hypothesis."""
    live, index = carry.live, carry.index
    log_probs, state = step(carry.state, live.last, live.parents, index)
    expected = (live.cumulative.shape[0], *live.last.shape)
    if log_probs.ndim != 4 or log_probs.shape[:3] != expected or log_probs.shape[3] < 2:
        raise ValueError(f"step must give log-probabilities [M, B, N, V] with V >= 2 and [M, B, N] = {expected}, got {log_probs.shape}")
    vocabulary = log_probs.shape[3]
    if max(rules.start, rules.end, *rules.forbidden) >= vocabulary:
        raise ValueError(f"start, end and forbidden must be below the vocabulary's {vocabulary}, got {rules}")
    ids = jnp.arange(vocabulary)
    allowed = functools.reduce(lambda found, token: found & (ids != token), rules.forbidden, ids == ids)
    allowed &= (index < rules.length - 1) | (ids == rules.end)
    scores = next_scores(live.log_probs, live.cumulative, log_probs, rules.combination)
    scores = jnp.where(allowed[None, None], scores, -jnp.inf)
    # the barrier keeps XLA from merging later slices into the selection, which would turn it into a sort of the whole vocabulary
    best, flat = jax.lax.optimization_barrier(jax.lax.top_k(scores.reshape(scores.shape[0], -1), 2 * rules.beam))
    candidates = _extend(live, log_probs, best.astype(live.log_probs.dtype), flat // vocabulary, flat % vocabulary, index)
    ends = candidates.last == rules.end

    finished = _finish(carry.finished, candidates, ends & ~carry.done[:, None], index, rules)
    ranked, order = jax.lax.top_k(jnp.where(ends, -jnp.inf, candidates.log_probs), rules.beam)
    following = _take(candidates, order)
    following = following._replace(log_probs=ranked, cumulative=jnp.where(ranked[None] > -jnp.inf, following.cumulative, -jnp.inf))
    done = jnp.all(finished.lengths > 0, 1) | ~jnp.any(ranked > -jnp.inf, 1)
    return Carry(index + 1, following, finished, carry.done | done, state)


def _extend(live: Live, log_probs: Array, best: Array, parents: Array, tokens: Array, index: Array) -> Live:
    """The chosen candidates [B, 2 N] as hypotheses one token longer."""
    path = _take(live, parents)
    members, sources, slots, vocabulary = log_probs.shape
    chosen = (parents * vocabulary + tokens)[None]
    added = jnp.take_along_axis(log_probs.reshape(members, sources, slots * vocabulary), chosen, -1).astype(best.dtype)
    write = functools.partial(jax.lax.dynamic_update_index_in_dim, index=index)
    return Live(
        tokens,
        write(path.tokens, tokens, axis=2),
        best,
        path.cumulative + added,
        write(path.member_token_log_probs, added, axis=3),
        parents,
    )


def _take(live: Live, order: Array) -> Live:
    """The hypotheses `order` [B, *] of each source."""
    pick = lambda leaf: jnp.take_along_axis(leaf, order.reshape(*order.shape, *[1] * (leaf.ndim - 2)), 1)  # noqa: E731
    both = lambda leaf: jax.vmap(pick)(leaf)  # noqa: E731
    return Live(
        pick(live.last),
        pick(live.tokens),
        pick(live.log_probs),
        both(live.cumulative),
        both(live.member_token_log_probs),
        pick(live.parents),
    )


def _finish(finished: Hypotheses, candidates: Live, ends: Array, index: Array, rules: Rules) -> Hypotheses:
    """The N best of the finished hypotheses and those of the first N candidates that end."""
    first = lambda leaf: leaf[:, : rules.beam]  # noqa: E731
    new = first(ends) & (first(candidates.log_probs) > -jnp.inf)
    log_probs = jnp.where(new, first(candidates.log_probs), -jnp.inf)
    lengths = jnp.where(new, index + 1, 0)
    scores = log_probs / (index + 1.0).astype(log_probs.dtype) ** rules.length_penalty
    history = jnp.where(new[None, ..., None], candidates.member_token_log_probs[:, :, : rules.beam], 0)
    tokens = jnp.where(new[..., None], first(candidates.tokens), rules.padding)
    fresh = Hypotheses(tokens, lengths, log_probs, scores, history)
    axes = Hypotheses(1, 1, 1, 1, 2)
    pool = jax.tree.map(lambda old, new, axis: jnp.concatenate([old, new], axis), finished, fresh, axes)
    _, order = jax.lax.top_k(pool.scores, rules.beam)
    pick = lambda leaf: jnp.take_along_axis(leaf, order.reshape(*order.shape, *[1] * (leaf.ndim - 2)), 1)  # noqa: E731
    return Hypotheses(*(pick(leaf) for leaf in pool[:4]), jax.vmap(pick)(pool.member_token_log_probs))
