"""Keyed image corruptions of five severities, for studies of distribution shift without a corrupted copy of the data."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from edd.typing import Array

SEVERITIES = {  # strength at severity 1 to 5
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation of the kernel, pixels
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # factor on the distance from the image's mean
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # side of the coarse image over the image's
}


def make(name: str, severity: int) -> Callable[[Array, Array], Array]:
    """A corruption of images with values in [0, 1] (or uint8).

    After the CIFAR-10-C scripts' strengths; brightness is added in RGB (there in HSV), the coarse image of "pixelate" is
    bilinear (there a box filter), and blurring reflects at the border.

    Args:
      name: "gaussian_noise", "gaussian_blur", "contrast", "brightness" or "pixelate".
      severity: 1 to 5.

    Returns:
      Function (keys [B], inputs [B, H, W, C]) -> corrupted inputs of the same shape and dtype, clipped to the valid range.
      Only "gaussian_noise" is random; example b's noise depends on keys[b] alone.

    Raises:
      ValueError: an unknown name or severity; keys or inputs of the wrong shape, when called.

    References:
      Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations".

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 1)
      >>> make("brightness", 5)(keys, jnp.full((1, 1, 1, 1), 0.25)).item()
      0.550000011920929
    """
    if name not in SEVERITIES:
        raise ValueError(f"unknown corruption {name!r}: the known ones are {', '.join(SEVERITIES)}")
    if severity not in (1, 2, 3, 4, 5):
        raise ValueError(f"severity must be 1, 2, 3, 4 or 5, got {severity}")
    strength = SEVERITIES[name][severity - 1]

    def one(key, image):
        if name == "gaussian_noise":
            return image + strength * jax.random.normal(key, image.shape, image.dtype)
        if name == "gaussian_blur":
            return _blur(image, strength)
        if name == "contrast":
            mean = image.mean((0, 1), keepdims=True)
            return (image - mean) * strength + mean
        if name == "brightness":
            return image + strength
        coarse = (max(1, int(image.shape[0] * strength)), max(1, int(image.shape[1] * strength)), image.shape[2])
        return jax.image.resize(jax.image.resize(image, coarse, "linear"), image.shape, "nearest")

    def apply(keys: Array, inputs: Array) -> Array:
        if inputs.ndim != 4 or keys.shape != inputs.shape[:1]:
            raise ValueError(f"a corruption needs inputs [B, H, W, C] and keys [B], got {inputs.shape} and {keys.shape}")
        as_bytes = inputs.dtype == jnp.uint8
        values = jnp.clip(jax.vmap(one)(keys, inputs.astype(jnp.float32) / 255 if as_bytes else inputs), 0.0, 1.0)
        return jnp.round(values * 255).astype(jnp.uint8) if as_bytes else values

    return apply


def _blur(image: Array, deviation: float) -> Array:
    """Convolves [H, W, C] with a Gaussian cut at four standard deviations, one axis after the other."""
    reach = min(int(4 * deviation + 0.5), min(image.shape[:2]) - 1)
    offsets = range(-reach, reach + 1)
    weights = [math.exp(-0.5 * (offset / deviation) ** 2) for offset in offsets]
    for axis in (0, 1):
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(image, padding, "reflect")
        shifted = [jax.lax.slice_in_dim(padded, o + reach, o + reach + image.shape[axis], axis=axis) for o in offsets]
        image = sum(w * s for w, s in zip(weights, shifted, strict=True)) / sum(weights)
    return image
