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


def test_shift_is_each_of_the_equally_likely_zero_padded_crops():
    image = np.arange(1, 21, dtype=np.float32).reshape(5, 4, 1)
    keys = jax.random.split(jax.random.key(1), 5000)
    out = np.asarray(jax.jit(augment.make("shift", padding=2))(keys, np.broadcast_to(image, (5000, *image.shape))))
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    windows = {padded[top : top + 5, left : left + 4].tobytes(): 0 for top in range(5) for left in range(5)}
    for found in out:
        windows[found.tobytes()] += 1
    assert len(windows) == 25
    assert all(abs(count - 200) < 70 for count in windows.values())  # 5 standard deviations of a share of 1/25


def test_window_is_a_part_of_the_image_and_every_place_occurs():
    out = np.asarray(jax.jit(augment.make("window4"))(KEYS, IMAGES))
    assert out.shape == (64, 4, 4, 3) and out.dtype == np.uint8
    places = [(top, left) for top in range(3) for left in range(2)]
    seen = set()
    for image, found in zip(IMAGES, out, strict=True):
        (place,) = [(t, l) for t, l in places if np.array_equal(image[t : t + 4, l : l + 4], found)]
        seen.add(place)
    assert seen == set(places)


def test_brightness_adds_one_number_per_image():
    moved = np.asarray(augment.make("brightness")(KEYS, IMAGES)) * 255 - IMAGES
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:, :1, :1, :1], moved.shape), atol=1e-4)
    deltas = moved[:, 0, 0, 0]
    assert -63.001 <= deltas.min() < -40 and 40 < deltas.max() <= 63.001


def test_contrast_scales_around_each_channels_mean():
    out = np.asarray(augment.make("contrast")(KEYS, IMAGES), np.float64) * 255
    mean = IMAGES.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(out.mean((1, 2), keepdims=True), mean, atol=1e-3)
    factors = (out - mean).std((1, 2, 3)) / (IMAGES - mean).std((1, 2, 3))
    np.testing.assert_allclose(out, mean + factors[:, None, None, None] * (IMAGES - mean), atol=1e-3)
    assert 0.2 <= factors.min() < 0.5 and 1.5 < factors.max() <= 1.8


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
        (lambda: augment.make("window"), "unknown augmentation 'window'"),
        (lambda: augment.make("window6")(KEYS, IMAGES), r"window must lie in \[1, 5\], the image's side, got 6"),
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


def test_standardised_images_have_their_own_mean_and_deviation(x64):
    images = jnp.asarray(IMAGES / 255)
    found = np.asarray(augment.standardise(images))
    for image, expected in zip(found, IMAGES.astype(np.float64), strict=True):
        np.testing.assert_allclose(image, (expected - expected.mean()) / max(expected.std(), 1 / np.sqrt(expected.size)), rtol=1e-10)
    np.testing.assert_array_equal(augment.standardise(jnp.full((1, 4, 4, 3), 0.25)), 0)
    faint = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(1 / 255)  # less than the floor: one level on one of 16 pixels
    np.testing.assert_allclose(augment.standardise(faint)[0, 0, 0, 0], (15 / 16) * 4, rtol=1e-10)


def test_standardisation_undoes_brightness():
    info = sources.info("cifar10", standardise="image")
    brighter = augment.make("brightness")(KEYS, IMAGES)
    np.testing.assert_allclose(augment.preprocess(info)(brighter), augment.preprocess(info)(IMAGES), atol=1e-4)


def test_preprocess_cuts_the_centre_of_what_no_window_has_cut():
    info = sources.info("cifar10", standardise="image", crop=4)
    look = augment.preprocess(info)
    np.testing.assert_allclose(look(IMAGES), look(IMAGES[:, 1:5, :4]), rtol=1e-6)
    window = augment.make("window4")(KEYS, IMAGES)
    np.testing.assert_allclose(look(window), augment.standardise(window / 255.0), rtol=1e-5, atol=1e-6)


def linear_weights(start, length, size, pixels):
    """[size, pixels]: what every output pixel takes of every input pixel, a triangle as wide as an output pixel or an input pixel."""
    centres = start + (np.arange(size) + 0.5) * length / size - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(pixels) - centres[:, None]) / max(1, length / size))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [3, 9])  # smaller and larger than the rectangles
def test_rectangles_are_resized_linearly(size):
    found = augment.make(f"rectangle{size}")(KEYS, IMAGES)
    assert found.shape == (len(IMAGES), size, size, 3) and found.dtype == jnp.float32
    height, width = IMAGES.shape[1:3]
    for key, image, out in zip(KEYS, IMAGES, found):
        corner, sides = map(np.asarray, augment.rectangle(jax.random.fold_in(key, 0), height, width))
        rows, columns = linear_weights(corner[0], sides[0], size, height), linear_weights(corner[1], sides[1], size, width)
        np.testing.assert_allclose(out, np.einsum("ih,hwc,jw->ijc", rows, image / 255.0, columns), atol=1e-4)


def test_rectangles_lie_inside_and_have_the_asked_areas_and_aspects():
    keys = jax.random.split(jax.random.key(3), 4000)
    corner, sides = map(np.asarray, jax.vmap(lambda key: augment.rectangle(key, 40, 60))(keys))
    assert (corner >= 0).all() and (corner + sides <= [40 + 1e-3, 60 + 1e-3]).all()
    area, aspect = sides.prod(1) / 2400, sides[:, 1] / sides[:, 0]
    assert 0.05 - 1e-6 <= area.min() < 0.06 and 0.85 < area.max() <= 1  # 40 x 53.3 is the largest
    assert 0.75 - 1e-5 <= aspect.min() < 0.76 and 1.32 < aspect.max() <= 4 / 3 + 1e-5
    assert aspect.mean() == pytest.approx((3 / 4 + 4 / 3) / 2, abs=0.01)
    free = corner / ([40, 60] - sides)
    np.testing.assert_allclose(free.mean(0), 0.5, atol=0.02)


def test_bad_views_are_refused():
    with pytest.raises(ValueError, match="rectangle must be at least 1"):
        augment.make("rectangle0")(KEYS, IMAGES)
    with pytest.raises(ValueError, match="standardise must be one of channels, image, got 'pixel'"):
        sources.info("cifar10", standardise="pixel")
    with pytest.raises(ValueError, match=r"crop must lie in \[0, 28\]"):
        sources.info("mnist", crop=32)
    with pytest.raises(ValueError, match="has no option crop"):
        sources.info("spirals", crop=8)
    with pytest.raises(ValueError, match=r"centre must lie in \[1, 5\]"):
        augment.centre(IMAGES, 6)
