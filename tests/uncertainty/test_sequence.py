"""Sequence measures against enumeration of every sequence, float64 definitions and the measures of single steps."""

import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from edd.uncertainty import dirichlet, ensemble, sequence

COMBINATIONS = sequence.COMBINATIONS
NAMES = ensemble.Measures._fields


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def problem(members=4, hypotheses=3, length=6, classes=5, seed=0, scale=2.0, dtype=np.float32):
    """Random members' log-probabilities, tokens, and a mask with one full, one short and one empty hypothesis."""
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(rng.normal(size=(members, hypotheses, length, classes)) * scale).astype(dtype)
    tokens = rng.integers(0, classes, (hypotheses, length))
    mask = np.arange(length)[None] < np.array([length, length // 2, 0])[:hypotheses, None]
    return log_probs, tokens, mask


def of_tokens(log_probs, tokens):
    return np.take_along_axis(log_probs, np.broadcast_to(tokens, log_probs.shape[:-1])[..., None], -1)[..., 0]


def definitions(log_probs, tokens, mask, combination):
    """The measures as section 4 of the specification writes them, float64, token by token."""
    log_probs = np.asarray(log_probs, np.float64)
    out = {name: np.zeros(mask.shape) for name in NAMES}
    for s, l in zip(*np.nonzero(mask)):
        rows = log_probs[:, s, l]
        weights = np.full(len(rows), 1 / len(rows))
        if combination == "expectation_of_products":
            prefix = of_tokens(log_probs, tokens)[:, s, :l].sum(-1)
            weights = np.exp(prefix - prefix.max())
            weights /= weights.sum()
        mean = weights @ np.exp(rows)
        total = -(mean * np.log(mean)).sum()
        data = -(np.exp(rows) * rows).sum(-1).mean()
        cross = -(mean * rows.mean(0)).sum()
        for name, value in zip(NAMES, (total, data, total - data, cross - data, cross - total)):
            out[name][s, l] = value
    return out


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_token_measures_are_their_definitions(combination, x64):
    log_probs, tokens, mask = problem(dtype=np.float64)
    got = sequence.token_measures(log_probs, tokens, mask, combination)
    for name, want in definitions(log_probs, tokens, mask, combination).items():
        np.testing.assert_allclose(getattr(got, name), want, rtol=1e-10, atol=1e-13, err_msg=name)


def exact_weighted(rows, weights):
    """(total, data, mutual, reverse) of one step in 50 digits, rows renormalised."""
    mp.mp.dps = 50
    rows = [[mp.e ** mp.mpf(float(x)) for x in row] for row in rows]
    rows = [[p / mp.fsum(row) for p in row] for row in rows]
    weights = [w / mp.fsum(weights) for w in weights]
    classes, count = range(len(rows[0])), len(rows)
    mean = [mp.fsum(w * row[k] for w, row in zip(weights, rows)) for k in classes]
    total = -mp.fsum(q * mp.log(q) for q in mean)
    data = -mp.fsum(p * mp.log(p) for row in rows for p in row) / count
    reverse = mp.fsum(mean[k] * (mp.log(mean[k]) - mp.log(row[k])) for row in rows for k in classes) / count
    return [float(value) for value in (total, data, total - data, reverse)]


@pytest.mark.parametrize("spread, prefix", [(1e-4, 0.3), (1e-4, 40.0), (1e-2, 3.0), (2.0, 3.0), (6.0, 60.0)])
def test_expectation_of_products_in_float32_keeps_its_digits(spread, prefix):
    rng = np.random.default_rng(7)
    classes, members = 30, 5
    rows = log_softmax(rng.normal(size=(1, classes)) + spread * rng.normal(size=(members, classes))).astype(np.float32)
    exponents = -prefix * rng.uniform(size=members)
    first = np.stack([exponents, np.log(-np.expm1(exponents))], -1)  # token 0 sets the weights
    first = np.concatenate([first, np.full((members, classes - 2), -np.inf)], -1).astype(np.float32)
    log_probs = np.stack([first, rows], 1)[:, None]
    got = sequence.token_measures(log_probs, np.zeros((1, 2), int), np.ones((1, 2)), "expectation_of_products")
    weights = [mp.e ** mp.mpf(float(first[m, 0])) for m in range(members)]
    total, data, mutual, reverse = exact_weighted(rows, weights)
    np.testing.assert_allclose([got.total[0, 1], got.data[0, 1], got.reverse_mutual_information[0, 1]], [total, data, reverse], rtol=1e-5)
    np.testing.assert_allclose(got.mutual_information[0, 1], mutual, rtol=2e-5, atol=2e-7 * spread)  # of either sign: sums may cancel


class Tree:
    """Members' next-token distributions after every prefix, vocabulary {end, a, b}, at most 3 tokens, the last of them `end`."""

    def __init__(self, members=3, classes=3, length=3, seed=0):
        rng = np.random.default_rng(seed)
        self.sequences = [(*middle, 0) for n in range(length) for middle in itertools.product(range(1, classes), repeat=n)]
        self.mask = np.array([[l < len(y) for l in range(length)] for y in self.sequences])
        self.tokens = np.array([[*y, *[-1] * (length - len(y))] for y in self.sequences])
        steps = {y[:l]: None for y in self.sequences for l in range(len(y))}
        for prefix in steps:
            steps[prefix] = log_softmax(1.5 * rng.normal(size=(members, classes)))
            if len(prefix) == length - 1:
                steps[prefix] = np.broadcast_to(np.where(np.arange(classes) == 0, 0.0, -np.inf), (members, classes))
        self.log_probs = np.full((members, *self.mask.shape, classes), np.nan)
        for s, l in zip(*np.nonzero(self.mask)):
            self.log_probs[:, s, l] = steps[self.sequences[s][:l]]
        chosen = of_tokens(np.nan_to_num(self.log_probs), np.maximum(self.tokens, 0)) * self.mask
        self.token_log_probs = chosen
        self.members = np.exp(chosen.sum(-1))  # [M, S]
        self.averages = {COMBINATIONS[0]: np.exp(np.log(np.exp(chosen).mean(0)).sum(-1)), COMBINATIONS[1]: self.members.mean(0)}


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_the_chain_rule_over_all_sequences_is_exact_for_total_and_reverse_only(combination, x64):
    tree = Tree()
    average = tree.averages[combination]
    np.testing.assert_allclose(average.sum(), 1, rtol=1e-12)  # every sequence is there
    found = sequence.token_measures(tree.log_probs, tree.tokens, tree.mask, combination)
    estimate = {
        name: float(sequence.over_hypotheses(sequence.rate(getattr(found, name), tree.mask, False), np.log(average), "importance"))
        for name in NAMES
    }
    total = -(average * np.log(average)).sum()
    reverse = np.mean((average * (np.log(average) - np.log(tree.members))).sum(-1))
    mutual = np.mean((tree.members * (np.log(tree.members) - np.log(average))).sum(-1))
    np.testing.assert_allclose([estimate["total"], estimate["reverse_mutual_information"]], [total, reverse], rtol=1e-11)
    assert abs(estimate["mutual_information"] - mutual) > 1e-3 * mutual
    assert abs(estimate["expected_pairwise_kl"] - mutual - reverse) > 1e-3 * mutual


def test_joint_scores_are_the_sequences_log_probabilities_and_average_to_their_divergences(x64):
    tree = Tree(seed=1)
    got = sequence.joint_scores(np.where(tree.mask[None], tree.token_log_probs, np.nan), tree.mask)
    length = tree.mask.sum(-1)
    for total, reverse, combination in zip((got.total_poe, got.total_eop), (got.reverse_mi_poe, got.reverse_mi_eop), COMBINATIONS):
        average = tree.averages[combination]
        np.testing.assert_allclose(total, -np.log(average) / length, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(total + reverse, got.data, rtol=1e-12, atol=1e-15)
        divergence = np.mean((average * (np.log(average) - np.log(tree.members))).sum(-1))
        np.testing.assert_allclose((average * length) @ reverse, divergence, rtol=1e-11)
    np.testing.assert_allclose(got.data, -np.log(tree.members).mean(0) / length, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_padding_counts_for_nothing_whatever_is_there(combination):
    log_probs, tokens, mask = problem()
    clean = sequence.token_measures(log_probs, tokens, mask, combination)
    short = sequence.token_measures(log_probs[:, :, :3], tokens[:, :3], mask[:, :3], combination)
    junk, wild = np.where(mask[None, ..., None], log_probs, np.nan), np.where(mask, tokens, -100)
    dirty = sequence.token_measures(junk, wild, mask.astype(np.float32), combination)
    for one, other, part in zip(clean, dirty, short):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(np.asarray(one)[~mask], 0)
        np.testing.assert_allclose(one[1:, :3], part[1:], rtol=1e-6, atol=1e-7)  # columns of padding cut off
    chosen = of_tokens(log_probs, tokens)
    for one, other in zip(sequence.joint_scores(chosen, mask), sequence.joint_scores(np.where(mask[None], chosen, np.nan), mask)):
        np.testing.assert_array_equal(one, other)
        assert one[2] == 0  # a hypothesis of padding alone


def test_order_of_members_does_not_matter_and_a_single_member_knows_nothing():
    log_probs, tokens, mask = problem(scale=4.0)
    order = [2, 0, 3, 1]
    chosen = of_tokens(log_probs, tokens)
    for combination in COMBINATIONS:
        pair = [sequence.token_measures(each, tokens, mask, combination) for each in (log_probs, log_probs[order])]
        for one, other in zip(*pair):
            np.testing.assert_allclose(one, other, rtol=5e-6, atol=1e-6)
        alone = sequence.token_measures(log_probs[:1], tokens, mask, combination)
        np.testing.assert_array_equal(alone[2:], 0)
        np.testing.assert_allclose(alone.total, alone.data, rtol=1e-5)
    for one, other in zip(sequence.joint_scores(chosen, mask), sequence.joint_scores(chosen[order], mask)):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)
    np.testing.assert_array_equal(sequence.joint_scores(chosen[:1], mask)[3:], 0)


def test_identical_members_agree_exactly_whatever_they_exclude():
    log_probs, tokens, mask = problem(members=1)
    with np.errstate(divide="ignore"):
        log_probs[0, 0, 2] = np.log(np.array([0.5, 0.5, 0, 0, 0], np.float32))
    tokens[0, 2] = 4  # which all members exclude
    same = np.repeat(log_probs, 3, 0)
    for combination in COMBINATIONS:
        found = sequence.token_measures(same, tokens, mask, combination)
        np.testing.assert_array_equal(found[2:], 0)
        assert np.isfinite(np.asarray(found)).all()
    scores = sequence.joint_scores(of_tokens(same, tokens), mask)
    np.testing.assert_array_equal(scores[3:], 0)
    assert np.isposinf(scores.total_poe[0]) and np.isposinf(scores.data[0]) and np.isfinite(scores.data[1])


def test_a_member_that_excluded_the_prefix_no_longer_predicts_but_still_counts_in_the_uniform_means():
    with np.errstate(divide="ignore"):
        first = np.log(np.array([[1.0, 0.0], [0.5, 0.5]], np.float32))
        second = np.log(np.array([[0.0, 1.0], [0.9, 0.1]], np.float32))
    found = sequence.token_measures(np.stack([first, second], 1)[:, None], np.array([[1, 0]]), np.ones((1, 2)), COMBINATIONS[1])
    alone = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    np.testing.assert_allclose([found.total[0, 1], found.data[0, 1]], [alone, alone / 2], rtol=1e-6)
    np.testing.assert_allclose(found.mutual_information[0, 1], alone / 2, rtol=1e-6)
    assert np.isposinf(found.reverse_mutual_information[0, 1])  # the average allows token 0, the first member does not
    scores = sequence.joint_scores(np.array([[[-np.inf, -np.inf]], [[np.log(0.5), np.log(0.9)]]]), np.ones((1, 2)))
    np.testing.assert_allclose(scores.total_eop, -np.log(0.225) / 2, rtol=1e-6)
    assert np.isposinf(scores.data[0]) and np.isposinf(scores.reverse_mi_eop[0])


def test_mutual_information_of_the_expectation_of_products_may_be_negative():
    log_probs = np.log([[[[0.9, 0.1], [0.98, 0.02]]], [[[0.1, 0.9], [0.5, 0.5]]]])
    found = sequence.token_measures(log_probs, np.zeros((1, 2), int), np.ones((1, 2)), COMBINATIONS[1])
    assert found.mutual_information[0, 1] < -0.05  # the sharp member has the prefix, the uniform mean of entropies has both
    assert found.reverse_mutual_information[0, 1] > 0


def test_long_unlikely_sequences_keep_the_differences_between_members(x64):
    rng = np.random.default_rng(3)
    base = -50 * rng.uniform(size=(1, 1, 4000))
    chosen = (base + 1e-3 * rng.normal(size=(3, 1, 4000)) - 0.1).astype(np.float32)  # sums near -100,000
    mask = np.ones((1, 4000), bool)
    exact = sequence.joint_scores(chosen.astype(np.float64), mask)
    with jax.enable_x64(False):
        got = sequence.joint_scores(jnp.asarray(chosen), mask)
        weights = sequence.prefix_weights(jnp.asarray(chosen), mask)
    for name in sequence.JointScores._fields:
        np.testing.assert_allclose(getattr(got, name), getattr(exact, name), rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(weights, sequence.prefix_weights(chosen.astype(np.float64), mask), rtol=1e-5)


@pytest.mark.parametrize("spread", [1e-5, 1e-3, 0.05, 0.2, 3.0])
def test_reverse_mutual_information_of_near_members_in_float32(spread):
    mp.mp.dps = 50
    chosen = (-4 + spread * np.random.default_rng(0).uniform(-1, 1, size=(6, 1, 3))).astype(np.float32)
    got = sequence.joint_scores(chosen, np.ones((1, 3)))
    rows = [[mp.mpf(float(x)) for x in row] for row in chosen[:, 0]]

    def reverse(columns):
        return mp.log(mp.fsum(mp.e**x for x in columns) / 6) - mp.fsum(columns) / 6

    poe = mp.fsum(reverse([row[l] for row in rows]) for l in range(3)) / 3
    eop = reverse([mp.fsum(row) for row in rows]) / 3
    np.testing.assert_allclose([got.reverse_mi_poe[0], got.reverse_mi_eop[0]], [float(poe), float(eop)], rtol=1e-5)


def test_prior_network_measures_are_those_of_single_dirichlets():
    rng = np.random.default_rng(0)
    concentration = np.exp(rng.uniform(-5, 8, size=(2, 4, 5))).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    concentration[1, 2:] = np.nan
    got = sequence.dirichlet_token_measures(concentration, mask)
    for name in NAMES:
        full = name if name not in ("total", "data") else f"{name}_uncertainty"
        want = getattr(dirichlet, full)(concentration[mask > 0])
        np.testing.assert_allclose(np.asarray(getattr(got, name))[mask > 0], want, rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(np.asarray(getattr(got, name))[mask == 0], 0)


def test_prior_network_joint_scores_in_float32_against_fifty_digits():
    mp.mp.dps = 50
    rows = np.array(
        [[1e8, 1e-4, 3.0], [0.9, 1e-4, 2e-4], [5.0, 2.0, 1.0], [1e-4, 1e-4, 1e-4], [0.2, 1e6, 1e6], [3e4, 2e-3, 2e-3]], np.float32
    )
    got = sequence.dirichlet_joint_scores(rows[:, None], np.zeros((6, 1), int), np.ones((6, 1)))
    for row, total, data, reverse in zip(rows, *got):
        alpha = [mp.mpf(float(x)) for x in row]
        want_total = -mp.log(alpha[0] / mp.fsum(alpha))
        want_data = mp.psi(0, mp.fsum(alpha)) - mp.psi(0, alpha[0])
        np.testing.assert_allclose(
            [total, data, reverse], [float(want_total), float(want_data), float(want_data - want_total)], rtol=1e-5, err_msg=str(row)
        )


def test_prior_network_joint_scores_with_the_authors_mean_and_their_limit():
    logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32) * 3
    tokens, mask = np.array([[0, 1, 2], [3, -1, -1]]), np.array([[1, 1, 1], [1, 0, 0]])
    log_probs = log_softmax(logits)
    got = sequence.dirichlet_joint_scores(np.exp(logits) + 1, tokens, mask, log_probs)
    alpha = np.exp(logits.astype(np.float64)) + 1
    want = [
        np.mean(
            [float(mp.psi(0, alpha[0, l].sum()) - mp.psi(0, alpha[0, l, tokens[0, l]])) + log_probs[0, l, tokens[0, l]] for l in range(3)]
        )
    ]
    np.testing.assert_allclose(got.reverse_mutual_information[:1], want, rtol=1e-5)
    certain = sequence.dirichlet_joint_scores(1e7 * np.exp(log_probs), tokens, mask)
    np.testing.assert_allclose(certain.total, sequence.rate(-of_tokens(log_probs, np.maximum(tokens, 0)), mask), rtol=1e-5)
    np.testing.assert_allclose(certain.data, certain.total, rtol=1e-3)  # as the precision grows the draws are the mean


def test_hypotheses_are_weighted_as_asked():
    rates, log_probs = np.array([1.0, 3.0, 9.0]), np.array([-1e4, -1e4 - np.log(3.0), -np.inf])
    assert float(sequence.over_hypotheses(rates, log_probs)) == 2.0  # the empty place of the list is left out
    np.testing.assert_allclose(sequence.over_hypotheses(rates, log_probs, "importance"), 1.5, rtol=1e-3)
    np.testing.assert_allclose(sequence.over_hypotheses(rates, log_probs, "importance", temperature=1e9), 2.0, rtol=1e-5)
    assert float(sequence.over_hypotheses(np.array([1.0, np.inf]), np.array([0.0, -np.inf]), "importance")) == 1.0
    assert np.isnan(sequence.over_hypotheses(rates[:1], [-np.inf]))
    temperatures = jnp.array([1.0, 2.0])
    swept = jax.jit(jax.vmap(lambda t: sequence.over_hypotheses(rates, log_probs, "importance", t)))(temperatures)
    assert swept[0] < swept[1] < 2.0


def test_rates_are_means_or_sums_over_what_counts():
    measure, mask = np.array([[1.0, 5.0, np.nan], [np.nan] * 3]), np.array([[1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(sequence.rate(measure, mask), [3.0, 0.0])
    np.testing.assert_array_equal(sequence.rate(measure, mask, normalize=False), [6.0, 0.0])


def test_under_jit_and_half_precision():
    log_probs, tokens, mask = problem()
    for combination in COMBINATIONS:
        eager = sequence.token_measures(log_probs, tokens, mask, combination)
        traced = jax.jit(lambda *a, how=combination: sequence.token_measures(*a, how))(log_probs, tokens, mask)
        for one, other in zip(eager, traced):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    half = sequence.token_measures(jnp.asarray(log_probs, jnp.bfloat16), tokens, mask)
    assert half.total.dtype == jnp.float32
    np.testing.assert_allclose(half.total, sequence.token_measures(log_probs, tokens, mask).total, rtol=3e-2)


def test_bad_input_is_named():
    log_probs, tokens, mask = problem()
    bad = tokens.copy()
    bad[0, 0] = 5
    cases = [
        (lambda: sequence.token_measures(log_probs, tokens, mask, "mean"), ValueError, "combination must be one of"),
        (lambda: sequence.token_measures(log_probs[:, 0], tokens, mask), ValueError, r"member_log_probs must be \[M, S, L, K\]"),
        (lambda: sequence.token_measures(log_probs, tokens[:, 1:], mask), ValueError, "tokens must have shape"),
        (lambda: sequence.token_measures(log_probs, tokens, mask[:1]), ValueError, "mask must have shape"),
        (lambda: sequence.token_measures(log_probs, bad, mask), ValueError, "tokens must lie in"),
        (lambda: sequence.token_measures(log_probs, tokens / 2, mask), TypeError, "tokens must be integers"),
        (lambda: sequence.token_measures(log_probs - 1, tokens, mask, COMBINATIONS[1]), ValueError, "member_log_probs must be log-prob"),
        (lambda: sequence.joint_scores(np.ones((2, 1, 3)), np.ones((1, 3))), ValueError, "member_token_log_probs must be log-prob"),
        (lambda: sequence.joint_scores(np.zeros((0, 1, 3)), np.ones((1, 3))), ValueError, "at least one member"),
        (lambda: sequence.dirichlet_token_measures(np.zeros((1, 2, 3)), np.ones((1, 2))), ValueError, "concentration must be positive"),
        (lambda: sequence.over_hypotheses([1.0], [0.0, 0.0]), ValueError, "sequence_log_probs"),
        (lambda: sequence.over_hypotheses([1.0], [np.nan]), ValueError, "sequence_log_probs must be log-probabilities, <= 0, got a larger"),
        (lambda: sequence.over_hypotheses([1.0], [0.1]), ValueError, "sequence_log_probs must be log-probabilities"),
        (lambda: sequence.over_hypotheses([1.0], [0.0], "beam"), ValueError, "weighting must be one of"),
        (lambda: sequence.over_hypotheses([1.0], [0.0], temperature=0.0), ValueError, "temperature must be positive"),
        (lambda: sequence.rate(np.ones((1, 2)), np.ones((1, 3))), ValueError, "mask must have shape"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
