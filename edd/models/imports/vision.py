"""Image networks with weights from torch: torchvision's and timm's names, in safetensors files or files of `torch.save`.

Our layers bear torch's names (in `layer1_0`, an underscore before a number is torch's dot); a convolution's weight is [out, in, height,
width] there and [height, width, in, out] here, a linear layer's is transposed, and BatchNorm's running statistics are variables
"batch_stats" here. Files that torch's own strict loading takes fit here and the other way round.
"""

import functools
import inspect
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd.models import cifar_resnet, maxvit, mobilenet_v2, resnet
from edd.models.base import OUTPUT_LAYER, Model
from edd.models.imports import pytorch, safetensors
from edd.typing import PyTree

NOT_WEIGHTS = (".num_batches_tracked", "layers.depthwise_stride_relu6")  # counters, and the description of folded layers
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
AXES = {2: (1, 0), 4: (3, 2, 0, 1)}  # of a kernel of so many axes, ours to theirs


class Entry(NamedTuple):
    """One tensor: the path in our variables, torch's shape, the axes of ours in torch's order."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...]


class Family(NamedTuple):
    """A backbone's `make`, and from its options torch's names of the modules at its top that are not ours."""

    make: Callable
    modules: Callable


def _cifar_modules(options: Mapping) -> dict[str, str]:
    """Convolutions and norms in the order of their numbers; shortcuts "A" have none."""
    if options["pre_activation"]:
        raise ValueError("pre_activation must be False: torch's CIFAR networks are the post-activation ones")
    places = [("conv1", "bn1")]
    for group, channels in enumerate(options["widths"]):
        for block in range((options["depth"] - 2) // 6):
            inside = [("conv1", "bn1"), ("conv2", "bn2")]
            if options["shortcut"] == "B" and block == 0 and (group or channels != 16):
                inside.append(("shortcut.0", "shortcut.1"))
            places += [(f"layer{group + 1}.{block}.{conv}", f"layer{group + 1}.{block}.{norm}") for conv, norm in inside]
    numbered = {f"{kind}_{i}": place[k] for i, place in enumerate(places) for k, kind in enumerate(("Conv", "BatchNorm"))}
    return {**numbered, OUTPUT_LAYER: "linear"}


FAMILIES = {
    "resnet": Family(resnet.make, lambda options: {OUTPUT_LAYER: "fc"}),
    "maxvit": Family(maxvit.make, lambda options: {"head_norm": "head.norm", "head_hidden": "head.pre_logits.fc", OUTPUT_LAYER: "head.fc"}),
    "mobilenet_v2": Family(mobilenet_v2.make, lambda options: {OUTPUT_LAYER: "classifier.1"}),
    "cifar_resnet": Family(cifar_resnet.make, _cifar_modules),
}


def names(name: str, num_classes: int, **options) -> dict[str, Entry]:
    """Torch's name of every tensor -> where it is in our variables, and how it lies there.

    Args:
      name: of the backbone: "resnet", "maxvit", "mobilenet_v2" or "cifar_resnet".
      num_classes: outputs of the last layer, K >= 1.
      options: of the backbone's `make`.

    Raises:
      ValueError: an unknown name, or options that its `make` refuses.

    Examples:
      >>> names("cifar_resnet", 10, depth=8)["layer1.0.conv2.weight"]
      Entry(path=('params', 'Conv_2', 'kernel'), shape=(16, 16, 3, 3), axes=(3, 2, 0, 1))
    """
    family = _family(name)
    model, options = family.make(num_classes, **options), {**_defaults(family.make), **options}
    side = options.get("image_size", 32)  # of the others any will do
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    modules, table = family.modules(options), {}
    for keys, leaf in jax.tree.flatten_with_path(jax.eval_shape(model.init, jax.random.key(0), image))[0]:
        path = tuple(key.key for key in keys)
        axes = AXES[leaf.ndim] if path[-1] == "kernel" else tuple(range(leaf.ndim))
        inside = [modules.get(path[1]) or _dotted(path[1]), *map(_dotted, path[2:-1])]
        table[".".join([*inside, LEAVES.get(path[-1], path[-1])])] = Entry(path, tuple(leaf.shape[axis] for axis in axes), axes)
    return _folded(table) if options.get("batch_norm") is False else table


def load(path: str | pathlib.Path, name: str, num_classes: int | None = None, **options) -> tuple[Model, PyTree]:
    """An image network and the weights of a file, strictly: every tensor, of its shape, and none besides.

    Args:
      path: a .safetensors file (or a folder with one), or a file of `torch.save`, which is read without running what it holds (see
        `imports.pytorch`).
      name: of the backbone: "resnet", "maxvit", "mobilenet_v2" or "cifar_resnet".
      num_classes: outputs that the file must have; None takes those it has.
      options: of the backbone's `make`, for instance depth=152, positions=True.

    Returns:
      (`Model`, its variables in float32).

    Raises:
      FileNotFoundError: no such file; ValueError: an unknown name, a file that holds more than weights, or listing every missing,
        unexpected and mis-shaped tensor.

    Examples:
      >>> import tempfile
      >>> model = resnet.make(3, depth=18, blocks=(1,), channels=64)
      >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(f"{folder}/mine.safetensors", variables, "resnet", depth=18, blocks=(1,))
      ...     model, loaded = load(f"{folder}/mine.safetensors", "resnet", depth=18, blocks=(1,))
      >>> jax.tree.structure(loaded) == jax.tree.structure(variables), model.templates(loaded)[0].shape
      (True, (3, 64))
    """
    family, path = _family(name), pathlib.Path(path).expanduser()
    tensors = safetensors.read(path) if path.is_dir() or path.suffix == ".safetensors" else pytorch.read(path)
    table = names(name, num_classes or 1, **options)
    if num_classes is None:
        table = _with_outputs(table, tensors)
    expected = {theirs: entry.shape for theirs, entry in table.items()}
    tensors = {theirs: _as_linear(each, expected.get(theirs, ())) for theirs, each in tensors.items()}
    found = safetensors.match(tensors, expected, lambda theirs: theirs.endswith(NOT_WEIGHTS), str(path))
    variables: dict = {}
    for theirs, entry in table.items():
        inner = variables
        for part in entry.path[:-1]:
            inner = inner.setdefault(part, {})
        inner[entry.path[-1]] = found[theirs].transpose(np.argsort(entry.axes))
    model = family.make(len(variables["params"][OUTPUT_LAYER]["bias"]), **options)
    return model, jax.device_put(variables)


def save(path: str | pathlib.Path, variables: PyTree, name: str, **options) -> None:
    """Writes variables of a backbone as a .safetensors file with torch's names, which `load` and torch's strict loading take."""
    table = names(name, len(variables["params"][OUTPUT_LAYER]["bias"]), **options)
    tensors = {}
    for theirs, entry in table.items():
        leaf = functools.reduce(lambda tree, part: tree[part], entry.path, variables)
        tensors[theirs] = np.asarray(leaf).transpose(entry.axes)
    safetensors.write(path, tensors)


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"name must be one of {', '.join(FAMILIES)}, got {name!r}")
    return FAMILIES[name]


def _defaults(make: Callable) -> dict:
    return {each.name: each.default for each in inspect.signature(make).parameters.values()}


def _dotted(part: str) -> str:
    return re.sub(r"_(?=\d+(_|$))", ".", part)


def _with_outputs(table: dict[str, Entry], tensors: Mapping[str, np.ndarray]) -> dict[str, Entry]:
    """The table with as many outputs as the tensors' last layer has."""
    bias = next(theirs for theirs, entry in table.items() if entry.path[1:] == (OUTPUT_LAYER, "bias"))
    outputs = tensors[bias].shape[:1] if bias in tensors else (1,)
    change = lambda entry: entry._replace(shape=(*outputs, *entry.shape[1:])) if entry.path[1] == OUTPUT_LAYER else entry  # noqa: E731
    return {theirs: change(entry) for theirs, entry in table.items()}


def _as_linear(tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A linear layer's weight that is kept as a 1x1 convolution's, [out, in, 1, 1], as [out, in]."""
    return tensor[..., 0, 0] if len(shape) == 2 and tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor


def _folded(table: dict[str, Entry]) -> dict[str, Entry]:
    """Names of networks without BatchNorm: layers.0, layers.1, ... in the order in which they run, which is that of their numbers."""
    numbers = lambda place: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", place)]  # noqa: E731
    places = sorted({theirs.rpartition(".")[0] for theirs in table}, key=lambda place: (place.startswith("classifier"), numbers(place)))
    order = {place: f"layers.{index}" for index, place in enumerate(places)}
    return {f"{order[place]}.{leaf}": entry for theirs, entry in table.items() for place, _, leaf in [theirs.rpartition(".")]}
