"""Deep latent factor distillation (DLF): a Gaussian law over functions, f(x) = mean(x) + loading(x)^T z, z ~ N(0, I), fitted by EM."""

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller
from edd.distillers.regression import PredictiveMixture, aleatoric, check_members, no_law
from edd.distributions import latent_factor, latent_factor_em
from edd.distributions.latent_factor import Posterior, Statistics
from edd.losses import latent_factor as losses
from edd.losses import penalties
from edd.models.base import change_output_layer

E_STEPS = ("full", "minibatch")
INITIALISATIONS = ("whitened", "mmd", "random")
NOISE_FLOOR = 1e-6  # of the members' mean variance around the student's mean


def make(
    num_members: int,
    num_outputs: int = 2,
    *,
    latent_dim: int = 10,
    e_step: str = "full",
    expand: bool | None = None,
    update_every: int = 10,
    inner_iterations: int = 3,
    initialisation: str = "whitened",
    init_steps: int = 0,
    penalty_weight: float = 1.0,
    bandwidth: str | float = "dimension",
    analytic_mmd: bool = True,
    aleatoric_mode: str = "input",
    num_samples: int = 100,
    include_noise: bool = False,
) -> Distiller:
    """Latent factor student of regression members. Its outputs: mean, q loadings, and with "input" noise a log-variance.

    The loss is the Q function of each design point, divided by M. Between its steps the E-step, the noise variance in closed form and
    (by default) parameter expansion are computed from sums over the design set.

    Args:
      num_members: M; with M - 1 <= q only the noise floor bounds the likelihood.
      num_outputs: 2, the members' mean and variance.
      latent_dim: q >= 1.
      e_step: "full", over the whole design set every `update_every` steps, or "minibatch", from each batch alone (the paper's algorithm,
        which optimises a composite likelihood).
      expand: PX-EM, which rewrites the output layer; None: for the full E-step only.
      update_every: steps between two E-steps.
      inner_iterations: EM iterations on the sums in each of them.
      initialisation: "mmd": for `init_steps` steps the members' latents are free parameters, pulled to N(0, I) by `penalty_weight` times
        their maximum mean discrepancy; "whitened": the first update expands, whatever `expand`; "random": neither.
      init_steps: steps of the penalised phase, >= 1 for "mmd".
      penalty_weight: >= 0.
      bandwidth: as `penalties.squared_bandwidths`.
      analytic_mmd: against N(0, I) itself; False: against as many fresh normal draws.
      aleatoric_mode: as `regression.aleatoric`.
      num_samples: S, even: functions drawn at prediction, in pairs z and -z so that their mean is the student's.
      include_noise: add the model's noise variance to every function's variance at prediction.

    Raises:
      ValueError: an option out of range.

    References:
      arXiv 2510.19290, algorithm 1; specification 1 to 4 (2.9 for the expansion).
    """
    check_members(num_members, num_outputs)
    _check(latent_dim, e_step, update_every, inner_iterations, initialisation, init_steps, penalty_weight, num_samples)
    q, noise = latent_dim, aleatoric(aleatoric_mode)
    expand = (e_step == "full") if expand is None else expand
    warmed = initialisation == "mmd"
    if warmed:
        penalties.squared_bandwidths(bandwidth, q)

    def init(key):
        latents = jax.random.normal(key, (num_members, q))
        state = {
            "posterior": Posterior(latents, jnp.eye(q)),
            "noise_variance": jnp.float32(1.0),
            "warm": jnp.float32(warmed),
            "first": jnp.float32(1.0),
            "count": jnp.float32(1.0),
            "noise": no_law(),
        }
        return ({"latents": latents} if warmed else {}), state

    def targets(member_outputs):
        return {"means": jnp.moveaxis(member_outputs[..., 0], 0, -1), "noise": noise.targets(member_outputs[..., 1])}

    def residuals(outputs, targets):
        return jnp.moveaxis(targets["means"] - outputs.logits[..., :1], -1, 0), outputs.logits[..., 1 : 1 + q]

    def loss(outputs, targets, params, state, labels, key):
        del labels, key
        errors, loading = residuals(outputs, targets)
        value = losses.negative_q(errors, loading, state["posterior"], state["noise_variance"])
        if warmed:
            fitted = jnp.einsum("...q,mq->m...", loading, params["latents"])
            error = jnp.square(errors - fitted).sum(0) / state["noise_variance"]
            free = 0.5 * (num_members * jnp.log(state["noise_variance"]) + error)
            value = jnp.where(state["warm"] > 0, free, value)
        return value / num_members + noise.loss(outputs.logits[..., 1 + q :], targets["noise"])

    def penalty(variables, params, state, key):
        del variables
        latents = params["latents"]
        if analytic_mmd:
            distance = penalties.mmd_to_normal(latents, bandwidth)
        else:
            distance = penalties.mmd(latents, jax.random.normal(key, latents.shape), bandwidth)
        prior = 0.5 * jnp.square(latents).sum() / (num_members * state["count"])
        return jnp.where(state["warm"] > 0, prior + penalty_weight * distance, 0.0)

    def statistics(outputs, targets, params, state):
        errors, loading = residuals(outputs, targets)
        errors, loading = errors.reshape(num_members, -1), loading.reshape(-1, q)
        return {"points": latent_factor.statistics(errors, loading), "noise": noise.statistics(targets["noise"])}

    def update(statistics, variables, params, state, step):
        points: Statistics = statistics["points"]
        mean_square = points.squares.sum() / (num_members * points.count)
        warm = (step < init_steps).astype(jnp.float32) if warmed else jnp.float32(0.0)
        start = jnp.where(state["first"] > 0, mean_square, state["noise_variance"])
        expanding = jnp.bool_(expand) | ((state["first"] > 0) & (initialisation == "whitened"))
        common = {"iterations": inner_iterations, "floor": NOISE_FLOOR * mean_square}
        grown, plain = (latent_factor_em.fit_latents(points, start, expand=each, **common) for each in (True, False))
        found = jax.tree.map(lambda yes, no: jnp.where(expanding, yes, no), grown, plain)
        shift, factor = found.change
        fresh = {
            "posterior": found.posterior,
            "noise_variance": found.noise_variance,
            "warm": warm,
            "first": warm,
            "count": points.count,
            "noise": noise.fit(statistics["noise"]),
        }
        kept = {**fresh, "posterior": state["posterior"], "noise_variance": start}
        chosen = jax.tree.map(lambda new, old: jnp.where(warm > 0, old, new), fresh, kept)

        def moved(leaf):
            loading = leaf[..., 1 : 1 + q]
            changed = leaf.at[..., 0].add(loading @ shift).at[..., 1 : 1 + q].set(loading @ factor)
            return jnp.where(warm > 0, leaf, changed)

        return change_output_layer(variables, moved), params, chosen

    def predict(outputs, params, state, key):
        del params
        latent_key, noise_key = jax.random.split(key)
        mean, loading = outputs.logits[..., 0], outputs.logits[..., 1 : 1 + q]
        half = latent_factor.sample(latent_key, jnp.zeros_like(mean), loading, num_samples=num_samples // 2)
        variances = noise.variances(outputs.logits[..., 1 + q :], state["noise"], noise_key, num_samples)
        extra = state["noise_variance"] if include_noise else 0.0
        return PredictiveMixture(mean[None] + jnp.concatenate([half, -half]), variances + extra)

    return Distiller(
        student=lambda make_backbone: make_backbone(1 + q + noise.num_outputs),
        init=init,
        targets=targets,
        loss=loss,
        predict=predict,
        penalty=penalty if warmed else None,
        statistics=statistics,
        update=update,
        update_from="design_set" if e_step == "full" else "minibatch",
        update_every=update_every if e_step == "full" else 1,
    )


def _check(latent_dim, e_step, update_every, inner_iterations, initialisation, init_steps, penalty_weight, num_samples) -> None:
    for name, value, known in (("e_step", e_step, E_STEPS), ("initialisation", initialisation, INITIALISATIONS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    for name, value in (("latent_dim", latent_dim), ("update_every", update_every), ("inner_iterations", inner_iterations)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if initialisation == "mmd" and init_steps < 1:
        raise ValueError(f"init_steps must be at least 1 for initialisation='mmd', got {init_steps}")
    if not penalty_weight >= 0:
        raise ValueError(f"penalty_weight must be >= 0, got {penalty_weight}")
    if num_samples < 2 or num_samples % 2:
        raise ValueError(f"num_samples must be even and at least 2, got {num_samples}")
