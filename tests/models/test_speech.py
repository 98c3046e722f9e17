"""The speech recogniser: its convolutions against plain numpy, lengths by masks, decoding equal to teacher forcing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models import speech

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
TINY = {"size": "tiny", "width": 8, "num_layers": 1, "num_heads": 2, "hidden": 12}
MODEL = speech.make(7, **TINY, max_frames=12, max_length=6)
FRAMES, LENGTH = 9, np.array([9, 5, 0], np.int32)
SOURCE = np.random.default_rng(0).normal(size=(3, FRAMES, 4)).astype(np.float32)
TARGET = np.array([[1, 5, 6, 2], [1, 3, 2, 0], [1, 3, 4, 4]], np.int32)
INPUTS = {"source": SOURCE, "length": LENGTH, "target": TARGET}
apply = jit(MODEL.apply, static_argnames="train")


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(2)
    fresh = jit(MODEL.init)(jax.random.key(4), INPUTS)
    return jax.tree.map(lambda a: a + jnp.asarray(0.3 * rng.normal(size=a.shape), a.dtype), fresh)


@pytest.mark.parametrize("frames", [1, 4, 5])
def test_convolution_equals_plain_numpy(frames):
    layer, x = speech.StridedConvolution(3), SOURCE[:, :frames]
    mask = np.arange(frames)[None] < np.array([frames, 2, 0])[:, None]
    params = layer.init(jax.random.key(0), x, mask)
    found, left = layer.apply(params, x, mask)
    kernel = np.asarray(params["params"]["Dense_0"]["kernel"]).reshape(3, 4, 3)
    for row in range(3):
        for step in range(-(-frames // 2)):
            total = np.zeros(3)
            for shift in range(3):
                place = 2 * step + shift - 1
                if 0 <= place < frames and mask[row, place]:
                    total += x[row, place] @ kernel[shift]
            np.testing.assert_allclose(found[row, step], jax.nn.gelu(total.astype(np.float32)), atol=1e-5)
            assert bool(left[row, step]) == bool(mask[row, 2 * step])


def test_what_lies_beyond_the_length_changes_nothing(variables):
    whole = apply(variables, INPUTS, train=False)[0]
    assert whole.logits.shape == (3, 4, 7) and whole.penultimate.shape == (3, 4, 8)
    assert np.isfinite(whole.logits).all()
    noise = np.where(np.arange(FRAMES)[None, :, None] < LENGTH[:, None, None], SOURCE, 100.0)
    longer = {**INPUTS, "source": np.pad(noise, ((0, 0), (0, 3), (0, 0)), constant_values=7.0).astype(np.float32)}
    np.testing.assert_allclose(apply(variables, longer, train=False)[0].logits, whole.logits, atol=1e-5)
    other = apply(variables, {**INPUTS, "source": -SOURCE}, train=False)[0].logits
    assert not np.allclose(other[:2], whole.logits[:2], atol=1e-3)
    np.testing.assert_allclose(other[2], whole.logits[2], atol=1e-6)  # no frame at all
    weights, bias = MODEL.templates(variables)
    np.testing.assert_allclose(whole.logits, whole.penultimate @ weights.T + bias[None, None], atol=1e-5)


def test_steps_equal_the_teacher_forced_pass(variables):
    whole = apply(variables, INPUTS, train=False)[0].logits
    encode = jit(functools.partial(MODEL.decoding.encode, num_hypotheses=1, length=5))
    step, same = jit(MODEL.decoding.decode_step), np.zeros((3, 1), np.int32)
    cache = encode(variables, {"source": SOURCE, "length": LENGTH})
    for index in range(4):
        logits, cache = step(variables, cache, TARGET[:, index : index + 1], same, np.int32(index))
        np.testing.assert_allclose(logits[:, 0], whole[:, index], rtol=1e-5, atol=1e-5)


def test_dropout_and_members(variables):
    keys = {"dropout": jax.random.split(jax.random.key(0), 3)}
    plain = apply(variables, INPUTS, train=False)[0].logits
    assert not np.allclose(apply(variables, INPUTS, train=True, rngs=keys)[0].logits, plain, atol=1e-3)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), variables)
    both = jit(jax.vmap(lambda v: MODEL.apply(v, INPUTS, train=False)[0].logits))(stacked)
    np.testing.assert_allclose(both[0], plain, atol=2e-5)


def test_without_lengths_every_frame_counts(variables):
    whole = apply(variables, {**INPUTS, "length": np.full(3, FRAMES, np.int32)}, train=False)[0].logits
    absent = {name: value for name, value in INPUTS.items() if name != "length"}
    np.testing.assert_allclose(apply(variables, absent, train=False)[0].logits, whole, atol=1e-6)


@pytest.mark.parametrize("unknown", [7, -1])
def test_an_unknown_token_is_reported_as_nan_by_its_own_utterance_alone(variables, unknown):
    target = np.array(TARGET)
    target[1, 0] = unknown
    bad = np.isnan(apply(variables, {**INPUTS, "target": target}, train=False)[0].logits).any((1, 2))
    assert bad.tolist() == [False, True, False]


def test_bad_inputs_are_named(variables):
    for change, error, message in (
        ({"source": SOURCE.astype(np.int32)}, TypeError, "floating point"),
        ({"source": SOURCE[..., 0]}, ValueError, r"\[B, T, F\]"),
        ({"source": SOURCE[:, :0]}, ValueError, "at least one frame"),
        ({"source": np.zeros((3, 13, 4), np.float32)}, ValueError, "at most 12 frames"),
        ({"length": LENGTH[:2]}, ValueError, "same batch size"),
        ({"length": LENGTH.astype(np.float32)}, TypeError, "length must be integers"),
        ({"target": np.ones((3, 7), np.int32)}, ValueError, "target must have at most 6 positions"),
    ):
        with pytest.raises(error, match=message):
            MODEL.apply(variables, {**INPUTS, **change}, train=False)
    with pytest.raises(ValueError, match=r"got \['target'\]"):
        MODEL.apply(variables, {"target": TARGET}, train=False)
    with pytest.raises(ValueError, match="size must be one of"):
        speech.make(7, size="giant")
