"""Photographs of ImageNet's classes at one size: ImageNet and its relatives by their TFDS names, and folders of images."""

import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from edd.data import corruptions, image_sets
from edd.data.base import Info, Split, slice_range
from edd.data.stored import Stored

FOLDER = "image_folder"
SETS = {  # TFDS name (imagenet_o: a user's own TFDS directory of that name) -> its splits here; all labels are ImageNet's 1000
    "imagenet2012": ("train", "validation"),
    "imagenet_v2": ("test",),
    "imagenet_a": ("test",),
    "imagenet_r": ("test",),
    "imagenet_o": ("test",),
    "imagenet2012_corrupted": ("validation",),
    FOLDER: ("test",),
}
STANDARDISE = {  # mean and std of a channel
    "channels": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "symmetric": ((0.5,) * 3, (0.5,) * 3),
}
INTERPOLATIONS = ("bilinear", "bicubic")
ENDINGS = (".jpeg", ".jpg", ".png")
BLOCK = 50  # images corrupted at once


def info(name: str, *, image_size: int = 224, num_classes: int = 1000, standardise: str = "channels", crop: int = 0, **options) -> Info:
    """Description of the set `name`, which may carry a configuration after a slash; options as for `load`.

    Raises:
      ValueError: an unknown way to standardise, a crop that is negative or larger than the images.

    Examples:
      >>> info("imagenet_v2/matched-frequency", image_size=384).input_shape
      (384, 384, 3)
    """
    del options
    if standardise not in STANDARDISE:
        raise ValueError(f"standardise must be one of {', '.join(STANDARDISE)}, got {standardise!r}")
    if not 0 <= crop <= image_size:
        raise ValueError(f"crop must lie in [0, {image_size}], the images' side, got {crop}")
    shape, splits = (image_size, image_size, 3), SETS[name.split("/")[0]]
    return Info(name, num_classes, shape, *STANDARDISE[standardise], "uint8", splits, crop=crop)


def load(
    name: str,
    split: str,
    bounds: tuple[str, str] = ("", ""),
    *,
    data_dir: str | None = None,
    download: bool = True,
    image_size: int = 224,
    resize: int = 256,
    squash: bool = False,
    interpolation: str = "bilinear",
    folder: str = "",
    num_classes: int = 1000,
    corruption: str = "",
    severity: int = 3,
    stream: bool = False,
    standardise: str = "channels",
    crop: int = 0,
) -> Split:
    """Reads photographs into memory at one size, N * image_size^2 * 3 bytes (1.5 GB for ImageNet-v2 at 224 pixels), or streams them.

    Args:
      name: one of `SETS`, with a configuration after a slash ("imagenet_v2/matched-frequency", "imagenet2012_corrupted/fog_3").
      split: the set's split.
      bounds: a slice of it, as from `edd.data.base.parse_split`.
      data_dir: folder of TFDS directories; None: TFDS_DATA_DIR, else ~/tensorflow_datasets.
      download: as `edd.data.image_sets.load`.
      image_size: height and width of what is returned.
      resize: the shorter side before the central crop; 0 crops the image as it is (ImageNet-C has 224 x 224 pixels already).
      squash: resize both sides to `resize`, whatever the image's shape.
      interpolation: "bilinear" or "bicubic", both with anti-aliasing.
      folder: of "image_folder": a path, or a path inside `data_dir`, with one folder of images for each class and a file classes.tsv,
        "folder TAB label" in each line (without one: the folders' order).
      num_classes: K; the labels lie below.
      corruption: one of `edd.data.corruptions.SEVERITIES`, "" for none; the draw depends on an image's place in the set.
      severity: 1 to 5.
      stream: leave the images on disk and decode those that a batch asks for (`stored.Stored`): ImageNet's training set.
      standardise: of `info`: "channels" by ImageNet's statistics, "symmetric" to [-1, 1] (Inception's).
      crop: of `info`: pixels a side that the network sees, the centre but where training crops elsewhere; 0: all.

    Returns:
      `Split` with inputs [N, image_size, image_size, 3] uint8.

    Raises:
      ValueError: an unknown configuration, interpolation or corruption, sizes that leave nothing to crop, labels beyond `num_classes`, a
        corruption of streamed images;
      FileNotFoundError: the folder lacks the set, the split, or part of it.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}")
    if image_size < 1 or resize and resize < image_size:
        raise ValueError(f"image_size must be at least 1 and resize 0 or at least image_size, got {image_size} and {resize}")
    if corruption and stream:
        raise ValueError(f"corruption needs the images in memory: leave stream out, or corruption {corruption!r}")
    del standardise, crop
    corrupt = corruptions.make(corruption, severity) if corruption else None
    decode, shape = fitter(image_size, resize, squash, interpolation), (image_size, image_size, 3)
    if name == FOLDER:
        found = read_folder(folder_path(folder, data_dir), bounds, decode, shape)
        found = found if stream else found._replace(inputs=np.asarray(found.inputs))
    else:
        where = {"data_dir": data_dir, "download": download}
        found = image_sets.read(name, split, bounds, shape=shape, decode=decode, stream=stream, **where)
    if len(found.labels) and found.labels.max() >= num_classes:
        raise ValueError(f"num_classes must be above the largest label {found.labels.max()} of {name}, got {num_classes}")
    return found if corrupt is None else found._replace(inputs=_corrupted(corrupt, found.inputs))


def fitter(image_size: int, resize: int, squash: bool, interpolation: str) -> Callable:
    """PIL image -> uint8 [image_size, image_size, 3]: resized, its centre cropped; ValueError for an image smaller than the crop.

    Examples:
      >>> from PIL import Image
      >>> fitter(2, 4, False, "bilinear")(Image.new("L", (30, 20), 7)).tolist()
      [[[7, 7, 7], [7, 7, 7]], [[7, 7, 7], [7, 7, 7]]]
    """
    from PIL import Image

    method = getattr(Image.Resampling, interpolation.upper())

    def fit(image) -> np.ndarray:
        image = image.convert("RGB")
        width, height = image.size
        if resize:
            short = min(width, height)
            sides = (resize, resize) if squash else (resize * width // short, resize * height // short)
            image = image if image.size == sides else image.resize(sides, method)
            width, height = sides
        if min(width, height) < image_size:
            raise ValueError(f"an image of {width} x {height} pixels is too small for a crop of {image_size}: give resize")
        left, top = round((width - image_size) / 2), round((height - image_size) / 2)
        return np.asarray(image.crop((left, top, left + image_size, top + image_size)))

    return fit


def folder_path(folder: str, data_dir: str | None) -> pathlib.Path:
    """Where a folder of images is: itself if it exists, else inside the data directory."""
    given = pathlib.Path(folder).expanduser()
    if not folder or given.is_dir():
        return given
    return pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser() / folder


def read_folder(folder: pathlib.Path, bounds: tuple[str, str], decode: Callable, shape: tuple[int, ...]) -> Split:
    """`Stored` images of a folder's folders in the order of their names, and their labels; FileNotFoundError where there are none."""
    table = folder / "classes.tsv"
    if table.is_file():
        rows = [line.split("\t") for line in table.read_text().splitlines() if line.strip()]
        if any(len(row) < 2 or not row[1].isdigit() for row in rows):
            raise ValueError(f"{table} must have a folder's name and a label in each line, separated by a tab")
        labels = {row[0]: int(row[1]) for row in rows}
    else:
        names = sorted(each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
        labels = {name: index for index, name in enumerate(names)}
    files = [
        (file, label)
        for name, label in sorted(labels.items())
        for file in sorted((folder / name).glob("*"))
        if file.suffix.lower() in ENDINGS
    ]
    if not files:
        raise FileNotFoundError(f"{folder} holds no folders of images: give the option folder, one folder for each class in it")
    chosen = slice_range(bounds, len(files))
    images = Stored(lambda rows: [files[row][0] for row in rows], chosen, decode, shape)
    return Split(images, np.array([files[row][1] for row in chosen], np.int32))


def _corrupted(corrupt: Callable, images: np.ndarray) -> np.ndarray:
    keys, function = jax.random.split(jax.random.key(0), len(images)), jax.jit(corrupt)
    blocks = range(0, len(images), BLOCK)
    return np.concatenate([np.asarray(function(keys[at : at + BLOCK], images[at : at + BLOCK])) for at in blocks])
