"""Flow matching: a velocity field that carries Gaussian noise to the law of the members' logits along straight lines."""

from collections.abc import Callable

import jax.numpy as jnp

from edd.math import checks
from edd.typing import Array, Float


def interpolate(noise: Float[Array, "*B K"], samples: Float[Array, "*B K"], times: Float[Array, "*B"]) -> Float[Array, "*B K"]:
    """The straight line h_t = t h_1 + (1 - t) h_0 from the noise h_0 to the sample h_1.

    Args:
      noise, samples: ends of the lines, of one shape.
      times: in [0, 1].

    Raises:
      ValueError: shapes that do not fit each other.

    References:
      Lipman et al. 2023, "Flow Matching for Generative Modeling", eq. 22 with sigma_min = 0; Liu, Gong & Liu 2023, "Rectified Flow", eq. 1.

    Examples:
      >>> interpolate(jnp.zeros((1, 2)), jnp.array([[4.0, 8.0]]), jnp.array([0.25])).tolist()
      [[1.0, 2.0]]
    """
    if noise.shape != samples.shape or times.shape != samples.shape[:-1]:
        raise ValueError(f"noise and samples must be [*B, K] and times [*B], got {noise.shape}, {samples.shape} and {times.shape}")
    return times[..., None] * samples + (1.0 - times[..., None]) * noise


def conditional_flow_matching(
    velocity: Callable, noise: Float[Array, "*B K"], samples: Float[Array, "*B K"], times: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """||v(h_t, t) - (h_1 - h_0)||^2, the squared distance of a velocity from that of the line through h_t; in squared logits.

    Its mean over noise, samples and times is least at v(h, t) = E[h_1 - h_0 | h_t = h], whose flow carries the law of the noise at t = 0
    to that of the samples at t = 1. One call of `velocity`.

    Args:
      velocity: (h_t [*B, K], times [*B]) -> [*B, K].
      noise: h_0, drawn independently of the samples.
      samples: h_1.
      times: in [0, 1], uniform draws.

    Returns:
      Squared norms [*B], not averaged.

    Raises:
      ValueError: shapes that do not fit each other.

    References:
      Lipman et al. 2023, eq. 23; Park et al. 2025, "Ensemble Distribution Distillation via Flow Matching".

    Examples:
      >>> field = lambda points, times: jnp.ones_like(points)
      >>> conditional_flow_matching(field, jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]]), jnp.array([0.5])).tolist()
      [4.0]
    """
    found = velocity(interpolate(noise, samples, times), times)
    checks.same_shape(found, samples, "velocity(h_t, t)", "samples")
    return jnp.square(found - (samples - noise)).sum(-1)
