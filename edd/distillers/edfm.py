"""EDFM: the law of the members' logits as the end of a flow that starts at Gaussian noise, learned by flow matching."""

import jax
import jax.numpy as jnp

from edd.distillers.base import Distiller, check_sizes, ensemble_prediction
from edd.losses import flow_matching
from edd.typing import Array, Key, PyTree

FREQUENCIES = 4  # of the sines and cosines that a velocity knows the time by: half a turn, one, two, four


def make(
    num_members: int,
    num_classes: int,
    *,
    num_features: int = 64,
    widths: tuple[int, ...] = (128, 128),
    noise_variance: float = 4.0,
    num_draws: int = 1,
    num_steps: int = 7,
    num_samples: int = 32,
) -> Distiller:
    """Flow matching on logits: the backbone gives features of the input, a small network the velocity at (features, t, h_t).

    In training each example draws a member h_1, a time t ~ U(0, 1) and noise h_0 ~ N(0, sigma^2 I); the loss is that of
    `flow_matching.conditional_flow_matching`. In prediction noise is carried along the velocity by Euler's method to samples of logits, the
    members of the `Prediction`. All inputs share their noise, so that no prediction depends on the other inputs. Cost of a prediction: one
    pass of the backbone and `num_samples * num_steps` of the velocity network.

    Args:
      num_members: M >= 1; the backbone and the velocity do not depend on it.
      num_classes: K, at least 2.
      num_features: outputs of the backbone.
      widths: hidden units of the velocity network (SiLU).
      noise_variance: sigma^2 > 0, in squared logits.
      num_draws: independent (member, time, noise) per example and step, averaged; the paper has 1, more cost only velocity passes.
      num_steps: Euler steps of equal length. Few steps shrink or widen the law: the error falls as 1 / num_steps.
      num_samples: S >= 1 samples of logits per input.

    Raises:
      ValueError: an option out of range.

    References:
      Park et al. 2025, "Ensemble Distribution Distillation via Flow Matching", algorithms 1 and 2; noise variance, steps and samples are
      the defaults of its code, the velocity network is our own.

    Examples:
      >>> distiller = make(4, 10, widths=(16,))
      >>> params, state = distiller.init(jax.random.key(0))
      >>> [layer["kernel"].shape for layer in params["velocity"]]
      [(83, 16), (16, 10)]
    """
    check_sizes(num_members, num_classes)
    widths = tuple(widths)
    named = [("num_features", num_features), ("num_draws", num_draws), ("num_steps", num_steps), ("num_samples", num_samples)]
    for name, value in (*named, *(("widths", width) for width in widths)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be at least 1, an integer, got {value!r}")
    if not 0 < noise_variance < float("inf"):
        raise ValueError(f"noise_variance must be above 0 and finite, got {noise_variance}")
    deviation = noise_variance**0.5

    def init(key: Key) -> tuple[PyTree, PyTree]:
        sizes = (num_features + 1 + 2 * FREQUENCIES + num_classes, *widths, num_classes)
        return {"velocity": _init_layers(key, sizes)}, {}

    def loss(outputs, targets, params, state, labels, keys):
        del state, labels
        one = lambda key, features, logits: _one_loss(params["velocity"], key, features, logits, deviation, num_draws)  # noqa: E731
        return jax.vmap(one)(keys, outputs.logits, targets)

    def predict(outputs, params, state, key):
        del state
        noise = deviation * jax.random.normal(key, (num_samples, num_classes), outputs.logits.dtype)
        return ensemble_prediction(sample(params["velocity"], outputs.logits, noise, num_steps))

    return Distiller(
        student=lambda make_backbone: make_backbone(num_features),
        init=init,
        targets=lambda member_logits: jnp.moveaxis(member_logits, 0, -2),
        loss=loss,
        predict=predict,
    )


def velocity(layers: PyTree, features: Array, points: Array, times: Array) -> Array:
    """The velocity [*B, K] at logits `points` [*B, K] and `times` [*B], given the input's features [*B, F]."""
    turns = jnp.pi * times[..., None] * (2.0 ** jnp.arange(FREQUENCIES)).reshape((1,) * times.ndim + (-1,))
    hidden = jnp.concatenate([features, times[..., None], jnp.sin(turns), jnp.cos(turns), points], -1)
    for layer in layers[:-1]:
        hidden = jax.nn.silu(_linear(layer, hidden))
    return _linear(layers[-1], hidden)


def sample(layers: PyTree, features: Array, noise: Array, num_steps: int) -> Array:
    """Logits [S, *B, K] at time 1 from noise [S, K] at time 0, along the velocity in `num_steps` Euler steps."""
    shape = (noise.shape[0], *features.shape[:-1])
    points = jnp.broadcast_to(noise.reshape(noise.shape[0], *[1] * (features.ndim - 1), -1), (*shape, noise.shape[-1]))
    given = jnp.broadcast_to(features[None], (*shape, features.shape[-1]))
    for step in range(num_steps):
        points = points + velocity(layers, given, points, jnp.full(shape, step / num_steps, features.dtype)) / num_steps
    return points


def _one_loss(layers: PyTree, key: Key, features: Array, logits: Array, deviation: float, num_draws: int) -> Array:
    """One example's loss [*L] (a sequence's [L] for each position) from its features [*L, F] and its members' logits [*L, M, K]."""

    def drawn(key):
        member_key, time_key, noise_key = jax.random.split(key, 3)
        shape = logits.shape[:-2]
        member = jax.random.randint(member_key, shape, 0, logits.shape[-2])
        chosen = jnp.take_along_axis(logits, member[..., None, None], -2)[..., 0, :]
        times = jax.random.uniform(time_key, shape, logits.dtype)
        noise = deviation * jax.random.normal(noise_key, chosen.shape, logits.dtype)
        return flow_matching.conditional_flow_matching(lambda h, t: velocity(layers, features, h, t), noise, chosen, times)

    return jax.vmap(drawn)(jax.random.split(key, num_draws)).mean(0)


def _init_layers(key: Key, sizes: tuple[int, ...]) -> list[dict]:
    """Linear layers with LeCun's normal kernels and zero biases."""
    layers = []
    for index, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:])):
        kernel = jax.random.normal(jax.random.fold_in(key, index), (inputs, outputs)) / inputs**0.5
        layers.append({"kernel": kernel, "bias": jnp.zeros(outputs)})
    return layers


def _linear(layer: dict, x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
