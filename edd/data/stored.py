"""Images that stay on disk: an array to whoever indexes it, decoded when a batch asks for its rows."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


class Stored:
    """Images [N, *S] uint8 of a set too large for memory; stands where an array of inputs does in batches, predictions and splits.

    Like an array, a slice or `take` is a part of the same set and copies nothing (labels of 1,281,167 images and their numbers are
    15 MB); integers [*B] give the images [*B, *S], decoded by threads. `numpy.asarray` decodes all of them.

    Args:
      fetch: numbers of n images -> n files, paths or open, that PIL reads.
      rows: [N] integers, the numbers of the images.
      decode: PIL image -> uint8 [*S].
      shape: *S.

    Examples:
      >>> import io
      >>> from PIL import Image
      >>> def fetch(rows):
      ...     files = [io.BytesIO() for _ in rows]
      ...     for row, file in zip(rows, files):
      ...         Image.new("L", (2, 1), row).save(file, "PNG")
      ...     return files
      >>> images = Stored(fetch, range(10), np.asarray, (1, 2))
      >>> images.shape, images[4:][[0, 2]].tolist()
      ((10, 1, 2), [[[4, 4]], [[6, 6]]])
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, fetch: Callable[[list[int]], Sequence], rows: Sequence[int], decode: Callable[[Any], np.ndarray], shape: tuple):
        self.fetch, self.rows, self.decode = fetch, np.asarray(rows), decode
        self.shape = (len(self.rows), *shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(index)
        from PIL import Image

        chosen = self.rows[np.asarray(index)]
        images = np.empty((chosen.size, *self.shape[1:]), np.uint8)

        def put(place: int, file) -> None:
            with Image.open(file) as image:
                images[place] = self.decode(image)

        with ThreadPoolExecutor() as pool:
            list(pool.map(put, range(len(images)), self.fetch(chosen.ravel().tolist())))
        return images.reshape(*chosen.shape, *self.shape[1:])

    def take(self, indices, axis: int = 0) -> "Stored":
        """The images with these numbers (or in this slice), still on disk; `axis` is 0, as of `numpy.ndarray.take` on examples."""
        if axis != 0:
            raise ValueError(f"axis must be 0, the examples', got {axis}")
        return Stored(self.fetch, self.rows[indices], self.decode, self.shape[1:])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[np.arange(len(self))], dtype)
