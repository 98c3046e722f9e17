"""Preprocessing and keyed augmentations in JAX, on the device: each example's draw depends on its own key alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from edd.data.base import Info
from edd.typing import Array

SEPARATOR = "+"


def preprocess(info: Info) -> Callable[[Array], Array]:
    """The map from a data set's inputs [*B, *S] as stored to network inputs; unitless.

    Token ids (a set of dtype int32) stay as they are; everything else becomes float32:
    uint8 becomes [0, 1]; then, where `info` has statistics, (x - mean) / std per channel. An out-of-distribution set goes
    through the map of the set the network was trained on.

    Args:
      info: description of the set the network is trained on; `std` entries > 0.

    Returns:
      Function of an array, float32 out (float64 stays float64, token ids int32).

    Raises:
      ValueError: mean and std of different lengths, a std that is not positive; channels that do not match, when called.

    Examples:
      >>> f = preprocess(Info("x", 2, (2, 2, 1), mean=(0.5,), std=(0.25,)))
      >>> f(jnp.full((1, 2, 2, 1), 255, jnp.uint8)).ravel().tolist()
      [2.0, 2.0, 2.0, 2.0]
    """
    mean, std = tuple(info.mean), tuple(info.std)
    if len(mean) != len(std) or any(not s > 0 for s in std):
        raise ValueError(f"info.mean and info.std must have one entry per channel and std be positive, got {mean} and {std}")

    def apply(inputs: Array) -> Array:
        inputs = jnp.asarray(inputs)
        if info.dtype == "int32":
            return inputs
        scaled = inputs.astype(jnp.float32) / 255 if inputs.dtype == jnp.uint8 else inputs
        if not jnp.issubdtype(scaled.dtype, jnp.floating):
            scaled = scaled.astype(jnp.float32)
        if not mean:
            return scaled
        if scaled.shape[-1] != len(mean):
            raise ValueError(f"inputs must have {len(mean)} channels on the last axis as {info.name} has, got shape {scaled.shape}")
        row = (1,) * (scaled.ndim - 1) + (-1,)
        return (scaled - jnp.array(mean, scaled.dtype).reshape(row)) / jnp.array(std, scaled.dtype).reshape(row)

    return apply


def random_crop(key: Array, image: Array, padding: int) -> Array:
    """Shifts an image [H, W, C] by up to `padding` pixels either way, filling from its reflection; keeps shape and dtype."""
    height, width, _ = image.shape
    if not 0 <= padding < min(height, width):
        raise ValueError(f"padding must lie in [0, {min(height, width)}), below the image's sides, got {padding}")
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), "reflect")
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def horizontal_flip(key: Array, image: Array) -> Array:
    """Mirrors an image [H, W, C] left to right with probability one half; keeps shape and dtype."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def make(name: str, *, padding: int = 4) -> Callable[[Array, Array], Array]:
    """An augmentation by name: "none", "crop", "flip", or several joined by "+", applied in that order.

    Args:
      name: for instance "crop+flip", the usual one of CIFAR-10.
      padding: largest shift of "crop", in pixels, >= 0.

    Returns:
      Function (keys [*B], inputs [*B, H, W, C]) -> inputs of the same shape and dtype. Example b's draw depends on keys[b]
      alone; the i-th part uses `fold_in(keys[b], i)`.

    Raises:
      ValueError: an unknown name, negative padding; keys or inputs of the wrong shape, when called.

    References:
      He et al. 2016, "Deep Residual Learning" (crop and flip; here the border is reflected, not zero).

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> make("crop+flip", padding=1)(keys, jnp.ones((2, 4, 4, 3))).shape
      (2, 4, 4, 3)
    """
    parts = {"crop": lambda key, image: random_crop(key, image, padding), "flip": horizontal_flip}
    chosen = [] if name == "none" else str(name).split(SEPARATOR)
    unknown = [part for part in chosen if part not in parts]
    if unknown:
        raise ValueError(f'unknown augmentation {unknown[0]!r}: take "none" or {", ".join(parts)} joined by "{SEPARATOR}"')
    if padding < 0:
        raise ValueError(f"padding must be at least 0, got {padding}")

    def one(key, image):
        for index, part in enumerate(chosen):
            image = parts[part](jax.random.fold_in(key, index), image)
        return image

    def apply(keys: Array, inputs: Array) -> Array:
        if not chosen:
            return inputs
        if inputs.ndim < 4 or keys.shape != inputs.shape[:-3]:
            raise ValueError(f"augmentation needs inputs [*B, H, W, C] and keys [*B], got {inputs.shape} and {keys.shape}")
        return jax.vmap(one)(keys.reshape(-1), inputs.reshape(-1, *inputs.shape[-3:])).reshape(inputs.shape)

    return apply
