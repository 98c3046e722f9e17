"""scikit-learn's embedded 8x8 digits, and patches of its two embedded photographs as their out-of-distribution set."""

import numpy as np

from edd.data.base import Info, Split
from edd.data.pipeline import permutation

GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue (ITU-R BT.601)


def digits_info(**options) -> Info:
    """Description of `digits`."""
    del options
    return Info("digits", 10, (8, 8, 1))


def digits(split: str = "train", *, test_fraction: float = 1 / 3, seed: int = 0) -> Split:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries; intensities in [0, 1].

    The split is stratified: every class gives the same share to test, rounded, in an order fixed by `seed`.

    Args:
      split: "train" or "test".
      test_fraction: share of every class that goes to test, in (0, 1).
      seed: names the split, >= 0.

    Returns:
      `Split` with inputs [N, 8, 8, 1] float32 in steps of 1/16.

    Raises:
      ValueError: an unknown split, a fraction outside (0, 1); ImportError: scikit-learn is missing.

    References:
      Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), test part.

    Examples:
      >>> len(digits("train").labels), len(digits("test").labels)
      (1198, 599)
    """
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: digits has the splits train, test")
    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"test_fraction must lie in (0, 1), got {test_fraction}")
    raw = load_digits()
    order = permutation(len(raw.target), seed)
    in_test = np.zeros(len(order), bool)
    for label in range(10):
        of_class = order[raw.target[order] == label]
        in_test[of_class[: round(test_fraction * len(of_class))]] = True
    chosen = order[in_test[order] == (split == "test")]
    return Split((raw.images[chosen, :, :, None] / 16).astype(np.float32), raw.target[chosen].astype(np.int32))


def photos_info(**options) -> Info:
    """Description of `photos`: as `digits`, with a test split only."""
    return digits_info(**options)._replace(name="digits_photos", splits=("test",))


def photos(split: str = "test", *, num_examples: int | None = 1000, seed: int = 0) -> Split:
    """8x8 grey patches of scikit-learn's photographs china.jpg and flower.jpg; intensities in [0, 1] in the digits' steps.

    The patches tile the photographs without overlap (8,480 in all) and are rounded to 17 grey levels, as the digits have.

    Args:
      split: "test".
      num_examples: how many, chosen at random; None for all.
      seed: names the choice, >= 0.

    Returns:
      `Split` with inputs [num_examples, 8, 8, 1] float32 and labels -1: a patch has no class.

    Raises:
      ValueError: an unknown split, more examples than there are; ImportError: scikit-learn or pillow is missing.

    Examples:
      >>> photos(num_examples=3).inputs.shape
      (3, 8, 8, 1)
    """
    from sklearn.datasets import load_sample_image

    if split != "test":
        raise ValueError(f"unknown split {split!r}: digits_photos has the split test")
    patches = np.concatenate([_patches(load_sample_image(name) @ np.array(GREY)) for name in ("china.jpg", "flower.jpg")])
    count = len(patches) if num_examples is None else num_examples
    if not 1 <= count <= len(patches):
        raise ValueError(f"num_examples must lie in [1, {len(patches)}] or be None, got {num_examples}")
    chosen = patches[permutation(len(patches), seed)[:count]]
    return Split((np.round(chosen / 255 * 16) / 16).astype(np.float32)[..., None], np.full(count, -1, np.int32))


def _patches(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape[0] // 8, image.shape[1] // 8
    tiles = image[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8)
    return tiles.transpose(0, 2, 1, 3).reshape(-1, 8, 8)
