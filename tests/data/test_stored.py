"""Images on disk: the same as the array of them, wherever an array of inputs stands."""

import io

import numpy as np
import pytest
from PIL import Image

from edd.data import pipeline
from edd.data.stored import Stored

ARRAY = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3)).astype(np.uint8)


@pytest.fixture
def images():
    return Stored(fetch, range(7), np.asarray, (4, 5, 3))


def fetch(rows):
    files = [io.BytesIO() for _ in rows]
    for row, file in zip(rows, files):
        Image.fromarray(ARRAY[row]).save(file, "PNG")
    return files


def test_it_looks_like_the_array(images):
    assert images.shape == ARRAY.shape and images.ndim == 4 and images.dtype == np.uint8 and len(images) == 7
    np.testing.assert_array_equal(images, ARRAY)


@pytest.mark.parametrize("index", [3, -1, [4, 4, 0], np.array([[1, 2, 3], [6, 5, 0]]), np.zeros((2, 0), int)], ids=str)
def test_integers_decode(images, index):
    index = np.asarray(index)
    found = images[index]
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, ARRAY[index])


@pytest.mark.parametrize("index", [slice(2, 6), slice(None, None, -2), slice(0)], ids=str)
def test_slices_and_takes_stay_on_disk(index):
    asked = []
    images = Stored(lambda rows: asked.append(rows) or fetch(rows), np.arange(7), np.asarray, (4, 5, 3))
    part, chosen = images[index], images.take([5, 0, 2], axis=0)
    assert asked == [] and part.shape == ARRAY[index].shape
    np.testing.assert_array_equal(part, ARRAY[index])
    np.testing.assert_array_equal(chosen[1:][[0, 1]], ARRAY[[0, 2]])
    assert asked[1:] == [[0, 2]]
    with pytest.raises(ValueError, match="axis must be 0"):
        images.take([0], axis=1)


def test_what_cannot_be_read_says_so(images):
    with pytest.raises(IndexError):
        images[np.array([7])]
    broken = Stored(lambda rows: [io.BytesIO(b"no image") for _ in rows], range(2), np.asarray, (4, 5, 3))
    with pytest.raises(OSError, match="cannot identify image"):
        broken[np.array([0])]


@pytest.mark.parametrize("backend", ["numpy", "grain"])
def test_batches_of_it_are_batches_of_the_array(images, backend):
    options = {"batch_size": 2, "seed": 0, "num_replicas": 2}
    both = [
        list(pipeline.iterate(pipeline.Batches({"inputs": each, "labels": np.arange(7)}, **options), num_steps=5, backend=backend))
        for each in (images, ARRAY)
    ]
    for found, expected in zip(*both, strict=True):
        np.testing.assert_array_equal(found["inputs"], expected["inputs"])
        np.testing.assert_array_equal(ARRAY[found["labels"]], found["inputs"])
    for found, expected in zip(*(pipeline.evaluation_batches({"inputs": each}, 3) for each in (images, ARRAY)), strict=True):
        np.testing.assert_array_equal(found["inputs"], expected["inputs"])
