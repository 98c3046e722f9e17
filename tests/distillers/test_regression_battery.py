"""What every regression method must satisfy, run over all of them, and the noise they share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.distillers import batch_ensemble, dlf, gaussian, hydra, regression
from edd.models import batch_ensemble_mlp, mlp

M, N, D = 4, 16, 3
PLAIN = functools.partial(mlp.make, widths=(8,))
MERGEABLE = functools.partial(batch_ensemble_mlp.make, widths=(8, 8))
METHODS = {
    "moments": (gaussian.make_moments, PLAIN),
    "hydra": (hydra.make, PLAIN),
    "hydra_member_noise": (functools.partial(hydra.make, aleatoric_mode="member"), PLAIN),
    "batch_ensemble": (batch_ensemble.make, MERGEABLE),
    "latent_mask": (functools.partial(batch_ensemble.make, averaging="mask"), MERGEABLE),
    "latent_factors": (functools.partial(batch_ensemble.make, averaging="factors"), MERGEABLE),
    "dlf": (functools.partial(dlf.make, latent_dim=2), PLAIN),
    "dlf_minibatch": (functools.partial(dlf.make, latent_dim=2, e_step="minibatch"), PLAIN),
    "dlf_mmd": (functools.partial(dlf.make, latent_dim=2, initialisation="mmd", init_steps=2), PLAIN),
    "dlf_sampled_mmd": (functools.partial(dlf.make, latent_dim=2, initialisation="mmd", init_steps=2, analytic_mmd=False), PLAIN),
    "dlf_member_noise": (functools.partial(dlf.make, latent_dim=2, aleatoric_mode="member", include_noise=True), PLAIN),
}


@pytest.fixture(params=METHODS)
def made(request):
    make, backbone = METHODS[request.param]
    distiller = make(M)
    model = distiller.student(backbone)
    inputs = jax.random.normal(jax.random.key(0), (N, D))
    variables = model.init(jax.random.key(1), inputs)
    return distiller, model, variables, inputs


def members(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(np.stack([rng.normal(size=(M, N)), rng.uniform(0.1, 2, size=(M, N))], -1), jnp.float32)


def test_loss_is_per_example_finite_and_independent_of_the_batch(made):
    distiller, model, variables, inputs = made
    params, state = distiller.init(jax.random.key(2))
    targets = distiller.targets(members())
    assert all(leaf.shape[0] == N for leaf in jax.tree.leaves(targets))

    def losses(variables, rows):
        outputs, _ = model.apply(variables, inputs[rows], train=True, rngs=None)
        return distiller.loss(outputs, jax.tree.map(lambda leaf: leaf[rows], targets), params, state, None, None)

    whole = losses(variables, slice(None))
    assert whole.shape == (N,)
    np.testing.assert_allclose(losses(variables, slice(3, 9)), whole[3:9], rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda variables: losses(variables, slice(None)).mean())(variables)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((whole, gradient)))


def test_statistics_add_up_and_updates_keep_the_structure(made):
    distiller, model, variables, inputs = made
    params, state = distiller.init(jax.random.key(2))
    if distiller.statistics is None:
        pytest.skip("nothing to update")
    targets = distiller.targets(members())

    def sums(rows):
        outputs, _ = model.apply(variables, inputs[rows], train=False, rngs=None)
        return distiller.statistics(outputs, jax.tree.map(lambda leaf: leaf[rows], targets), params, state)

    added = jax.tree.map(jnp.add, sums(slice(0, 5)), sums(slice(5, N)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), added, sums(slice(None)))
    fresh = jax.jit(distiller.update)(added, variables, params, state, jnp.int32(7))
    assert jax.tree.structure(fresh) == jax.tree.structure((variables, params, state))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(fresh))
    if distiller.penalty is not None:
        assert jnp.shape(distiller.penalty(variables, params, state, jax.random.key(0))) == ()


def test_predictions_are_mixtures_and_shipped_networks_predict(made):
    distiller, model, variables, inputs = made
    params, state = distiller.init(jax.random.key(2))
    model, variables, params, state = distiller.finalize(model, variables, params, state)
    outputs, _ = model.apply(variables, inputs, train=False, rngs=None)
    mixture = distiller.predict(outputs, params, state, jax.random.key(3))
    assert mixture.means.shape == mixture.variances.shape and mixture.means.shape[1:] == (N,)
    assert bool((mixture.variances > 0).all()) and bool(jnp.isfinite(mixture.means).all())


def test_merged_factors_of_equal_members_are_their_network():
    distiller = batch_ensemble.make(M, averaging="mask")
    model = distiller.student(functools.partial(MERGEABLE, factor_init="ones"))
    inputs = jax.random.normal(jax.random.key(0), (N, D))
    variables = model.init(jax.random.key(1), inputs)
    params, state = distiller.init(None)
    before = distiller.predict(model.apply(variables, inputs, train=False, rngs=None)[0], params, state, jax.random.key(0))
    plain, merged, params, state = distiller.finalize(model, variables, params, state)
    after = distiller.predict(plain.apply(merged, inputs, train=False, rngs=None)[0], params, state, jax.random.key(0))
    np.testing.assert_allclose(after.means, before.means, rtol=1e-5, atol=1e-6)


def test_the_penalised_phase_takes_as_noise_what_the_free_latents_leave():
    distiller, model = dlf.make(M, latent_dim=2, initialisation="mmd", init_steps=9), PLAIN(4)
    inputs = jax.random.normal(jax.random.key(0), (N, D))
    variables = model.init(jax.random.key(1), inputs)
    params, state = distiller.init(jax.random.key(2))
    outputs, targets = model.apply(variables, inputs, train=False, rngs=None)[0], distiller.targets(members())
    sums = distiller.statistics(outputs, targets, params, state)
    found = distiller.update(sums, variables, params, state, jnp.int32(0))[2]["noise_variance"]
    fitted = jnp.einsum("nq,mq->nm", outputs.logits[:, 1:3], params["latents"])
    np.testing.assert_allclose(found, jnp.square(targets["means"] - outputs.logits[:, :1] - fitted).mean(), rtol=1e-4)


@pytest.mark.parametrize("mode", regression.MODES)
def test_noise_keeps_the_members_variances(mode):
    noise = regression.aleatoric(mode)
    rng = np.random.default_rng(0)
    factors, base = rng.uniform(0.5, 2, size=(50, 1)), rng.uniform(0.1, 3, size=(1, N))
    variances = jnp.asarray(factors * (base if mode == "input" else np.ones((1, N))), jnp.float32)
    targets = noise.targets(variances)
    law = noise.fit(noise.statistics(targets))
    columns = targets["log_variance"][:, None][:, : noise.num_outputs]
    drawn = noise.variances(columns, law, jax.random.key(0), 20_000)
    np.testing.assert_allclose(np.log(drawn).mean(0), np.log(variances).mean(0), atol=0.05)
    np.testing.assert_allclose(np.log(drawn).std(0), np.log(variances).std(0), rtol=0.15)
    assert np.ptp(np.asarray(drawn / drawn[:, :1]).std(0)) < 1e-3  # one factor for each draw, shared by all inputs


@pytest.mark.parametrize("make", [dlf.make, hydra.make, batch_ensemble.make])
def test_another_number_of_members_is_refused(make):
    with pytest.raises(ValueError, match="with M = 5, the method's num_members, got"):
        make(5).targets(members())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hydra.make(0), "num_members must be at least 1"),
        (lambda: dlf.make(4, 3), "regression members have 2 outputs"),
        (lambda: dlf.make(4, latent_dim=0), "latent_dim must be at least 1"),
        (lambda: dlf.make(4, e_step="batch"), "e_step must be one of full, minibatch"),
        (lambda: dlf.make(4, initialisation="mmd"), "init_steps must be at least 1"),
        (lambda: dlf.make(4, initialisation="mmd", init_steps=1, bandwidth="x"), "bandwidth must be one of"),
        (lambda: dlf.make(4, num_samples=5), "num_samples must be even"),
        (lambda: batch_ensemble.make(4, averaging="both"), "averaging must be one of"),
        (lambda: batch_ensemble.make(4).student(PLAIN), "needs a backbone that shares weights"),
        (lambda: batch_ensemble.make(4, decay=-1.0), "decay must be >= 0"),
        (lambda: regression.aleatoric("x"), "aleatoric must be one of input, member"),
        (lambda: batch_ensemble_mlp.make(5, num_members=2), "multiple of num_members"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
