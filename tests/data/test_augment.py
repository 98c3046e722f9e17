"""Augmentations against numpy, one example at a time, and preprocessing against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.data import augment, sources
from edd.data.base import Info

KEYS = jax.random.split(jax.random.key(0), 64)
IMAGES = np.random.default_rng(0).integers(0, 256, (64, 6, 5, 3)).astype(np.uint8)


def all_crops(image, padding):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), "reflect")
    return {
        (top, left): padded[top : top + image.shape[0], left : left + image.shape[1]]
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    }


def test_none_is_the_identity():
    assert augment.make("none")(KEYS, IMAGES) is IMAGES


def test_crop_is_a_window_of_the_reflected_image_and_every_window_occurs():
    out = np.asarray(jax.jit(augment.make("crop", padding=1))(KEYS, IMAGES))
    assert out.dtype == np.uint8 and out.shape == IMAGES.shape
    seen = []
    for image, found in zip(IMAGES, out, strict=True):
        matches = [shift for shift, window in all_crops(image, 1).items() if np.array_equal(window, found)]
        assert len(matches) == 1
        seen += matches
    assert len(set(seen)) == 9


def test_flip_mirrors_about_half_of_the_images():
    out = np.asarray(jax.jit(augment.make("flip"))(KEYS, IMAGES))
    flipped = [np.array_equal(found, image[:, ::-1]) for image, found in zip(IMAGES, out, strict=True)]
    kept = [np.array_equal(found, image) for image, found in zip(IMAGES, out, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 16 < sum(flipped) < 48  # 64 fair coins, more than 4 standard deviations either side


def test_parts_compose_in_order_with_their_own_keys():
    both = augment.make("crop+flip", padding=1)(KEYS, IMAGES)
    for i in range(4):
        step = augment.random_crop(jax.random.fold_in(KEYS[i], 0), jnp.asarray(IMAGES[i]), 1)
        np.testing.assert_array_equal(both[i], augment.horizontal_flip(jax.random.fold_in(KEYS[i], 1), step))


def test_each_draw_depends_on_its_own_key_alone():
    apply = augment.make("crop+flip", padding=2)
    whole = np.asarray(apply(KEYS, IMAGES))
    order = np.random.default_rng(1).permutation(64)
    np.testing.assert_array_equal(apply(KEYS[order], IMAGES[order]), whole[order])
    np.testing.assert_array_equal(apply(KEYS[5:7], IMAGES[5:7]), whole[5:7])
    assert not np.array_equal(apply(jax.random.split(jax.random.key(1), 64), IMAGES), whole)


def test_floats_are_augmented_as_bytes_are():
    apply = augment.make("crop+flip", padding=2)
    np.testing.assert_array_equal(apply(KEYS, IMAGES.astype(np.float32)), np.asarray(apply(KEYS, IMAGES), np.float32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.make("rotate"), "unknown augmentation 'rotate': take \"none\" or crop, flip"),
        (lambda: augment.make("crop+none"), "unknown augmentation 'none'"),
        (lambda: augment.make(""), "unknown augmentation ''"),
        (lambda: augment.make("crop", padding=-1), "padding must be at least 0"),
        (lambda: augment.make("crop", padding=5)(KEYS, IMAGES), r"padding must lie in \[0, 5\)"),
        (lambda: augment.make("flip")(KEYS[:3], IMAGES), r"keys \[\*B\], got \(64, 6, 5, 3\) and \(3,\)"),
        (lambda: augment.make("flip")(KEYS, IMAGES[..., 0]), r"inputs \[\*B, H, W, C\]"),
    ],
)
def test_bad_augmentations_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_preprocess_scales_bytes_and_standardises_channels():
    info = sources.info("cifar10")
    expected = (IMAGES.astype(np.float64) / 255 - np.array(info.mean)) / np.array(info.std)
    found = augment.preprocess(info)(IMAGES)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(augment.preprocess(info)(IMAGES[None])[0], found)


def test_preprocess_leaves_floats_without_statistics_alone():
    inputs = jnp.array([[0.5, -3.0]])
    found = augment.preprocess(sources.info("spirals"))(inputs)
    np.testing.assert_array_equal(found, inputs)
    np.testing.assert_array_equal(augment.preprocess(sources.info("digits"))(jnp.array([[1, 2]])), [[1.0, 2.0]])


def test_preprocess_keeps_float64(x64):
    found = augment.preprocess(sources.info("mnist"))(jnp.full((1, 28, 28, 1), 0.25, jnp.float64))
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, (0.25 - 0.1307) / 0.3081, rtol=1e-12)


def test_bad_preprocessing_is_refused():
    for mean, std in (((0.1,), ()), ((0.1,), (0.0,)), ((0.1,), (float("nan"),))):
        with pytest.raises(ValueError, match="one entry per channel and std be positive"):
            augment.preprocess(Info("x", 2, (4, 4, 1), mean, std))
    with pytest.raises(ValueError, match="must have 1 channels on the last axis as mnist has"):
        augment.preprocess(sources.info("mnist"))(IMAGES)
