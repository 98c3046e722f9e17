"""Both combinations against the definitions, and the inputs that teach hypotheses."""

import jax.numpy as jnp
import numpy as np
import pytest

from edd.decoding import model_average


def test_next_scores_are_the_definitions(x64):
    rng = np.random.default_rng(0)
    log_probs = np.log(rng.dirichlet(np.ones(5), (3, 2)))
    cumulative, running = -rng.exponential(size=(3, 2)), -rng.exponential(size=2)
    poe = model_average.next_scores(jnp.asarray(running), jnp.asarray(cumulative), jnp.asarray(log_probs))
    eop = model_average.next_scores(jnp.asarray(running), jnp.asarray(cumulative), jnp.asarray(log_probs), "expectation_of_products")
    np.testing.assert_allclose(np.exp(poe), np.exp(running)[:, None] * np.exp(log_probs).mean(0), rtol=1e-12)
    np.testing.assert_allclose(np.exp(eop), np.exp(cumulative[..., None] + log_probs).mean(0), rtol=1e-12)


def test_impossible_prefixes_stay_impossible():
    dead = jnp.full((2, 1), -jnp.inf)
    log_probs = jnp.log(jnp.full((2, 1, 4), 0.25))
    for combination in model_average.COMBINATIONS:
        assert np.isneginf(model_average.next_scores(dead[0], dead, log_probs, combination)).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="must agree"):
        model_average.next_scores(jnp.zeros(2), jnp.zeros((3, 3)), jnp.zeros((3, 2, 4)))
    with pytest.raises(ValueError, match="combination must be one of"):
        model_average.next_scores(jnp.zeros(2), jnp.zeros((3, 2)), jnp.zeros((3, 2, 4)), "mean")
    with pytest.raises(ValueError, match=r"\[B, N, L\]"):
        model_average.hypothesis_inputs({"source": jnp.zeros((2, 3))}, jnp.zeros((3, 2, 4)), 1)
