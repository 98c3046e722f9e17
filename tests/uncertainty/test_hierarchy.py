"""Ensembles of ensembles: the chain rule against entropies, bounds and nesting, the collapse law by simulation, weighted members."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from edd.uncertainty import ensemble, hierarchy

QUIET = settings(max_examples=25, deadline=None, database=None, derandomize=True)
DECOMPOSE = jax.jit(hierarchy.decompose)
WEIGHTED = {w: jax.jit(functools.partial(hierarchy.weighted_mutual_information, weighting=w)) for w in hierarchy.WEIGHTINGS}
WEIGHTS = {w: jax.jit(functools.partial(hierarchy.member_weights, weighting=w)) for w in hierarchy.WEIGHTINGS}
TILES = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])


def random_log_probs(shape, scale=1.0, seed=0):
    return scipy.special.log_softmax(scale * np.random.default_rng(seed).normal(size=shape), -1)


def by_entropies(log_probs):
    """The three terms as the paper writes them: differences of entropies, float64 numpy."""
    probs = np.exp(log_probs)
    whole, groups = scipy.stats.entropy(probs.mean((0, 1)), axis=-1), scipy.stats.entropy(probs.mean(1), axis=-1)
    alone = scipy.stats.entropy(probs, axis=-1)
    return whole - alone.mean((0, 1)), whole - groups.mean(0), (groups - alone.mean(1)).mean(0)


def test_worked_example(x64):
    found = hierarchy.decompose(np.log([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.4, 0.6]]]))
    np.testing.assert_allclose([*map(float, found)], [0.14523612, 0.08228288, 0.06295324], atol=5e-9)
    assert abs(found.total - found.between - found.within) < 1e-12


def test_the_chain_rule_is_exact_for_every_input_and_equals_the_entropies(x64):
    @QUIET
    @given(st.integers(0, 2**32 - 1), st.floats(0.01, 30.0))
    def check(seed, scale):
        log_probs = random_log_probs((3, 4, 5, 7), scale, seed)
        found = DECOMPOSE(log_probs)
        np.testing.assert_allclose(found.total, found.between + found.within, rtol=0, atol=1e-12)
        for one, other in zip(found, by_entropies(log_probs)):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
        assert (np.stack(found) >= 0).all()
        assert (found.between <= np.log(3) + 1e-12).all() and (found.within <= np.log(4) + 1e-12).all()

    check()


def test_disagreement_is_at_most_the_logarithm_of_what_disagrees():
    two = jnp.log(jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    assert [float(each) for each in hierarchy.decompose(two)] == pytest.approx([np.log(2), np.log(2), 0.0], abs=1e-7)
    one_class_each = jnp.log(jnp.eye(6))[:, None]  # six groups, six classes: ln 6, not more
    assert float(hierarchy.decompose(one_class_each).between) == pytest.approx(np.log(6), rel=1e-6)


def test_what_is_identical_is_exactly_zero():
    rng = np.random.default_rng(0)
    one = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(1, 1, 4, 1000)) * 5, jnp.float32)).at[..., 3].set(-jnp.inf)
    one = jax.nn.log_softmax(one)
    assert (np.stack(hierarchy.decompose(jnp.tile(one, (3, 4, 1, 1)))) == 0).all()
    members = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(1, 4, 4, 1000)), jnp.float32))
    groups = hierarchy.decompose(jnp.tile(members, (3, 1, 1, 1)))  # the same sub-ensemble three times
    assert (groups.between == 0).all() and (groups.within > 0.1).all()
    members = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(3, 1, 4, 1000)), jnp.float32))
    groups = hierarchy.decompose(jnp.tile(members, (1, 4, 1, 1)))  # three sub-ensembles of one network each
    assert (groups.within == 0).all() and (groups.between > 0.1).all()


@pytest.mark.parametrize("num_classes", [10, 256_000])
def test_float32_is_enough(num_classes):
    logits = np.random.default_rng(1).normal(size=(2, 2, 4, num_classes)) * np.array([1e-3, 1.0, 60.0, 300.0])[:, None]
    logits[0, 0, :, 1] = -np.inf
    log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))
    found = np.stack(hierarchy.decompose(log_probs))
    assert np.isfinite(found).all() and (found >= 0).all()
    exact = log_probs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        exact = np.stack(by_entropies(exact - scipy.special.logsumexp(exact, -1, keepdims=True)))
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-10)  # the entropies' differences carry some 1e-11 themselves


def test_gradients_are_finite():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 5)) * np.array([1.0, 50.0, 400.0])[None, :, None], jnp.float32)
    identical = jnp.ones((2, 3, 5))
    masked = logits.at[..., 0].set(-1e30)
    gradient = jax.jit(jax.grad(lambda z: sum(each.sum() for each in hierarchy.decompose(jax.nn.log_softmax(z)))))
    for values in (logits, identical, masked):
        assert bool(jnp.isfinite(gradient(values)).all())
    assert float(jnp.abs(gradient(logits)).max()) > 1e-3
    for weighting in hierarchy.WEIGHTINGS:
        gradient = jax.jit(jax.grad(lambda z, w=weighting: WEIGHTED[w](z).sum()))
        for values in (logits, identical):
            assert bool(jnp.isfinite(gradient(values)).all()), weighting


# --- partitions -------------------------------------------------------------------------------------------------------


def test_partitions_of_24():
    assert hierarchy.partitions(24) == [(24, 1), (12, 2), (8, 3), (6, 4), (4, 6), (3, 8), (2, 12)]
    assert hierarchy.partitions(7) == [(7, 1)] and hierarchy.partitions(2) == [(2, 1)]


def test_partition_reshapes_or_permutes():
    members = np.arange(12.0).reshape(6, 2)
    by_size, by_number = hierarchy.partition(members, size=2), hierarchy.partition(members, num_groups=3)
    np.testing.assert_array_equal(by_size, members.reshape(3, 2, 2))
    np.testing.assert_array_equal(by_size, by_number)
    shuffled = hierarchy.partition(members, size=2, key=jax.random.key(0)).reshape(6, 2)
    assert not np.array_equal(shuffled, members)
    np.testing.assert_array_equal(np.sort(shuffled, 0), members)


def test_mistakes_are_named():
    members = np.zeros((6, 3))
    for options, message in (
        ({}, "exactly one of size and num_groups"),
        ({"size": 2, "num_groups": 3}, "exactly one"),
        ({"size": 4}, r"size must divide the 6 members, one of \[1, 2, 3, 6\], got 4"),
        ({"num_groups": 0}, "num_groups must divide"),
        ({"size": 2.0}, "size must divide"),
    ):
        with pytest.raises(ValueError, match=message):
            hierarchy.partition(members, **options)
    with pytest.raises(ValueError, match="at least one member"):
        hierarchy.partition(np.zeros((0, 3)), size=1)
    for wrong in (1, 2.0, True):
        with pytest.raises(ValueError, match="num_members"):
            hierarchy.partitions(wrong)
    for groups, size, message in ((0, 2, "num_groups"), (2, 1.5, "group_size"), (1, 1, "one member")):
        with pytest.raises(ValueError, match=message):
            hierarchy.collapse_law(groups, size)
    with pytest.raises(ValueError, match="G, M"):
        hierarchy.decompose(np.log(np.full((2, 2), 0.5)))
    with pytest.raises(ValueError, match="log_softmax"):
        hierarchy.decompose(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="log_probs"):
        hierarchy.decompose(np.full((2, 2, 2), np.nan))
    with pytest.raises(ValueError, match="G, M"):
        hierarchy.variance_decompose(np.zeros((0, 3)))
    with pytest.raises(TypeError, match="means"):
        hierarchy.variance_decompose("text")
    with pytest.raises(ValueError, match="weighting must be one of per_input_lse"):
        hierarchy.weighted_mutual_information(TILES, "lse")
    with pytest.raises(ValueError, match="logits must be finite"):
        hierarchy.weighted_mutual_information(np.where(TILES == 3, np.nan, TILES))


SIMULATED = {  # standard deviation of members' logits -> share of the information left by the partitions of 24 (specification)
    0.1: (0.480, 0.306, 0.218, 0.132, 0.088, 0.044),
    1.0: (0.526, 0.346, 0.252, 0.154, 0.105, 0.053),
    3.0: (0.617, 0.438, 0.332, 0.211, 0.143, 0.075),
}


@pytest.fixture(scope="module")
def simulated():
    """Spread of the members -> size of the sub-ensembles -> their mutual information for each of 4,000 inputs; float32."""

    def between(spread):
        rng = np.random.default_rng(int(10 * spread))
        logits = rng.normal(size=(1, 4000, 10)) + spread * rng.normal(size=(24, 4000, 10))
        members = jnp.asarray(scipy.special.log_softmax(logits, -1), jnp.float32)
        groups = (ensemble.log_mean_probs(hierarchy.partition(members, size=size).swapaxes(0, 1)) for _, size in hierarchy.partitions(24))
        return {len(each): np.asarray(ensemble.mutual_information(each)) for each in groups}

    return {spread: {24 // groups: values for groups, values in between(spread).items()} for spread in SIMULATED}


def test_the_simulation_is_what_decompose_gives():
    members = random_log_probs((24, 3, 4))
    found = hierarchy.decompose(hierarchy.partition(members, size=3))
    groups = ensemble.log_mean_probs(hierarchy.partition(members, size=3).swapaxes(0, 1))
    np.testing.assert_array_equal(found.between, ensemble.mutual_information(groups))


def test_nested_partitions_only_ever_lose_and_others_in_the_mean(simulated):
    for found in simulated.values():
        for chain in ((1, 2, 4, 8), (1, 2, 6, 12), (1, 3, 6, 12), (1, 2, 4, 12)):
            for fine, coarse in zip(chain, chain[1:]):
                assert (found[coarse] <= found[fine] + 1e-6).all(), (fine, coarse)
        means = [found[size].mean() for size in sorted(found)]
        assert means == sorted(means, reverse=True)
        assert (found[12] <= np.log(2) + 1e-6).all()
    alternating = jnp.log(jnp.tile(jnp.eye(2), (3, 1)))[:, None]  # pairs are alike, triples are not: sizes that are not nested may rise
    pairs, triples = (hierarchy.decompose(hierarchy.partition(alternating, size=size)).between for size in (2, 3))
    assert float(pairs[0]) == 0 and float(triples[0]) > 0.05


@pytest.mark.parametrize("spread", SIMULATED)
def test_exchangeable_members_lie_on_the_collapse_law_or_above_it(spread, simulated):
    means = np.array([simulated[spread][size].mean(dtype=np.float64) for _, size in hierarchy.partitions(24)])
    shares = means[1:] / means[0]
    laws = np.array([hierarchy.collapse_law(*each) for each in hierarchy.partitions(24)[1:]])
    np.testing.assert_allclose(laws, [0.478, 0.304, 0.217, 0.130, 0.087, 0.0435], atol=6e-4)
    assert (shares > laws * 0.995).all()
    np.testing.assert_allclose(shares, SIMULATED[spread], rtol=0.02, atol=6e-4)
    if spread < 1:
        np.testing.assert_allclose(shares, laws, rtol=0.02)


# --- regression -------------------------------------------------------------------------------------------------------


def test_law_of_total_variance(x64):
    @QUIET
    @given(st.integers(0, 2**32 - 1), st.floats(-1e6, 1e6))
    def check(seed, offset):
        means = np.random.default_rng(seed).normal(size=(4, 3, 5))
        found = hierarchy.variance_decompose(means + offset)
        np.testing.assert_allclose(found.total, found.between + found.within, rtol=1e-12)
        np.testing.assert_allclose(found.total, means.reshape(12, 5).var(0), rtol=1e-9)
        np.testing.assert_allclose(found.between, means.mean(1).var(0), rtol=1e-9)

    check()
    assert (np.stack(hierarchy.variance_decompose(np.full((4, 3, 5), 0.1))) == 0).all()


def test_variance_falls_by_the_law_exactly_in_expectation(x64):
    members = np.random.default_rng(0).gamma(2.0, size=(24, 100_000))  # nothing Gaussian about it
    for groups, size in hierarchy.partitions(24):
        found = hierarchy.variance_decompose(hierarchy.partition(members, size=size))
        share = float(found.between.mean() / found.total.mean())
        assert share == pytest.approx(hierarchy.collapse_law(groups, size), rel=0.01)


# --- members that count unequally -------------------------------------------------------------------------------------


def weighted_by_entropies(logits, weights):
    probs = scipy.special.softmax(logits, -1)
    mixture = (weights[..., None] * probs).sum(0)
    return scipy.stats.entropy(mixture, axis=-1) - (weights * scipy.stats.entropy(probs, axis=-1)).sum(0)


def test_the_specified_tiles(x64):
    weights = hierarchy.member_weights(TILES)
    np.testing.assert_allclose(weights, [0.259417, 0.130365, 0.610218], atol=5e-7)
    joint = np.exp(TILES) / np.exp(TILES).sum()
    np.testing.assert_allclose(joint.sum(0), (weights[:, None] * scipy.special.softmax(TILES, -1)).sum(0), rtol=1e-12)
    np.testing.assert_allclose(joint.sum(0), weights, rtol=1e-12)  # these tiles are permutations of one another
    assert float(hierarchy.weighted_mutual_information(TILES)) == pytest.approx(0.393543, abs=5e-7)
    assert float(hierarchy.weighted_mutual_information(TILES, "per_input_sum")) == pytest.approx(0.369063, abs=5e-7)
    np.testing.assert_allclose(hierarchy.member_weights(TILES, "per_input_sum"), [0.244728, 0.090031, 0.665241], atol=5e-7)
    assert float(ensemble.mutual_information(jax.nn.log_softmax(TILES))) == pytest.approx(0.407421, abs=5e-7)


def test_global_weights_are_the_formula_over_the_whole_set(x64):
    logits = np.random.default_rng(0).normal(size=(4, 5, 6))
    for weighting, sizes in (("global", logits.sum(-1)), ("global_lse", scipy.special.logsumexp(logits, -1))):
        letter = np.broadcast_to((np.exp(sizes).sum(1) / np.exp(sizes).sum())[:, None], (4, 5))
        np.testing.assert_allclose(WEIGHTS[weighting](logits), letter, rtol=1e-12)
        np.testing.assert_allclose(WEIGHTED[weighting](logits), weighted_by_entropies(logits, letter), rtol=1e-10)


def test_weighted_mutual_information_is_within_its_bounds_and_equals_the_entropies(x64):
    @QUIET
    @given(st.integers(0, 2**32 - 1), st.floats(0.01, 20.0))
    def check(seed, scale):
        logits = scale * np.random.default_rng(seed).normal(size=(4, 5, 6))
        for weighting, function in WEIGHTED.items():
            weights, found = np.asarray(WEIGHTS[weighting](logits)), np.asarray(function(logits))
            np.testing.assert_allclose(found, weighted_by_entropies(logits, weights), rtol=0, atol=1e-12)
            assert (found >= 0).all() and (found <= scipy.stats.entropy(weights, axis=0) + 1e-12).all()

    check()


def test_equal_weights_give_the_ordinary_mutual_information_and_a_constant_changes_only_weights(x64):
    log_probs = random_log_probs((4, 5, 6), 2.0)
    for weighting in ("per_input_lse", "global_lse"):
        np.testing.assert_allclose(WEIGHTED[weighting](log_probs), ensemble.mutual_information(log_probs), rtol=1e-10)
    moved = log_probs.copy()
    moved[0] += 60.0  # the first member alone counts
    for weighting, function in WEIGHTED.items():
        assert (np.asarray(function(moved)) < 1e-8).all(), weighting


def test_weighted_float32_extremes():
    scales = np.array([1e-3, 1.0, 100.0, 1e4], np.float32)[:, None]
    logits = np.random.default_rng(3).normal(size=(5, 4, 1000)).astype(np.float32) * scales
    same = np.broadcast_to(logits[:1], logits.shape)
    for weighting, function in WEIGHTED.items():
        found = np.asarray(function(logits))
        assert np.isfinite(found).all() and (found >= 0).all() and (found <= np.log(5) + 1e-6).all(), weighting
        assert (np.asarray(function(same)) == 0).all(), weighting
    exact = logits.astype(np.float64)
    exact = weighted_by_entropies(exact, scipy.special.softmax(scipy.special.logsumexp(exact, -1), 0))
    np.testing.assert_allclose(WEIGHTED["per_input_lse"](logits)[:3], exact[:3], rtol=1e-4)


def test_half_precision_is_computed_in_float32():
    members = jnp.asarray(random_log_probs((2, 2, 3, 4)), jnp.bfloat16)
    assert all(each.dtype == jnp.float32 for each in hierarchy.decompose(members))
