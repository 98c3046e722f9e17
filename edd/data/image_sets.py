"""Image sets by their TFDS names, read from array_record files into one uint8 array, without TensorFlow."""

import contextlib
import difflib
import io
import os
import pathlib
from collections.abc import Callable

import numpy as np

from edd.data.base import Info, Split, slice_range
from edd.data.stored import Stored

BLOCK = 1000  # records read at once
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def _grey(name: str, mean: float, std: float) -> Info:
    return Info(name, 10, (28, 28, 1), (mean,), (std,), "uint8")


def _colour(name: str, num_classes: int = 10, mean=_CIFAR_MEAN, std=_CIFAR_STD, splits=("train", "test")) -> Info:
    return Info(name, num_classes, (32, 32, 3), mean, std, "uint8", splits)


OWN = ("tiny_imagenet", "imagenet_o")  # sets that TFDS's catalogue lacks: a user's own TFDS directory with features "image" and "label"
INFOS = {  # statistics of the training split; the two shifted CIFAR-10 sets are standardised as CIFAR-10
    "mnist": _grey("mnist", 0.1307, 0.3081),
    "fashion_mnist": _grey("fashion_mnist", 0.2860, 0.3530),
    "kmnist": _grey("kmnist", 0.1918, 0.3483),
    "cifar10": _colour("cifar10"),
    "cifar100": _colour("cifar100", 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn_cropped": _colour("svhn_cropped", 10, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), ("train", "test", "extra")),
    "tiny_imagenet": Info(
        "tiny_imagenet", 200, (64, 64, 3), (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821), "uint8", ("train", "validation")
    ),
    "cifar10_1": _colour("cifar10_1", splits=("test",)),
    "cifar10_corrupted": _colour("cifar10_corrupted", splits=("test",)),
}


STANDARDISE = ("channels", "image")


def info(name: str, *, standardise: str = "channels", crop: int = 0, download: bool = True) -> Info:
    """Description of the image set `name`, which may carry a configuration after a slash, and of how its images are preprocessed.

    Args:
      name: as for `load`.
      standardise: "channels" by the training set's statistics, "image" each image by its own (`augment.standardise`).
      crop: pixels a side that the network sees of an image, its centre but where training crops elsewhere; 0: all.
      download: not used; taken because `load` takes it.

    Raises:
      ValueError: an unknown way to standardise, a crop that is negative or larger than the images.

    Examples:
      >>> info("cifar10", standardise="image", crop=24).per_image
      True
    """
    del download
    found = INFOS[name.split("/")[0]]
    if standardise not in STANDARDISE:
        raise ValueError(f"standardise must be one of {', '.join(STANDARDISE)}, got {standardise!r}")
    if not 0 <= crop <= min(found.input_shape[:2]):
        raise ValueError(f"crop must lie in [0, {min(found.input_shape[:2])}], {name}'s side, got {crop}")
    return found._replace(name=name, per_image=standardise == "image", crop=crop)


def load(
    name: str,
    split: str,
    bounds: tuple[str, str] = ("", ""),
    *,
    data_dir: str | None = None,
    download: bool = True,
    standardise: str = "channels",
    crop: int = 0,
) -> Split:
    """Reads one split of a TFDS directory into memory: 60,000 MNIST images in about 3 s.

    Args:
      name: TFDS name, with a configuration after a slash where the set has several ("cifar10_corrupted/fog_3").
      split: a split of the set.
      bounds: a slice of it, as from `edd.data.base.parse_split`; only those images are decoded.
      data_dir: folder of TFDS directories; None: TFDS_DATA_DIR, else ~/tensorflow_datasets.
      download: let TFDS download and prepare the set where the folder lacks it and the machine is connected.
      standardise, crop: for `info` alone: images are stored whole, as bytes.

    Returns:
      `Split` with inputs [N, height, width, channels] uint8.

    Raises:
      ValueError: an unknown configuration; FileNotFoundError: the folder lacks the set, the split, or part of it.

    References:
      TensorFlow Datasets, "TFDS and TensorFlow-less use".
    """
    del standardise, crop
    shape = info(name).input_shape
    decode = lambda image: np.asarray(image).reshape(shape)  # noqa: E731
    return read(name, split, bounds, shape=shape, decode=decode, data_dir=data_dir, download=download)


def read(
    name: str,
    split: str,
    bounds: tuple[str, str],
    *,
    shape: tuple[int, ...],
    decode: Callable,
    data_dir: str | None,
    download: bool,
    stream: bool = False,
) -> Split:
    """A split of the TFDS directory of `name`, every image made an array of `shape` by `decode`; the rest as `load`.

    With `stream` the images are `Stored`. Their labels are read once, with every record (minutes for 1,281,167 photographs), and kept in
    labels_SPLIT.npy beside the records where that folder can be written.
    """
    builder = _builder(name, data_dir)
    _require_complete(builder, name, split, download)
    chosen = slice_range(bounds, builder.info.splits[split].num_examples)
    with _readable(builder, name, split):
        source = _source(builder, split)
        if not stream:
            return _read(source, chosen, shape, decode)
        labels = _labels(source, pathlib.Path(builder.data_dir) / f"labels_{split}.npy")
    fetch = lambda rows: [io.BytesIO(record["image"]) for record in source.__getitems__(rows)]  # noqa: E731
    return Split(Stored(fetch, chosen, decode, shape), labels[chosen.start : chosen.stop])


def _builder(name: str, data_dir: str | None):
    import tensorflow_datasets as tfds

    base, _, config = name.partition("/")
    if base in OWN:
        return _own(base, data_dir)
    configs = list(tfds.builder_cls(base).builder_configs)
    if config and config not in configs:
        near = difflib.get_close_matches(config, configs, n=1)
        hint = f"; did you mean {base}/{near[0]}?" if near else ""
        raise ValueError(f"{base} has no configuration {config!r}{hint} Known: {', '.join(configs) or 'none'}")
    folder = None if data_dir is None else str(pathlib.Path(data_dir).expanduser())
    try:
        return tfds.builder(name, data_dir=folder)
    except Exception as error:  # TFDS reads dataset_info.json here, and protobuf raises its own kind
        raise FileNotFoundError(
            f"the TFDS directory of {name} in {folder or 'the default data_dir'} is damaged: {str(error).splitlines()[0]}; "
            "delete it and prepare the set again"
        ) from error


def _own(name: str, data_dir: str | None):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=None if data_dir is None else str(pathlib.Path(data_dir).expanduser()))
    except Exception as error:  # TFDS's own kinds for a name outside its catalogue and a damaged directory
        raise FileNotFoundError(
            f"{name} is not in TFDS's catalogue and {data_dir or 'the default data_dir'} holds no readable TFDS directory of that name: "
            'build one (features "image" and "label", file_format="array_record") and give its folder as data_dir'
        ) from error


def _require_complete(builder, name: str, split: str, download: bool) -> None:
    """Prepares the set if it is absent and `download` is set; raises FileNotFoundError unless every shard is there."""
    folder = pathlib.Path(builder.data_dir)
    again = "delete it and prepare the set again (on a connected machine loading it is enough), or copy a complete TFDS directory there"
    if not (folder / "dataset_info.json").exists():
        unfinished = sorted(str(path) for path in folder.parent.glob("*incomplete*")) if folder.parent.exists() else []
        if folder.exists() and any(folder.iterdir()):
            raise FileNotFoundError(f"{folder} is half-written: it has no dataset_info.json; {again}")
        if unfinished:
            raise FileNotFoundError(f"{unfinished[0]} was left by an unfinished preparation of {name}; {again}")
        from edd.data import image_preparation

        image_preparation.prepare(builder, name, download)
    shards = builder.info.splits
    if split not in shards:
        raise FileNotFoundError(
            f"{folder} holds only the splits {', '.join(shards) or '(none)'} of {name}, not {split!r}; "
            "ask for one of these, or give data_dir a folder whose copy has it"
        )
    missing = [str(path) for path in shards[split].filepaths if not pathlib.Path(path).exists()]
    if missing:
        raise FileNotFoundError(f"{folder} is half-written: {len(missing)} record file(s) are missing, first {missing[0]}; {again}")


def _source(builder, split: str):
    """Random access to the records of a split, their images as the bytes of a file."""
    import tensorflow_datasets as tfds

    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


@contextlib.contextmanager
def _readable(builder, name: str, split: str):
    try:
        yield
    except NotImplementedError as error:
        raise FileNotFoundError(
            f"{builder.data_dir} holds {name} in a format that cannot be read without TensorFlow; "
            'prepare it again with download_and_prepare(file_format="array_record")'
        ) from error
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise FileNotFoundError(
            f"{builder.data_dir} is damaged: split {split!r} of {name} cannot be read ({error}); delete it and prepare the set again"
        ) from error


def _records(source, chosen: range):
    for start in range(0, len(chosen), BLOCK):
        yield from source.__getitems__(list(chosen[start : start + BLOCK]))


def _read(source, chosen: range, shape: tuple[int, ...], decode: Callable) -> Split:
    from PIL import Image

    images, labels = np.empty((len(chosen), *shape), np.uint8), np.empty(len(chosen), np.int32)
    for place, record in enumerate(_records(source, chosen)):
        images[place] = decode(Image.open(io.BytesIO(record["image"])))
        labels[place] = record["label"]
    return Split(images, labels)


def _labels(source, file: pathlib.Path) -> np.ndarray:
    """The labels of all records, from `file` if it holds as many."""
    if file.exists():
        known = np.load(file)
        if known.shape == (len(source),) and known.dtype == np.int32:
            return known
    labels = np.fromiter((record["label"] for record in _records(source, range(len(source)))), np.int32, len(source))
    part = file.with_name(f"{file.stem}_{os.getpid()}.npy")
    with contextlib.suppress(OSError):
        np.save(part, labels)
        part.replace(file)  # whole or not at all: other processes may be reading
    return labels
