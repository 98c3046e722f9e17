"""Models inside a fully manual `shard_map` over ("member", "data") on fake devices: two shards equal one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from edd.models import cnn, maxvit, mlp, mobilenet_v2, resnet, wide_resnet

BATCH = 8
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiling is most of this test's time
MODELS = {
    "mlp_dropout": lambda axis: mlp.make(3, widths=(8,), dropout=0.3, axis_name=axis),
    "cnn_batch_norm": lambda axis: cnn.make(3, channels=(4, 4), hidden=8, batch_norm=True, dropout=0.3, axis_name=axis),
    "wide_resnet": lambda axis: wide_resnet.make(3, depth=10, widen=1, dropout=0.3, axis_name=axis),
}


def loss_and_state(model, params, rest, inputs, keys):
    outputs, state = model.apply({"params": params, **rest}, inputs, train=True, rngs={"dropout": keys})
    return jnp.mean(jax.nn.logsumexp(outputs.logits, -1) - outputs.logits[:, 0]), (outputs.logits, state)


@pytest.mark.parametrize("name", MODELS)
def test_two_data_shards_equal_one_device(name):
    assert jax.device_count() >= 4, "conftest asks for eight fake devices"
    members = 2
    mesh = jax.make_mesh((2, 2), ("member", "data"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:4])
    inputs = 2 * jax.random.normal(jax.random.key(0), (members, BATCH, 8, 8, 1)) + 1
    keys = jax.vmap(lambda key: jax.random.split(key, BATCH))(jax.random.split(jax.random.key(1), members))
    single, synced = MODELS[name](None), MODELS[name]("data")
    variables = jit(jax.vmap(single.init, (0, None)))(jax.random.split(jax.random.key(2), members), inputs[0])
    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def one_device(params, rest, inputs, keys):
        return jax.value_and_grad(lambda p: loss_and_state(single, p, rest, inputs, keys), has_aux=True)(params)

    def sharded(params, rest, inputs, keys):
        def loss(p, r, x, k):
            value, aux = loss_and_state(synced, p, r, x, k)
            return jax.lax.pmean(value, "data"), aux

        return jax.vmap(jax.value_and_grad(loss, has_aux=True))(params, rest, inputs, keys)

    by_member, by_both = P("member"), P("member", "data")
    outs = ((by_member, (by_both, by_member)), by_member)
    run = jit(jax.shard_map(sharded, mesh=mesh, in_specs=(by_member, by_member, by_both, by_both), out_specs=outs))
    (value, (logits, state)), gradient = run(params, rest, inputs, keys)
    (value_1, (logits_1, state_1)), gradient_1 = jit(jax.vmap(one_device))(params, rest, inputs, keys)
    np.testing.assert_allclose(value, value_1, rtol=1e-5)
    np.testing.assert_allclose(logits, logits_1, rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(state) == jax.tree.structure(state_1)
    for a, b in zip(jax.tree.leaves((state, gradient)), jax.tree.leaves((state_1, gradient_1)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
    if rest:
        statistics = state_1["batch_stats"]["BatchNorm_0"]["mean"]
        assert not np.allclose(statistics[0], statistics[1], atol=1e-4), "each member must keep its own statistics"


DEEP = {
    "resnet": lambda axis: resnet.make(3, blocks=(1, 1), channels=8, width=32, axis_name=axis),
    "mobilenet_v2": lambda axis: mobilenet_v2.make(3, stages=((1, 8, 1, 1), (2, 8, 1, 2)), width=0.25, axis_name=axis),
    "maxvit": lambda axis: maxvit.make(3, image_size=32, channels=(8,), depths=(1,), stem=4, head_dim=4, axis_name=axis),
}


@pytest.mark.parametrize("name", DEEP)
def test_every_batch_norm_averages_over_the_axis_in_training_alone(name):
    """By the number of sums over devices in the traced program; what one of them does is tested above."""
    image = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(DEEP[name](None).init, jax.random.key(0), image)
    norms = sum(path[-1].key == "mean" for path, _ in jax.tree.flatten_with_path(shapes["batch_stats"])[0])

    def sums(axis, train):
        apply = functools.partial(DEEP[name](axis).apply, train=train, rngs=None)
        return str(jax.make_jaxpr(apply, axis_env=[("data", 2)])(shapes, image)).count(" psum")

    assert norms > 3 and sums("data", train=True) == norms
    assert sums("data", train=False) == sums(None, train=True) == 0
