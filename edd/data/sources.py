"""Data sets by name: `load` gives arrays in memory, `info` describes them, `smoke` invents small ones of the same shape."""

import difflib
import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edd.data import digits, image_sets, photographs, synthetic, text
from edd.data.base import Info, Split, parse_split, slice_range

__all__ = ["Info", "Split", "arrays", "describe", "info", "load", "names", "smoke"]


class Source(NamedTuple):
    """A set made on this machine: `load(split, **options) -> Split` and `info(**options) -> Info`."""

    load: Callable
    info: Callable


LOCAL = {
    "spirals": Source(synthetic.spirals, synthetic.spirals_info),
    "spirals_ring": Source(synthetic.ring, synthetic.ring_info),
    "digits": Source(digits.digits, digits.digits_info),
    "digits_photos": Source(digits.photos, digits.photos_info),
}


def names() -> tuple[str, ...]:
    """The names that `load` knows; an image set with configurations also takes "name/configuration"."""
    return (*LOCAL, *text.TASKS, *image_sets.INFOS, *photographs.SETS)


def load(name: str, split: str, *, data_dir: str | None = None, **options) -> Split:
    """Loads one split of a data set into memory.

    Args:
      name: one of `names()`; image sets go by their TFDS names, for instance "mnist" or "cifar10_corrupted/fog_3".
      split: one of `info(name).splits`, also sliced: "train[:5000]", "train[90%:]".
      data_dir: folder of TFDS directories, for image sets, and of text/NAME_SPLIT.tsv; None: TFDS_DATA_DIR, else ~/tensorflow_datasets.
      **options: those of the set: see `edd.data.synthetic`, `edd.data.digits`, `edd.data.image_sets.load`,
        `edd.data.photographs.load`, `edd.data.text.load`.

    Returns:
      `Split` with inputs [N, *S] uint8 (image sets), int32 (text) or float32 and labels [N] int32, -1 where there is no class.

    Raises:
      ValueError: unknown name, split or option (the message lists the known ones), or an empty slice;
      FileNotFoundError: the data directory lacks the set or is half-written, and how to mend it.

    Examples:
      >>> load("digits", "train[:10]").inputs.shape
      (10, 8, 8, 1)
    """
    described = info(name, **options)
    base, bounds = parse_split(split, described.splits, name)
    if name in LOCAL:
        whole = LOCAL[name].load(base, **options)
        chosen = slice_range(bounds, len(whole.labels))
        part = Split(whole.inputs[chosen.start : chosen.stop], whole.labels[chosen.start : chosen.stop])
    elif name in text.TASKS:
        part = text.load(name, base, bounds, data_dir=data_dir, **options)
    elif name.split("/")[0] in photographs.SETS:
        part = photographs.load(name, base, bounds, data_dir=data_dir, **options)
    else:
        part = image_sets.load(name, base, bounds, data_dir=data_dir, **options)
    if not len(part.labels):
        raise ValueError(f"split {split!r} of {name} selects no example")
    return part


def info(name: str, **options) -> Info:
    """Describes a data set without loading it; `options` as for `load`.

    Raises:
      ValueError: unknown name or option.

    Examples:
      >>> info("spirals", arms=6).num_classes
      6
    """
    base = str(name).split("/")[0]
    if name not in (*LOCAL, *text.TASKS) and base not in (*image_sets.INFOS, *photographs.SETS):
        near = difflib.get_close_matches(str(name), names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown data set {name!r}{hint} Known: {', '.join(names())}")
    images = photographs if base in photographs.SETS else image_sets
    loader = LOCAL[name].load if name in LOCAL else text.load if name in text.TASKS else images.load
    known = [p.name for p in inspect.signature(loader).parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "data_dir"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(known)}")
    if name in text.TASKS:
        return text.info(name, **options)
    if images is photographs:
        return photographs.info(name, **options)
    return LOCAL[name].info(**options) if name in LOCAL else image_sets.info(name, **options)


def smoke(info: Info, num_examples: int, seed: int) -> Split:
    """Invents examples of a data set's shape and dtype whose class can be learnt: a pattern per class plus noise.

    The patterns depend on the shape alone and the noise on `seed`, so that two seeds make a train and a test set. Needs no
    data directory. Token ids lie below 100, token types are 0 or 1.

    Args:
      info: the set to imitate.
      num_examples: N >= 1.
      seed: names the draw, >= 0.

    Returns:
      `Split`; every class occurs when N >= K.

    Raises:
      ValueError: num_examples below 1, negative seed.

    Examples:
      >>> split = smoke(info("cifar10"), 4, seed=0)
      >>> split.inputs.shape, str(split.inputs.dtype)
      ((4, 32, 32, 3), 'uint8')
    """
    if num_examples < 1 or seed < 0:
        raise ValueError(f"num_examples must be at least 1 and seed at least 0, got {num_examples} and {seed}")
    patterns = np.random.default_rng(0).uniform(0.2, 0.8, (info.num_classes, *info.input_shape))
    rng = np.random.default_rng((seed, 1))
    labels = rng.permutation(np.arange(num_examples) % info.num_classes).astype(np.int32)
    inputs = np.clip(patterns[labels] + 0.1 * rng.standard_normal((num_examples, *info.input_shape)), 0.0, 1.0)
    if info.dtype == "uint8":
        return Split(np.round(inputs * 255).astype(np.uint8), labels)
    if info.dtype == "int32":
        return Split(np.floor(np.minimum(inputs, 0.99) * (100, 2)).astype(np.int32), labels)
    return Split(inputs.astype(np.float32), labels)


def arrays(inputs, labels=None) -> Split:
    """Checks a user's arrays and makes them a `Split`.

    Args:
      inputs: [N, *S], N >= 1; uint8 is kept, anything else real becomes float32.
      labels: integers >= 0, [N]; None where there are none (-1 then).

    Returns:
      `Split`.

    Raises:
      ValueError: no examples, non-finite inputs, labels of another length or negative; TypeError: inputs that are not real
      numbers or labels that are not integers.

    Examples:
      >>> arrays([[0.0, 1.0]], [2]).labels
      array([2], dtype=int32)
    """
    inputs = np.asarray(inputs)
    if inputs.dtype.kind not in "uifb":
        raise TypeError(f"inputs must be real numbers, got dtype {inputs.dtype}")
    if inputs.ndim < 2 or len(inputs) < 1:
        raise ValueError(f"inputs must be [N, *S] with at least one example and one feature axis, got shape {inputs.shape}")
    if inputs.dtype != np.uint8:
        with np.errstate(over="ignore"):
            inputs = inputs.astype(np.float32)
        if not np.isfinite(inputs).all():
            raise ValueError(f"inputs must be finite in float32, got {np.count_nonzero(~np.isfinite(inputs))} entries that are not")
    if labels is None:
        return Split(inputs, np.full(len(inputs), -1, np.int32))
    labels = np.asarray(labels)
    if labels.dtype.kind not in "ui":
        raise TypeError(f"labels must be integers, got dtype {labels.dtype}")
    if labels.shape != (len(inputs),) or labels.min() < 0:
        raise ValueError(f"labels must be [{len(inputs)}] integers >= 0, got shape {labels.shape}, smallest {labels.min(initial=0)}")
    return Split(inputs, labels.astype(np.int32))


def describe(split: Split, *, num_classes: int | None = None, name: str = "arrays") -> Info:
    """The `Info` of a user's arrays, without standardisation; `num_classes` defaults to the largest label plus one.

    Raises:
      ValueError: `num_classes` does not cover the labels, or is needed because there are none.

    Examples:
      >>> describe(arrays([[0.0, 1.0]], [2])).num_classes
      3
    """
    least = int(split.labels.max()) + 1
    if num_classes is None and least < 1:
        raise ValueError("num_classes must be given where no example has a label")
    if num_classes is not None and num_classes < least:
        raise ValueError(f"num_classes must be at least {least}, the largest label plus one, got {num_classes}")
    return Info(name, num_classes or least, tuple(split.inputs.shape[1:]), dtype=str(split.inputs.dtype), splits=())
