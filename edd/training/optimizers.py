"""Optimisers and learning-rate schedules from names; all for one replica, the engine maps them.

Weight decay touches kernels only (leaves of at least two axes) unless asked otherwise. Clipping is by the global norm of one
replica's gradient, computed so that it neither overflows nor underflows in float32.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from edd.training.transforms import kernels, scale_layers, smooth_gradients
from edd.typing import Array, PyTree

OPTIMIZERS = ("sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "lamb", "lion", "sgld")
DECOUPLED = ("adamw", "lamb", "lion")  # decay the weights themselves; the others add decay * weight to the gradient
SCHEDULES = ("constant", "cosine", "linear", "one_cycle", "multistep", "exponential", "inverse_sqrt")
DECAY = ("kernels", "all")


def make(
    name: str,
    learning_rate: float,
    *,
    total_steps: int,
    schedule: str = "constant",
    warmup_steps: int = 0,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay_on: str = "kernels",
    decay_layers: Sequence[str] = (),
    gradient_smoothing: float = 0.0,
    layer_rates: Mapping[str, float] | None = None,
    clip_norm: float | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    final_fraction: float = 0.0,
    milestones: Sequence[float] = (0.5, 0.75),
    decay_factor: float = 0.1,
    temperature: float = 1.0,
    num_examples: int = 1,
) -> optax.GradientTransformation:
    """The optimiser `name` with its schedule, weight decay and clipping, in this order: clip, decay, smooth, step, layers' rates.

    Args:
      name: "sgd" | "nesterov" (sgd with Nesterov momentum) | "adam" | "adamw" | "rmsprop" | "adagrad" | "lamb" | "lion" |
        "sgld" (`langevin`).
      learning_rate: peak rate, > 0.
      total_steps: optimiser steps of the whole run, >= 1.
      schedule: see `make_schedule`.
      warmup_steps: linear warm-up from 0, in [0, total_steps).
      momentum: of sgd, nesterov and rmsprop, in [0, 1).
      nesterov: Nesterov's variant of sgd's momentum.
      weight_decay: >= 0. Decoupled (times the learning rate) for adamw, lamb and lion, L2 for the others.
      decay_on: "kernels" (leaves of two axes or more but those of `transforms.KEPT`: no biases, norm scales or rank-one factors) | "all".
      decay_layers: names of the layers whose kernels decay; (): of all.
      gradient_smoothing: decay of the average that takes the gradient's place (`transforms.smooth_gradients`), in [0, 1).
      layer_rates: layer name -> what its learning rate is multiplied by (`transforms.scale_layers`), or None.
      clip_norm: largest global norm of one replica's gradient, > 0, or None.
      b1, b2, eps: of the Adam family; b2 also the decay of rmsprop.
      final_fraction: last learning rate over the peak, in [0, 1] (cosine, linear, exponential).
      milestones: fractions of the run at which "multistep" multiplies by `decay_factor`.
      decay_factor: in (0, 1].
      temperature: of sgld, >= 0.
      num_examples: N of sgld, >= 1.

    Returns:
      An optax.GradientTransformation for the gradients of one replica.

    Raises:
      ValueError: an unknown name (the message lists the known ones) or a value out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> optimizer = make("sgd", 0.5, total_steps=10, momentum=0.0)
      >>> updates, _ = optimizer.update({"w": jnp.ones(2)}, optimizer.init({"w": jnp.ones(2)}), {"w": jnp.ones(2)})
      >>> updates["w"].tolist()
      [-0.5, -0.5]
    """
    _choice("optimizer", name, OPTIMIZERS)
    _choice("decay_on", decay_on, DECAY)
    for label, value, good in (
        ("momentum", momentum, 0 <= momentum < 1),
        ("weight_decay", weight_decay, weight_decay >= 0),
        ("clip_norm", clip_norm, clip_norm is None or clip_norm > 0),
        ("b1", b1, 0 <= b1 < 1),
        ("b2", b2, 0 <= b2 < 1),
        ("eps", eps, eps > 0),
        ("temperature", temperature, temperature >= 0),
        ("num_examples", num_examples, num_examples >= 1),
    ):
        _range(label, value, good)
    shape = {"final_fraction": final_fraction, "milestones": milestones, "decay_factor": decay_factor}
    rate = make_schedule(schedule, learning_rate, total_steps=total_steps, warmup_steps=warmup_steps, **shape)
    mask = None if decay_on == "all" else functools.partial(kernels, layers=tuple(decay_layers))
    cores = {
        "sgd": lambda: optax.sgd(rate, momentum=momentum or None, nesterov=nesterov and momentum > 0),
        "nesterov": lambda: optax.sgd(rate, momentum=momentum or None, nesterov=momentum > 0),
        "adam": lambda: optax.adam(rate, b1=b1, b2=b2, eps=eps),
        "adamw": lambda: optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask),
        "rmsprop": lambda: optax.rmsprop(rate, decay=b2, eps=eps, momentum=momentum or None),
        "adagrad": lambda: optax.adagrad(rate, eps=eps),
        "lamb": lambda: optax.lamb(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask),
        "lion": lambda: optax.lion(rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=mask),
        "sgld": lambda: langevin(rate, temperature / num_examples),
    }
    coupled = weight_decay > 0 and name not in DECOUPLED
    before = [clip_by_global_norm(clip_norm)] if clip_norm is not None else []
    before += [optax.add_decayed_weights(weight_decay, mask=mask)] if coupled else []
    before += [smooth_gradients(gradient_smoothing)] if gradient_smoothing else []
    return optax.chain(*before, cores[name](), *([scale_layers(layer_rates)] if layer_rates else []))


def langevin(rate: Callable[[Array], Array], scale: float) -> optax.GradientTransformationExtraArgs:
    """Stochastic gradient Langevin dynamics: -rate g + N(0, 2 rate scale), with g the gradient of a mean loss over N examples.

    For a loss of minus log-likelihoods and scale = T / N the weights sample the posterior at temperature T as the rate goes to 0; weight
    decay 1 / (N v) on all weights is the prior N(0, v). `update` takes a typed `key`.

    References:
      Welling & Teh 2011, "Bayesian Learning via Stochastic Gradient Langevin Dynamics", equation 4 (rate = N epsilon / 2).
    """

    def update(updates, count, params=None, *, key, **_):
        del params
        step, (leaves, tree) = rate(count), jax.tree.flatten(updates)
        keys = jax.random.split(key, len(leaves))
        noisy = [jnp.sqrt(2 * step * scale) * jax.random.normal(k, g.shape, g.dtype) - step * g for k, g in zip(keys, leaves)]
        return jax.tree.unflatten(tree, noisy), count + 1

    return optax.GradientTransformationExtraArgs(lambda params: jnp.zeros((), jnp.int32), update)


def make_schedule(
    name: str,
    learning_rate: float,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    final_fraction: float = 0.0,
    milestones: Sequence[float] = (0.5, 0.75),
    decay_factor: float = 0.1,
) -> Callable[[Array], Array]:
    """Learning rate as a function of the step: linear warm-up, then the named shape over the steps that remain.

    "constant"; "cosine" and "linear" down to `final_fraction`; "one_cycle" (linear up over the first 45 %, down over the next
    45 %, then down to 1e-3 of the start; it has its own warm-up and takes none); "multistep" (times `decay_factor` at each
    of `milestones`, fractions of the run); "exponential" (down to `final_fraction`, which must be above 0); "inverse_sqrt".

    Raises:
      ValueError: an unknown name (the message lists the known ones) or a value out of range.

    Examples:
      >>> schedule = make_schedule("linear", 1.0, total_steps=10, warmup_steps=5)
      >>> [round(float(schedule(step)), 2) for step in (0, 1, 5, 10)]
      [0.0, 0.2, 1.0, 0.0]
    """
    _choice("schedule", name, SCHEDULES)
    for label, value, good in (
        ("learning_rate", learning_rate, learning_rate > 0),
        ("total_steps", total_steps, total_steps >= 1),
        ("warmup_steps", warmup_steps, 0 <= warmup_steps < total_steps),
        ("final_fraction", final_fraction, 0 <= final_fraction <= 1),
        ("decay_factor", decay_factor, 0 < decay_factor <= 1),
        ("milestones", milestones, all(0 < fraction < 1 for fraction in milestones)),
    ):
        _range(label, value, good)
    if name == "one_cycle" and warmup_steps:
        raise ValueError(f"warmup_steps must be 0 with the one_cycle schedule, which has its own, got {warmup_steps}")
    if name == "exponential" and final_fraction == 0:
        raise ValueError("final_fraction must be above 0 with the exponential schedule")
    steps = total_steps - warmup_steps
    shapes = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, steps, final_fraction),
        "linear": lambda: optax.linear_schedule(learning_rate, learning_rate * final_fraction, steps),
        "one_cycle": lambda: _one_cycle(learning_rate, steps),
        "multistep": lambda: optax.piecewise_constant_schedule(
            learning_rate, {max(1, round(fraction * total_steps) - warmup_steps): decay_factor for fraction in milestones}
        ),
        "exponential": lambda: optax.exponential_decay(learning_rate, steps, final_fraction),
        "inverse_sqrt": lambda: lambda step: learning_rate * jax.lax.rsqrt(1.0 + step / max(warmup_steps, 1)),
    }
    shape = shapes[name]()
    if not warmup_steps:
        return shape
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), shape], [warmup_steps])


def _one_cycle(peak: float, steps: int) -> Callable[[Array], Array]:
    """Smith's cycle: peak / 10 up to the peak, back, then annealed to peak / 10,000 (the schedule of the EnD2 experiments)."""
    rise, fall = max(1, round(0.45 * steps)), max(2, round(0.9 * steps))
    points, values = jnp.array([0.0, rise, fall, max(steps, fall + 1)]), peak * jnp.array([0.1, 1.0, 0.1, 1e-4])
    return lambda step: jnp.interp(jnp.asarray(step, jnp.float32), points, values)


def global_norm(tree: PyTree) -> Array:
    """Euclidean norm of all leaves together; finite whenever it is representable, NaN or inf exactly when a leaf is not finite.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(global_norm({"w": jnp.array([3e30, 4e30])})) == float(jnp.float32(5e30))
      True
    """
    leaves = [leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in jax.tree.leaves(tree)]
    if not leaves:
        return jnp.zeros(())
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf), initial=0.0) for leaf in leaves]))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    return scale * jnp.sqrt(sum(jnp.sum(jnp.square(leaf / scale)) for leaf in leaves))


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scales the whole gradient so that its global norm is at most `limit`; exact for any finite norm."""

    def update(updates, state, params=None):
        del params
        scale = jnp.minimum(1.0, limit / jnp.maximum(global_norm(updates), limit))
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _choice(argument: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{argument} must be one of {', '.join(known)}, got {value!r}")


def _range(argument: str, value, good: bool) -> None:
    if not good:
        raise ValueError(f"{argument} is out of range: got {value}")
