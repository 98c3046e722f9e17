"""Students with more outputs than classes: latent factors on logits, Hydra, BatchEnsemble."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import dlf_logits, members_logits
from edd.distributions import latent_factor
from edd.models import batch_ensemble_mlp, mlp
from edd.uncertainty import ensemble

M, N, D, K = 4, 12, 3, 3
PLAIN = functools.partial(mlp.make, widths=(8,))
SHARED = functools.partial(batch_ensemble_mlp.make, widths=(8,))
METHODS = {
    "dlf": (functools.partial(dlf_logits.make, latent_dim=2), PLAIN),
    "dlf_centred_noise": (functools.partial(dlf_logits.make, latent_dim=2, centre=True, include_noise=True), PLAIN),
    "dlf_minibatch": (functools.partial(dlf_logits.make, latent_dim=2, e_step="minibatch"), PLAIN),
    "dlf_mmd": (functools.partial(dlf_logits.make, latent_dim=2, initialisation="mmd", init_steps=9), PLAIN),
    "dlf_sampled_mmd": (functools.partial(dlf_logits.make, latent_dim=2, initialisation="mmd", init_steps=9, analytic_mmd=False), PLAIN),
    "hydra": (members_logits.make_hydra, PLAIN),
    "batch_ensemble": (members_logits.make_batch_ensemble, SHARED),
    "latent_mask": (functools.partial(members_logits.make_batch_ensemble, averaging="mask"), SHARED),
    "latent_factors": (functools.partial(members_logits.make_batch_ensemble, averaging="factors"), SHARED),
}


@pytest.fixture(params=METHODS)
def made(request):
    make, backbone = METHODS[request.param]
    distiller = make(M, K)
    model = distiller.student(backbone)
    inputs = jax.random.normal(jax.random.key(0), (N, D))
    return distiller, model, model.init(jax.random.key(1), inputs), inputs


def members(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(M, N, K)), jnp.float32)


def test_loss_is_per_example_finite_and_independent_of_the_batch(made):
    distiller, model, variables, inputs = made
    params, state = distiller.init(jax.random.key(2))
    targets = distiller.targets(members())
    assert all(leaf.shape[0] == N for leaf in jax.tree.leaves(targets))

    def losses(variables, params, rows):
        outputs, _ = model.apply(variables, inputs[rows], train=True, rngs=None)
        return distiller.loss(outputs, jax.tree.map(lambda leaf: leaf[rows], targets), params, state, None, None)

    whole = losses(variables, params, slice(None))
    assert whole.shape == (N,)
    np.testing.assert_allclose(losses(variables, params, slice(3, 9)), whole[3:9], rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda *trained: losses(*trained, slice(None)).mean(), argnums=(0, 1))(variables, params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((whole, gradient)))
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient[1]))


def test_statistics_add_up_and_updates_keep_the_structure(made):
    distiller, model, variables, inputs = made
    params, state = distiller.init(jax.random.key(2))
    if distiller.statistics is None:
        pytest.skip("nothing to update")
    targets = distiller.targets(members())

    def sums(rows):
        outputs, _ = model.apply(variables, inputs[rows], train=False, rngs=None)
        return distiller.statistics(outputs, targets[rows], params, state)

    added = jax.tree.map(jnp.add, sums(slice(0, 5)), sums(slice(5, N)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), added, sums(slice(None)))
    for step in (2, 20):
        fresh = jax.jit(distiller.update)(added, variables, params, state, jnp.int32(step))
        assert jax.tree.structure(fresh) == jax.tree.structure((variables, params, state))
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(fresh))
    if distiller.penalty is not None:
        assert jnp.shape(distiller.penalty(variables, params, state, jax.random.key(0))) == ()


def test_shipped_students_predict_normalised_laws(made):
    distiller, model, variables, inputs = made
    params, state = distiller.init(jax.random.key(2))
    model, variables, params, state = distiller.finalize(model, variables, params, state)
    outputs, _ = model.apply(variables, inputs, train=False, rngs=None)
    found = distiller.predict(outputs, params, state, jax.random.key(3))
    assert found.log_probs.shape == (N, K)
    np.testing.assert_allclose(jnp.exp(found.log_probs).sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found.total - found.data, 0 if found.mutual_information is None else found.mutual_information, atol=1e-5)


def test_an_update_leaves_the_fitted_functions_to_the_expansion_and_raises_the_likelihood():
    distiller, model = dlf_logits.make(M, K, latent_dim=2), PLAIN(K + 2)
    inputs, logits = jax.random.normal(jax.random.key(0), (N, D)), members()
    variables = model.init(jax.random.key(1), inputs)
    params, state = distiller.init(jax.random.key(2))

    def likelihood(variables, params, state):
        outputs = model.apply(variables, inputs, train=False, rngs=None)[0].logits
        residuals = logits - outputs[None, :, :K]
        return latent_factor.matrix_marginal_log_likelihood(
            residuals, outputs[:, K:], jnp.tril(params["class_factor"]), state["noise_variance"]
        )

    values = [float(likelihood(variables, params, state))]
    for step in range(4):
        outputs = model.apply(variables, inputs, train=False, rngs=None)[0]
        sums = distiller.statistics(outputs, distiller.targets(logits), params, state)
        variables, params, state = distiller.update(sums, variables, params, state, jnp.int32(step))
        values.append(float(likelihood(variables, params, state)))
    assert (np.diff(values) > -1e-3).all() and values[-1] > values[0] + 1


def test_the_penalised_phase_takes_as_noise_what_the_free_latents_leave():
    distiller, model = dlf_logits.make(M, K, latent_dim=2, initialisation="mmd", init_steps=9), PLAIN(K + 2)
    inputs, logits = jax.random.normal(jax.random.key(0), (N, D)), members()
    variables = model.init(jax.random.key(1), inputs)
    params, state = distiller.init(jax.random.key(2))
    outputs = model.apply(variables, inputs, train=False, rngs=None)[0]
    sums = distiller.statistics(outputs, distiller.targets(logits), params, state)
    found = distiller.update(sums, variables, params, state, jnp.int32(0))[2]["noise_variance"]
    fitted = jnp.einsum("nq,mkq->mnk", outputs.logits[:, K:], params["latents"])  # the class factor starts as the identity
    left = jnp.square(logits - outputs.logits[None, :, :K] - fitted).mean()
    np.testing.assert_allclose(found, left, rtol=1e-4)


def test_draws_have_the_models_covariance():
    distiller = dlf_logits.make(M, K, latent_dim=2, num_samples=40_000)
    rng = np.random.default_rng(0)
    loading, factor = rng.normal(size=(2, 2)) * 0.1, np.tril(rng.normal(size=(K, K)))
    outputs = jnp.asarray(np.concatenate([np.zeros((2, K)), loading], -1), jnp.float32)
    _, state = distiller.init(jax.random.key(0))
    from edd.models.base import Outputs

    params = {"class_factor": jnp.asarray(factor, jnp.float32)}
    found = distiller.predict(Outputs(outputs, None), params, state, jax.random.key(1))
    draws = np.einsum("nq,skq->snk", loading, factor @ rng.normal(size=(40_000, K, 2)))
    log_probs = jax.nn.log_softmax(jnp.asarray(draws, jnp.float32))
    np.testing.assert_allclose(found.mutual_information, ensemble.mutual_information(log_probs), rtol=0.05)


@pytest.mark.parametrize("make", [members_logits.make_hydra, members_logits.make_batch_ensemble])
def test_heads_equal_to_their_members_have_no_loss_and_the_ensembles_prediction(make):
    from edd.models.base import Outputs

    distiller, logits = make(M, K), members()
    outputs = Outputs(jnp.moveaxis(logits, 0, 1).reshape(N, M * K), None)
    np.testing.assert_allclose(distiller.loss(outputs, distiller.targets(logits), {}, {}, None, None), 0.0, atol=1e-6)
    found = distiller.predict(outputs, {}, {}, None)
    np.testing.assert_allclose(found.mutual_information, ensemble.mutual_information(jax.nn.log_softmax(logits)), rtol=1e-5)


def test_another_number_of_members_is_refused(made):
    with pytest.raises(ValueError, match="with M = 4, the method's num_members, got"):
        made[0].targets(members()[:3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dlf_logits.make(4, 1), "num_classes must be"),
        (lambda: dlf_logits.make(4, 3, latent_dim=0), "latent_dim must be at least 1"),
        (lambda: dlf_logits.make(4, 3, e_step="x"), "e_step must be one of"),
        (lambda: members_logits.make_hydra(0, 3), "num_members must be"),
        (lambda: members_logits.make_hydra(2, 3, temperature=0.0), "temperature must be above 0"),
        (lambda: members_logits.make_batch_ensemble(2, 3, averaging="x"), "averaging must be one of"),
        (lambda: members_logits.make_batch_ensemble(2, 3).student(PLAIN), "needs a backbone that shares weights"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
