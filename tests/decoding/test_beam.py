"""Beam search against exhaustive and greedy search written out, over one model and over members, and at its edges."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.decoding import beam, model_average
from edd.models import transformer

START, END, VOCABULARY, LENGTH, MEMBERS, SOURCES = 1, 2, 4, 3, 3, 2
RULES = ("product_of_expectations", "expectation_of_products")
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def tables(vocabulary=VOCABULARY, seed=0, scale=2.0, members=MEMBERS):
    """Next-token log-probabilities [M, B, V, V, V] given the last two tokens: members that disagree, sources that differ."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(members, SOURCES, vocabulary, vocabulary, vocabulary))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def run(table, rules, dtype=jnp.float64):
    """`search` over a table; the state is the token before the last of each hypothesis, which must follow the beam's reordering."""
    table = jnp.asarray(table, dtype)

    def step(previous, tokens, parents, index):
        before = jnp.take_along_axis(previous, parents, 1)
        rows = jnp.arange(SOURCES)[:, None]
        return table[:, rows, before, tokens], tokens

    def decode():
        state = jnp.full((SOURCES, rules.beam), START)
        return beam.search(step, state, rules, num_members=table.shape[0], num_sources=SOURCES, dtype=dtype)

    return jax.tree.map(np.asarray, jit(decode)())


def exhaustive(table, source, combination, length=LENGTH, penalty=1.0, forbidden=()):
    """Every sequence of at most `length` tokens that ends, best score first: [(score, log_prob, tokens, members' token log-probs)]."""
    vocabulary, found = table.shape[-1], []
    others = [token for token in range(vocabulary) if token != END and token not in forbidden]
    for count in range(length):
        for prefix in itertools.product(others, repeat=count):
            tokens, before, last, parts = (*prefix, END), START, START, []
            for token in tokens:
                parts.append(table[:, source, before, last, token])
                before, last = last, token
            parts = np.stack(parts, -1)
            if combination == "product_of_expectations":
                log_prob = np.log(np.exp(parts).mean(0)).sum()
            else:
                log_prob = np.log(np.exp(parts.sum(-1)).mean())
            found.append((log_prob / len(tokens) ** penalty, log_prob, tokens, parts))
    return sorted(found, key=lambda each: -each[0])


@pytest.mark.parametrize("combination", RULES)
@pytest.mark.parametrize(("penalty", "forbidden"), [(1.0, ()), (0.0, (3,))])
def test_a_wide_beam_is_exhaustive(x64, combination, penalty, forbidden):
    """1 + 3 + 9 sequences (1 + 2 + 4 without token 3), a beam of 14: wider than the vocabulary and than all there is."""
    table = tables()
    found = run(table, beam.Rules(START, END, 14, LENGTH, combination, penalty, forbidden))
    for source in range(SOURCES):
        expected = exhaustive(table, source, combination, penalty=penalty, forbidden=forbidden)
        assert len(expected) == (7 if forbidden else 13)
        for rank, (score, log_prob, tokens, parts) in enumerate(expected):
            size = len(tokens)
            assert found.tokens[source, rank].tolist() == [*tokens, *[0] * (LENGTH - size)]
            assert found.lengths[source, rank] == size
            np.testing.assert_allclose([found.log_probs[source, rank], found.scores[source, rank]], [log_prob, score], rtol=1e-12)
            np.testing.assert_allclose(found.member_token_log_probs[:, source, rank, :size], parts, rtol=1e-12)
            assert not found.member_token_log_probs[:, source, rank, size:].any()
        missing = slice(len(expected), None)
        assert not found.lengths[source, missing].any() and np.isneginf(found.log_probs[source, missing]).all()
        assert not found.tokens[source, missing].any() and not found.member_token_log_probs[:, source, missing].any()


def test_the_two_combinations_differ():
    """Or the test above could not tell them apart."""
    ranked = [[each[2] for each in exhaustive(tables(), 0, combination)] for combination in RULES]
    assert ranked[0] != ranked[1]


@pytest.mark.parametrize("combination", RULES)
def test_beam_one_is_greedy(x64, combination):
    table, length = tables(6, seed=3, scale=1.0), 8
    found = run(table, beam.Rules(START, END, 1, length, combination))
    lengths = []
    for source in range(SOURCES):
        tokens, before, last, cumulative = [], START, START, np.zeros(MEMBERS)
        while END not in tokens:
            rows = table[:, source, before, last]
            step = np.exp(rows).mean(0) if combination == RULES[0] else np.exp(cumulative[:, None] + rows).mean(0)
            best = END if len(tokens) == length - 1 else int(step.argmax())
            tokens.append(best)
            cumulative += rows[:, best]
            before, last = last, best
        assert found.tokens[source, 0].tolist() == [*tokens, *[0] * (length - len(tokens))]
        np.testing.assert_allclose(found.member_token_log_probs[:, source, 0].sum(-1), cumulative, rtol=1e-12)
        lengths.append(len(tokens))
    assert max(lengths) > 2


def slow_beam(table, source, width, length, combination):
    """The rules of `search` with Python lists."""
    live, finished = [(0.0, (), np.zeros((MEMBERS, 0)))], []
    for index in range(length):
        ranked = []
        for running, tokens, parts in live:
            path = (START, START, *tokens)
            rows = table[:, source, path[-2], path[-1]]
            for token in range(table.shape[-1]):
                if index < length - 1 or token == END:
                    new = np.concatenate([parts, rows[:, token : token + 1]], 1)
                    poe = running + np.log(np.exp(rows[:, token]).mean())
                    ranked.append((poe if combination == RULES[0] else np.log(np.exp(new.sum(1)).mean()), (*tokens, token), new))
        ranked = sorted(ranked, key=lambda each: -each[0])[: 2 * width]
        finished += [each for each in ranked[:width] if each[1][-1] == END]
        finished = sorted(finished, key=lambda each: -each[0] / len(each[1]))[:width]
        live = [each for each in ranked if each[1][-1] != END][:width]
        if len(finished) == width:
            break
    return finished


@pytest.mark.parametrize("combination", RULES)
def test_equals_a_search_written_with_lists(x64, combination):
    table = tables(7, seed=5)
    found = run(table, beam.Rules(START, END, 3, 6, combination))
    for source in range(SOURCES):
        expected = slow_beam(table, source, 3, 6, combination)
        assert [tuple(row[:size]) for row, size in zip(found.tokens[source].tolist(), found.lengths[source])] == [e[1] for e in expected]
        np.testing.assert_allclose(found.log_probs[source], [each[0] for each in expected], rtol=1e-12)


def counting(rules, end_log_prob):
    """How many steps a search of one source takes whose members end with this log-probability at every step."""
    table = jnp.array([[[[jnp.log1p(-jnp.exp(end_log_prob)), -jnp.inf, end_log_prob]]]])

    def step(count, tokens, parents, index):
        return jnp.broadcast_to(table, (1, 1, rules.beam, 3)), count + 1

    carry = beam._begin(jnp.int32(0), rules, 1, 1, jnp.float32)
    going = lambda carry: (carry.index < rules.length) & ~jnp.all(carry.done)  # noqa: E731
    return int(jax.lax.while_loop(going, functools.partial(beam._advance, step, rules), carry).state)


def test_stops_when_all_sources_are_done():
    rules = beam.Rules(START, END, 1, 50)
    assert counting(rules, -0.1) == 1 and counting(rules, -5.0) == 50


SOURCE = np.array([[4, 7, 2, 0], [0, 0, 0, 0]], np.int32)  # the second is empty
CASES = {"one": 1, "ensemble": 2}


@pytest.fixture(scope="module", params=CASES)
def decoded(request):
    model = transformer.make(9, size="tiny", width=8, num_layers=1, num_heads=2, hidden=8, max_length=8)
    example = {"source": SOURCE, "target": SOURCE}
    key = jax.random.key(0)
    variables = jit(jax.vmap(lambda m: model.init(jax.random.fold_in(key, m), example)))(jnp.arange(CASES[request.param]))
    variables = jax.tree.map(lambda leaf: 3 * leaf, variables)
    search = beam.make(model, start=START, end=END, beam=4, length=6, forbidden=(0, START))
    return model, variables, search, search(variables, {"source": SOURCE})


def test_a_models_hypotheses_are_what_teacher_forcing_gives(decoded):
    model, variables, search, found = decoded
    inputs = model_average.hypothesis_inputs({"source": SOURCE}, found.tokens, START)
    log_probs = jit(functools.partial(model_average.member_log_probs, model))(variables, inputs)
    chosen = np.take_along_axis(np.asarray(log_probs), np.asarray(found.tokens).reshape(1, -1, 6, 1), -1)[..., 0]
    mask = np.arange(6)[None] < np.asarray(found.lengths).reshape(-1, 1)
    np.testing.assert_allclose(np.asarray(found.member_token_log_probs).reshape(chosen.shape), np.where(mask, chosen, 0), atol=1e-5)
    poe = np.where(mask, np.log(np.exp(chosen).mean(0)), 0).sum(-1).reshape(2, 4)
    np.testing.assert_allclose(found.log_probs, poe, rtol=1e-5)
    np.testing.assert_allclose(found.scores, poe / np.asarray(found.lengths), rtol=1e-5)
    assert np.all(np.diff(found.scores) <= 0) and np.all(np.asarray(found.lengths) > 0)
    assert not np.isin(np.asarray(found.tokens)[mask.reshape(2, 4, 6)], [0, START]).any()
    assert len({tuple(row) for row in np.asarray(found.tokens[0]).tolist()}) == 4


def test_other_words_need_no_new_program(decoded):
    _, variables, search, found = decoded
    other = search(variables, {"source": SOURCE[::-1].copy()})
    for ours, theirs, axis in zip(found, other, (0, 0, 0, 0, 1)):
        np.testing.assert_allclose(np.flip(theirs, axis), ours, atol=1e-5)
    assert search._cache_size() == 1


def test_too_long_a_source_is_named(decoded):
    _, variables, search, _ = decoded
    with pytest.raises(ValueError, match=r"source must have at most 8 positions"):
        search(variables, {"source": np.ones((2, 9), np.int32)})
    with pytest.raises(ValueError, match="at least one position"):
        search(variables, {"source": np.ones((2, 0), np.int32)})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"beam": 0}, "beam must be an integer of at least 1, got 0"),
        ({"length": 2.5}, "length must be an integer of at least 1, got 2.5"),
        ({"combination": "sum"}, "combination must be one of product_of_expectations"),
        ({"length_penalty": -1.0}, "length_penalty must be at least 0"),
        ({"length_penalty": math.inf}, "finite in float32, got inf"),
        ({"length_penalty": math.inf, "length": 1}, "finite in float32, got inf"),
        ({"length_penalty": math.nan}, "length_penalty must be at least 0, .* got nan"),
        ({"length_penalty": 65.0}, "finite in float32, got 65"),  # 4^65 is above it
        ({"forbidden": (END,)}, "the end not forbidden"),
        ({"widht": 3}, "unknown rule 'widht'; known: start, end"),
    ],
)
def test_bad_rules_are_refused(rules, message):
    model = transformer.make(9, size="tiny")
    with pytest.raises(ValueError, match=message):
        beam.make(model, **{"start": START, "end": END, "beam": 2, "length": 4, **rules})


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`decoding`"):
        beam.make(transformer.make(9)._replace(decoding=None), start=START, end=END, beam=2, length=4)
    with pytest.raises(ValueError, match="below the vocabulary's 4"):
        run(tables(), beam.Rules(START, 4, 2, LENGTH), jnp.float32)
    with pytest.raises(ValueError, match=r"\[M, B, N\] = \(1, 2, 2\), got \(3,"):
        step = lambda state, tokens, parents, index: (jnp.zeros((3, 2, 2, 4)), state)  # noqa: E731
        beam.search(step, (), beam.Rules(START, END, 2, LENGTH), num_members=1, num_sources=2)


def test_candidates_are_selected_not_sorted():
    """A sort of beam times vocabulary made a step ten times slower."""
    rules = beam.Rules(START, END, 2, LENGTH)
    step = lambda state, tokens, parents, index: (state, state)  # noqa: E731
    text = jax.jit(lambda state: beam.search(step, state, rules, num_members=1, num_sources=1)).lower(jnp.zeros((1, 1, 2, 500))).compile()
    assert "TopK" in text.as_text() and " sort(" not in text.as_text()
