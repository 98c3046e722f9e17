"""Distillation targets of a whole training set: evaluated once, kept on disk, resumable, tied to what made them.

A cache is a folder named by the SHA-256 of everything its numbers depend on: the teachers' variables, the inputs in their
order, the method and its options. Other teachers or another data order give another folder, never stale targets. Of several
processes each keeps a folder of its own.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from edd.experiments.record import write_json
from edd.typing import PyTree


def fingerprint(*parts) -> str:
    """SHA-256 over arrays (dtype, shape, bytes), pytrees of them, and JSON-like values, in order.

    Examples:
      >>> fingerprint(np.arange(3), {"method": "proxy"}) == fingerprint(np.arange(3), {"method": "end"})
      False
    """
    digest = hashlib.sha256()
    for part in parts:
        for leaf in jax.tree.leaves(part):
            if isinstance(leaf, (np.ndarray, jax.Array)):
                array = np.ascontiguousarray(leaf)
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(array.view(np.uint8).data if array.size else b"")
            else:
                digest.update(repr(leaf).encode())
        digest.update(str(jax.tree.structure(part)).encode())
    return digest.hexdigest()


def compute(
    function: Callable,
    inputs: np.ndarray,
    *,
    batch_size: int,
    directory: pathlib.Path | None = None,
    key: str = "",
    flush_every: int = 20,
) -> PyTree:
    """Targets of every input, batch by batch; with a directory, on disk and resumed where an earlier call stopped.

    Args:
      function: jitted, inputs [B, *S] -> pytree of arrays [B, ...]; always called with `batch_size` rows.
      inputs: [N, *S].
      batch_size: rows per call; the last batch is padded by repeating its last row.
      directory: parent of the cache folder; None keeps the targets in memory only.
      key: `fingerprint` of what the targets depend on; names the folder.
      flush_every: batches between two progress marks.

    Returns:
      Pytree of arrays [N, ...] (memory-mapped when on disk).

    Raises:
      ValueError: if a target is NaN, naming the first such example. OSError: the cache cannot be written (a full disk, say).
    """
    count = len(inputs)
    example = jax.eval_shape(function, jax.ShapeDtypeStruct((batch_size, *inputs.shape[1:]), inputs.dtype))
    leaves, structure = jax.tree.flatten(example)
    process = jax.process_index()
    folder = directory / (f"targets-{key[:16]}" + (f"-process{process}" if process else "")) if directory is not None else None
    arrays, done = _open(folder, key, count, leaves)
    for number, start in enumerate(range(done, count, batch_size)):
        stop = min(start + batch_size, count)
        batch = inputs[start:stop]
        if stop - start < batch_size:
            batch = np.concatenate([batch, np.repeat(batch[-1:], batch_size - (stop - start), 0)])
        for array, values in zip(arrays, jax.tree.leaves(jax.device_get(function(batch)))):
            bad = np.isnan(values[: stop - start]).reshape(stop - start, -1).any(-1)
            if bad.any():
                raise ValueError(
                    f"the target of training example {start + int(bad.argmax())} is NaN: the teachers' outputs must be finite there"
                )
            array[start:stop] = values[: stop - start]
        if folder is not None and (number % flush_every == flush_every - 1 or stop == count):
            for array in arrays:
                array.flush()
            write_json(folder / "progress.json", {"fingerprint": key, "done": stop, "examples": count})
    return jax.tree.unflatten(structure, arrays)


def _open(folder: pathlib.Path | None, key: str, count: int, leaves: list) -> tuple[list, int]:
    shapes = [((count, *leaf.shape[1:]), np.dtype(leaf.dtype)) for leaf in leaves]
    if folder is None:
        return [np.empty(shape, dtype) for shape, dtype in shapes], 0
    paths = [folder / f"{index}.npy" for index in range(len(leaves))]
    progress = folder / "progress.json"
    if progress.exists():
        try:
            state = json.loads(progress.read_text())
            for path in paths:
                np.load(path, mmap_mode="r")  # read-only mapping refuses a truncated file, the writable one would fill it with zeros
            arrays = [np.lib.format.open_memmap(path, mode="r+") for path in paths]
            same = [(array.shape, array.dtype) for array in arrays] == shapes and state["fingerprint"] == key
            if same:
                return arrays, int(state["done"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # an unreadable cache is made again: it only ever holds what can be recomputed
        progress.unlink()  # before the arrays: a kill between the two must not leave a mark beside blank arrays
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return [_create(path, shape, dtype) for path, (shape, dtype) in zip(paths, shapes)], 0
    except OSError as error:
        raise OSError(error.errno, f"the targets' cache cannot be written ({error.strerror}); is the disk full?", str(folder)) from error


def _create(path: pathlib.Path, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """A new mapped array whose space is reserved: a write to a mapping that finds the disk full would kill the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
