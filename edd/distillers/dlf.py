"""Deep latent factor distillation (DLF): a Gaussian law over functions, f(x) = mean(x) + loading(x)^T z, z ~ N(0, I), fitted by EM."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller, expect_members
from edd.distillers.regression import Aleatoric, PredictiveMixture, aleatoric, check_members, no_law
from edd.distributions import latent_factor, latent_factor_em
from edd.distributions.latent_factor import Posterior, Statistics
from edd.losses import latent_factor as losses
from edd.losses import penalties
from edd.models.base import change_output_layer
from edd.typing import Array

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
        The prior of the free latents is weighed against the points of one update: with E-steps from minibatches, those of the batch.
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
    check_options(latent_dim, e_step, update_every, inner_iterations, initialisation, init_steps, penalty_weight, num_samples)
    full, warmed = e_step == "full", initialisation == "mmd"
    if warmed:
        penalties.squared_bandwidths(bandwidth, latent_dim)
    method = _LatentFactors(
        num_members=num_members,
        q=latent_dim,
        noise=aleatoric(aleatoric_mode),
        expand=full if expand is None else expand,
        expand_first=initialisation == "whitened",
        iterations=inner_iterations,
        init_steps=init_steps if warmed else 0,
        penalty_weight=penalty_weight,
        bandwidth=bandwidth,
        analytic_mmd=analytic_mmd,
        num_samples=num_samples,
        include_noise=include_noise,
    )
    return Distiller(
        student=lambda make_backbone: make_backbone(1 + latent_dim + method.noise.num_outputs),
        init=method.init,
        targets=method.targets,
        loss=method.loss,
        predict=method.predict,
        penalty=method.penalty if warmed else None,
        statistics=method.statistics,
        update=method.update,
        update_from="design_set" if full else "minibatch",
        update_every=update_every if full else 1,
        least_points=latent_dim,
    )


def split(outputs, latent_dim: int) -> tuple[Array, Array, Array]:
    """(mean [*B], loading [*B, q], columns of the noise) of the student's raw outputs."""
    return outputs.logits[..., 0], outputs.logits[..., 1 : 1 + latent_dim], outputs.logits[..., 1 + latent_dim :]


def function_law(outputs, state) -> tuple[Array, Array]:
    """(mean [*B], loading [*B, q]) of the Gaussian law over functions that a trained student's outputs and state stand for."""
    return split(outputs, state["posterior"].mean.shape[-1])[:2]


@dataclass(frozen=True)
class _LatentFactors:
    """The method's functions, bound to its static choices. `init_steps` 0: no penalised phase."""

    num_members: int
    q: int
    noise: Aleatoric
    expand: bool
    expand_first: bool
    iterations: int
    init_steps: int
    penalty_weight: float
    bandwidth: str | float
    analytic_mmd: bool
    num_samples: int
    include_noise: bool

    def init(self, key):
        latents = jax.random.normal(key, (self.num_members, self.q))
        state = {
            "posterior": Posterior(latents, jnp.eye(self.q)),
            "noise_variance": jnp.float32(1.0),
            "warm": jnp.float32(self.init_steps > 0),  # 1 in the penalised phase
            "first": jnp.float32(1.0),  # 1 until the first E-step
            "count": jnp.float32(1.0),
            "noise": no_law(),
        }
        return ({"latents": latents} if self.init_steps else {}), state

    def targets(self, member_outputs):
        expect_members(member_outputs, self.num_members)
        return {"means": jnp.moveaxis(member_outputs[..., 0], 0, -1), "noise": self.noise.targets(member_outputs[..., 1])}

    def split(self, outputs):
        return split(outputs, self.q)

    def loss(self, outputs, targets, params, state, labels, key):
        del labels, key
        mean, loading, columns = self.split(outputs)
        residuals = jnp.moveaxis(targets["means"], -1, 0) - mean[None]
        value = losses.negative_q(residuals, loading, state["posterior"], state["noise_variance"])
        if self.init_steps:
            fitted = jnp.einsum("...q,mq->m...", loading, params["latents"])
            error = jnp.square(residuals - fitted).sum(0) / state["noise_variance"]
            free = 0.5 * (self.num_members * jnp.log(state["noise_variance"]) + error)
            value = jnp.where(state["warm"] > 0, free, value)
        return value / self.num_members + self.noise.loss(columns, targets["noise"])

    def penalty(self, variables, params, state, key):
        """Minus the latents' log prior, per design point and member, plus the weighted discrepancy; in the penalised phase only."""
        del variables
        return latent_penalty(params["latents"], state, key if not self.analytic_mmd else None, self.penalty_weight, self.bandwidth)

    def statistics(self, outputs, targets, params, state):
        del params, state
        mean, loading, _ = self.split(outputs)
        residuals = (jnp.moveaxis(targets["means"], -1, 0) - mean[None]).reshape(self.num_members, -1)
        return {
            "points": latent_factor.statistics(residuals, loading.reshape(-1, self.q)),
            "noise": self.noise.statistics(targets["noise"]),
        }

    def update(self, statistics, variables, params, state, step):
        """E-step, expansion and noise variance from the sums, and the output layer as the expansion says."""
        points: Statistics = statistics["points"]
        mean_square = points.squares.sum() / (self.num_members * points.count)
        warm = (step < self.init_steps).astype(jnp.float32) if self.init_steps else jnp.zeros_like(state["warm"])
        start = jnp.where(state["first"] > 0, mean_square, state["noise_variance"])
        found = self.fit(points, start, NOISE_FLOOR * mean_square, state["first"] > 0)
        fresh = {
            "posterior": found.posterior,
            "noise_variance": found.noise_variance,
            "warm": warm,
            "first": warm,
            "count": points.count,
            "noise": self.noise.fit(statistics["noise"]),
        }
        kept = {**fresh, "posterior": state["posterior"], "noise_variance": start}
        if self.init_steps:  # in the penalised phase the noise is what the free latents leave
            known = Posterior(params["latents"], jnp.zeros((self.q, self.q)))
            left = latent_factor_em.squared_error(points, known) / (self.num_members * points.count)
            kept["noise_variance"] = jnp.maximum(left, NOISE_FLOOR * mean_square)

        def rewrite(leaf):
            loading = leaf[..., 1 : 1 + self.q]
            changed = leaf.at[..., 0].add(loading @ found.change.shift).at[..., 1 : 1 + self.q].set(loading @ found.change.factor)
            return jnp.where(warm > 0, leaf, changed)

        chosen = jax.tree.map(lambda new, old: jnp.where(warm > 0, old, new), fresh, kept)
        return change_output_layer(variables, rewrite), params, chosen

    def fit(self, points: Statistics, noise_variance, floor, is_first) -> latent_factor_em.Fit:
        common = {"iterations": self.iterations, "floor": floor}
        fit = lambda expand: latent_factor_em.fit_latents(points, noise_variance, expand=expand, **common)  # noqa: E731
        return expanded(fit, self.expand, self.expand_first, is_first)

    def predict(self, outputs, params, state, key) -> PredictiveMixture:
        del params
        latent_key, noise_key = jax.random.split(key)
        mean, loading, columns = self.split(outputs)
        half = latent_factor.sample(latent_key, jnp.zeros_like(mean), loading, num_samples=self.num_samples // 2)
        variances = self.noise.variances(columns, state["noise"], noise_key, self.num_samples)
        extra = state["noise_variance"] if self.include_noise else 0.0
        return PredictiveMixture(mean[None] + jnp.concatenate([half, -half]), variances + extra)


def latent_penalty(rows, state, key, weight: float, bandwidth: str | float):
    """Prior of the free latents [rows, q] per design point and row, plus `weight` times their discrepancy; key None: the analytic one."""
    normal = penalties.mmd_to_normal(rows, bandwidth) if key is None else penalties.mmd(rows, jax.random.normal(key, rows.shape), bandwidth)
    prior = 0.5 * jnp.square(rows).sum() / (len(rows) * state["count"])
    return jnp.where(state["warm"] > 0, prior + weight * normal, 0.0)


def expanded(fit, always: bool, at_first: bool, is_first):
    """`fit(expand)` with parameter expansion always, at the first update alone, or never."""
    if always or not at_first:
        return fit(always)
    return jax.tree.map(lambda yes, no: jnp.where(is_first, yes, no), fit(True), fit(False))


def check_options(latent_dim, e_step, update_every, inner_iterations, initialisation, init_steps, penalty_weight, num_samples) -> None:
    """ValueError for an option out of range; shared with the logits' form."""
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
