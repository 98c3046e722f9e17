"""EnD and knowledge distillation against 50-digit mpmath and their formulas."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from edd.losses import distillation

mp.mp.dps = 50


def oracle_end(logits, member_log_probs, temperature):
    members = [[mp.exp(mp.mpf(float(x)) / temperature) for x in row] for row in member_log_probs]
    members = [[x / mp.fsum(row) for x in row] for row in members]
    mean = [mp.fsum(column) / len(members) for column in zip(*members)]
    student = [mp.exp(mp.mpf(float(x)) / temperature) for x in logits]
    student = [x / mp.fsum(student) for x in student]
    loss = temperature**2 * mp.fsum(p * mp.log(p / q) for p, q in zip(mean, student) if p > 0)
    return loss, [temperature * (q - p) for p, q in zip(mean, student)]


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_end_is_accurate_in_float32(temperature):
    key = jax.random.key(0)
    log_probs = jax.nn.log_softmax(3 * jax.random.normal(key, (4, 20)))
    log_probs = log_probs.at[0].set(jax.nn.log_softmax(jnp.where(jnp.arange(20) == 3, -jnp.inf, log_probs[0])))
    near = jnp.log(jnp.mean(jnp.exp(log_probs), 0))
    rows = [jnp.zeros(20), near, near + 1e-4 * jnp.arange(20), jnp.linspace(-80, 80, 20), jnp.linspace(80, -80, 20), 5 + 2 * near]

    @jax.jit
    def run(z):
        loss, pullback = jax.vjp(lambda z: distillation.end(z, jnp.stack([log_probs] * len(rows), 1), temperature), z)
        return loss, pullback(jnp.ones(len(rows)))[0]

    loss, gradient = run(jnp.stack(rows))
    for i, logits in enumerate(rows):
        exact, slopes = oracle_end(np.asarray(logits), np.asarray(log_probs), temperature)
        np.testing.assert_allclose(loss[i], float(exact), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(gradient[i], np.array(slopes, float), rtol=1e-5, atol=1e-6 * temperature)


def test_end_over_many_classes():
    logits = jnp.zeros(256_000).at[0].set(10.0)
    log_probs = jax.nn.log_softmax(jnp.zeros((2, 256_000)))
    exact = mp.log(mp.exp(10) + 255_999) - mp.mpf(10) / 256_000 - mp.log(256_000)
    np.testing.assert_allclose(distillation.end(logits, log_probs), float(exact), rtol=1e-5)


def test_end_is_zero_where_the_student_is_the_mean():
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (1, 5, 7)))
    assert (distillation.end(log_probs[0], log_probs) == 0).all()
    assert (distillation.end(log_probs[0], jnp.concatenate([log_probs] * 3), 4.0) == 0).all()
    assert (distillation.end(log_probs[0] + 0.1 * jnp.arange(7)[None], log_probs) > 0).all()


def test_end_in_float64_is_the_formula(x64):
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (3, 5, 7), jnp.float64))
    logits = jax.random.normal(jax.random.key(2), (5, 7), jnp.float64)

    def formula(z, t):
        mean = jax.nn.softmax(log_probs / t).mean(0)
        return t**2 * (mean * (jnp.log(mean) - jax.nn.log_softmax(z / t))).sum(-1)

    for t in (1.0, 3.0):
        np.testing.assert_allclose(distillation.end(logits, log_probs, t), formula(logits, t), rtol=1e-9)
        got = jax.grad(lambda z, t=t: distillation.end(z, log_probs, t).sum())(logits)
        expected = jax.jit(jax.grad(lambda z, t=t: formula(z, t).sum()))(logits)
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_disagreeing_one_hot_members_are_a_plain_target():
    log_probs = jnp.log(jnp.eye(3))
    np.testing.assert_allclose(distillation.end(jnp.zeros(3), log_probs), 0, atol=1e-7)
    one = jnp.log(jnp.array([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(distillation.end(jnp.zeros(3), one), np.log(3), rtol=1e-6)
    assert np.isfinite(jax.grad(distillation.end)(jnp.array([80.0, -80.0, 0.0]), one)).all()


@pytest.mark.parametrize("matching", distillation.MATCHING)
def test_knowledge_distillation_is_its_formula(matching):
    keys = jax.random.split(jax.random.key(3), 2)
    logits, teacher = jax.random.normal(keys[0], (4, 5)), 3 * jax.random.normal(keys[1], (4, 5))
    labels = jnp.array([0, 4, 2, 2])
    loss = distillation.knowledge_distillation(
        logits, teacher, labels, 0.6, 4.0, student_temperature=2.0, matching=matching, scale_by_squared_temperature=True
    )
    hard = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]
    target = jax.nn.softmax(teacher / 4.0)
    entropy = (target * jnp.log(target)).sum(-1)
    cross = -(target * jax.nn.log_softmax(logits / 2.0)).sum(-1)
    soft = {"cross_entropy": cross, "kl": cross + entropy, "logits": 0.5 * ((logits - teacher) ** 2).sum(-1)}[matching]
    np.testing.assert_allclose(loss, 0.4 * hard + 0.6 * 16 * soft, rtol=1e-5)


def test_weight_zero_and_one_leave_one_loss():
    logits, labels = jnp.array([2.0, 0.0, -1.0]), jnp.array(1)
    alone = distillation.knowledge_distillation(logits, jnp.zeros(3), labels, 0.0)
    np.testing.assert_allclose(alone, -jax.nn.log_softmax(logits)[1], rtol=1e-6)
    assert float(distillation.knowledge_distillation(logits, logits, labels, 1.0, 3.0, matching="kl")) == 0.0
    default = distillation.knowledge_distillation(logits, jnp.zeros(3), labels, 1.0, 3.0)
    np.testing.assert_allclose(default, -jax.nn.log_softmax(logits / 3).mean(), rtol=1e-6)


def test_bad_arguments_are_refused():
    logits, members, labels = jnp.zeros((2, 3)), jnp.log(jnp.full((4, 2, 3), 1 / 3)), jnp.array([0, 1])
    with pytest.raises(ValueError, match="member_log_probs"):
        distillation.end(jnp.zeros(3), members)
    with pytest.raises(ValueError, match="temperature"):
        distillation.end(logits, members, -1.0)
    with pytest.raises(ValueError, match="logits"):
        distillation.end(jnp.full((2, 3), jnp.nan), members)
    with pytest.raises(ValueError, match="weight"):
        distillation.knowledge_distillation(logits, logits, labels, 1.5)
    with pytest.raises(ValueError, match="matching"):
        distillation.knowledge_distillation(logits, logits, labels, 0.5, matching="mse")
    with pytest.raises(ValueError, match="teacher_logits"):
        distillation.knowledge_distillation(logits, jnp.zeros((2, 4)), labels, 0.5)
