"""Corruptions against scipy and numpy, their range, and their growth with severity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from edd.data import corruptions

SHAPE = (6, 12, 10, 3)
KEYS = jax.random.split(jax.random.key(0), SHAPE[0])
IMAGES = np.random.default_rng(0).uniform(0.3, 0.6, SHAPE).astype(np.float32)


def distance(name, severity):
    return float(np.abs(np.asarray(corruptions.make(name, severity)(KEYS, IMAGES)) - IMAGES).mean())


@pytest.mark.parametrize("name", corruptions.SEVERITIES)
def test_shape_dtype_range_and_growing_severity(name):
    extreme = np.random.default_rng(1).integers(0, 2, SHAPE).astype(np.float32)
    found = corruptions.make(name, 5)(KEYS, extreme)
    assert found.shape == SHAPE and found.dtype == jnp.float32
    assert float(found.min()) >= 0.0 and float(found.max()) <= 1.0
    assert 0 < distance(name, 1) < distance(name, 3) < distance(name, 5)


@pytest.mark.parametrize("name", corruptions.SEVERITIES)
def test_bytes_are_corrupted_as_floats_are(name):
    pixels = np.round(IMAGES * 255).astype(np.uint8)
    found = corruptions.make(name, 3)(KEYS, pixels)
    assert found.dtype == jnp.uint8
    expected = np.asarray(corruptions.make(name, 3)(KEYS, pixels.astype(np.float32) / 255)) * 255
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=0.502)


def test_blur_is_scipys():
    found = corruptions.make("gaussian_blur", 5)(KEYS, IMAGES)
    expected = ndimage.gaussian_filter(IMAGES.astype(np.float64), (0, 1.0, 1.0, 0), mode="mirror", truncate=4.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_contrast_and_brightness_are_their_formulas():
    mean = IMAGES.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(corruptions.make("contrast", 2)(KEYS, IMAGES), mean + 0.5 * (IMAGES - mean), rtol=1e-5)
    np.testing.assert_allclose(corruptions.make("brightness", 3)(KEYS, IMAGES), IMAGES + 0.15, rtol=1e-6)


def test_noise_has_its_deviation_and_its_own_key():
    noise = corruptions.make("gaussian_noise", 5)
    change = np.asarray(noise(KEYS, IMAGES)) - IMAGES
    assert abs(change.std() - 0.10) < 5 * 0.10 / (2 * change.size) ** 0.5
    np.testing.assert_array_equal(noise(KEYS[::-1], IMAGES[::-1]), noise(KEYS, IMAGES)[::-1])
    assert not np.array_equal(change[0], change[1])


def test_pixelate_has_few_distinct_columns():
    found = np.asarray(corruptions.make("pixelate", 5)(KEYS, IMAGES))
    assert len(np.unique(found[0, :, 0, 0])) == int(12 * 0.65) and len(np.unique(found[0, 0, :, 0])) == int(10 * 0.65)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corruptions.make("fog", 1), "unknown corruption 'fog': the known ones are gaussian_noise"),
        (lambda: corruptions.make("contrast", 0), "severity must be 1, 2, 3, 4 or 5, got 0"),
        (lambda: corruptions.make("contrast", 1)(KEYS[:2], IMAGES), r"keys \[B\], got"),
    ],
)
def test_bad_corruptions_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
