"""What the regression methods share: members as (mean, variance), the predictive mixture, and the aleatoric variance.

Members' outputs are [M, *B, 2]: a mean and a variance of the target. A student of functions (latent factors, heads) says how the means
vary; the noise of an observation comes from `Aleatoric`, an inverse gamma fitted to the members' variances, whose draws multiply
either one number ("member", one variance for each member as in the paper) or a variance predicted from the input ("input").
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edd.distributions import inverse_gamma
from edd.distributions.inverse_gamma import InverseGamma
from edd.typing import Array, Key, PyTree

MODES = ("input", "member")
LEAST_VARIANCE = 1e-6


class PredictiveMixture(NamedTuple):
    """An equal-weight mixture of Gaussians for each example, in the unit of the training targets: both [S, *B]."""

    means: Array
    variances: Array


def mean_and_variance(outputs: Array) -> Array:
    """A network's raw outputs [*, 2] as (mean, variance) [*, 2]: softplus of the second, at least 1e-6.

    Examples:
      >>> mean_and_variance(jnp.array([3.0, 0.0])).round(4).tolist()
      [3.0, 0.6930999755859375]
    """
    return jnp.stack([outputs[..., 0], jax.nn.softplus(outputs[..., 1]) + LEAST_VARIANCE], -1)


def check_members(num_members: int, num_outputs: int = 2) -> None:
    """ValueError unless there is at least one member and its outputs are a mean and a variance."""
    if isinstance(num_members, bool) or num_members < 1:
        raise ValueError(f"num_members must be at least 1, got {num_members!r}")
    if num_outputs != 2:
        raise ValueError(f"regression members have 2 outputs, a mean and a variance, got {num_outputs}")


class Aleatoric(NamedTuple):
    """The noise of an observation as a student predicts it; made by `aleatoric(mode)`.

    Attributes:
      num_outputs: columns of the student's output it needs (the last ones): 1 or 0.
      targets: members' variances [M, *B] -> {"log_variance": [*B], "deviation": [*B, M]}.
      loss: (columns [*B, num_outputs], targets) -> [*B].
      statistics: targets -> sums over examples.
      fit: statistics -> InverseGamma of the members' factors.
      variances: (columns, InverseGamma, key, S) -> [S, *B].
    """

    num_outputs: int
    targets: Callable
    loss: Callable
    statistics: Callable
    fit: Callable
    variances: Callable


def aleatoric(mode: str = "input") -> Aleatoric:
    """The members' observation noise, kept as a law over draws.

    Args:
      mode: "input": the geometric mean of the members' variances is learned as a function of the input, and one factor per draw, the
        same at all inputs, says how members differ; "member": one variance per draw for all inputs.

    Raises:
      ValueError: an unknown mode.

    References:
      arXiv 2510.19290 ("member"; specification 4).
    """
    if mode not in MODES:
        raise ValueError(f"aleatoric must be one of {', '.join(MODES)}, got {mode!r}")
    by_input = mode == "input"

    def targets(variances: Array) -> PyTree:
        logs = jnp.log(variances)
        centre = logs.mean(0)
        return {"log_variance": centre, "deviation": jnp.moveaxis(logs - centre[None], 0, -1)}

    def loss(columns: Array, targets: PyTree) -> Array:
        return 0.5 * jnp.square(columns[..., 0] - targets["log_variance"]) if by_input else jnp.zeros_like(targets["log_variance"])

    def statistics(targets: PyTree) -> PyTree:
        """Per member the sum of ln factors ("input"), or of variances ("member")."""
        deviation = targets["deviation"].reshape(-1, targets["deviation"].shape[-1])
        if by_input:
            return {"sum": deviation.sum(0), "count": jnp.asarray(deviation.shape[0], deviation.dtype)}
        variances = jnp.exp(deviation + targets["log_variance"].reshape(-1, 1))
        return {"sum": variances.sum(0), "count": jnp.asarray(deviation.shape[0], deviation.dtype)}

    def fit(statistics: PyTree) -> InverseGamma:
        mean = statistics["sum"] / statistics["count"]
        return inverse_gamma.fit(jnp.exp(mean) if by_input else mean)

    def variances(columns: Array, law: InverseGamma, key: Key, num_samples: int) -> Array:
        factors = inverse_gamma.sample(key, law, num_samples).reshape(num_samples, *[1] * (columns.ndim - 1))
        base = jnp.exp(columns[..., 0]) if by_input else jnp.ones(columns.shape[:-1], columns.dtype)
        return factors * base[None] + LEAST_VARIANCE

    return Aleatoric(int(by_input), targets, loss, statistics, fit, variances)


def no_law() -> InverseGamma:
    """The state before the first fit: factors that are practically one."""
    return InverseGamma(jnp.float32(inverse_gamma.LARGEST_SHAPE), jnp.float32(inverse_gamma.LARGEST_SHAPE))
