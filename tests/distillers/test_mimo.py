"""MIMO: M = 1 is a plain network, heads learn from their own labels only, and training needs neither history nor one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.data import augment, multi_input, pipeline
from edd.distillers import mimo, supervised
from edd.distillers.base import ensemble_prediction
from edd.experiments import build, settings, stages
from edd.models import cnn
from edd.models.base import Outputs
from edd.training import mesh as meshes
from edd.training import optimizers, replica, state, step

M, B, K = 3, 5, 4
TRAINING = settings.Training(settings.Model("mlp", {"widths": [8]}), epochs=3.0, batch_size=8, checkpoint_every=2)


def data(size=20, shape=(2,)):
    rng = np.random.default_rng(0)
    return {"inputs": rng.normal(size=(size, *shape)).astype(np.float32), "labels": rng.integers(0, K, size).astype(np.int32)}


def fit(distiller, training=TRAINING, **options):
    model = distiller.student(build.backbone(training.model))
    return stages.fit("m", training, model, distiller, data(), lambda x: x, num_replicas=2, seed=0, progress=False, **options)


def logits_and_labels():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(B, M * K)), jnp.float32), jnp.asarray(rng.integers(0, K, (B, M)), jnp.int32)


def loss(distiller, logits, labels):
    return distiller.loss(Outputs(logits, None), None, {}, {}, labels, None)


def test_one_input_is_the_supervised_network():
    """Same first weights, same steps: rows stand in another order, so sums differ by rounding."""
    for first, second in zip(*(jax.tree.leaves(fit(each).variables) for each in (mimo.make(1, K, num_inputs=1), supervised.make(1, K)))):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_is_cross_entropy_over_heads(reduction):
    logits, labels = logits_and_labels()
    expected = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits.reshape(B, M, K))), np.asarray(labels)[..., None], -1)[..., 0]
    found = loss(mimo.make(1, K, num_inputs=M, reduction=reduction), logits, labels)
    np.testing.assert_allclose(found, expected.sum(-1) if reduction == "sum" else expected.mean(-1), rtol=1e-6)


def test_a_label_per_example_goes_to_every_head():
    logits, labels = logits_and_labels()
    same = jnp.broadcast_to(labels[:, :1], labels.shape)
    distiller = mimo.make(1, K, num_inputs=M)
    np.testing.assert_array_equal(loss(distiller, logits, labels[:, 0]), loss(distiller, logits, same))


def test_gradients_flow_from_a_head_to_its_own_label_alone():
    logits, labels = logits_and_labels()
    distiller = mimo.make(1, K, num_inputs=M)
    for head in range(M):
        other = labels.at[:, head].set((labels[:, head] + 1) % K)
        change = jax.grad(lambda z, y: loss(distiller, z, y).sum())
        difference = np.abs(np.asarray(change(logits, labels) - change(logits, other))).reshape(B, M, K).max((0, 2))
        assert difference[head] > 0.5 and (np.delete(difference, head) == 0.0).all()


def test_prediction_is_the_ensemble_of_heads():
    logits, _ = logits_and_labels()
    found = mimo.make(1, K, num_inputs=M).predict(Outputs(logits, None), {}, {}, None)
    expected = ensemble_prediction(jnp.moveaxis(logits.reshape(B, M, K), 1, 0))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    probs = np.asarray(jax.nn.softmax(logits.reshape(B, M, K))).mean(1)
    np.testing.assert_allclose(jnp.exp(found.log_probs), probs, rtol=1e-5)
    assert all(measure.shape == (B,) and float(measure.min()) > 0 for measure in found[1:])


def test_with_one_example_at_all_inputs_labels_and_inputs_agree_in_training():
    layout = mimo.make(1, K, num_inputs=M, input_repetition=1.0).multi_input
    batches = multi_input.MultiInputBatches(pipeline.Batches(data(), batch_size=8, seed=0), layout)
    batch = batches.batch(3)
    for name in ("inputs", "labels"):
        np.testing.assert_array_equal(batch[name], np.broadcast_to(batch[name][:, :, :1], batch[name].shape))


def test_resuming_gives_the_same_network_bit_for_bit(tmp_path):
    distiller = mimo.make(1, K, num_inputs=2, batch_repetition=2, input_repetition=0.5)
    whole = fit(distiller)
    stopped = fit(distiller, settings.dataclasses.replace(TRAINING, max_steps=7), workdir=tmp_path)
    resumed = fit(distiller, workdir=tmp_path)
    assert not np.array_equal(*(jax.tree.leaves(each.variables)[0] for each in (stopped, resumed)))
    jax.tree.map(np.testing.assert_array_equal, whole.variables, resumed.variables)


def test_an_epoch_has_as_many_more_steps_as_the_batch_is_repeated(tmp_path):
    fit(mimo.make(1, K, num_inputs=2, batch_repetition=4), workdir=tmp_path)  # 20 examples, 2 in each batch of 8 rows, 3 epochs
    assert max(int(path.name) for path in (tmp_path / "checkpoints" / "m").iterdir() if path.name.isdigit()) == 30


def test_every_mesh_trains_the_same_network_with_augmentation():
    distiller = mimo.make(1, K, num_inputs=2, batch_repetition=2, input_repetition=0.5)
    model = distiller.student(lambda outputs: cnn.make(outputs, channels=(2,), kernels=(3,), hidden=4, dropout=0.2, axis_name="data"))
    plain = pipeline.Batches(data(20, (6, 6, 1)), batch_size=4, seed=0, num_replicas=2)
    batches = multi_input.MultiInputBatches(plain, distiller.multi_input)
    optimizer = optimizers.make("sgd", 0.1, total_steps=3)
    networks = []
    for members, parts in ((1, 1), (2, 4)):
        mesh = meshes.make(members, parts, devices=jax.devices()[: members * parts])
        first = state.init(model, distiller, optimizer, mesh, jax.random.key(0), jnp.zeros((1, 6, 6, 1)), num_replicas=2)
        options = {"num_replicas": 2, "batch_size": 8, "augment": augment.make("crop+flip", padding=2)}
        run, key = step.make_train_step(model, distiller, optimizer, mesh, **options), meshes.place(jax.random.key(1), mesh)
        for index in range(3):
            first, metrics = run(first, meshes.shard_batch(batches.batch(index), mesh, 2, 8), key)
        assert np.isfinite(metrics["loss"]).all()
        networks.append(jax.device_get(first.variables))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), *networks)


def test_an_example_is_augmented_alike_at_every_input_of_a_step():
    seen = []
    distiller = mimo.make(1, K, num_inputs=2, batch_repetition=2, input_repetition=0.5)
    run = replica.ReplicaStep(None, distiller, None, None, lambda keys, inputs: seen.append(keys) or inputs, None, None, "vmap")
    batch = multi_input.MultiInputBatches(pipeline.Batches(data(), batch_size=4, seed=0), distiller.multi_input).batch(0)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)
    run.examples(batch, replica.augmentation_keys(jax.random.key(0), batch["index"]), None)
    drawn = np.asarray(jax.random.key_data(seen[0]))[..., 0]
    by_example = {int(index): set(drawn[np.asarray(batch["index"]) == index]) for index in np.unique(batch["index"])}
    assert all(len(keys) == 1 for keys in by_example.values()) and len(set.union(*by_example.values())) == 4


@pytest.mark.parametrize(
    "options,message",
    [
        ({"num_inputs": 0}, "num_inputs must be an integer of at least 1"),
        ({"batch_repetition": 0}, "batch_repetition must be"),
        ({"input_repetition": -0.1}, "input_repetition must lie in"),
        ({"reduction": "max"}, "reduction must be one of sum, mean, got 'max'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mimo.make(1, K, **options)


def test_rows_that_the_repetition_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="batch_size must be a multiple of batch_repetition 3, got 8"):
        fit(mimo.make(1, K, batch_repetition=3))
