"""Maximum likelihood: the stationarity equations in float64, recovery of the generator, and the limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from scipy.special import digamma

from edd.distributions import dirichlet


def members_of(spread, size, members=5, seed=0):
    rng = np.random.default_rng(seed)
    return jax.nn.log_softmax(jnp.asarray(rng.normal(size=(members, 1, size)) * spread + rng.normal(size=size)))


@pytest.mark.parametrize("size", [2, 10, 1000])
def test_solves_the_likelihood_equations(size, x64):
    for spread in (1e-4, 0.1, 1.0, 5.0):
        log_probs = members_of(spread, size)
        alpha = np.asarray(jax.jit(dirichlet.fit)(log_probs))[0]
        error = digamma(alpha) - digamma(alpha.sum()) - np.asarray(log_probs)[:, 0].mean(0)
        assert np.abs(error).max() < 1e-12
        narrow = np.asarray(jax.jit(dirichlet.fit)(log_probs.astype(jnp.float32)))[0]
        assert np.allclose(narrow, alpha, rtol=3e-3 if spread < 1e-3 else 1e-5)  # the inputs are rounded by 1e-7


def test_agrees_with_a_general_optimiser(x64):
    log_probs = members_of(1.0, 3)

    def loss(log_alpha):
        return -float(dirichlet.log_prob(jnp.exp(log_alpha)[None].repeat(5, 0), log_probs[:, 0]).mean())

    best = optimize.minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-13, "maxiter": 2000})
    assert np.allclose(np.exp(best.x), dirichlet.fit(log_probs)[0], rtol=1e-5)


def test_recovers_the_generator_of_many_members():
    alpha = jnp.array([[0.3, 2.0, 9.0], [50.0, 20.0, 1.0]])
    got = jax.jit(dirichlet.fit)(dirichlet.sample_log_probs(jax.random.key(1), alpha, 20_000))
    assert np.allclose(got, alpha, rtol=0.04)


def test_identical_members_and_a_single_one_are_infinitely_precise():
    log_probs = jnp.log(jnp.array([[[0.2, 0.8], [0.5, 0.5]]]))
    assert np.isposinf(dirichlet.fit(log_probs)).all()
    both = jnp.concatenate([log_probs, log_probs.at[0, 1].set(jnp.log(jnp.array([0.4, 0.6])))])
    got = dirichlet.fit(both)
    assert np.isposinf(got[0]).all() and np.isfinite(got[1]).all()


def test_excluded_classes_under_jit_give_zero_not_nan():
    log_probs = jnp.array([[[0.0, -jnp.inf]], [[-0.6931472, -0.6931472]]])
    assert np.array_equal(jax.jit(dirichlet.fit)(log_probs), [[0.0, 0.0]])


def test_gradient_by_the_implicit_function_theorem(x64):
    logits = jnp.asarray(np.random.default_rng(3).normal(size=(4, 1, 3)))

    def precision(z):
        return jnp.log(dirichlet.fit(jax.nn.log_softmax(z)).sum())

    gradient = jax.grad(precision)(logits)
    for index in ((0, 0, 0), (3, 0, 2)):
        step = jnp.zeros_like(logits).at[index].set(1e-5)
        assert float(gradient[index]) == pytest.approx(float(precision(logits + step) - precision(logits - step)) / 2e-5, rel=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="member_log_probs must be finite"):
        dirichlet.fit(jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]]))
    with pytest.raises(ValueError, match="member_log_probs must be log-probabilities"):
        dirichlet.fit(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="members first"):
        dirichlet.fit(jnp.zeros(3))
