"""Reading safetensors files strictly: every tensor that is expected, of the shape that is expected, and none besides.

The format holds a JSON header and raw numbers. Pickled checkpoints (`pytorch_model.bin`) can run code: Python's
unpickler never opens them here; `pytorch` reads their tensors by its own.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Every tensor of a file, or of a folder's `model.safetensors` (or the shards that its index names), by name.

    Args:
      path: a .safetensors file, or a folder.

    Raises:
      FileNotFoundError: no such file, or a folder with other formats only; ValueError: not a safetensors file; ImportError:
        safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ImportError("reading weights needs the package safetensors: pip install 'edd[interop]'") from error
    tensors: dict[str, np.ndarray] = {}
    for file in _files(pathlib.Path(path).expanduser()):
        try:
            tensors.update(load_file(file))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} cannot be read as safetensors: {error}") from error
    return tensors


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    if path.suffix == ".safetensors" and path.is_file():
        return [path]
    if (path / FILE).is_file():
        return [path / FILE]
    if (path / INDEX).is_file():
        shards = sorted(set(json.loads((path / INDEX).read_text())["weight_map"].values()))
        missing = [name for name in shards if not (path / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{path} lacks {', '.join(missing)}, which its {INDEX} names")
        return [path / name for name in shards]
    other = sorted(each.name for each in path.glob("*.bin")) if path.is_dir() else []
    hint = f"; {', '.join(other)} may hold code and is not opened: convert it to safetensors" if other else ""
    raise FileNotFoundError(f"{path} is no .safetensors file and no folder that holds {FILE}{hint}")


def write(path: str | pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes named tensors to one .safetensors file."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, pathlib.Path(path))


def match(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, Sequence[int]], ignored: Callable[[str], bool], where: str
) -> dict[str, np.ndarray]:
    """The expected tensors in float32, all of them and no others.

    Args:
      tensors: by name, as `read`.
      expected: name -> shape.
      ignored: whether a tensor that is not expected may be left out (heads of other tasks, buffers).
      where: what the tensors are of, for the message.

    Raises:
      ValueError: listing every missing, unexpected and mis-shaped tensor, and those that hold no real numbers.

    Examples:
      >>> match({"b": np.zeros(2)}, {"w": (2,)}, lambda name: False, "toy")
      Traceback (most recent call last):
        ...
      ValueError: the weights of toy do not fit: missing: w; unexpected: b
    """
    problems = {
        "missing": sorted(set(expected) - set(tensors)),
        "unexpected": sorted(name for name in set(tensors) - set(expected) if not ignored(name)),
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(shape)}"
            for name, shape in sorted(expected.items())
            if name in tensors and tuple(tensors[name].shape) != tuple(shape)
        ],
        "not real numbers": sorted(name for name in expected if name in tensors and tensors[name].dtype.kind not in "fV"),
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise ValueError(f"the weights of {where} do not fit: {listed}")
    return {name: tensors[name].astype(np.float32) for name in expected}
