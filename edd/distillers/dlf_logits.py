"""Deep latent factor distillation of classifiers: logits f(x) = mean(x) + L Z loading(x), Z ~ MN(0, I, I), fitted by EM."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller, Prediction, check_sizes, ensemble_prediction, expect_members
from edd.distillers.dlf import NOISE_FLOOR, check_options, expanded, latent_penalty
from edd.distributions import latent_factor, latent_factor_matrix_em
from edd.distributions.latent_factor import MatrixPosterior, Statistics
from edd.losses import latent_factor as losses
from edd.losses import penalties
from edd.models.base import change_output_layer


def make(
    num_members: int,
    num_classes: int,
    *,
    latent_dim: int = 8,
    e_step: str = "full",
    expand: bool | None = None,
    update_every: int = 200,
    inner_iterations: int = 3,
    initialisation: str = "whitened",
    init_steps: int = 0,
    penalty_weight: float = 1.0,
    bandwidth: str | float = "dimension",
    analytic_mmd: bool = True,
    centre: bool = False,
    num_samples: int = 100,
    include_noise: bool = False,
) -> Distiller:
    """Latent factor student of classifiers. The network has K + q outputs: mean logits and a loading that all classes share.

    The class factor L [K, K], lower triangular, is trained beside it. The loss is the Q function of each design point, divided by M K.
    Between its steps the E-step, the noise variance in closed form and (by default) parameter expansion of the loading and of L are
    computed from sums over the design set.

    Args:
      num_members: M >= 1.
      num_classes: K >= 2.
      latent_dim: q >= 1.
      e_step: "full", over the whole design set every `update_every` steps, or "minibatch", from each batch alone (the paper's algorithm,
        which optimises a composite likelihood).
      expand: PX-EM, which rewrites the output layer and L; None: for the full E-step only.
      update_every: steps between two E-steps.
      inner_iterations: EM iterations on the sums in each of them.
      initialisation, init_steps, penalty_weight, bandwidth, analytic_mmd: as in `dlf.make`; the discrepancy takes the M K rows of the
        latents as samples of R^q.
      centre: subtract each member's mean logit, which no probability depends on; False: raw logits, as the paper.
      num_samples: S, even: functions drawn at prediction, in pairs Z and -Z. The same draws for all inputs.
      include_noise: add the model's noise to the drawn logits at prediction, one draw for each input, function and class.

    Raises:
      ValueError: an option out of range.

    References:
      arXiv 2510.19290, algorithm 1 for logits; specification 1.3, 1.4, 2.2, 2.9, 3 and 4.

    Examples:
      >>> distiller = make(4, 10, latent_dim=8)
      >>> distiller.targets(jnp.zeros((4, 5, 10))).shape
      (5, 4, 10)
    """
    check_sizes(num_members, num_classes)
    check_options(latent_dim, e_step, update_every, inner_iterations, initialisation, init_steps, penalty_weight, num_samples)
    full, warmed = e_step == "full", initialisation == "mmd"
    if warmed:
        penalties.squared_bandwidths(bandwidth, latent_dim)
    method = _MatrixFactors(
        num_members=num_members,
        num_classes=num_classes,
        q=latent_dim,
        expand=full if expand is None else expand,
        expand_first=initialisation == "whitened",
        iterations=inner_iterations,
        init_steps=init_steps if warmed else 0,
        penalty_weight=penalty_weight,
        bandwidth=bandwidth,
        analytic_mmd=analytic_mmd,
        centre=centre,
        num_samples=num_samples,
        include_noise=include_noise,
    )
    return Distiller(
        student=lambda make_backbone: make_backbone(num_classes + latent_dim),
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


@dataclass(frozen=True)
class _MatrixFactors:
    """The method's functions, bound to its static choices. `init_steps` 0: no penalised phase."""

    num_members: int
    num_classes: int
    q: int
    expand: bool
    expand_first: bool
    iterations: int
    init_steps: int
    penalty_weight: float
    bandwidth: str | float
    analytic_mmd: bool
    centre: bool
    num_samples: int
    include_noise: bool

    def init(self, key):
        latents = jax.random.normal(key, (self.num_members, self.num_classes, self.q))
        ones = jnp.ones((self.num_classes, self.q))
        state = {
            "posterior": MatrixPosterior(latents, ones, jnp.eye(self.num_classes), jnp.eye(self.q)),
            "noise_variance": jnp.float32(1.0),
            "warm": jnp.float32(self.init_steps > 0),  # 1 in the penalised phase
            "first": jnp.float32(1.0),  # 1 until the first E-step
            "count": jnp.float32(1.0),
            "loading_norm": jnp.float32(0.0),  # root mean square over design points: the standard deviation of an average logit
        }
        params = {"class_factor": jnp.eye(self.num_classes)}
        return (params | {"latents": latents} if self.init_steps else params), state

    def targets(self, member_logits):
        expect_members(member_logits, self.num_members)
        if self.centre:
            member_logits = member_logits - member_logits.mean(-1, keepdims=True)
        return jnp.moveaxis(member_logits, 0, -2)

    def split(self, outputs):
        """(mean logits [*B, K], loading [*B, q])."""
        return outputs.logits[..., : self.num_classes], outputs.logits[..., self.num_classes :]

    def loss(self, outputs, targets, params, state, labels, key):
        del labels, key
        mean, loading = self.split(outputs)
        factor = jnp.tril(params["class_factor"])
        residuals = jnp.moveaxis(targets, -2, 0) - mean[None]
        value = losses.matrix_negative_q(residuals, loading, factor, state["posterior"], state["noise_variance"])
        if self.init_steps:
            fitted = jnp.einsum("...q,mkq->m...k", loading, factor @ params["latents"])
            error = jnp.square(residuals - fitted).sum((0, -1)) / state["noise_variance"]
            free = 0.5 * (self.num_members * self.num_classes * jnp.log(state["noise_variance"]) + error)
            value = jnp.where(state["warm"] > 0, free, value)
        return value / (self.num_members * self.num_classes)

    def penalty(self, variables, params, state, key):
        """Minus the latents' log prior, per design point and value, plus the weighted discrepancy; in the penalised phase only."""
        del variables
        rows = params["latents"].reshape(-1, self.q)
        return latent_penalty(rows, state, key if not self.analytic_mmd else None, self.penalty_weight, self.bandwidth)

    def statistics(self, outputs, targets, params, state) -> Statistics:
        del params, state
        mean, loading = self.split(outputs)
        residuals = jnp.moveaxis(targets, -2, 0) - mean[None]
        return latent_factor.statistics(residuals.reshape(self.num_members, -1, self.num_classes), loading.reshape(-1, self.q))

    def update(self, statistics, variables, params, state, step):
        """E-step, expansion and noise variance from the sums; the output layer and L as the expansion says."""
        mean_square = statistics.squares.sum() / (self.num_members * self.num_classes * statistics.count)
        warm = (step < self.init_steps).astype(jnp.float32) if self.init_steps else jnp.zeros_like(state["warm"])
        start = jnp.where(state["first"] > 0, mean_square, state["noise_variance"])
        factor = jnp.tril(params["class_factor"])
        found = self.fit(statistics, factor, start, NOISE_FLOOR * mean_square, state["first"] > 0)
        fresh = {
            "posterior": found.posterior,
            "noise_variance": found.noise_variance,
            "warm": warm,
            "first": warm,
            "count": statistics.count,
            "loading_norm": self.loading_norm(found, statistics),
        }
        kept = {**fresh, "posterior": state["posterior"], "noise_variance": start}
        if self.init_steps:  # in the penalised phase the noise is what the free latents leave
            known = state["posterior"]._replace(mean=params["latents"], variances=jnp.zeros((self.num_classes, self.q)))
            left = latent_factor_matrix_em.matrix_squared_error(statistics, factor, known)
            values = self.num_members * self.num_classes * statistics.count
            kept["noise_variance"] = jnp.maximum(left / values, NOISE_FLOOR * mean_square)

        def rewrite(leaf):
            mean, loading = leaf[..., : self.num_classes], leaf[..., self.num_classes :]
            changed = jnp.concatenate([mean + loading @ found.drift.T, loading @ found.factor], -1)
            return jnp.where(warm > 0, leaf, changed)

        chosen = jax.tree.map(lambda new, old: jnp.where(warm > 0, old, new), fresh, kept)
        params = {**params, "class_factor": jnp.where(warm > 0, params["class_factor"], found.class_factor)}
        return change_output_layer(variables, rewrite), params, chosen

    def loading_norm(self, found, statistics: Statistics):
        """Root mean square of |L| |loading| / sqrt(K) over the points of the sums."""
        squares = jnp.trace(found.factor.T @ statistics.gram @ found.factor) / statistics.count
        return jnp.sqrt(squares * jnp.square(found.class_factor).sum() / self.num_classes)

    def fit(self, statistics: Statistics, factor, noise_variance, floor, is_first) -> latent_factor_matrix_em.MatrixFit:
        common = {"iterations": self.iterations, "floor": floor}
        fit = lambda expand: latent_factor_matrix_em.matrix_fit_latents(statistics, factor, noise_variance, expand=expand, **common)  # noqa: E731
        return expanded(fit, self.expand, self.expand_first, is_first)

    def predict(self, outputs, params, state, key) -> Prediction:
        latent_key, noise_key = jax.random.split(key)
        mean, loading = self.split(outputs)
        factor = jnp.tril(params["class_factor"])
        half = latent_factor.sample(latent_key, jnp.zeros_like(mean), loading, factor, num_samples=self.num_samples // 2)
        logits = mean[None] + jnp.concatenate([half, -half])
        if self.include_noise:
            logits = logits + jnp.sqrt(state["noise_variance"]) * jax.random.normal(noise_key, logits.shape)
        return ensemble_prediction(logits)
