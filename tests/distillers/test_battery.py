"""What every method must satisfy, run over all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import edfm, end, end2, knowledge_distillation, mimo, proxy, supervised
from edd.models import mlp
from edd.models.base import Outputs

M, B, K = 4, 5, 3
METHODS = {
    "supervised": functools.partial(supervised.make, smoothing=0.1),
    "end": end.make,
    "end_tempered": functools.partial(end.make, temperature=2.5),
    "knowledge_distillation": functools.partial(knowledge_distillation.make, beta=0.6, teacher_temperature=2.0),
    "squared_logits": functools.partial(knowledge_distillation.make, beta=0.6, form="logits"),
    "end2": end2.make,
    "end2_annealed": functools.partial(end2.make, initial_temperature=10.0, hold_steps=2, decay_steps=4),
    "proxy": proxy.make,
    "proxy_paper": functools.partial(proxy.make, prior="paper", estimator="epkl"),
    "proxy_no_offset": functools.partial(proxy.make, offset=0.0, target_offset=0.0),
    "forward_proxy": functools.partial(proxy.make, direction="forward"),
    "mimo": mimo.make,
    "mimo_mean": functools.partial(mimo.make, num_inputs=3, reduction="mean"),
    "edfm": functools.partial(edfm.make, num_features=6, widths=(8,)),
    "edfm_draws": functools.partial(edfm.make, num_features=6, widths=(8,), num_draws=4),
}
DRAWING = ("edfm", "edfm_draws")  # losses that draw members at random: their order matters for one draw, not for the mean


@pytest.fixture(params=METHODS)
def distiller(request):
    return METHODS[request.param](M, K)


def arrays(distiller, seed=0, members=M):
    """Members' logits [M, B, K], outputs of as many columns as the method asks its backbone for, labels (one per network input)."""
    rng = np.random.default_rng(seed)
    member_logits = jnp.asarray(rng.normal(size=(members, B, K)), jnp.float32)
    asked = []
    distiller.student(lambda num_outputs: asked.append(num_outputs) or mlp.make(num_outputs))
    logits = jnp.asarray(rng.normal(size=(B, *asked)), jnp.float32)
    per_input = () if distiller.multi_input is None else (distiller.multi_input.num_inputs,)
    return member_logits, logits, jnp.asarray(rng.integers(0, K, (B, *per_input)), jnp.int32)


def loss_of(distiller, logits, member_logits, labels, examples=slice(None)):
    params, state = distiller.init(jax.random.key(0))
    targets = None if distiller.targets is None else distiller.targets(member_logits)
    keys = jax.random.split(jax.random.key(1), B)[examples]
    return distiller.loss(Outputs(logits, logits), targets, params, state, labels, keys)


def test_loss_is_per_example_and_finite_with_finite_gradients(distiller):
    member_logits, logits, labels = arrays(distiller)
    values = loss_of(distiller, logits, member_logits, labels)
    assert values.shape == (B,) and bool(jnp.isfinite(values).all())
    gradient = jax.grad(lambda z: loss_of(distiller, z, member_logits, labels).sum())(logits)
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 1e-4


def test_targets_put_examples_first_and_ignore_member_order(distiller, request):
    if distiller.targets is None:
        pytest.skip("trains on labels")
    member_logits, logits, labels = arrays(distiller)
    for leaf in jax.tree.leaves(distiller.targets(member_logits)):
        assert leaf.shape[0] == B
    if request.node.callspec.params["distiller"] in DRAWING:
        return
    np.testing.assert_allclose(
        loss_of(distiller, logits, member_logits, labels), loss_of(distiller, logits, member_logits[::-1], labels), rtol=2e-6, atol=1e-6
    )


def test_losses_of_a_batch_are_the_losses_of_its_examples(distiller):
    member_logits, logits, labels = arrays(distiller)
    whole = loss_of(distiller, logits, member_logits, labels)
    parts = [loss_of(distiller, logits[i : i + 1], member_logits[:, i : i + 1], labels[i : i + 1], slice(i, i + 1))[0] for i in range(B)]
    np.testing.assert_allclose(whole, jnp.stack(parts), rtol=2e-6, atol=1e-6)


def test_prediction_is_normalised_and_its_measures_are_consistent(distiller):
    _, logits, _ = arrays(distiller)
    params, state = distiller.init(jax.random.key(0))
    prediction = distiller.predict(Outputs(logits, logits), params, state, jax.random.key(1))
    np.testing.assert_allclose(jnp.exp(prediction.log_probs).sum(-1), 1.0, rtol=1e-5)
    if logits.shape[-1] == K:
        np.testing.assert_allclose(prediction.log_probs, jax.nn.log_softmax(logits), rtol=1e-5, atol=1e-6)
    assert prediction.total.shape == (B,)
    if prediction.mutual_information is not None:
        np.testing.assert_allclose(prediction.total - prediction.data, prediction.mutual_information, rtol=1e-4, atol=1e-6)
        sums = prediction.mutual_information + prediction.reverse_mutual_information
        np.testing.assert_allclose(prediction.expected_pairwise_kl, sums, rtol=1e-5)


def test_one_member_and_identical_members_give_finite_losses(distiller):
    member_logits, logits, labels = arrays(distiller, members=1)
    for count in (1, 3):
        values = loss_of(distiller, logits, jnp.repeat(member_logits, count, 0), labels)
        assert bool(jnp.isfinite(values).all())


def test_it_works_inside_jit_with_vmap_over_students(distiller):
    member_logits, logits, labels = arrays(distiller)
    many = jnp.stack([logits, 2.0 * logits])
    mapped = jax.jit(jax.vmap(lambda z: loss_of(distiller, z, member_logits, labels)))(many)
    np.testing.assert_allclose(mapped[1], loss_of(distiller, many[1], member_logits, labels), rtol=2e-5, atol=1e-6)


def test_sequence_shaped_batches_pass_through(distiller, request):
    member_logits, logits, labels = arrays(distiller)
    twice = lambda x, axis: jnp.stack([x, x], axis)  # noqa: E731
    values = loss_of(distiller, twice(logits, 1), twice(member_logits, 2), twice(labels, 1))
    assert values.shape == (B, 2)
    if request.node.callspec.params["distiller"] in DRAWING:
        return
    np.testing.assert_allclose(values[:, 0], loss_of(distiller, logits, member_logits, labels), rtol=2e-5, atol=1e-6)
