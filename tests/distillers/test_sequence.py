"""What the sequence forms must satisfy, run over all of them."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import end, end2, proxy, sequence, supervised
from edd.experiments import build
from edd.models.base import Outputs

M, B, L, K = 4, 3, 5, 6
SINGLE = {
    "end": functools.partial(end.make, temperature=2.0),
    "end2": end2.make,
    "end2_annealed": functools.partial(end2.make, initial_temperature=10.0, hold_steps=2, decay_steps=4),
    "proxy": proxy.make,
    "proxy_paper": functools.partial(proxy.make, prior="paper", estimator="epkl"),
    "forward_proxy": functools.partial(proxy.make, direction="forward"),
}
METHODS = {name: sequence.per_step(make) for name, make in SINGLE.items()}
LENGTHS = np.array([L, 2, 0])


def arrays(seed=0, members=M):
    rng = np.random.default_rng(seed)
    labels = np.where(np.arange(L)[None] < LENGTHS[:, None], rng.integers(0, K, (B, L)), -1)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return draw(members, B, L, K), draw(B, L, K), jnp.asarray(labels, jnp.int32)


def losses(distiller, logits, member_logits, labels, targets=None):
    params, state = distiller.init(jax.random.key(0))
    targets = distiller.targets(member_logits) if targets is None else targets
    return distiller.loss(Outputs(logits, logits), targets, params, state, labels, jax.random.split(jax.random.key(1), len(logits)))


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def test_a_sequences_loss_is_the_mean_of_its_valid_steps_losses(name):
    member_logits, logits, labels = arrays()
    got = losses(METHODS[name](M, K), logits, member_logits, labels)
    flat = losses(SINGLE[name](M, K), logits.reshape(B * L, K), member_logits.reshape(M, B * L, K), labels.reshape(-1)).reshape(B, L)
    assert got.shape == (B,) and got[2] == 0
    for b, length in enumerate(LENGTHS[:2]):
        np.testing.assert_allclose(got[b], flat[b, :length].mean(), rtol=1e-5)
    weights = sequence.valid_steps(labels)
    np.testing.assert_allclose((got * weights).sum() / weights.sum(), flat[labels >= 0].mean(), rtol=1e-5)  # the mean over tokens


def test_padding_reaches_neither_value_nor_gradient(name):
    member_logits, logits, labels = arrays()
    distiller = METHODS[name](M, K)
    targets = distiller.targets(member_logits)
    for leaf in jax.tree.leaves(targets):
        assert leaf.shape[:2] == (B, L)
    step = jax.jit(jax.value_and_grad(lambda z: losses(distiller, z, None, labels, targets).sum()))
    value, slope = step(logits)
    again = step(jnp.where((labels >= 0)[..., None], logits, jnp.nan))
    np.testing.assert_array_equal(value, again[0])
    np.testing.assert_array_equal(slope, again[1])
    assert (
        bool((slope[labels < 0] == 0).all()) and bool((jnp.abs(slope[labels >= 0]) > 0).any(-1).all()) and bool(jnp.isfinite(slope).all())
    )


def test_predictions_are_those_of_the_steps_and_identical_members_are_fine(name):
    member_logits, logits, labels = arrays(members=1)
    single, distiller = SINGLE[name](M, K), METHODS[name](M, K)
    params, state = distiller.init(jax.random.key(0))
    prediction = distiller.predict(Outputs(logits, logits), params, state, jax.random.key(1))
    want = single.predict(Outputs(logits[1], logits[1]), params, state, jax.random.key(1))
    for one, other in zip(prediction, want, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape[:2] == (B, L)
            np.testing.assert_allclose(one[1], other, rtol=1e-5, atol=1e-6)
    assert bool(jnp.isfinite(losses(distiller, logits, jnp.repeat(member_logits, M, 0), labels)).all())


@pytest.mark.parametrize("make", [sequence.make_end, sequence.make_proxy])
def test_compressed_targets_are_small_and_near(make):
    member_logits, logits, labels = arrays()
    member_logits = 3 * member_logits
    whole, nearly, small = (make(M, K, top_k=k) for k in (None, K - 1, 2))
    exact = losses(whole, logits, member_logits, labels)
    np.testing.assert_allclose(losses(nearly, logits, member_logits, labels), exact, rtol=1e-5)  # one class left out: nothing is lost
    assert 1e-4 < float(jnp.abs(losses(small, logits, member_logits, labels) - exact).max()) < 0.5
    kept = jax.tree.leaves(small.targets(member_logits))
    assert max(leaf.size for leaf in kept) == 2 * B * L


def test_options_are_those_of_the_method_and_top_k():
    assert {*inspect.signature(proxy.make).parameters, *sequence.EXTRA} == {*inspect.signature(sequence.make_proxy).parameters}
    assert sequence.make_end(M, K, chunk_size=3).chunk_size == 3 and sequence.make_end2(M, K).chunk_size is None
    bound = build.bind(sequence.make_end2, "method", {"target_smoothing": 1e-4})
    assert bound(M, K).targets is not None
    with pytest.raises(ValueError, match="temperature"):
        sequence.make_end(M, K, temperature=-1.0)


def test_bad_input_is_named():
    member_logits, logits, labels = arrays()
    distiller = sequence.make_end(M, K)
    with pytest.raises(ValueError, match=r"member logits must be \[M, B, L, K\]"):
        distiller.targets(member_logits[:, 0])
    for wrong in (None, labels[:, 1:]):
        with pytest.raises(ValueError, match="labels must be"):
            losses(distiller, logits, member_logits, wrong)
    with pytest.raises(ValueError, match="chunk_size must be an integer of at least 1, got 0"):
        sequence.make_end2(M, K, chunk_size=0)
    for wrong in (0, -1, True, 2.0):
        with pytest.raises(ValueError, match=f"top_k must be an integer of at least 1, got {wrong}"):
            sequence.make_proxy(M, K, top_k=wrong)
    with pytest.raises(ValueError, match="top_k must be below the 6 classes, got 6"):
        sequence.make_end(M, K, top_k=K)
    with pytest.raises(ValueError, match="top_k must be None for EnD2"):
        sequence.make_end2(M, K, top_k=3)
    with pytest.raises(ValueError, match="needs a method with targets"):
        sequence.per_step(supervised.make)(M, K)
