"""Stack, unstack, index and count along axis 0 of pytrees: how members and replicas are put together and taken apart."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from edd.typing import Array, ArrayLike, PyTree


def size(tree: PyTree) -> int:
    """Length of axis 0, which all leaves share.

    Raises:
      ValueError: if there is no leaf, a leaf is a scalar, or the lengths differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> size({"weights": jnp.zeros((3, 2)), "bias": jnp.zeros(3)})
      3
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise ValueError("tree must have at least one leaf, got none")
    lengths = {}
    for path, leaf in leaves:
        if jnp.ndim(leaf) < 1:
            raise ValueError(f"every leaf of tree must have a leading axis, got a scalar at {jax.tree_util.keystr(path)}")
        lengths.setdefault(jnp.shape(leaf)[0], jax.tree_util.keystr(path))
    if len(lengths) > 1:
        raise ValueError(f"all leaves of tree must have the same length on axis 0, got {lengths} (length: first leaf)")
    return next(iter(lengths))


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Trees of one structure and equal leaf shapes, stacked on a new axis 0.

    Raises:
      ValueError: if there is no tree, or structures or shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> stack([{"bias": jnp.zeros(2)}, {"bias": jnp.ones(2)}])["bias"].shape
      (2, 2)
    """
    trees = list(trees)
    if not trees:
        raise ValueError("trees must hold at least one tree, got none")
    structure = jax.tree.structure(trees[0])
    for index, tree in enumerate(trees):
        if jax.tree.structure(tree) != structure:
            raise ValueError(f"all trees must have the structure of the first, {structure}; trees[{index}] has {jax.tree.structure(tree)}")

    def join(path, *leaves):
        shapes = [jnp.shape(leaf) for leaf in leaves]
        if len(set(shapes)) > 1:
            raise ValueError(f"the trees' leaves at {jax.tree_util.keystr(path)} must have one shape, got {shapes}")
        return jnp.stack(leaves)

    return jax.tree_util.tree_map_with_path(join, *trees)


def unstack(tree: PyTree) -> list[PyTree]:
    """The inverse of `stack`: one tree per index of axis 0.

    Raises:
      ValueError: as `size`.

    Examples:
      >>> import jax.numpy as jnp
      >>> [float(member["bias"]) for member in unstack({"bias": jnp.arange(2.0)})]
      [0.0, 1.0]
    """
    return [jax.tree.map(lambda leaf, index=index: leaf[index], tree) for index in range(size(tree))]


def take(tree: PyTree, indices: ArrayLike | slice) -> PyTree:
    """The rows `indices` of axis 0 of every leaf: an integer drops the axis, an array or a slice keeps it.

    Args:
      tree: leaves with a common leading axis.
      indices: an integer, an integer or boolean array, or a slice. Concrete integers outside the axis are an error.

    Raises:
      ValueError: as `size`; or if a concrete index lies outside the axis.
      TypeError: if the indices are not integers or booleans.

    Examples:
      >>> import jax.numpy as jnp
      >>> take({"bias": jnp.arange(4.0)}, jnp.array([3, 0]))["bias"].tolist()
      [3.0, 0.0]
    """
    length = size(tree)
    if not isinstance(indices, slice):
        indices = _checked(indices, length)
    return jax.tree.map(lambda leaf: leaf[indices], tree)


def _checked(indices: ArrayLike, length: int) -> Array:
    indices = jnp.asarray(indices, jnp.int32) if isinstance(indices, list | tuple) and not indices else jnp.asarray(indices)
    if indices.dtype == bool:
        if indices.shape != (length,):
            raise ValueError(f"boolean indices must have shape ({length},), got {indices.shape}")
        return indices
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"indices must be integers, booleans or a slice, got dtype {indices.dtype}")
    concrete = not isinstance(indices, jax.core.Tracer)
    if concrete and bool(jnp.any((indices < -length) | (indices >= length))):
        raise ValueError(f"indices must lie in [-{length}, {length}), got {indices.tolist()}")
    return indices
