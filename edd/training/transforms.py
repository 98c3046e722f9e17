"""Pieces of optimisers that recipes of papers ask for: gradients smoothed over steps, rates and decay for single layers."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from edd.typing import PyTree

KEPT = ("bias", "r", "s", "class_factor", "latents")  # no kernels, whatever their axes: members' biases and factors, a law's parameters


def smooth_gradients(decay: float) -> optax.GradientTransformation:
    """g <- decay g_before + (1 - decay) g, from zero and without correction for it.

    Times a learning rate this is momentum `decay` at the rate times (1 - decay).

    Args:
      decay: in [0, 1); 0 leaves gradients as they are.

    Raises:
      ValueError: `decay` outside [0, 1).

    References:
      Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", A.5 (0.9).

    Examples:
      >>> smooth = smooth_gradients(0.9)
      >>> state = smooth.init(jnp.zeros(1))
      >>> first, state = smooth.update(jnp.ones(1), state)
      >>> second, state = smooth.update(jnp.ones(1), state)
      >>> [round(float(each[0]), 4) for each in (first, second)]
      [0.1, 0.19]
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay of the gradients must lie in [0, 1), got {decay}")
    return optax.ema(decay, debias=False)


def scale_layers(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of each named layer by its factor: a learning rate of its own.

    Args:
      factors: layer name -> factor >= 0. A layer is every leaf that has the name on its path.

    Raises:
      ValueError: a negative factor; when initialised: a name that no layer has.

    References:
      Mueller, Kornblith & Hinton 2019, A.5 (the last layer at a tenth of the rate).

    Examples:
      >>> scaled = scale_layers({"output": 0.1})
      >>> weights = {"hidden": {"kernel": jnp.ones(1)}, "output": {"kernel": jnp.ones(1)}}
      >>> jax.tree.map(lambda leaf: round(float(leaf[0]), 4), scaled.update(weights, scaled.init(weights))[0])
      {'hidden': {'kernel': 1.0}, 'output': {'kernel': 0.1}}
    """
    if any(factor < 0 for factor in factors.values()):
        raise ValueError(f"factors of layers must be at least 0, got {dict(factors)}")

    def init(params):
        _check_layers(params, tuple(factors))
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params

        def scaled(path, leaf):
            for name, factor in factors.items():
                leaf = leaf * factor if name in _names(path)[:-1] else leaf
            return leaf

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformation(init, update)


def kernels(params: PyTree, layers: Sequence[str] = ()) -> PyTree:
    """True for leaves of two axes or more that are not one of `KEPT`, in `layers` alone where some are named: what weight decay touches.

    Raises:
      ValueError: a name that no layer has; the message lists the layers.

    Examples:
      >>> kernels({"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "b": {"kernel": jnp.ones((2, 2))}}, ("a",))
      {'a': {'bias': False, 'kernel': True}, 'b': {'kernel': False}}
    """
    _check_layers(params, layers)

    def touched(path, leaf) -> bool:
        names = _names(path)
        return jnp.ndim(leaf) >= 2 and not set(names[-1:]) & set(KEPT) and (not layers or not set(layers).isdisjoint(names[:-1]))

    return jax.tree_util.tree_map_with_path(touched, params)


def _check_layers(params: PyTree, layers: Sequence[str]) -> None:
    """ValueError unless every name is a layer's."""
    known = {name for path, _ in jax.tree_util.tree_leaves_with_path(params) for name in _names(path)[:-1] if not name.isdigit()}
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise ValueError(f"unknown layer {unknown[0]!r}: known: {', '.join(sorted(known - {'params'}))}")


def _names(path) -> tuple[str, ...]:
    return tuple(str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry)))) for entry in path)
