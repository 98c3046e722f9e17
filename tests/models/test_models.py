"""Every backbone through one battery: templates, determinism, per-example dropout, the member axis, errors."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models import alexnet, cifar_resnet, cnn, inception_v4, maxvit, mlp, mobilenet_v2, resnet, wide_resnet
from edd.models.base import Model


@dataclasses.dataclass(frozen=True)
class Case:
    make: Callable
    input_shape: tuple[int, ...]
    batch_norm: bool
    dropout: bool
    penultimate: int


IMAGE = (8, 8, 3)
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is most of these tests' time
CASES = {
    "mlp": Case(lambda **k: mlp.make(5, widths=(16, 8), dropout=0.4, **k), (4,), False, True, 8),
    "mlp_layer_norm": Case(lambda **k: mlp.make(5, widths=(16,), layer_norm=True, activation="gelu", **k), (2, 3), False, False, 16),
    "mlp_batch_norm": Case(lambda **k: mlp.make(5, widths=(16,), batch_norm=True, **k), (4,), True, False, 16),
    "linear": Case(lambda **k: mlp.make(5, widths=(), **k), (4,), False, False, 4),
    "cnn": Case(lambda **k: cnn.make(5, channels=(4, 6), hidden=12, dropout=0.4, **k), IMAGE, False, True, 12),
    "cnn_batch_norm": Case(
        lambda **k: cnn.make(5, channels=(4,), kernels=(3,), hidden=12, batch_norm=True, dropout=0.4, downsample="max_pool", **k),
        (9, 9, 1), True, True, 12,
    ),
    "alexnet": Case(lambda **k: alexnet.make(5, channels=(4, 6), hidden=(12, 8), **k), IMAGE, False, False, 8),
    "inception_v4": Case(
        lambda **k: inception_v4.make(5, blocks=(1, 0, 0), width=0.03, dropout=0.4, momentum=0.9, **k), (75, 75, 3), True, True, 48
    ),
    "wide_resnet": Case(lambda **k: wide_resnet.make(5, depth=10, widen=1, dropout=0.4, **k), IMAGE, True, True, 64),
    "he_resnet_a": Case(lambda **k: cifar_resnet.make(5, depth=8, widths=(16, 19, 24), **k), IMAGE, True, False, 24),
    "he_resnet_b": Case(lambda **k: cifar_resnet.make(5, depth=8, widths=(8, 12, 16), shortcut="B", **k), IMAGE, True, False, 16),
    "pre_activation_resnet": Case(
        lambda **k: cifar_resnet.make(5, depth=8, widths=(8, 12, 16), pre_activation=True, **k), IMAGE, True, False, 16
    ),
    "resnet": Case(
        lambda **k: resnet.make(5, blocks=(1, 1), channels=8, width=32, groups=2, stem="cifar", **k), IMAGE, True, False, 64
    ),
    "mobilenet_v2": Case(
        lambda **k: mobilenet_v2.make(5, stages=((1, 8, 1, 1), (2, 16, 1, 2)), width=0.5, last=16, **k), IMAGE, True, False, 16
    ),
    "maxvit": Case(lambda **k: maxvit.make(5, image_size=64, channels=(8,), depths=(1,), stem=4, head_dim=4, **k), IMAGE, True, False, 8),
}  # fmt: skip
BATCH = 6


def data(case, batch=BATCH, seed=0):
    return jax.random.normal(jax.random.key(seed), (batch, *case.input_shape))


def moved(variables):
    """Variables whose biases, scales and running statistics are away from their start, so that a forgotten one shows."""
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda a: a + 0.1 * np.abs(rng.normal(size=a.shape)).astype(np.float32) if a.ndim == 1 else a, variables)


def dropout_keys(batch=BATCH, seed=3):
    return {"dropout": jax.random.split(jax.random.key(seed), batch)}


class Setting(NamedTuple):
    case: Case
    model: Model
    fresh: dict
    variables: dict
    apply: Callable


@pytest.fixture(params=CASES, scope="module")
def setting(request):
    case = CASES[request.param]
    model = case.make()
    fresh = jit(model.init)(jax.random.key(4), data(case))
    return Setting(case, model, fresh, moved(fresh), jit(model.apply, static_argnames="train"))


def test_templates_give_the_logits(setting):
    case, model, _, variables, apply = setting
    outputs, state = apply(variables, data(case), train=False, rngs=None)
    weights, bias = model.templates(variables)
    assert outputs.logits.shape == (BATCH, 5) and outputs.penultimate.shape == (BATCH, case.penultimate)
    assert weights.shape == (5, case.penultimate) and bias.shape == (5,)
    assert outputs.logits.dtype == outputs.penultimate.dtype == jnp.float32
    assert outputs.positions is None and state == {}
    expected = np.asarray(outputs.penultimate, np.float64) @ np.asarray(weights, np.float64).T + np.asarray(bias, np.float64)
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5, atol=1e-5)
    assert np.std(outputs.logits, axis=0).min() > 1e-4, "the logits must depend on the inputs"


def test_evaluation_is_deterministic_and_ignores_the_rest_of_the_batch(setting):
    case, _, _, variables, apply = setting
    inputs = data(case)
    whole = apply(variables, inputs, train=False, rngs=None)[0].logits
    with_keys = apply(variables, inputs, train=False, rngs=dropout_keys())[0].logits
    reversed_batch = apply(variables, inputs[::-1], train=False, rngs=None)[0].logits
    np.testing.assert_array_equal(whole, with_keys)
    np.testing.assert_allclose(whole, reversed_batch[::-1], rtol=1e-5, atol=1e-6)


def test_training_pass_updates_running_statistics_only_with_batch_norm(setting):
    case, _, _, variables, apply = setting
    _, state = apply(variables, data(case), train=True, rngs=dropout_keys())
    if not case.batch_norm:
        assert state == {} and set(variables) == {"params"}
        return
    assert set(state) == {"batch_stats"}
    before, after = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(state["batch_stats"])
    assert jax.tree.structure(variables["batch_stats"]) == jax.tree.structure(state["batch_stats"])
    assert all(not np.array_equal(b, a) for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize("setting", [name for name, case in CASES.items() if case.dropout], indirect=True)
def test_dropout_depends_on_the_examples_own_key_alone(setting):
    case, _, _, variables, apply = setting
    inputs, keys = data(case), dropout_keys()["dropout"]
    first = apply(variables, inputs, train=True, rngs={"dropout": keys})[0].penultimate
    other = apply(variables, inputs, train=True, rngs={"dropout": keys.at[0].set(jax.random.key(99))})[0].penultimate
    assert not np.allclose(first[0], other[0])
    if not case.batch_norm:  # else the batch's statistics couple the examples
        np.testing.assert_array_equal(first[1:], other[1:])
        order = jnp.array([3, 0, 5, 1, 2, 4])
        shuffled = apply(variables, inputs[order], train=True, rngs={"dropout": keys[order]})[0].penultimate
        np.testing.assert_allclose(shuffled, first[order], rtol=1e-5, atol=1e-6)


def test_dropout_without_keys_is_an_error(setting):
    case, model, _, variables, _ = setting
    if not case.dropout:
        outputs, _ = jax.eval_shape(functools.partial(model.apply, train=True, rngs=None), variables, data(case))
        assert outputs.logits.shape == (BATCH, 5)
        return
    with pytest.raises(ValueError, match="one typed key per example"):
        model.apply(variables, data(case), train=True, rngs=None)
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        model.apply(variables, data(case), train=True, rngs=dropout_keys(BATCH - 1))


def test_one_member_under_vmap_equals_the_plain_network(setting):
    case, model, fresh, variables, apply = setting
    inputs, keys = data(case), dropout_keys()["dropout"]
    stacked = jit(jax.vmap(model.init, (0, None)))(jax.random.key(4)[None], inputs)
    assert jax.tree.structure(fresh) == jax.tree.structure(stacked)
    for a, b in zip(jax.tree.leaves(fresh), jax.tree.leaves(stacked), strict=True):
        np.testing.assert_allclose(a[None], b, rtol=1e-6, atol=1e-7)

    def member(variables, x, k):
        return model.apply(variables, x, train=True, rngs={"dropout": k})

    alone = apply(variables, inputs, train=True, rngs={"dropout": keys})
    first = jit(jax.vmap(member))(jax.tree.map(lambda a: a[None], variables), inputs[None], keys[None])
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(first), strict=True):
        np.testing.assert_allclose(a[None], b, rtol=2e-5, atol=2e-5)


def test_wrong_inputs_are_named(setting):
    case, model, _, variables, _ = setting
    with pytest.raises(ValueError, match="inputs must be a batch"):
        model.apply(variables, jnp.zeros((3,)), train=False, rngs=None)
    with pytest.raises(ValueError, match="inputs must be a batch"):
        model.init(jax.random.key(0), jnp.zeros((3,)))
    if len(case.input_shape) == 3:
        with pytest.raises(ValueError, match=r"got shape \(6, 8, 8\)"):
            model.apply(variables, jnp.zeros((6, 8, 8)), train=False, rngs=None)
    with pytest.raises(TypeError, match="preprocess"):
        model.apply(variables, jnp.zeros((2, *case.input_shape), jnp.uint8), train=False, rngs=None)


def test_init_depends_on_the_key_and_the_examples_shape_alone(setting):
    case, model, fresh, _, _ = setting
    init = jit(model.init)
    from_bytes = init(jax.random.key(4), jnp.full((1, *case.input_shape), 7, jnp.uint8))
    for a, b in zip(jax.tree.leaves(fresh), jax.tree.leaves(from_bytes), strict=True):
        np.testing.assert_array_equal(a, b)
    other = init(jax.random.key(5), jnp.full((1, *case.input_shape), 7, jnp.uint8))
    assert not np.array_equal(model.templates(fresh)[0], model.templates(other)[0])


@pytest.mark.parametrize("name", ["mlp", "cnn_batch_norm", "mobilenet_v2", "maxvit"])
def test_half_precision_keeps_parameters_and_logits_in_float32(name):
    case = CASES[name]
    model, exact = case.make(dtype=jnp.bfloat16), case.make()
    variables = moved(jit(exact.init)(jax.random.key(1), data(case)))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), data(case)))} == {"float32"}
    half, whole = (jit(m.apply, static_argnames="train")(variables, data(case), train=False, rngs=None)[0] for m in (model, exact))
    assert half.logits.dtype == half.penultimate.dtype == jnp.float32
    error = float(jnp.max(jnp.abs(half.logits - whole.logits)))
    assert 0 < error < 0.1 * float(jnp.max(jnp.abs(whole.logits)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp.make(0), "num_classes must be at least 1"),
        (lambda: mlp.make(3, widths=(8, 0)), "widths must be at least 1"),
        (lambda: mlp.make(3, widths=8), "widths must be a list of integers, got 8"),
        (lambda: mlp.make(3, widths=(8, 4.5)), "widths must be a list of integers"),
        (lambda: mlp.make(3, dropout=1.0), r"dropout must lie in \[0, 1\)"),
        (lambda: mlp.make(3, activation="swish"), "gelu, relu, tanh, got 'swish'"),
        (lambda: cnn.make(3, channels=(4,)), "same length"),
        (lambda: cnn.make(3, channels=(), kernels=()), "same length"),
        (lambda: cnn.make(3, downsample="pool"), '"stride" or "max_pool"'),
        (lambda: cnn.make(3, hidden=0), "hidden must be at least 1"),
        (lambda: wide_resnet.make(3, depth=20), "6 n [+] 4"),
        (lambda: wide_resnet.make(3, widen=0), "widen must be at least 1"),
        (lambda: wide_resnet.make(3, momentum=1.5), "momentum"),
        (lambda: cifar_resnet.make(3, depth=28), "6 n [+] 2"),
        (lambda: cifar_resnet.make(3, shortcut="C"), '"A" or "B"'),
        (lambda: cifar_resnet.make(3, widths=(8, 16, 32)), "must not shrink"),
        (lambda: cifar_resnet.make(3, widths=(16, 32)), "widths must be three"),
        (lambda: resnet.make(3, depth=20), "depth must be one of 18, 34, 50, 101, 152, got 20"),
        (lambda: resnet.make(3, depth=18, groups=2), "width and groups must be 64 and 1 at depth 18"),
        (lambda: resnet.make(3, channels=8, width=4), "must be at least 64, got 8 [*] 4"),
        (lambda: resnet.make(3, stem="large"), "stem must be one of imagenet, cifar"),
        (lambda: resnet.make(3, blocks=(1, 0)), "blocks must be at least 1"),
        (lambda: mobilenet_v2.make(3, width=0.0), "width must be positive"),
        (lambda: mobilenet_v2.make(3, padding="valid"), "padding must be one of symmetric, same"),
        (lambda: mobilenet_v2.make(3, stages=((1, 16, 1),)), "rows [(]expansion, channels, blocks, stride[)]"),
        (lambda: maxvit.make(3, size="huge"), "size must be one of tiny, small, base, large, xlarge"),
        (lambda: maxvit.make(3, image_size=240), "image_size must be a multiple of 32, got 240"),
        (lambda: maxvit.make(3, channels=(32, 64)), "as many, one per stage"),
        (lambda: maxvit.make(3, channels=(40,), depths=(1,)), "multiples of head_dim 32"),
    ],
)  # fmt: skip
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_kernel_of_an_mlp_starts_with_the_given_variance():
    params = mlp.make(200, widths=(300, 200), variance=0.03).init(jax.random.key(0), jnp.zeros((1, 100)))["params"]
    kernels = [np.asarray(layer["kernel"]) for layer in params.values()]
    assert [kernel.shape for kernel in kernels] == [(100, 300), (300, 200), (200, 200)]
    for kernel in kernels:  # 30,000 entries or more: the variance's relative standard error is at most 0.8 %
        np.testing.assert_allclose(kernel.var(), 0.03, rtol=0.04)
    with pytest.raises(ValueError, match="variance must be positive"):
        mlp.make(3, variance=0.0)
