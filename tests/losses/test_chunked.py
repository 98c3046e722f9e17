"""Chunks over time against the whole at once, values and gradients; and what the compiler says about memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.losses import chunked, distillation, distribution, proxy

M, B, L, D, V = 3, 2, 5, 4, 7
log_softmax = jax.nn.log_softmax

TARGETS = {
    "end": distillation.log_mean_probs,
    "end2": lambda logits: distribution.mean_log_probs(log_softmax(logits), target_smoothing=1e-3),
    "proxy": lambda logits: proxy.proxy_target(log_softmax(logits)),
}
LOSSES = {
    "end": distillation.end_from_log_mean_probs,
    "end2": distribution.end2_from_mean_log_probs,
    "proxy": functools.partial(proxy.reverse_kl, prior="authors"),
}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def arrays():
    """(student: states, weights, bias), (members: states, weights, biases), a mask with an empty sequence's worth of padding."""
    student = normal(0, B, L, D), normal(1, V, D), normal(2, V)
    members = normal(3, M, B, L, D + 1), normal(4, M, V, D + 1), normal(5, M, V)
    return student, members, np.arange(L)[None] < np.array([[L], [2]])


def member_logits(states, weights, biases):
    return jnp.stack([states[m] @ weights[m].T + biases[m].reshape(1, 1, -1) for m in range(M)])


def whole(method, student, members, mask):
    states, weights, bias = student
    logits = states @ weights.T + bias.reshape(1, 1, -1)
    return jnp.where(mask, LOSSES[method](logits, TARGETS[method](member_logits(*members))), 0)


@pytest.mark.parametrize("method", TARGETS)
@pytest.mark.parametrize("chunk_size", [1, 2, 99])
def test_targets_are_those_of_all_steps_at_once(method, chunk_size):
    _, members, _ = arrays()
    got = chunked.member_targets(TARGETS[method], *members, chunk_size=chunk_size)
    want = TARGETS[method](member_logits(*members))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("method", TARGETS)
def test_losses_and_gradients_are_those_of_all_steps_at_once(method):
    student, members, mask = arrays()
    importance = normal(6, B, L)
    targets = TARGETS[method](member_logits(*members))

    def stored(states, weights, bias):
        return chunked.from_states(LOSSES[method], states, weights, targets, bias, mask=mask, chunk_size=2)

    def on_the_fly(states, weights, bias):
        return chunked.distillation_from_states(
            LOSSES[method], TARGETS[method], states, weights, *members[:2], bias, members[2], mask=mask, chunk_size=2
        )

    def evaluated(function):
        def weighted(*student):
            losses = function(*student)
            return (importance * losses).sum(), losses

        return jax.jit(jax.grad(weighted, (0, 1, 2), has_aux=True))(*student)

    want = evaluated(lambda *student: whole(method, student, members, mask))
    for function in (stored, on_the_fly):
        got = evaluated(function)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert (np.asarray(got[0][0])[~mask] == 0).all()  # padding has no slope


def test_what_stands_at_padding_does_not_matter():
    (states, weights, bias), members, mask = arrays()
    targets = TARGETS["proxy"](member_logits(*members))
    junk = jnp.where(mask[..., None], states, jnp.nan)

    def loss(states, weights):
        return chunked.from_states(LOSSES["proxy"], states, weights, targets, bias, mask=mask, chunk_size=2).sum()

    for one, other in zip(jax.grad(loss, (0, 1))(states, weights), jax.grad(loss, (0, 1))(junk, weights)):
        np.testing.assert_array_equal(one, other)


def test_members_never_all_exist_at_the_sizes_of_translation():
    """M = 10, B = 32, L = 64, V = 32,000, compiled and not run, in units of one [B, L, V] buffer (262 MB): all members would be 10."""
    members, batch, length, width, words = 10, 32, 64, 512, 32_000
    unit = 4 * batch * length * words
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)  # noqa: E731
    teacher = shape(members, batch, length, width), shape(members, words, width)
    student = shape(batch, length, width), shape(words, width)

    def memory(function, *arguments):
        analysis = jax.jit(function).lower(*arguments).compile().memory_analysis()
        return analysis.temp_size_in_bytes / unit, analysis.output_size_in_bytes / unit

    temporary, output = memory(functools.partial(chunked.member_targets, TARGETS["proxy"]), *teacher)
    assert temporary < 0.75 and output < 1.01

    def step(states, weights, log_mean_probs, precision):
        target = proxy.ProxyTarget(log_mean_probs, precision)
        return chunked.from_states(LOSSES["proxy"], states, weights, target).mean()

    stored = shape(batch, length, words), shape(batch, length)
    assert memory(jax.value_and_grad(step, (0, 1)), *student, *stored)[0] < 0.5  # 1/4 is the output matrix's gradient

    def fused(states, weights, *teacher):
        return chunked.distillation_from_states(LOSSES["proxy"], TARGETS["proxy"], states, weights, *teacher).mean()

    assert memory(jax.value_and_grad(fused, (0, 1)), *student, *teacher)[0] < 1.5  # targets and gradients of 32,000 classes at once


def test_bad_input_is_named():
    (states, weights, bias), members, mask = arrays()
    target = TARGETS["end"](member_logits(*members))
    from_states = functools.partial(chunked.from_states, LOSSES["end"])
    cases = [
        (lambda: from_states(states, weights, target, chunk_size=0), "chunk_size must be an integer >= 1, got 0"),
        (lambda: from_states(states, weights.T, target), "weights must have shape"),
        (lambda: from_states(states, weights, target[:, 1:]), "targets must be"),
        (lambda: from_states(states, weights, target, bias[1:]), "bias must have shape"),
        (lambda: from_states(states, weights, target, mask=mask[1:]), "mask must have shape"),
        (lambda: chunked.member_targets(TARGETS["end"], members[0], members[1][1:]), "member_weights must have shape"),
        (lambda: chunked.over_time(lambda x: x, jnp.zeros((2, 0)), 1), "at least 1"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
