"""The member axis: every strategy equals the plain loop, M = 1 the plain network; errors; what "auto" chooses."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.ensembles import lockstep, members
from edd.models import cnn, mlp, transformer

MLP, CNN = mlp.make(3, widths=(8,)), cnn.make(3, channels=(2,), kernels=(3,), hidden=4, batch_norm=True)
SHAPES = {"mlp": (MLP, (5,)), "cnn": (CNN, (6, 6, 1))}
STRATEGIES = ("vmap", "lockstep", "unroll", "scan")


def setup(net, num_members=3, batch=4):
    model, shape = SHAPES[net]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(batch, *shape)), jnp.float32)
    return model, members.init(model, jax.random.key(0), num_members, x[:1]), x


@pytest.mark.parametrize("net", SHAPES)
def test_init_equals_one_network_at_a_time(net):
    model, variables, x = setup(net)
    for member in range(3):
        alone = model.init(jax.random.fold_in(jax.random.key(0), member), x[:1])
        jax.tree.map(lambda one, all, m=member: np.testing.assert_allclose(one, all[m], rtol=1e-6, atol=1e-7), alone, variables)


@pytest.mark.parametrize("net", SHAPES)
def test_every_strategy_equals_the_plain_loop(net):
    """Outputs, and gradients taken inside the mapped function, with a shared batch and a batch of their own."""
    model, variables, x = setup(net)
    own = jnp.stack([x, 2 * x, x + 1])

    def learn(variables, x):
        def loss(params):
            outputs, new = model.apply({**variables, "params": params}, x, train=True, rngs=None)
            return jnp.mean(jax.nn.logsumexp(outputs.logits, -1) ** 2), new

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    one = jax.jit(learn)
    expected = [one(jax.tree.map(lambda leaf, m=m: leaf[m], variables), own[m]) for m in range(3)]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
    logits = np.stack([model.apply(members_of(variables, m), x, train=False, rngs=None)[0].logits for m in range(3)])
    for strategy in STRATEGIES:
        got = jax.jit(members.map_members(learn, strategy))(variables, own)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, expected)
        outputs = jax.jit(lambda v, x, s=strategy: members.apply(model, v, x, strategy=s))(variables, x)
        np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-6)
        assert outputs.penultimate.shape[:2] == (3, 4)


def members_of(variables, member):
    return jax.tree.map(lambda leaf: leaf[member], variables)


def test_one_member_is_the_plain_network():
    model, variables, x = setup("mlp", 1)
    plain, _ = model.apply(members_of(variables, 0), x, train=False, rngs=None)
    np.testing.assert_array_equal(members.apply(model, variables, x).logits[0], plain.logits)


def convolution_groups(fn, *args):
    """feature_group_count of every convolution in the traced program, nested ones included."""
    found = []

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == lockstep.CONVOLUTION:
                found.append((equation.params["feature_group_count"], equation.params["batch_group_count"]))
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
            ):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    walk(inner)

    walk(jax.make_jaxpr(fn)(*args).jaxpr)
    return found


def test_lockstep_has_no_grouped_convolution_where_vmap_has():
    model, variables, x = setup("cnn")

    def slope(v, x):
        return jax.grad(lambda p: jnp.sum(model.apply({**v, "params": p}, x, train=True, rngs=None)[0].logits))(v["params"])

    grouped = convolution_groups(members.map_members(slope, "vmap"), variables, jnp.stack([x] * 3))
    single = convolution_groups(members.map_members(slope, "lockstep"), variables, jnp.stack([x] * 3))
    assert max(max(pair) for pair in grouped) > 1
    assert len(single) == 3 * len(grouped) and max(max(pair) for pair in single) == 1


def test_lockstep_inlines_nested_programs_and_keeps_constants():
    kernel = jnp.ones((3, 3, 1, 2))
    table = jnp.arange(4.0)

    @jax.jit
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def fn(scale, x):
        shared = convolve(x, kernel)
        return {"own": convolve(x, scale * kernel) + table[1], "both": jnp.where(scale > 1, shared, 0.0), "same": scale, "number": 3.0}

    scales, x = jnp.array([1.0, 2.0]), jnp.ones((2, 1, 4, 4, 1))
    expected = jax.vmap(fn)(scales, x)
    for run in (lockstep.lockstep(fn), jax.jit(lockstep.lockstep(fn))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), run(scales, x), expected)


def test_auto_follows_backend_kernels_and_collectives():
    dense, convolutional = setup("mlp")[1], setup("cnn")[1]
    assert members.choose_strategy(dense, "cpu") == "vmap"
    assert members.choose_strategy(convolutional, "cpu") == "unroll"
    assert members.choose_strategy(convolutional, "cpu", collectives=True) == "lockstep"
    assert members.choose_strategy(convolutional, "gpu") == members.choose_strategy(convolutional, "tpu") == "vmap"
    assert members.choose_strategy(jax.eval_shape(lambda v: v, convolutional), "cpu") == "unroll"


def test_take_and_finite_members():
    variables = {"w": jnp.arange(6.0).reshape(3, 2).at[1, 0].set(jnp.nan), "n": jnp.arange(3)}
    assert members.finite_members(variables).tolist() == [True, False, True]
    taken = members.take(variables, [2, 0])
    assert taken["n"].tolist() == [2, 0] and taken["w"].tolist() == [[4.0, 5.0], [0.0, 1.0]]
    for bad in ([], [3], [-1], [[0]]):
        with pytest.raises(ValueError, match="indices"):
            members.take(variables, bad)


def test_no_member_and_other_bad_arguments():
    model, variables, x = setup("mlp")
    for number in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="num_members must be an integer of at least 1"):
            members.init(model, jax.random.key(0), number, x)
    with pytest.raises(ValueError, match="member axis of variables must be an integer of at least 1, got 0"):
        members.apply(model, jax.tree.map(lambda leaf: leaf[:0], variables), x)
    with pytest.raises(ValueError, match="variables must have one member axis"):
        members.apply(model, {**variables, "odd": jnp.ones(2)}, x)
    with pytest.raises(ValueError, match="strategy must be one of auto, vmap"):
        members.apply(model, variables, x, strategy="pmap")


def translators(num_members=3, words=11, batch=2, length=5):
    """A sequence model, its members and padded tokens."""
    model = transformer.make(words, size="tiny", width=8, num_layers=1, num_heads=2, hidden=8)
    ids = jnp.asarray(np.random.default_rng(0).integers(1, words, (2, batch, length)), jnp.int32)
    x = {"source": ids[0].at[0, 3:].set(0), "target": ids[1].at[1, 2:].set(0)}
    return model, members.init(model, jax.random.key(0), num_members, x), x


@pytest.mark.parametrize(("chunk_size", "strategy"), [(1, "vmap"), (2, "scan"), (99, "vmap")])
def test_targets_in_chunks_are_those_of_all_time_steps(chunk_size, strategy):
    model, variables, x = translators()
    function = lambda logits: (logits.max(0), jax.nn.logsumexp(logits, -1).std(0))  # noqa: E731
    want = function(members.apply(model, variables, x).logits)
    got = members.targets(model, variables, x, function, chunk_size=chunk_size, strategy=strategy)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(members.targets(model, variables, x, function)[0], want[0])


def test_targets_in_chunks_hold_no_array_of_all_members_logits():
    """Of compiled programs: numbers in the largest array, and temporaries in units of all members' logits."""
    num_members, words, batch, length = 16, 700, 2, 24
    model, variables, x = translators(num_members, words, batch, length)
    mean = lambda logits: jax.nn.log_softmax(logits).mean(0)  # noqa: E731
    everything, found = num_members * batch * length * words, {}
    for chunk_size in (None, 1):
        function = lambda v, x, c=chunk_size: members.targets(model, v, x, mean, chunk_size=c)  # noqa: E731
        compiled = jax.jit(function).lower(variables, x).compile()
        sizes = [math.prod(map(int, dims.split(","))) for dims in re.findall(r"f32\[([\d,]+)\]", compiled.as_text())]
        found[chunk_size] = max(sizes), compiled.memory_analysis().temp_size_in_bytes / (4 * everything)
    assert found[None][0] >= everything and found[None][1] > 1
    assert found[1][0] < everything / 4 and found[1][1] < 1 / 3


def test_targets_have_no_gradient():
    model, variables, x = translators()
    slope = jax.grad(lambda v: members.targets(model, v, x, lambda z: z.sum((0, -1)), chunk_size=2).sum())(variables)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slope))


def test_targets_in_chunks_need_a_sequence_model():
    model, variables, x = setup("mlp")
    with pytest.raises(ValueError, match="chunk_size must be None for a model that is no sequence model, got 2"):
        members.targets(model, variables, x, lambda logits: logits.mean(0), chunk_size=2)
    model, variables, x = translators()
    with pytest.raises(ValueError, match="chunk_size must be an integer >= 1, got 0"):
        members.targets(model, variables, x, lambda logits: logits.mean(0), chunk_size=0)
