"""Images between two classes: decoded midpoints of latents that a small variational autoencoder, trained here, gives to two images.

A stand-in for Ambiguous-MNIST (Mukhoti et al. 2023), made in the same spirit and not its images: numbers on it are not comparable.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from edd.data.base import Split
from edd.distillers import autoencoder
from edd.experiments import predict, stages
from edd.experiments import settings as settings_lib
from edd.models import vae

STAGE = "autoencoder"


@dataclasses.dataclass(frozen=True)
class Ambiguous:
    """How the images are made.

    Attributes:
      training: program of the autoencoder; the model's name is "vae", its options those of `models.vae.make`.
      num_train: training images it sees, the first so many; 0: all.
      num_images: how many are made.
      num_candidates: images of another class among which the one nearest in the latent space becomes the partner.
    """

    training: settings_lib.Training
    num_train: int = 0
    num_images: int = 10_000
    num_candidates: int = 200

    def __post_init__(self):
        if self.training.model.name != "vae":
            raise ValueError(f"ambiguous.training.model.name must be 'vae', got {self.training.model.name!r}")
        if min(self.num_images, self.num_candidates) < 1 or self.num_train < 0:
            raise ValueError("ambiguous.num_images and num_candidates must be at least 1 and num_train >= 0")


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
