"""A body that members share: one copy in the compiled step whatever their number, untouched by training, absent from the state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import end, supervised
from edd.models import bert
from edd.models.base import bind
from edd.training import evaluation, mesh, optimizers, state, step

LENGTH, BATCH = 5, 4
SIZES = {"vocab_size": 3000, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def size(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def setting(num_members: int, **options):
    model, distiller = bert.make(2, architecture={**SIZES, "max_position_embeddings": 8}, rank=2, **options), supervised.make(0, 2)
    optimizer, devices = optimizers.make("adam", 0.1, total_steps=5), mesh.make(member=1, data=1)
    example = jax.ShapeDtypeStruct((1, LENGTH, 2), jnp.int32)
    first = state.init(model, distiller, optimizer, devices, jax.random.key(0), example, num_replicas=num_members)
    fn = step.make_train_step(model, distiller, optimizer, devices, num_replicas=num_members, batch_size=BATCH)
    rng = np.random.default_rng(0)
    batch = {
        "inputs": rng.integers(0, 2, (num_members, BATCH, LENGTH, 2)).astype(np.int32),
        "labels": rng.integers(0, 2, (num_members, BATCH)).astype(np.int32),
        "position": np.tile(np.arange(BATCH, dtype=np.int32), (num_members, 1)),
    }
    return model, first, fn, mesh.shard_batch(batch, devices, num_members, BATCH), devices


@pytest.mark.parametrize("num_members", [1, 4])
def test_members_cost_their_adapters_and_the_body_once(num_members):
    model, first, fn, batch, _ = setting(num_members)
    body, key = size(model.shared), jax.random.key(1)
    adapters = 2 * (16 * 2 + 2 * 16) + 16 * 2 + 2
    assert size(first.variables) == num_members * 4 * adapters < body / 20
    assert size(first) == num_members * (3 * 4 * adapters + 4 * 4 + 1)  # weights, Adam's two moments; four counters, alive
    lowered = fn.lower(first, batch, key)
    compiled = lowered.compile()
    arguments = compiled.memory_analysis().argument_size_in_bytes
    expected = size(first) + body + size(batch)
    assert expected - 4 * BATCH * num_members <= arguments <= expected + 200  # positions may go unused; the key
    assert len(lowered.as_text()) < 2 * body  # 200,000 characters: the body's numbers are not written into the program


def test_training_moves_the_adapters_and_not_the_body():
    model, first, fn, batch, _ = setting(2)
    body, before = jax.tree.map(np.array, model.shared), jax.tree.map(np.array, first.variables)
    current = first
    for _ in range(2):
        current, metrics = fn(current, batch, jax.random.key(1))
    assert np.isfinite(metrics["loss"]).all() and metrics["alive"].all()
    assert jax.tree.structure(current.variables) == jax.tree.structure(before)
    moved = jax.tree.map(lambda old, new: bool((old != np.asarray(new)).any()), before, current.variables)
    assert all(jax.tree.leaves(moved))
    assert all(map(np.array_equal, jax.tree.leaves(body), jax.tree.leaves(model.shared)))


def test_gradients_see_no_body():
    model, first, _, batch, _ = setting(1)
    one = jax.tree.map(lambda leaf: leaf[0], first.variables)
    gradients = jax.grad(lambda v: jnp.sum(model.apply(v, batch["inputs"][0], train=True)[0].logits ** 2))(one)
    assert jax.tree.structure(gradients) == jax.tree.structure(one)
    assert size(gradients) == size(one)


def test_a_trained_body_is_each_replicas_own():
    model, first, fn, batch, _ = setting(2, train_body=True)
    assert size(first.variables) > 2 * size(model.shared)
    words = np.array(first.variables["params"]["encoder"]["word_embeddings"])
    np.testing.assert_array_equal(words[0], words[1])
    current, _ = fn(first, batch, jax.random.key(1))
    moved = np.asarray(current.variables["params"]["encoder"]["word_embeddings"])
    assert (moved != words).any() and not np.array_equal(moved[0], moved[1])


def test_bound_arrays_are_the_ones_read():
    model, first, _, batch, devices = setting(2)
    changed = jax.tree.map(lambda leaf: leaf + 0.1, model.shared)
    one = jax.tree.map(lambda leaf: leaf[0], first.variables)
    inputs = batch["inputs"][0]
    plain, other = (each.apply(one, inputs, train=False)[0].penultimate for each in (model, bind(model, changed)))
    assert not np.allclose(plain, other, atol=1e-3)
    run = evaluation.make_eval_step(bind(model, changed), devices, num_replicas=2)
    found = run(first.variables, {}, {}, inputs, jax.random.key(0)).penultimate
    np.testing.assert_allclose(found[0], other, atol=1e-5)


def test_online_targets_of_a_teacher_on_a_shared_body():
    teacher, stacked, _, batch, devices = setting(2)
    distiller, optimizer = end.make(2, 2), optimizers.make("sgd", 0.1, total_steps=5)
    options = {"num_replicas": 2, "batch_size": BATCH, "online_targets": (teacher, stacked.variables)}
    example = jax.ShapeDtypeStruct((1, LENGTH, 2), jnp.int32)
    student = bert.make(2, architecture={**SIZES, "max_position_embeddings": 8}, rank=2)
    first = state.init(student, distiller, optimizer, devices, jax.random.key(3), example, num_replicas=2)
    outputs = [
        student.apply(jax.tree.map(lambda leaf, r=r: leaf[r], first.variables), batch["inputs"][r], train=False)[0] for r in range(2)
    ]
    logits = [jax.vmap(lambda v, r=r: teacher.apply(v, batch["inputs"][r], train=False)[0].logits)(stacked.variables) for r in range(2)]
    expected = [float(distiller.loss(outputs[r], distiller.targets(logits[r]), {}, {}, None, None).mean()) for r in range(2)]
    _, metrics = step.make_train_step(student, distiller, optimizer, devices, **options)(first, batch, jax.random.key(1))
    np.testing.assert_allclose(metrics["loss"], expected, atol=1e-5)
