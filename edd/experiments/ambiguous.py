"""Images between two classes: the released Ambiguous-MNIST where its files are given, else images made here in the same spirit.

Ours are decoded midpoints of latents that a small variational autoencoder, trained here, gives to two images: a stand-in, and numbers on it
are not comparable with numbers on Ambiguous-MNIST (Mukhoti et al. 2023).
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from edd.data.base import Info, Split
from edd.distillers import autoencoder
from edd.experiments import predict, stages
from edd.experiments import settings as settings_lib
from edd.models import vae
from edd.models.imports import pytorch

STAGE = "autoencoder"
RELEASED = {  # the files of Ambiguous-MNIST's release data-v1.0.0 -> MD5
    "amnist_samples.pt": "4f7865093b1d28e34019847fab917722",
    "amnist_labels.pt": "3bfc055a9f91a76d8d493e8b898c3c95",
}


@dataclasses.dataclass(frozen=True)
class Ambiguous:
    """How the images are made.

    Attributes:
      training: program of the autoencoder; the model's name is "vae", its options those of `models.vae.make`.
      num_train: training images it sees, the first so many; 0: all.
      num_images: how many are made.
      num_candidates: images of another class among which the one nearest in the latent space becomes the partner.
      files: folder of the released Ambiguous-MNIST; then nothing is made or trained.
      noise: standard deviation of the normal noise that is added to the standardised released images and to the test images beside them.
    """

    training: settings_lib.Training
    num_train: int = 0
    num_images: int = 10_000
    num_candidates: int = 200
    files: str = ""
    noise: float = 0.05

    def __post_init__(self):
        if self.training.model.name != "vae":
            raise ValueError(f"ambiguous.training.model.name must be 'vae', got {self.training.model.name!r}")
        if min(self.num_images, self.num_candidates) < 1 or self.num_train < 0 or not self.noise >= 0:
            raise ValueError("ambiguous.num_images and num_candidates must be at least 1, num_train and noise >= 0")


def released(spec: Ambiguous, test: Split, info: Info, *, seed: int) -> tuple[Split, Split]:
    """The test half of Ambiguous-MNIST from its released files, and Dirty-MNIST: `test` and it together.

    The files hold images in [0, 1] and several labels drawn for each; every label makes an example, and the second half of all is the test
    set. Noise is added to both halves of Dirty-MNIST after standardisation, so inputs are float32 and leave [0, 1].

    Raises:
      FileNotFoundError: a file is missing; ValueError: a file is not the released one, or images of another shape.

    References:
      Mukhoti et al. 2023, "Deep Deterministic Uncertainty: A New Simple Baseline", Dirty-MNIST.
    """
    tensors = [_released_tensor(pathlib.Path(spec.files).expanduser() / name, md5) for name, md5 in RELEASED.items()]
    samples, labels = np.asarray(tensors[0], np.float32), np.asarray(tensors[1], np.int32)
    if labels.ndim != 2 or len(samples) != len(labels) or samples[0].size != np.prod(info.input_shape):
        raise ValueError(f"{spec.files} must hold images and labels [N, L], got shapes {samples.shape} and {labels.shape}")
    images = np.repeat(samples.reshape(-1, *info.input_shape), labels.shape[1], 0)
    half = len(images) // 2
    rng = np.random.default_rng([seed, 2])
    deviation = spec.noise * np.asarray(info.std, np.float32)

    def noisy(values):
        return (values + deviation * rng.standard_normal(values.shape)).astype(np.float32)

    ambiguous = Split(noisy(images[half:]), labels.reshape(-1)[half:])
    clean = Split(noisy(np.asarray(test.inputs, np.float32) / 255), test.labels)
    return ambiguous, Split(*(np.concatenate(pair) for pair in zip(clean, ambiguous)))


def _released_tensor(path: pathlib.Path, md5: str) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: ambiguous.files must hold {' and '.join(RELEASED)}")
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(f"{path} is not the released file: its MD5 is {found}, not {md5}")
    return pytorch.read_tensor(path)


def make(
    spec: Ambiguous, train: Split, test: Split, *, seed: int, workdir: pathlib.Path | None = None, progress: bool = True
) -> tuple[Split, np.ndarray]:
    """Trains the autoencoder on `train` (uint8 images) and mixes pairs of `test`.

    Returns:
      Images like those of `test` with labels drawn from either of the pair's classes at even odds, and the pairs' classes [N, 2].

    Raises:
      ValueError: inputs that are no uint8 images, or fewer than two classes.
    """
    if train.inputs.dtype != np.uint8 or len(np.unique(test.labels)) < 2:
        raise ValueError(f"ambiguous images need uint8 images of at least two classes, got {train.inputs.dtype}")
    inputs = train.inputs[: spec.num_train or None]
    pixels = inputs.reshape(len(inputs), -1).astype(np.float32) / 255
    method = autoencoder.make(pixels.shape[1])
    model = method.student(lambda outputs: vae.make(outputs, **spec.training.model.options))
    arrays = {"inputs": inputs, "labels": pixels}
    common = {"num_replicas": 1, "seed": seed, "workdir": workdir, "progress": progress}
    training = dataclasses.replace(spec.training, on_nonfinite="stop", batch_size=min(spec.training.batch_size, len(inputs)))
    trained = stages.fit(STAGE, training, model, method, arrays, unit_interval, **common)
    variables = jax.device_put(jax.tree.map(lambda leaf: leaf[0], trained.variables))
    encode = jax.jit(lambda x: model.apply(variables, unit_interval(x), train=False, rngs=None)[0].penultimate)
    latents = np.split(predict.stream(encode, test.inputs, 1000, 0), 2, -1)[0]
    rng = np.random.default_rng([stages.stage_seed(seed, STAGE), 1])
    first, second = pairs(latents, test.labels, spec.num_images, spec.num_candidates, rng)
    decode: Callable = jax.jit(lambda z: vae.decode(variables, z))
    images = predict.stream(decode, (latents[first] + latents[second]) / 2, 1000, 0)
    classes = np.stack([test.labels[first], test.labels[second]], -1)
    labels = classes[np.arange(len(classes)), rng.integers(0, 2, len(classes))]
    made = np.clip(np.rint(255 * images), 0, 255).astype(np.uint8).reshape(-1, *test.inputs.shape[1:])
    return Split(made, labels.astype(np.int32)), classes


def unit_interval(images):
    """uint8 images as float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def pairs(
    latents: np.ndarray, labels: np.ndarray, count: int, num_candidates: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices [count] of random examples and, for each, of the nearest of `num_candidates` random examples of another class."""
    first, second = rng.integers(0, len(labels), count), np.empty(count, int)
    for at, index in enumerate(first):
        drawn = rng.choice(np.flatnonzero(labels != labels[index]), num_candidates)
        second[at] = drawn[np.square(latents[drawn] - latents[index][None]).sum(-1).argmin()]
    return first, second
