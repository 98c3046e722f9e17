"""Preprocessing and keyed augmentations in JAX, on the device: each example's draw depends on its own key alone."""

import functools
import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from edd.data.base import Info
from edd.typing import Array

SEPARATOR = "+"


def preprocess(info: Info) -> Callable[[Array], Array]:
    """The map from a data set's inputs [*B, *S] as stored to network inputs; unitless.

    Token ids (a set of dtype int32) stay as they are; everything else becomes float32:
    uint8 becomes [0, 1]; the centre of `info.crop` pixels a side is cut out of larger images; then each image is standardised by itself
    (`info.per_image`) or, where `info` has statistics, (x - mean) / std per channel. An out-of-distribution set goes through the map of
    the set the network was trained on.

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
        if info.crop:
            scaled = centre(scaled, info.crop)
        if info.per_image:
            return standardise(scaled)
        if not mean:
            return scaled
        if scaled.shape[-1] != len(mean):
            raise ValueError(f"inputs must have {len(mean)} channels on the last axis as {info.name} has, got shape {scaled.shape}")
        row = (1,) * (scaled.ndim - 1) + (-1,)
        return (scaled - jnp.array(mean, scaled.dtype).reshape(row)) / jnp.array(std, scaled.dtype).reshape(row)

    return apply


def standardise(images: Array) -> Array:
    """(x - mean) / deviation of each image [*B, H, W, C] over all its pixels and channels; unitless.

    The deviation is at least 1 / (255 sqrt(H W C)), one level of one byte among them, so that a constant image becomes zeros.

    Args:
      images: floats scaled to [0, 1].

    References:
      TensorFlow's `per_image_standardization` (there on [0, 255]), in the recipes of Mueller, Kornblith & Hinton 2019, A.1 and A.2.

    Examples:
      >>> standardise(jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)).ravel().tolist()
      [-1.0, 1.0]
    """
    axes = (-3, -2, -1)
    least = 1 / (255 * math.sqrt(math.prod(images.shape[-3:])))
    return (images - images.mean(axes, keepdims=True)) / jnp.maximum(images.std(axes, keepdims=True), least)


def centre(images: Array, size: int) -> Array:
    """The centre of `size` pixels a side of images [*B, H, W, C]; images of that size stay as they are."""
    height, width = images.shape[-3:-1]
    if not 1 <= size <= min(height, width):
        raise ValueError(f"size of the centre must lie in [1, {min(height, width)}], the images' side, got {size}")
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size, :]


def random_crop(key: Array, image: Array, padding: int, border: str = "reflect") -> Array:
    """Shifts an image [H, W, C] by up to `padding` pixels either way, each of (2 padding + 1)^2 shifts equally likely.

    The border is filled from the image's reflection ("reflect") or with zeros ("constant"); keeps shape and dtype.
    """
    height, width, _ = image.shape
    if not 0 <= padding < min(height, width):
        raise ValueError(f"padding must lie in [0, {min(height, width)}), below the image's sides, got {padding}")
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), border)
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def random_window(key: Array, image: Array, size: int) -> Array:
    """A window of `size` pixels a side of an image [H, W, C], each place equally likely; keeps the dtype."""
    height, width, channels = image.shape
    if not 1 <= size <= min(height, width):
        raise ValueError(f"size of the window must lie in [1, {min(height, width)}], the image's side, got {size}")
    top, left = jax.random.randint(key, (2,), 0, jnp.array([height - size + 1, width - size + 1]))
    return jax.lax.dynamic_slice(image, (top, left, 0), (size, size, channels))


def rectangle(key: Array, height: int, width: int) -> tuple[Array, Array]:
    """A random rectangle inside an image: (corner, sides), each (down, across) in pixels, not whole ones.

    Its width over its height is uniform in [3/4, 4/3), then its height between that of an area of 5 % and the largest that fits, then its
    place.

    References:
      Szegedy et al. 2015, "Going Deeper with Convolutions", section 6; in the order of TensorFlow's `sample_distorted_bounding_box`.
    """
    shape_key, size_key, place_key = jax.random.split(key, 3)
    aspect = jax.random.uniform(shape_key, (), jnp.float32, 3 / 4, 4 / 3)
    largest = jnp.minimum(height, width / aspect)
    tall = jax.random.uniform(size_key, (), jnp.float32, jnp.minimum(jnp.sqrt(0.05 * height * width / aspect), largest), largest)
    sides = jnp.stack([tall, aspect * tall])
    return jax.random.uniform(place_key, (2,), jnp.float32) * (jnp.array([height, width]) - sides), sides


def random_rectangle(key: Array, image: Array, size: int) -> Array:
    """A `rectangle` of an image [H, W, C], linearly resized to `size` pixels a side with anti-aliasing; floats, bytes scaled to [0, 1]."""
    if size < 1:
        raise ValueError(f"size of the resized rectangle must be at least 1, got {size}")
    image = unit(image)
    corner, sides = rectangle(key, *image.shape[:2])
    scale, shape = size / sides, (size, size, image.shape[2])
    return jax.image.scale_and_translate(image, shape, (0, 1), scale, -corner * scale, "linear", antialias=True)


def brightness(key: Array, image: Array) -> Array:
    """Adds one number, uniform in [-63, 63) levels of a byte, to an image [H, W, C] scaled to [0, 1]; floats out, not clipped."""
    image = unit(image)
    return image + jax.random.uniform(key, (), image.dtype, -63 / 255, 63 / 255)


def contrast(key: Array, image: Array) -> Array:
    """Multiplies an image's distance from each channel's mean by one factor, uniform in [0.2, 1.8); floats out, not clipped."""
    image = unit(image)
    mean = image.mean((0, 1), keepdims=True)
    return mean + jax.random.uniform(key, (), image.dtype, 0.2, 1.8) * (image - mean)


def unit(image: Array) -> Array:
    """Bytes as float32 in [0, 1]; floats as they are."""
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image


def horizontal_flip(key: Array, image: Array) -> Array:
    """Mirrors an image [H, W, C] left to right with probability one half; keeps shape and dtype."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def make(name: str, *, padding: int = 4) -> Callable[[Array, Array], Array]:
    """An augmentation by name: "none", or some of these joined by "+", applied in that order.

        crop           shifted by up to `padding` pixels, the border filled from the reflection
        shift          the same, the border filled with zeros (2 pixels: 25 shifts, as on MNIST; 4: pad to 40 and crop 32)
        flip           mirrored left to right with probability one half
        windowN        a random window of N pixels a side, for a set whose `crop` is N (evaluation takes the centre)
        rectangleN     5 to 100 % of the area at an aspect of 3/4 to 4/3, resized to N pixels a side, for the same (Inception's)
        brightness     plus up to 63 levels of a byte either way
        contrast       distances from the channels' means times 0.2 to 1.8

    Args:
      name: for instance "crop+flip"; "shift+flip" is He's, "window24+flip+brightness+contrast" TensorFlow's CIFAR-10 tutorial's.
      padding: largest shift of "crop" and "shift", in pixels, >= 0.

    Returns:
      Function (keys [*B], inputs [*B, H, W, C]) -> inputs of the same shape and dtype, but that a window and a rectangle have N pixels a
      side, and that bytes come back as floats in [0, 1] from rectangle, brightness and contrast. Example b's draw depends on keys[b]
      alone; the i-th part uses `fold_in(keys[b], i)`.

    Raises:
      ValueError: an unknown name, negative padding; keys or inputs of the wrong shape, a window larger than the images, when called.

    References:
      He et al. 2016, "Deep Residual Learning", section 4.2; Mueller, Kornblith & Hinton 2019, "When Does Label Smoothing Help?", A.1,
      A.2 and A.5.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> make("window3+flip")(keys, jnp.ones((2, 4, 4, 3))).shape
      (2, 3, 3, 3)
    """
    chosen = [] if name == "none" else [_part(part, padding) for part in str(name).split(SEPARATOR)]
    if padding < 0:
        raise ValueError(f"padding must be at least 0, got {padding}")

    def one(key, image):
        for index, part in enumerate(chosen):
            image = part(jax.random.fold_in(key, index), image)
        return image

    def apply(keys: Array, inputs: Array) -> Array:
        if not chosen:
            return inputs
        if inputs.ndim < 4 or keys.shape != inputs.shape[:-3]:
            raise ValueError(f"augmentation needs inputs [*B, H, W, C] and keys [*B], got {inputs.shape} and {keys.shape}")
        out = jax.vmap(one)(keys.reshape(-1), inputs.reshape(-1, *inputs.shape[-3:]))
        return out.reshape(*keys.shape, *out.shape[1:])

    return apply


def _part(name: str, padding: int) -> Callable[[Array, Array], Array]:
    """One part of an augmentation's name: (key, image) -> image."""
    parts = {
        "crop": functools.partial(random_crop, padding=padding),
        "flip": horizontal_flip,
        "shift": functools.partial(random_crop, padding=padding, border="constant"),
        "brightness": brightness,
        "contrast": contrast,
    }
    sized = {"window": random_window, "rectangle": random_rectangle}
    match = re.fullmatch(rf"({'|'.join(sized)})(\d+)", name)
    if match:
        return functools.partial(sized[match[1]], size=int(match[2]))
    if name not in parts:
        known = ", ".join([*parts, *(f"{each}N" for each in sized)])
        raise ValueError(f'unknown augmentation {name!r}: take "none" or {known} joined by "{SEPARATOR}"')
    return parts[name]
