"""Reading the tensors of a `torch.save` file without torch and without running anything that the file says.

Such a file is a zip archive: `data.pkl`, a pickle of names and of how each tensor lies in its storage, and the storages as raw numbers.
A pickle is a program. Here it may name nothing but what rebuilds tensors, and those names stand for functions of this module that only
make numpy arrays; any other name, say a function of `os`, is refused before anything is called.
"""

import io
import math
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
INSIDE = ("state_dict", "model")  # where training scripts put the weights beside other things
RESAVE = "the weights alone are what torch.save(network.state_dict(), path) writes"


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Every tensor of a state dict saved by `torch.save`, by name.

    The state dict may be the whole file or its entry "state_dict" or "model"; the prefix "module." of a data-parallel network is dropped.
    Arrays are read-only views of their storages; bfloat16 is ml_dtypes'.

    Args:
      path: a file in the zip format, the default since torch 1.6.

    Raises:
      FileNotFoundError: no such file; ValueError: another format, a damaged file, anything in it besides tensors, numbers, text and
        their containers (whole pickled networks, options of a training script), or no tensors by name.
    """
    return _named_tensors(_opened(path), pathlib.Path(path))


def read_tensor(path: str | pathlib.Path) -> np.ndarray:
    """The one tensor of a file in which `torch.save` put a tensor alone; the rest as `read`.

    Raises:
      FileNotFoundError, ValueError: as `read`; also for a file that holds something else than one tensor.
    """
    found = _opened(path)
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} must hold one tensor, it holds {type(found).__name__.strip('_')}")
    return found


def _opened(path: str | pathlib.Path):
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no zip archive: the format of torch.save before torch 1.6 is not opened; in torch: "
            "torch.save(torch.load(path, weights_only=True), new_path)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpickle(archive)
    except _Refused as error:
        raise ValueError(f"{path} is not opened: {error}") from None
    except Exception as error:  # what a damaged pickle raises can be of any type
        raise ValueError(f"{path} cannot be read as a file of torch.save: {type(error).__name__}: {error}") from error


def _named_tensors(found, path: pathlib.Path) -> dict[str, np.ndarray]:
    place = next((name for name in INSIDE if isinstance(found, Mapping) and isinstance(found.get(name), Mapping)), None)
    entries = found if place is None else found[place]
    tensors = {name: each for name, each in entries.items() if isinstance(each, np.ndarray)} if isinstance(entries, Mapping) else {}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise ValueError(f"{path} holds no tensors by name, neither at its top nor in {' or '.join(INSIDE)}")
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): each for name, each in tensors.items()}


class _Refused(Exception):
    """Something that is not opened on purpose; the text says what."""


class _Entries(dict):
    """Stands for `collections.OrderedDict`; attributes that the file sets on it (a state dict's metadata) are dropped."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _Storage(NamedTuple):
    """Stands for a storage class of torch."""

    dtype: type


class _Function(NamedTuple):
    """Stands for a function of torch; a tuple, so that a pickle can call it but set no attribute of it."""

    function: Callable

    def __call__(self, *args):
        return self.function(*args)


def _tensor(storage, offset, size, stride, *flags):
    """A view of a storage; the flags (gradients, hooks) have no meaning here."""
    integers = all(type(each) is int and each >= 0 for each in (offset, *size, *stride))
    if not isinstance(storage, np.ndarray) or not integers or len(size) != len(stride):
        raise _Refused("a tensor's size, strides or offset are no numbers that fit")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride))
    if 0 not in size and last >= storage.size:
        raise _Refused(f"a tensor of size {tuple(size)} and strides {tuple(stride)} reaches beyond its storage of {storage.size}")
    if math.prod(size) > storage.size:
        raise _Refused(f"a tensor of size {tuple(size)} repeats entries of its storage of {storage.size}")
    strides = [step * storage.itemsize for step in stride]
    start = storage[min(offset, storage.size) :]
    return np.lib.stride_tricks.as_strided(start, tuple(size), strides, writeable=False)


ALLOWED = {
    ("collections", "OrderedDict"): _Entries,
    ("torch", "Size"): _Function(tuple),
    ("torch._utils", "_rebuild_tensor"): _Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(lambda data, *flags: data),
    **{("torch", name): _Storage(dtype) for name, dtype in DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the names in `ALLOWED` and the storages of one archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, byteorder: str):
        super().__init__(io.BytesIO(_stored(archive, f"{folder}data.pkl")))
        self.archive, self.folder, self.byteorder = archive, folder, byteorder
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise _Refused(f"it needs {module}.{name}, which is no part of a tensor and may be code; {RESAVE}")
        return ALLOWED[module, name]

    def persistent_load(self, pid):
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage) or not isinstance(key, str) or type(count) is not int:
            raise _Refused(f"it refers to {pid!r}, which is no storage")
        if key not in self.storages:
            numbers = np.frombuffer(_stored(self.archive, f"{self.folder}data/{key}"), storage.dtype)
            self.storages[key] = numbers if self.byteorder == "little" else numbers.byteswap()
        numbers = self.storages[key]
        if numbers.dtype != storage.dtype or numbers.size < count:
            raise _Refused(f"storage {key} holds {numbers.size} of {numbers.dtype}, not {count} of {np.dtype(storage.dtype)}")
        return numbers[:count]


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry of the archive; torch compresses none, so that no small file can unfold into a huge one."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise _Refused(f"its entry {name} is compressed, which torch.save does not do")
    return archive.read(name)


def _unpickle(archive: zipfile.ZipFile):
    names = archive.namelist()
    if any(name.endswith("constants.pkl") for name in names):
        raise _Refused("it is a TorchScript program, not weights")
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(folders) != 1:
        raise _Refused("it is no archive of torch.save: it must hold one data.pkl")
    order = f"{folders[0]}byteorder"
    return _Unpickler(archive, folders[0], archive.read(order).decode() if order in names else "little").load()
