"""Optimisers and schedules from names, against the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edd.models import cnn
from edd.training import optimizers

PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
GRADS = {"kernel": jnp.array([[0.3, 0.4]]), "bias": jnp.array([1.2])}


def run(optimizer, steps=3, grads=GRADS):
    params, opt_state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_goes_downhill_on_a_quadratic_for_each_replica(name):
    options = {"clip_norm": 10.0, "weight_decay": 1e-4, "num_examples": 10**9}  # so many that Langevin's noise is small
    optimizer = optax.with_extra_args_support(optimizers.make(name, 0.05, total_steps=200, schedule="cosine", **options))
    start = jnp.array([[3.0, -2.0], [0.5, 4.0]])

    def one(x):
        def body(carry, key):
            x, opt_state = carry
            updates, opt_state = optimizer.update(x, opt_state, x, key=key)
            return (optax.apply_updates(x, updates), opt_state), None

        return jax.lax.scan(body, (x, optimizer.init(x)), jax.random.split(jax.random.key(0), 200))[0][0]

    end = jax.jit(jax.vmap(one))(start)
    assert np.all(np.linalg.norm(end, axis=1) < 0.8 * np.linalg.norm(start, axis=1))


def test_sgd_with_momentum_by_hand():
    got = run(optimizers.make("sgd", 0.1, total_steps=9, momentum=0.5))
    for name in PARAMS:
        velocity, value = 0.0, np.asarray(PARAMS[name])
        for _ in range(3):
            velocity = 0.5 * velocity + np.asarray(GRADS[name])
            value = value - 0.1 * velocity
        np.testing.assert_allclose(got[name], value, rtol=1e-6)
    nesterov = run(optimizers.make("nesterov", 0.1, total_steps=9, momentum=0.5), 1)
    np.testing.assert_allclose(nesterov["bias"], 0.5 - 0.1 * (1 + 0.5) * 1.2, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_touches_kernels_only_unless_asked(name):
    zero = jax.tree.map(jnp.zeros_like, GRADS)
    got = run(optimizers.make(name, 0.1, total_steps=9, momentum=0.0, weight_decay=0.5), 1, zero)
    np.testing.assert_allclose(got["kernel"], 0.95 * PARAMS["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(got["bias"], PARAMS["bias"])
    got = run(optimizers.make(name, 0.1, total_steps=9, momentum=0.0, weight_decay=0.5, decay_on="all"), 1, zero)
    np.testing.assert_allclose(got["bias"], 0.95 * PARAMS["bias"], rtol=1e-6)


def test_clipping_is_by_each_replicas_own_norm():
    clip = optimizers.clip_by_global_norm(1.0)
    grads = {"a": jnp.array([[3.0], [0.3]]), "b": jnp.array([[4.0], [0.4]])}
    clipped = jax.vmap(lambda g: clip.update(g, optax.EmptyState())[0])(grads)
    np.testing.assert_allclose(clipped["a"], [[0.6], [0.3]], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], [[0.8], [0.4]], rtol=1e-6)


def test_the_norm_neither_overflows_nor_underflows():
    for scale in (1e-30, 1.0, 1e30):
        tree = {"a": scale * jnp.array([3.0, 0.0]), "b": scale * jnp.array([4.0])}
        np.testing.assert_allclose(optimizers.global_norm(tree), 5 * scale, rtol=1e-6)
        clipped, _ = optimizers.clip_by_global_norm(scale / 2).update(tree, None)
        np.testing.assert_allclose(optimizers.global_norm(clipped), scale / 2, rtol=1e-5)
    assert float(optimizers.global_norm({"a": jnp.zeros(3)})) == 0.0
    assert np.isnan(optimizers.global_norm({"a": jnp.array([1.0, np.nan])}))
    assert not np.isfinite(optimizers.global_norm({"a": jnp.array([1.0, -np.inf])}))


def test_schedules_by_hand():
    make = lambda name, **o: np.asarray([optimizers.make_schedule(name, 2.0, total_steps=10, **o)(s) for s in range(11)])  # noqa: E731
    np.testing.assert_allclose(make("constant"), 2.0)
    np.testing.assert_allclose(
        make("cosine", final_fraction=0.1), 2 * (0.9 * 0.5 * (1 + np.cos(np.pi * np.arange(11) / 10)) + 0.1), rtol=1e-5
    )
    np.testing.assert_allclose(make("linear"), 2 - 0.2 * np.arange(11), atol=1e-6)
    np.testing.assert_allclose(make("multistep", milestones=(0.5, 0.8)), 2 * np.array([1] * 5 + [0.1] * 3 + [0.01] * 3), rtol=1e-5)
    np.testing.assert_allclose(make("exponential", final_fraction=0.01), 2 * 0.01 ** (np.arange(11) / 10), rtol=1e-5)
    np.testing.assert_allclose(make("inverse_sqrt", warmup_steps=4)[[0, 2, 4, 8]], [0, 1, 2, 2 / np.sqrt(2)], rtol=1e-5)
    warm = make("multistep", milestones=(0.5,), warmup_steps=2)
    np.testing.assert_allclose(warm, [0, 1, 2, 2, 2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2], rtol=1e-5)
    cycle = np.asarray([optimizers.make_schedule("one_cycle", 2.0, total_steps=100)(s) for s in (0, 45, 90, 100)])
    np.testing.assert_allclose(cycle, [0.2, 2.0, 0.2, 2e-4], rtol=1e-4)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"name": "sgdd"}, "optimizer must be one of sgd, nesterov, adam"),
        ({"schedule": "cosin"}, "schedule must be one of constant, cosine"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"total_steps": 0}, "total_steps"),
        ({"warmup_steps": 10}, "warmup_steps"),
        ({"schedule": "one_cycle", "warmup_steps": 1}, "one_cycle"),
        ({"schedule": "exponential"}, "final_fraction"),
        ({"decay_on": "biases"}, "decay_on"),
        ({"milestones": (1.5,)}, "milestones"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimizers.make(**{"name": "adam", "learning_rate": 0.1, "total_steps": 10, **arguments})


def test_langevin_samples_the_posterior_of_a_linear_gaussian_model():
    """y = x w + N(0, s2), prior N(0, v): long chains with small steps have the posterior's mean and covariance within 15 %."""
    rng = np.random.default_rng(0)
    count, variance, prior = 40, 0.25, 2.0
    features = rng.normal(size=(count, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    labels = features @ np.array([1.0, -0.5]) + np.sqrt(variance) * rng.normal(size=count)
    precision = features.T @ features / variance + np.eye(2) / prior
    mean, covariance = np.linalg.solve(precision, features.T @ labels / variance), np.linalg.inv(precision)
    options = {"total_steps": 1, "weight_decay": 1 / (count * prior), "decay_on": "all", "num_examples": count}
    optimizer = optimizers.make("sgld", 5e-3, **options)
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.float32)
    gradient = jax.grad(lambda w: 0.5 * jnp.square(labels - features @ w).mean() / variance)

    def step(carry, key):
        w, state = carry
        updates, state = optimizer.update(gradient(w), state, w, key=key)
        return (w + updates, state), w + updates

    def chain(key):
        start = (jnp.zeros(2), optimizer.init(jnp.zeros(2)))
        return jax.lax.scan(step, start, jax.random.split(key, 4000))[1][500:]

    found = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 30))).reshape(-1, 2)
    np.testing.assert_allclose(found.mean(0), mean, atol=0.1 * np.sqrt(covariance.max()))
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.15 * covariance.max())
    cold = optimizers.make("sgld", 5e-3, temperature=0.0, **options)
    np.testing.assert_allclose(cold.update(jnp.ones(2), cold.init(jnp.zeros(2)), jnp.zeros(2), key=jax.random.key(0))[0], -5e-3)


def test_weight_decay_of_named_layers_alone():
    params = {name: {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)} for name in ("conv1", "local3", "local4")}
    optimizer = optimizers.make("sgd", 1.0, total_steps=1, momentum=0.0, weight_decay=0.5, decay_layers=("local3", "local4"))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    decayed = {name: float(jnp.abs(layer["kernel"]).max()) for name, layer in updates.items()}
    assert decayed == {"conv1": 0.0, "local3": 0.5, "local4": 0.5}
    assert all(float(jnp.abs(layer["bias"]).max()) == 0 for layer in updates.values())


def test_weight_decay_leaves_factors_and_members_biases_alone():
    model = cnn.make(4, num_members=2, channels=(2,), kernels=(3,), hidden=3)
    weights = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))["params"]
    mask = optimizers.kernels(({"params": weights}, {"class_factor": jnp.eye(2), "latents": jnp.ones((3, 2))}))
    touched = {path[-1].key for path, chosen in jax.tree_util.tree_leaves_with_path(mask) if chosen}
    assert touched == {"kernel"}
