"""The Transformer against plain numpy, its published sizes, its step-by-step decoding, and the battery of every backbone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models import transformer

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is most of these tests' time
VOCABULARY, HYPOTHESES = 11, 3
TINY = {"size": "tiny", "width": 8, "num_layers": 2, "num_heads": 2, "hidden": 12}
SOURCE = np.array([[4, 7, 2, 0, 0], [3, 9, 9, 5, 2], [10, 2, 0, 0, 0]], np.int32)
TARGET = np.array([[1, 5, 6, 2], [1, 8, 2, 0], [1, 3, 4, 7]], np.int32)
INPUTS = {"source": SOURCE, "target": TARGET}
MODEL = transformer.make(VOCABULARY, **TINY)
apply = jit(MODEL.apply, static_argnames="train")


def moved(variables):
    """Variables away from their start, so that a forgotten scale, bias or dimension shows."""
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda a: a + jnp.asarray(0.3 * rng.normal(size=a.shape), a.dtype), variables)


@pytest.fixture(scope="module")
def variables():
    return moved(jit(MODEL.init)(jax.random.key(4), INPUTS))


def keys(seed=3):
    return {"dropout": jax.random.split(jax.random.key(seed), len(SOURCE))}


class Numpy:
    """The network written out: one sentence, one head, one position at a time."""

    def __init__(self, params, heads):
        self.params, self.heads = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), heads
        self.table = self.params["words"]["embedding"]

    def embed(self, ids):
        d = self.table.shape[1]
        rows = []
        for position, token in enumerate(ids):
            rates = np.exp(-np.log(1e4) * np.arange(d // 2) / (d // 2 - 1))
            signal = np.concatenate([np.sin(position * rates), np.cos(position * rates)])
            rows.append(self.table[token] * np.sqrt(d) + signal)
        return np.stack(rows)

    @staticmethod
    def norm(x, p):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def attend(self, x, memory, p, causal=False):
        q, k, v = x @ p["query"]["kernel"], memory @ p["key"]["kernel"], memory @ p["value"]["kernel"]
        width, out = x.shape[1] // self.heads, np.zeros_like(x)
        for head in range(self.heads):
            cut = slice(head * width, (head + 1) * width)
            for row in range(len(x)):
                seen = row + 1 if causal else len(memory)
                weights = np.exp(k[:seen, cut] @ q[row, cut] / np.sqrt(width))
                out[row, cut] = weights @ v[:seen, cut] / max(weights.sum(), 1e-300)
        return out @ p["output"]["kernel"]

    @staticmethod
    def feed(x, p):
        return np.maximum(x @ p["inner"]["kernel"] + p["inner"]["bias"], 0) @ p["outer"]["kernel"] + p["outer"]["bias"]

    def hidden(self, source, target):
        source, x = source[source != 0], self.embed(target)
        encoder, decoder = self.params["encoder"], self.params["decoder"]
        y = self.embed(source) if len(source) else np.zeros((0, x.shape[1]))
        for index in range(len(encoder) - 1):
            p = encoder[f"layer_{index}"]
            normed = self.norm(y, p["attention_norm"])
            y = y + self.attend(normed, normed, p["attention"])
            y = y + self.feed(self.norm(y, p["feed_forward_norm"]), p["feed_forward"])
        y = self.norm(y, encoder["norm"])
        for index in range(len(decoder) - 1):
            p = decoder[f"layer_{index}"]
            normed = self.norm(x, p["attention_norm"])
            x = x + self.attend(normed, normed, p["attention"], causal=True)
            x = x + self.attend(self.norm(x, p["source_attention_norm"]), y, p["source_attention"])
            x = x + self.feed(self.norm(x, p["feed_forward_norm"]), p["feed_forward"])
        return self.norm(x, decoder["norm"])


def test_equals_plain_numpy(x64, variables):
    exact = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
    source = np.concatenate([SOURCE, np.zeros((1, 5), np.int32)])  # the last sentence is empty
    target = np.concatenate([TARGET, TARGET[:1]])
    found, state = apply(exact, {"source": source, "target": target}, train=False)
    reference = Numpy(variables["params"], 2)
    hidden = np.stack([reference.hidden(*row) for row in zip(source, target)])
    assert found.logits.dtype == jnp.float64 and state == {} and found.positions is None
    np.testing.assert_allclose(found.penultimate, hidden, atol=1e-6)  # timing is computed in float32
    np.testing.assert_allclose(found.logits, hidden @ reference.table.T, atol=1e-5)


@pytest.mark.parametrize(("vocabulary", "expected"), [(33_708, 61_362_176), (33_288, 61_147_136), (32_768, 60_880_896)])
def test_base_has_the_published_number_of_parameters(vocabulary, expected):
    shapes = jax.eval_shape(transformer.make(vocabulary).init, jax.random.key(0), INPUTS)["params"]
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in shapes.items()}
    assert sizes == {"encoder": 18_903_040, "decoder": 25_200_640, "words": 512 * vocabulary}
    assert sum(sizes.values()) == 44_103_680 + 512 * vocabulary == expected


def test_templates_give_the_logits(variables):
    outputs, _ = apply(variables, INPUTS, train=False)
    weights, bias = MODEL.templates(variables)
    assert outputs.logits.shape == (3, 4, VOCABULARY) and outputs.penultimate.shape == (3, 4, 8)
    assert weights.shape == (VOCABULARY, 8) and bias.shape == (VOCABULARY,)
    np.testing.assert_allclose(outputs.logits, outputs.penultimate @ weights.T + bias[None, None], rtol=1e-5, atol=1e-5)


def test_padding_and_later_tokens_change_nothing(variables):
    whole = apply(variables, INPUTS, train=False)[0].logits
    longer = {"source": np.pad(SOURCE, ((0, 0), (0, 3))), "target": np.pad(TARGET, ((0, 0), (0, 2)), constant_values=9)}
    np.testing.assert_allclose(apply(variables, longer, train=False)[0].logits[:, :4], whole, atol=1e-5)
    changed = {"source": np.where(SOURCE == 9, 4, SOURCE), "target": TARGET}
    other = apply(variables, changed, train=False)[0].logits
    assert not np.allclose(other[1, 0], whole[1, 0], atol=1e-3), "the source must matter"
    np.testing.assert_allclose(other[0], whole[0], atol=1e-6)


def test_steps_equal_the_teacher_forced_pass(variables):
    """Hypotheses trade places at every step; each must still be what one pass over its own tokens gives."""
    rng, length, traces = np.random.default_rng(0), 4, []

    @jit
    def step(*arguments):
        traces.append(1)
        return MODEL.decoding.decode_step(*arguments)

    encode = jit(functools.partial(MODEL.decoding.encode, num_hypotheses=HYPOTHESES, length=length + 2))
    cache = encode(variables, {"source": SOURCE})
    paths = np.zeros((3, HYPOTHESES, 0), np.int32)
    for index in range(length):
        parents = rng.integers(0, HYPOTHESES, (3, HYPOTHESES)).astype(np.int32)
        tokens = rng.integers(1, VOCABULARY, (3, HYPOTHESES)).astype(np.int32)
        paths = np.concatenate([np.take_along_axis(paths, parents[..., None], 1), tokens[..., None]], -1)
        logits, cache = step(variables, cache, tokens, parents, np.int32(index))
        padded = np.pad(paths, ((0, 0), (0, 0), (0, length - index - 1))).reshape(9, length)
        whole = apply(variables, {"source": np.repeat(SOURCE, HYPOTHESES, 0), "target": padded}, train=False)[0].logits
        np.testing.assert_allclose(logits, whole[:, index].reshape(3, HYPOTHESES, -1), rtol=1e-5, atol=1e-5)
    assert len(traces) == 1, "one program serves every step"


def test_dropout_depends_on_the_examples_own_key_alone(variables):
    first = apply(variables, INPUTS, train=True, rngs=keys())[0].penultimate
    other_keys = {"dropout": keys()["dropout"].at[0].set(jax.random.key(99))}
    other = apply(variables, INPUTS, train=True, rngs=other_keys)[0].penultimate
    assert not np.allclose(first[0], other[0])
    np.testing.assert_array_equal(first[1:], other[1:])
    order = np.array([2, 0, 1])
    shuffled = apply(variables, jax.tree.map(lambda a: a[order], INPUTS), train=True, rngs={"dropout": keys()["dropout"][order]})[0]
    np.testing.assert_allclose(shuffled.penultimate, first[order], rtol=1e-5, atol=1e-6)
    with_keys = apply(variables, INPUTS, train=False, rngs=keys())[0].logits
    np.testing.assert_array_equal(with_keys, apply(variables, INPUTS, train=False)[0].logits)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "relu_dropout"])
def test_dropout_in_three_places(rate, variables):
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "relu_dropout": 0.0}
    plain = apply(variables, INPUTS, train=False)[0].logits
    on = transformer.make(VOCABULARY, **TINY, **{**rates, rate: 0.5})
    dropped = jit(on.apply, static_argnames="train")(variables, INPUTS, train=True, rngs=keys())[0].logits
    assert not np.allclose(dropped, plain, atol=1e-3)
    with pytest.raises(ValueError, match="one typed key per example"):
        on.apply(variables, INPUTS, train=True)


def test_one_member_under_vmap_equals_the_plain_network(variables):
    alone = apply(variables, INPUTS, train=False)[0]
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), variables)
    first = jit(jax.vmap(lambda v: MODEL.apply(v, INPUTS, train=False)[0]))(stacked)
    for a, b in zip(alone[:2], first[:2]):
        np.testing.assert_allclose(a, b[0], rtol=2e-5, atol=2e-5)


def test_init_depends_on_the_key_alone():
    init = jit(MODEL.init)
    first = init(jax.random.key(4), INPUTS)
    longer = init(jax.random.key(4), {"source": np.full((1, 9), 7), "target": np.full((1, 2), 3)})
    jax.tree.map(np.testing.assert_array_equal, first, longer)
    assert not np.array_equal(MODEL.templates(first)[0], MODEL.templates(init(jax.random.key(2), INPUTS))[0])


def test_half_precision_keeps_parameters_and_logits_in_float32(variables):
    half = transformer.make(VOCABULARY, **TINY, dtype=jnp.bfloat16)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0), INPUTS))} == {"float32"}
    found = jit(half.apply, static_argnames="train")(variables, INPUTS, train=False)[0]
    exact = apply(variables, INPUTS, train=False)[0].logits
    assert found.logits.dtype == found.penultimate.dtype == jnp.float32
    error = float(jnp.abs(found.logits - exact).max())
    assert 0 < error < 0.1 * float(jnp.abs(exact).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "size must be one of tiny, small, base, big, got 'huge'"),
        ({"width": 9}, "width must be even and at least 4, got 9"),
        ({"width": 10, "num_heads": 4}, "num_heads must divide width 10, got 4"),
        ({"hidden": -1}, "hidden must be at least 0"),
        ({"relu_dropout": 1.0}, r"relu_dropout must lie in \[0, 1\)"),
        ({"max_length": 0}, "max_length must be at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        transformer.make(5, **options)


def test_bad_inputs_are_named(variables):
    short = transformer.make(VOCABULARY, **TINY, max_length=4)
    with pytest.raises(ValueError, match=r"source must have at most 4 positions \(max_length\), got 5"):
        short.apply(variables, INPUTS, train=False)
    with pytest.raises(ValueError, match="length must be at most 4"):
        short.decoding.encode(variables, {"source": SOURCE[:, :2]}, num_hypotheses=2, length=5)
    with pytest.raises(ValueError, match="at least one position"):
        MODEL.apply(variables, {"source": SOURCE[:, :0], "target": TARGET}, train=False)
    with pytest.raises(ValueError, match="same batch size"):
        MODEL.apply(variables, {"source": SOURCE[:2], "target": TARGET}, train=False)
    with pytest.raises(ValueError, match=r"got \['source'\]"):
        MODEL.apply(variables, {"source": SOURCE}, train=False)
    with pytest.raises(TypeError, match="source must be integers"):
        MODEL.apply(variables, {"source": SOURCE.astype(np.float32), "target": TARGET}, train=False)


@pytest.mark.parametrize("unknown", [VOCABULARY, -1])
def test_an_unknown_token_is_reported_as_nan_by_its_own_sentence_alone(variables, unknown):
    for name, ids, token in (("source", SOURCE, 9), ("target", TARGET, 8)):
        beyond = {**INPUTS, name: np.where(ids == token, unknown, ids)}
        bad = np.isnan(apply(variables, beyond, train=False)[0].logits).any((1, 2))
        assert bad.tolist() == [False, True, False]
