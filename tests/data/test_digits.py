"""The digits' split and the photographs' patches, against the raw arrays of scikit-learn."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_image

from edd.data import digits


def rows(split):
    return sorted((tuple(np.round(image.ravel() * 16).astype(int)), int(label)) for image, label in zip(*split, strict=True))


def test_train_and_test_partition_the_digits():
    raw = load_digits()
    train, test = digits.digits("train"), digits.digits("test")
    assert train.inputs.shape[1:] == (8, 8, 1) and train.inputs.dtype == np.float32 and train.labels.dtype == np.int32
    assert (train.inputs.min(), train.inputs.max()) == (0.0, 1.0)
    both = sorted(rows(train) + rows(test))
    assert both == sorted((tuple(image.ravel().astype(int)), int(label)) for image, label in zip(raw.images, raw.target, strict=True))


@pytest.mark.parametrize("fraction", [0.2, 1 / 3])
def test_split_is_stratified(fraction):
    total = np.bincount(load_digits().target)
    test = np.bincount(digits.digits("test", test_fraction=fraction).labels)
    np.testing.assert_array_equal(test, np.round(fraction * total).astype(int))


def test_split_is_seeded_and_shuffled():
    first, again, other = (digits.digits("test", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert rows(first) != rows(other)
    assert len(np.unique(first.labels[:20])) > 5


def test_patches_come_from_the_photographs():
    photos = digits.photos(num_examples=None)
    assert photos.inputs.shape == (2 * 53 * 80, 8, 8, 1) and set(photos.labels) == {-1}
    assert 0.0 <= photos.inputs.min() and photos.inputs.max() <= 1.0
    np.testing.assert_array_equal(photos.inputs * 16, np.round(photos.inputs * 16))
    known = {tuple(np.round(patch.ravel() * 16).astype(int)) for patch in photos.inputs}
    for name, top, left in (("china.jpg", 0, 0), ("china.jpg", 16, 632), ("flower.jpg", 416, 320)):
        patch = load_sample_image(name)[top : top + 8, left : left + 8].astype(np.float64)
        grey = 0.299 * patch[..., 0] + 0.587 * patch[..., 1] + 0.114 * patch[..., 2]
        assert tuple(np.round(grey.ravel() / 255 * 16).astype(int)) in known


def test_choice_of_patches_is_seeded():
    first, again, other = (digits.photos(num_examples=50, seed=seed).inputs for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(digits.photos(num_examples=20).inputs, first[:20])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: digits.digits("validation"), "digits has the splits train, test"),
        (lambda: digits.digits(test_fraction=1.0), r"test_fraction must lie in \(0, 1\)"),
        (lambda: digits.photos("train"), "digits_photos has the split test"),
        (lambda: digits.photos(num_examples=0), "num_examples must lie in"),
        (lambda: digits.photos(num_examples=9000), r"\[1, 8480\]"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
