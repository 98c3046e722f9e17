"""The training step: every mesh gives one device's parameters, collectives, frozen replicas, updates, EMA, clipping."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edd.distillers import sequence
from edd.distillers.base import Distiller, no_parameters
from edd.ensembles import members as ensembles
from edd.models import cnn, mlp, transformer
from edd.models.base import Model, Outputs
from edd.training import evaluation, optimizers, state, step
from edd.training import mesh as meshes
from edd.training.replica import DROPOUT

R, B, K = 8, 8, 3
MESHES = ((8, 1), (4, 2), (2, 4), (1, 8))


def cross_entropy(outputs, targets, params, state, labels, key):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs.logits), labels[:, None], 1)[:, 0]


SUPERVISED = Distiller(student=None, init=no_parameters, targets=None, loss=cross_entropy, predict=None)
NETS = {
    "mlp": (mlp.make(K, widths=(8,), dropout=0.3), (4,)),
    "cnn": (cnn.make(K, channels=(2, 3), kernels=(3, 3), hidden=4, batch_norm=True, axis_name="data"), (6, 6, 1)),
}
linear = Model(
    lambda key, x: {"params": {"w": 0.1 * jax.random.normal(key, (2, K)), "b": jnp.zeros(K)}},
    lambda v, x, *, train, rngs: (Outputs(x @ v["params"]["w"] + v["params"]["b"][None], x), {}),
    lambda v: (v["params"]["w"].T, v["params"]["b"]),
)


def batch_of(shape, seed=0, replicas=R, size=B):
    generator = np.random.default_rng(seed)
    return {
        "inputs": generator.normal(size=(replicas, size, *shape)).astype(np.float32),
        "labels": generator.integers(0, K, (replicas, size)).astype(np.int32),
        "position": np.broadcast_to(np.arange(size, dtype=np.int32), (replicas, size)).copy(),
    }


def program(model, shape, mesh, optimizer, distiller=SUPERVISED, replicas=R, size=B, first=None, **options):
    """(first state, compiled step, its text); compiled without LLVM's optimisations, which cost more than these runs."""
    if first is None:
        ema = "ema_decay" in options
        first = state.init(model, distiller, optimizer, mesh, jax.random.key(0), jnp.zeros((1, *shape)), num_replicas=replicas, ema=ema)
    first = meshes.place(jax.device_get(first), mesh, meshes.REPLICAS)
    train_step = step.make_train_step(model, distiller, optimizer, mesh, num_replicas=replicas, batch_size=size, **options)
    key = meshes.place(jax.random.key(1), mesh)
    lowered = train_step.lower(first, meshes.shard_batch(batch_of(shape, 0, replicas, size), mesh, replicas, size), key)
    compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})

    def run(current, batch):
        return compiled(current, meshes.shard_batch(batch, mesh, replicas, size), key, train_step.fixed)

    return first, run, compiled.as_text()


def train(first, run, shape, steps, replicas=R, size=B):
    for seed in range(steps):
        first, metrics = run(first, batch_of(shape, seed, replicas, size))
    return jax.device_get(first), jax.device_get(metrics)


def largest_difference(a, b):
    return max(float(np.max(np.abs(x * 1.0 - y * 1.0))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def collectives(text):
    """(kind, replica groups) of every collective in the compiled program that moves data between devices."""
    found = []
    for line in text.splitlines():
        match = re.search(r"= .*?\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\(", line)
        if match is None:
            continue
        groups = re.search(r"replica_groups=\{\{(.*?)\}\}", line)
        assert groups is not None, line
        found.append((match[1], [tuple(int(device) for device in group.split(",")) for group in groups[1].split("},{")]))
    return found


@pytest.mark.parametrize("name,rate,tolerance", [("sgd", 0.05, 1e-6), ("adam", 1e-3, 1e-5)])
@pytest.mark.parametrize("net", NETS)
def test_every_mesh_gives_the_parameters_of_one_device(net, name, rate, tolerance):
    model, shape = NETS[net]
    optimizer = optimizers.make(name, rate, total_steps=5)
    born, run, _ = program(model, shape, meshes.make(1, 1), optimizer, strategy="vmap")
    born = jax.device_get(born)
    reference, first_metrics = train(meshes.place(born, meshes.make(1, 1), meshes.REPLICAS), run, shape, 5)
    assert int(reference.step[0]) == 5 and len({float(loss) for loss in first_metrics.loss}) == R
    for member, data in MESHES:
        first, run, text = program(model, shape, meshes.make(member, data), optimizer, first=born)
        result, metrics = train(first, run, shape, 5)
        assert largest_difference(reference.variables, result.variables) <= tolerance, (member, data)
        np.testing.assert_allclose(metrics.loss, first_metrics.loss, rtol=1e-5)
        rows = np.arange(member * data).reshape(member, data)
        found = collectives(text)
        assert {kind for kind, _ in found} == {"all-reduce"}
        assert len(found) == {"mlp": 1, "cnn": 1 + 2 * 3}[net], (member, data, found)
        for _, groups in found:
            assert sorted(groups) == [tuple(int(device) for device in row) for row in rows], "a group crosses members"


def test_init_is_the_same_on_every_mesh():
    model, shape = NETS["mlp"]
    optimizer = optimizers.make("adam", 1e-3, total_steps=5)
    build = lambda mesh: state.init(  # noqa: E731
        model, SUPERVISED, optimizer, mesh, jax.random.key(0), jnp.zeros((1, *shape)), num_replicas=4, ema=True
    )
    one, many = build(meshes.make(1, 1)), build(meshes.make(2, 4))
    assert largest_difference(jax.device_get(one), jax.device_get(many)) == 0
    assert all(leaf.sharding.spec == meshes.REPLICAS for leaf in jax.tree.leaves(many))


def test_replicas_differ_in_key_and_a_plain_loop_agrees():
    """R replicas in one program against one replica at a time, gradients by hand."""
    optimizer = optax.sgd(0.1)
    batch = batch_of((2,), 3, 2)
    first, run, _ = program(linear, (2,), meshes.make(2, 1), optimizer, replicas=2)
    start = jax.device_get(first.variables["params"])
    assert largest_difference(start["w"][0], start["w"][1]) > 0
    result, metrics = run(first, batch)
    for replica in range(2):
        x, y = batch["inputs"][replica].astype(np.float64), batch["labels"][replica]
        logits = x @ start["w"][replica] + start["b"][replica]
        probs = np.exp(logits - logits.max(1, keepdims=True))
        probs /= probs.sum(1, keepdims=True)
        gradient = (probs - np.eye(K)[y]) / B
        np.testing.assert_allclose(metrics.loss[replica], -np.log(probs[np.arange(B), y]).mean(), rtol=1e-5)
        np.testing.assert_allclose(result.variables["params"]["w"][replica], start["w"][replica] - 0.1 * x.T @ gradient, atol=1e-6)
        norm = np.sqrt(((x.T @ gradient) ** 2).sum() + (gradient.sum(0) ** 2).sum())
        np.testing.assert_allclose(metrics.gradient_norm[replica], norm, rtol=1e-5)


def test_one_replica_equals_the_plain_network():
    """M = 1 through the engine is the network trained without it, dropout keys included."""
    model, shape = NETS["mlp"]
    optimizer = optimizers.make("sgd", 0.1, total_steps=3)
    first, run, _ = program(model, shape, meshes.make(1, 1), optimizer, replicas=1)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), jax.device_get(first.variables))
    result, _ = train(first, run, shape, 3, 1)
    opt_state = optimizer.init((variables, {}))
    for index in range(3):
        batch = jax.tree.map(lambda leaf: leaf[0], batch_of(shape, index, 1))
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), index), 0)
        keys = jnp.stack([jax.random.fold_in(jax.random.fold_in(key, position), DROPOUT) for position in range(B)])

        def loss(variables, batch=batch, keys=keys):
            outputs, _ = model.apply(variables, batch["inputs"], train=True, rngs={"dropout": keys})
            return jnp.mean(cross_entropy(outputs, None, {}, {}, batch["labels"], None))

        updates, opt_state = optimizer.update((jax.grad(loss)(variables), {}), opt_state, (variables, {}))
        variables = optax.apply_updates((variables, {}), updates)[0]
    assert largest_difference(variables, jax.tree.map(lambda leaf: leaf[0], result.variables)) <= 1e-6


@pytest.mark.parametrize("net", NETS)
def test_a_frozen_replica_leaves_the_others_bitwise_unchanged(net):
    model, shape = NETS[net]
    optimizer = optimizers.make("adam", 1e-2, total_steps=5, clip_norm=1.0)
    mesh = meshes.make(2, 2)
    current, run, _ = program(model, shape, mesh, optimizer, replicas=4, ema_decay=0.9)
    born, history = jax.device_get(current), []
    clean, _ = train(current, run, shape, 4, 4)
    current = meshes.place(born, mesh, meshes.REPLICAS)
    for seed in range(4):
        batch = batch_of(shape, seed, 4)
        if seed == 2:
            batch["inputs"][1, 3] = np.nan
        history.append(jax.device_get(current))
        current, metrics = run(current, batch)
        assert metrics.alive.tolist() == [True, seed < 2, True, True]
    dirty = jax.device_get(current)
    assert dirty.frozen_at.tolist() == [-1, 2, -1, -1] and dirty.alive.tolist() == [True, False, True, True]
    for good, bad in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        np.testing.assert_array_equal(good[[0, 2, 3]], bad[[0, 2, 3]])
    kept = ("variables", "params", "state", "opt_state", "ema", "step")
    for before, after in zip(*(jax.tree.leaves([getattr(s, f) for f in kept]) for s in (history[2], dirty)), strict=True):
        np.testing.assert_array_equal(before[1], after[1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(dirty.variables))


def test_weights_that_would_overflow_are_not_taken():
    """Loss and gradient are finite, the step is not: the replica stays at its last finite state."""
    first, run, _ = program(linear, (2,), meshes.make(1, 1), optax.sgd(3e38), replicas=1)
    start = jax.device_get(first.variables)
    batch = batch_of((2,), 0, 1)
    batch["inputs"] *= 1e3
    result, metrics = run(first, batch)
    assert np.isfinite(metrics.loss[0]) and np.isfinite(metrics.gradient_norm[0]) and not metrics.alive[0]
    assert largest_difference(start, result.variables) == 0 and result.frozen_at.tolist() == [0]


def test_mask_ema_and_penalty():
    """Masked mean over the whole batch, EMA with warm-up and the penalty, against the formulas."""
    distiller = SUPERVISED._replace(penalty=lambda variables, params, state, key: 0.5 * jnp.sum(variables["params"]["w"] ** 2))
    masked = {**batch_of((2,), 0, 1), "mask": np.array([[1, 1, 1, 0, 0, 1, 0, 1]], np.float32)}
    mesh = meshes.make(1, 4)
    train_step = step.make_train_step(linear, distiller, optax.sgd(0.1), mesh, num_replicas=1, batch_size=B, ema_decay=0.5)
    current = state.init(linear, distiller, optax.sgd(0.1), mesh, jax.random.key(0), jnp.zeros((1, 2)), num_replicas=1, ema=True)
    start = jax.device_get(current.variables["params"])
    chosen = masked["mask"][0] > 0
    x, y = masked["inputs"][0][chosen], masked["labels"][0][chosen]

    def objective(p):
        logits = x @ p["w"] + p["b"][None]
        return jnp.mean(cross_entropy(Outputs(logits, None), None, None, None, y, None)) + 0.5 * jnp.sum(p["w"] ** 2)

    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), start)
    average = weights
    for index in range(2):
        current, metrics = train_step(current, meshes.shard_batch(masked, mesh, 1, B), meshes.place(jax.random.key(1), mesh))
        value, gradient = jax.value_and_grad(objective)(weights)
        weights = jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradient)
        decay = min(0.5, (1 + index) / (10 + index))
        average = jax.tree.map(lambda slow, new, d=decay: d * slow + (1 - d) * new, average, weights)
        np.testing.assert_allclose(metrics["loss"][0], value, rtol=1e-5)
    for got, want in ((current.variables["params"], weights), (current.ema[0]["params"], average)):
        assert largest_difference(jax.tree.map(lambda leaf: leaf[0], jax.device_get(got)), want) <= 1e-6


def test_online_targets_and_gradient_transform():
    """The teacher is seen in evaluation mode on the student's inputs; the transform gets (variables, params)."""
    seen = []

    def transform(gradients):
        seen.append(jax.tree.structure(gradients))
        return jax.tree.map(lambda leaf: 2.0 * leaf, gradients)

    distiller = Distiller(
        student=None,
        init=lambda key: ({"scale": jnp.ones(())}, {}),
        targets=lambda logits: jnp.mean(logits, 0),
        loss=lambda outputs, targets, params, state, labels, key: jnp.sum((params["scale"] * outputs.logits - targets) ** 2, -1),
        predict=None,
        gradient_transform=transform,
    )
    teacher = jax.vmap(lambda key: linear.init(key, None))(jax.random.split(jax.random.key(9), 3))
    first, run, _ = program(linear, (2,), meshes.make(2, 2), optax.sgd(0.01), distiller, 2, online_targets=(linear, teacher))
    start = jax.device_get((first.variables, first.params))
    batch = batch_of((2,), 0, 2)
    result, metrics = run(first, batch)
    for replica in range(2):
        x = batch["inputs"][replica]
        target = np.mean([x @ w for w in np.asarray(teacher["params"]["w"])], 0)

        def objective(trained, x=x, target=target):
            logits = x @ trained[0]["params"]["w"] + trained[0]["params"]["b"][None]
            return jnp.mean(jnp.sum((trained[1]["scale"] * logits - target) ** 2, -1))

        own = jax.tree.map(lambda leaf, r=replica: jnp.asarray(leaf[r]), start)
        value, gradient = jax.value_and_grad(objective)(own)
        np.testing.assert_allclose(metrics.loss[replica], value, rtol=1e-5)
        moved = jax.tree.map(lambda leaf, r=replica: leaf[r], jax.device_get((result.variables, result.params)))
        assert largest_difference(moved, jax.tree.map(lambda w, g: w - 0.02 * g, own, gradient)) <= 1e-6
    assert seen and seen[0] == jax.tree.structure(({"params": {"w": 0, "b": 0}}, {"scale": 0}))


def translation_step(mesh, **options):
    """One step of a student on the targets of three Transformers: (its variables, its loss)."""
    members, batch, length, words = 3, 4, 5, 11
    model = transformer.make(words, size="tiny", width=8, num_layers=1, num_heads=2, hidden=8, dropout=0.0)
    ids = np.random.default_rng(0).integers(1, words, (3, 1, batch, length)).astype(np.int32)
    labels = np.where(np.arange(length) < 1 + np.arange(batch)[:, None], ids[2], -1)
    data = {"inputs": {"source": ids[0], "target": ids[1]}, "labels": labels, "position": np.arange(batch, dtype=np.int32)[None]}
    example = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), data["inputs"])
    teachers = jax.tree.map(lambda leaf: 3 * leaf, ensembles.init(model, jax.random.key(5), members, example))
    distiller, optimizer = sequence.make_proxy(members, words, **options), optax.sgd(0.1)
    first = state.init(model, distiller, optimizer, mesh, jax.random.key(0), example, num_replicas=1)
    run = step.make_train_step(model, distiller, optimizer, mesh, num_replicas=1, batch_size=batch, online_targets=(model, teachers))
    arguments = first, meshes.shard_batch(data, mesh, 1, batch), meshes.place(jax.random.key(1), mesh)
    compiled = run.lower(*arguments).compile(compiler_options={"xla_backend_optimization_level": 0})
    result, metrics = compiled(*arguments, run.fixed)
    return jax.device_get(result.variables), float(metrics.loss[0])


def test_targets_in_chunks_of_time_give_the_same_step():
    """Two devices, chunks that do not divide the length, padding, compressed targets: the step is the same up to rounding."""
    mesh = meshes.make(1, 2)
    want, got = (translation_step(mesh, top_k=4, chunk_size=each) for each in (None, 2))
    assert largest_difference(got[0], want[0]) < 1e-5 and got[1] == pytest.approx(want[1], rel=1e-5)


def counting(update_from, every):
    """A method whose state records what its update was given: the inputs' sum, and when."""

    def update(statistics, variables, params, state, step):
        total = state["total"] if statistics is None else statistics["total"]
        return variables, params, {"total": total, "calls": state["calls"] + 1, "last": step}

    return SUPERVISED._replace(
        init=lambda key: ({}, {"total": jnp.zeros(()), "calls": jnp.zeros((), jnp.int32), "last": jnp.full((), -1, jnp.int32)}),
        statistics=lambda outputs, targets, params, state: {"total": jnp.sum(outputs.penultimate)},
        update=update,
        update_from=update_from,
        update_every=every,
    )


@pytest.mark.parametrize("update_from", ["nothing", "minibatch"])
def test_updates_inside_the_step(update_from):
    first, run, text = program(linear, (2,), meshes.make(2, 2), optax.sgd(0.1), counting(update_from, 3), 2)
    totals = []
    for seed in range(5):
        batch = batch_of((2,), seed, 2)
        totals.append(batch["inputs"].sum((1, 2)))
        first, _ = run(first, batch)
    result = jax.device_get(first.state)
    assert result["calls"].tolist() == [2, 2] and result["last"].tolist() == [3, 3]
    np.testing.assert_allclose(result["total"], totals[3] if update_from == "minibatch" else [0, 0], rtol=1e-4, atol=1e-5)
    assert ("conditional" in text) == (update_from == "minibatch"), "statistics must not be computed at every step"


def test_update_from_a_design_set():
    mesh = meshes.make(2, 2)
    distiller = counting("design_set", 1)
    first = state.init(linear, distiller, optax.sgd(0.1), mesh, jax.random.key(0), jnp.zeros((1, 2)), num_replicas=2)
    design = evaluation.make_design_update(linear, distiller, mesh, num_replicas=2)
    batches = [{"inputs": np.full((4, 2), value, np.float32)} for value in (1.0, 2.0, 5.0)]
    result = jax.device_get(design(first, batches).state)
    assert result["calls"].tolist() == [1, 1]
    np.testing.assert_allclose(result["total"], [64.0, 64.0])
    padded = {"inputs": np.ones((4, 2), np.float32), "mask": np.array([1, 1, 1, 0], np.float32)}
    result = jax.device_get(design(first, [*batches, padded]).state)
    np.testing.assert_allclose(result["total"], [70.0, 70.0])
    with pytest.raises(ValueError, match="at least one batch"):
        design(first, [])


def test_clear_errors():
    mesh = meshes.make(2, 2)
    make = lambda distiller=SUPERVISED, **o: step.make_train_step(linear, distiller, optax.sgd(0.1), mesh, **o)  # noqa: E731
    with pytest.raises(ValueError, match="num_replicas.*'member'"):
        make(num_replicas=3, batch_size=8)
    with pytest.raises(ValueError, match="batch_size.*'data'"):
        make(num_replicas=2, batch_size=7)
    with pytest.raises(ValueError, match="ema_decay"):
        make(num_replicas=2, batch_size=8, ema_decay=1.0)
    with pytest.raises(ValueError, match="rewrites weights"):
        make(counting("minibatch", 1), num_replicas=2, batch_size=8, ema_decay=0.9)
    with pytest.raises(ValueError, match="strategy"):
        make(num_replicas=2, batch_size=8, strategy="loop")
    with pytest.raises(ValueError, match="online_targets"):
        program(linear, (2,), mesh, optax.sgd(0.1), SUPERVISED._replace(targets=lambda logits: logits), 2)
