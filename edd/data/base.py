"""What a data set is to the rest of the library: arrays in memory, and a description of them."""

import re
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Examples: `inputs` [N, *S] uint8, float32 or int32 (tokens), in memory or `stored.Stored`; `labels` [N] int32 (-1: it has none)."""

    inputs: np.ndarray
    labels: np.ndarray


class Info(NamedTuple):
    """A data set without its examples.

    Attributes:
      name: the name it is loaded by.
      num_classes: K.
      input_shape: shape of one example, *S.
      mean, std: per channel (last axis), in units of the inputs scaled to [0, 1]; () where preprocessing does not standardise.
      dtype: "uint8", "float32" or, for token ids and types [L, 2], "int32": the dtype of the inputs in memory.
      splits: names that `load` accepts, each also with a slice such as "train[:5000]" or "train[90%:]".
      per_image: preprocessing standardises each image by its own mean and deviation, in place of `mean` and `std`.
      crop: preprocessing cuts the centre of this many pixels a side out of larger images; 0 keeps all of it.
    """

    name: str
    num_classes: int
    input_shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: str = "float32"
    splits: tuple[str, ...] = ("train", "test")
    per_image: bool = False
    crop: int = 0


def parse_split(split: str, splits: tuple[str, ...], name: str) -> tuple[str, tuple[str, str]]:
    """ "train[10%:]" -> ("train", ("10%", "")); ValueError saying which splits `name` has."""
    known = f"{name} has the splits {', '.join(splits)}, each also as a slice such as {splits[0]}[:500] or {splits[0]}[90%:]"
    match = re.fullmatch(r"(\w+)(?:\[(-?\d*%?):(-?\d*%?)\])?", str(split))
    if not match or match[1] not in splits or any(part in ("-", "%", "-%") for part in match.groups()[1:]):
        raise ValueError(f"unknown split {split!r}: {known}")
    return match[1], (match[2] or "", match[3] or "")


def slice_range(bounds: tuple[str, str], num_examples: int) -> range:
    """The example numbers that the bounds of `parse_split` select; percentages round to the nearest example.

    Examples:
      >>> slice_range(("25%", ""), 8), slice_range(("", "-3"), 8)
      (range(2, 8), range(0, 5))
    """

    def edge(text):
        if not text:
            return None
        return round(float(text[:-1]) / 100 * num_examples) if text.endswith("%") else int(text)

    return range(num_examples)[edge(bounds[0]) : edge(bounds[1])]
