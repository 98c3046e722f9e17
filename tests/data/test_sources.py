"""Names, options and splits of the data sets, invented arrays, and a user's own."""

import subprocess
import sys

import numpy as np
import pytest

from edd.data import digits, sources, synthetic

LOCAL = ["spirals", "spirals_ring", "digits", "digits_photos"]
TEXT = ["rte", "mrpc", "wic", "sst2"]
IMAGES = ["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn_cropped", "tiny_imagenet", "cifar10_1", "cifar10_corrupted"]
PHOTOGRAPHS = ["imagenet2012", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_o", "imagenet2012_corrupted", "image_folder"]


def test_names_are_the_documented_ones():
    assert list(sources.names()) == LOCAL + TEXT + IMAGES + PHOTOGRAPHS


@pytest.mark.parametrize("name", LOCAL)
def test_local_sets_are_as_described(name):
    described = sources.info(name)
    for split in described.splits:
        found = sources.load(name, split)
        assert found.inputs.shape[1:] == described.input_shape and str(found.inputs.dtype) == described.dtype
        assert found.labels.shape == found.inputs.shape[:1] and found.labels.dtype == np.int32
        assert found.labels.max() < described.num_classes


def test_options_reach_the_generator():
    found = sources.load("spirals", "test", arms=5, points=3, noise=0.3, seed=4)
    np.testing.assert_array_equal(found.inputs, synthetic.spirals("test", arms=5, points=3, noise=0.3, seed=4).inputs)
    assert sources.info("spirals", arms=5, points=3).num_classes == sources.info("spirals_ring", arms=5).num_classes == 5
    np.testing.assert_array_equal(sources.load("digits", "train", seed=3).inputs, digits.digits("train", seed=3).inputs)


def test_slices_of_local_sets():
    whole = sources.load("digits", "train")
    first, rest = sources.load("digits", "train[:90%]"), sources.load("digits", "train[90%:]")
    np.testing.assert_array_equal(np.concatenate([first.inputs, rest.inputs]), whole.inputs)
    np.testing.assert_array_equal(np.concatenate([first.labels, rest.labels]), whole.labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sources.load("mnsit", "train"), "unknown data set 'mnsit'; did you mean 'mnist'.*Known: spirals, .*cifar10_corrupted"),
        (lambda: sources.info("imagenet2013"), "unknown data set 'imagenet2013'; did you mean 'imagenet2012'.*Known"),
        (lambda: sources.load("digits/small", "train"), "unknown data set"),
        (lambda: sources.load("digits", "valid"), "unknown split 'valid': digits has the splits train, test"),
        (lambda: sources.load("mnist", "extra"), "mnist has the splits train, test"),
        (lambda: sources.load("cifar10_1", "train"), "cifar10_1 has the splits test"),
        (lambda: sources.load("digits_photos", "train"), "digits_photos has the splits test"),
        (lambda: sources.load("digits", "train", arms=3), "digits has no option arms; its options are test_fraction, seed"),
        (lambda: sources.info("mnist", noise=1), "mnist has no option noise; its options are download"),
        (lambda: sources.load("digits", "test[:0]"), "selects no example"),
        (lambda: sources.info("spirals", arms=1), "arms must be at least 2"),
    ],
)
def test_unknown_names_splits_and_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", LOCAL + IMAGES)
def test_smoke_imitates_every_set_without_its_data(name):
    described = sources.info(name)
    count = 2 * described.num_classes
    split = sources.smoke(described, count, seed=0)
    assert split.inputs.shape == (count, *described.input_shape) and str(split.inputs.dtype) == described.dtype
    np.testing.assert_array_equal(np.bincount(split.labels, minlength=described.num_classes), 2)
    np.testing.assert_array_equal(split.inputs, sources.smoke(described, count, seed=0).inputs)
    assert not np.array_equal(split.inputs, sources.smoke(described, count, seed=1).inputs)
    assert split.labels.dtype == np.int32


def test_smoke_classes_can_be_learnt_across_seeds():
    described = sources.info("mnist")
    train, test = sources.smoke(described, 200, 0), sources.smoke(described, 100, 1)
    means = np.stack([train.inputs[train.labels == k].mean(0) for k in range(10)])
    distances = ((test.inputs[:, None].astype(np.float64) - means) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == test.labels).mean() == 1.0


def test_smoke_refuses_nonsense():
    for count, seed in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="num_examples must be at least 1 and seed at least 0"):
            sources.smoke(sources.info("mnist"), count, seed)


def test_arrays_keep_bytes_and_convert_the_rest():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    split = sources.arrays(pixels, [2, 0, 1])
    assert split.inputs.dtype == np.uint8 and split.labels.dtype == np.int32
    np.testing.assert_array_equal(split.inputs, pixels)
    for values in (np.ones((3, 2)), np.ones((3, 2), np.int64), np.ones((3, 2), bool)):
        assert sources.arrays(values).inputs.dtype == np.float32
    np.testing.assert_array_equal(sources.arrays(np.ones((3, 2))).labels, [-1, -1, -1])


@pytest.mark.parametrize(
    ("inputs", "labels", "error", "message"),
    [
        (np.zeros(3), None, ValueError, r"\[N, \*S\]"),
        (np.zeros((0, 2)), None, ValueError, "at least one example"),
        (np.array([[np.nan, 0.0]]), None, ValueError, "inputs must be finite in float32, got 1"),
        (np.array([[1e300, 0.0]]), None, ValueError, "inputs must be finite in float32"),
        (np.array([["a"]]), None, TypeError, "inputs must be real numbers"),
        (np.array([[1j]]), None, TypeError, "inputs must be real numbers"),
        (np.zeros((2, 2)), [0.0, 1.0], TypeError, "labels must be integers"),
        (np.zeros((2, 2)), [0], ValueError, r"labels must be \[2\] integers"),
        (np.zeros((2, 2)), [0, -2], ValueError, "smallest -2"),
    ],
)
def test_bad_arrays_are_refused(inputs, labels, error, message):
    with pytest.raises(error, match=message):
        sources.arrays(inputs, labels)


def test_describe_counts_classes():
    split = sources.arrays(np.zeros((3, 4, 4, 1), np.uint8), [0, 4, 1])
    described = sources.describe(split)
    assert (described.num_classes, described.input_shape, described.dtype, described.mean) == (5, (4, 4, 1), "uint8", ())
    assert sources.describe(split, num_classes=7, name="mine")[:2] == ("mine", 7)
    with pytest.raises(ValueError, match="num_classes must be at least 5"):
        sources.describe(split, num_classes=4)
    with pytest.raises(ValueError, match="num_classes must be given"):
        sources.describe(sources.arrays(np.zeros((3, 4))))


def test_importing_and_describing_pulls_in_no_heavy_package():
    code = (
        "import sys; from edd.data import sources, pipeline; [sources.info(n) for n in sources.names()]; "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'grain', 'sklearn', 'flax', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
